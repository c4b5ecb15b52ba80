//! Runs a plain loop on the widest vectors the machine has.
//!
//! The binary is built for every x86-64, so the compiler may use 128-bit vectors only. Here it compiles a loop three times –
//! for AVX-512, for AVX2, for any machine – and picks at run time. The loop stays safe scalar code; no floating-point operation
//! is fused or reordered by this, so all three give the same bits.

#![expect(unsafe_code, reason = "a function compiled for vectors that not every machine has may be called only after a check")]

/// A loop worth vectorising. Mark `run`, and every function it calls, `#[inline(always)]`: what is not inlined is compiled for
/// the narrow vectors.
pub trait Work {
    /// What it computes.
    type Output;

    /// The loop.
    fn run(self) -> Self::Output;
}

/// Runs the loop on the widest vectors there are.
#[inline]
pub fn widest<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the features the function is compiled for were just found on this machine.
            return unsafe { x86_v4(work) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { x86_v3(work) };
        }
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn x86_v4<W: Work>(work: W) -> W::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn x86_v3<W: Work>(work: W) -> W::Output {
    work.run()
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
