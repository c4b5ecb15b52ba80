//! Run-time dispatch: plain loops compiled once per instruction set.
//!
//! The binary is built for every x86-64, so the compiler may use 128-bit vectors only. [`vectorized!`](self) compiles a
//! function three times (for any machine, AVX2, AVX-512) and calls the one for the [instruction set in use](super::isa::Isa).
//! The loops stay safe scalar code, contain no fused multiply-add and keep their partial sums in a fixed number of lanes: all
//! three give the same bits.

/// Wraps a function; its body must be plain loops, and what it calls `#[inline(always)]`: what is not inlined is compiled for
/// the narrow vectors. Arguments stay arguments (no closure), so that the compiler knows that slices do not overlap.
macro_rules! vectorized {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$life:lifetime>)? $(<$generic:ident: $bound:ident>)? ($($arg:ident: $ty:ty),* $(,)?)
        $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls what is compiled for an instruction set, with proof"))]
        $vis fn $name $(<$life>)? $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::allow_attributes, reason = "not all bodies have many arguments")]
            #[allow(clippy::inline_always, clippy::too_many_arguments, reason = "compiled once per instruction set")]
            fn body $(<$life>)? $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                fn avx512 $(<$life>)? $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2 $(<$life>)? $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                match $crate::isa::Isa::used() {
                    // SAFETY: the value proves that the processor has these features.
                    $crate::isa::Isa::Avx512(_) => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::Isa::Avx2(_) => return unsafe { avx2($($arg),*) },
                    $crate::isa::Isa::Portable => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(super) use vectorized;

/// A loop worth vectorising, for other crates. Mark `run`, and every function it calls, `#[inline(always)]`.
pub trait Work {
    type Output;

    fn run(self) -> Self::Output;
}

vectorized! {
    /// Runs the loop on the widest vectors there are.
    #[inline]
    pub fn widest<W: Work>(work: W) -> W::Output {
        work.run()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dot<'a>(&'a [f32], &'a [f32]);

    impl Work for Dot<'_> {
        type Output = f32;

        #[expect(clippy::inline_always, reason = "as the trait asks")]
        #[inline(always)]
        fn run(self) -> f32 {
            self.0.iter().zip(self.1).fold(0.0, |sum, (x, y)| sum + x * y)
        }
    }

    #[test]
    fn wide_vectors_change_no_bit() {
        let x: Vec<f32> = (0..1003_u16).map(|i| (f32::from(i) * 0.7).sin()).collect();
        let y: Vec<f32> = (0..1003_u16).map(|i| (f32::from(i) * 0.3).cos() * 1e3).collect();
        assert_eq!(widest(Dot(&x, &y)).to_bits(), Dot(&x, &y).run().to_bits());
    }
}
