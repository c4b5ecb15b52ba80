//! Instruction sets: which one the kernels use, and proof of it as a value.
//!
//! A function that is compiled for more than every x86-64 has takes a proof ([`Avx2`], [`Avx512`]) as its first parameter, and
//! only this file makes proofs, from what the processor says. So no safe function has a precondition that nobody checks. A
//! proof has no size; the processor is asked once.
//!
//! # `KINSET_ISA`
//! The environment variable caps what is used, so that one machine can test every variant:
//!
//! | value | what runs |
//! |---|---|
//! | `portable` | loops as compiled for any x86-64; convolutions by unfolding and `gemm`; 16-bit products in plain Rust |
//! | `avx2` | loops compiled for AVX2; convolutions (Winograd, direct, strided), matrix products and transposes with AVX2 and FMA |
//! | `avx512` | the same for AVX-512 |
//!
//! Unset is the best the processor has. On another architecture there is only `portable`. Matrix products of the `gemm` crate,
//! which all three use, and candle's own operations choose their instructions themselves: no value caps them. Results of
//! different instruction sets differ in the last bits, because products are summed in another order.

use std::ffi::OsStr;
use std::fmt;
use std::sync::OnceLock;

use super::error::KernelError;

/// The environment variable that caps the instruction set.
const VARIABLE: &str = "KINSET_ISA";

/// What [`Isa::chosen`] found; the environment is read once.
static CHOSEN: OnceLock<Isa> = OnceLock::new();

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Avx2(());

/// Proof that the processor has AVX2, FMA, and AVX-512 with its parts F, VL, DQ and BW.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Avx512(());

/// Proof that the processor has VNNI beside [`Avx512`]: sums of products of 16-bit numbers in one instruction.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Vnni(());

impl Avx512 {
    /// Whoever has AVX-512 has AVX2.
    #[expect(clippy::unused_self, reason = "the value is the proof")]
    pub(super) fn avx2(self) -> Avx2 {
        Avx2(())
    }

    /// Has the processor VNNI too?
    #[cfg(target_arch = "x86_64")]
    #[expect(clippy::unused_self, reason = "the value is the proof")]
    pub(super) fn vnni(self) -> Option<Vnni> {
        std::arch::is_x86_feature_detected!("avx512vnni").then_some(Vnni(()))
    }
}

/// An instruction set with the proof that it may be used; a larger one contains the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every processor of the architecture has.
    Portable,
    Avx2(Avx2),
    Avx512(Avx512),
}

impl Isa {
    /// The best that the processor has.
    pub fn detected() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma");
            if avx2 && has!("avx512f") && has!("avx512vl") && has!("avx512dq") && has!("avx512bw") {
                return Self::Avx512(Avx512(()));
            }
            if avx2 {
                return Self::Avx2(Avx2(()));
            }
        }
        Self::Portable
    }

    /// The one that kernels use: the best that the processor has, or what `KINSET_ISA` said when this was first asked.
    ///
    /// # Errors
    /// `KINSET_ISA` names no instruction set, or one that the processor lacks.
    pub fn chosen() -> Result<Self, KernelError> {
        if let Some(isa) = CHOSEN.get() {
            return Ok(*isa);
        }
        let isa = Self::capped(std::env::var_os(VARIABLE).as_deref(), Self::detected())?;
        Ok(*CHOSEN.get_or_init(|| isa))
    }

    /// The same where an error cannot be returned: a program asks [`Isa::chosen`] first.
    ///
    /// # Panics
    /// If `KINSET_ISA` is wrong.
    #[inline]
    pub(super) fn used() -> Self {
        CHOSEN.get().copied().unwrap_or_else(|| Self::chosen().unwrap_or_else(|error| panic!("{error}")))
    }

    /// This one and those that it contains, for tests of all of them.
    #[cfg(test)]
    pub(super) fn with_smaller(self) -> Vec<Self> {
        match self {
            Self::Portable => vec![self],
            Self::Avx2(_) => vec![self, Self::Portable],
            Self::Avx512(isa) => vec![self, Self::Avx2(isa.avx2()), Self::Portable],
        }
    }

    /// What a value of the variable leaves of what was detected.
    fn capped(value: Option<&OsStr>, detected: Self) -> Result<Self, KernelError> {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(detected) };
        let asked = match (value.to_str(), detected) {
            (Some("portable"), _) => return Ok(Self::Portable),
            (Some("avx2"), Self::Avx512(isa)) => return Ok(Self::Avx2(isa.avx2())),
            (Some("avx2"), Self::Avx2(_)) | (Some("avx512"), Self::Avx512(_)) => return Ok(detected),
            (Some(asked @ ("avx2" | "avx512")), _) => asked,
            _ => return Err(KernelError::UnknownIsa { value: value.to_string_lossy().into_owned() }),
        };
        Err(KernelError::MissingIsa { asked: asked.into(), detected: detected.to_string() })
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2(_) => "avx2",
            Self::Avx512(_) => "avx512",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capped(value: &str, detected: Isa) -> Result<String, String> {
        Isa::capped(Some(OsStr::new(value)), detected).map(|isa| isa.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_variable_caps_and_never_raises() {
        // Proofs for the test alone: nothing is run with them.
        let all = [Isa::Portable, Isa::Avx2(Avx2(())), Isa::Avx512(Avx512(()))];
        for (at, detected) in all.into_iter().enumerate() {
            assert_eq!(Isa::capped(None, detected).unwrap(), detected);
            assert_eq!(capped("", detected), Ok(detected.to_string()));
            for (wanted, isa) in all.into_iter().enumerate() {
                let found = capped(&isa.to_string(), detected);
                if wanted <= at {
                    assert_eq!(found, Ok(isa.to_string()));
                } else {
                    let text = found.unwrap_err();
                    assert!(text.contains(&format!("`{isa}`")) && text.contains(&format!("`{detected}`")), "{text}");
                }
            }
        }
        assert!(all.is_sorted());
    }

    #[test]
    fn other_words_are_refused() {
        for word in ["AVX512", "sse2", "neon", "avx512 "] {
            assert!(capped(word, Isa::detected()).unwrap_err().contains(&format!("`{word}`")));
        }
    }

    #[test]
    fn what_is_used_is_no_more_than_what_was_detected() {
        assert!(Isa::chosen().unwrap() <= Isa::detected());
    }
}
