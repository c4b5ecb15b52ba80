//! Vector registers as a trait, so that a kernel is one text for every width.
//!
//! A value of a [`Simd`] type is the proof that the processor has its instructions: arithmetic needs no more and is safe; only
//! reads and writes of memory are not. A kernel is generic over the type and runs inside of [`Simd::run`], which compiles it for
//! these registers. What it calls there is `#[inline(always)]`: what is not inlined is compiled for any processor, and each
//! operation would be a call.
//!
//! Another instruction set is another implementation here and a line in [`with_simd!`](with_simd).
#![expect(unsafe_code, reason = "a value proves the instructions, and who gives a pointer states its bounds")]
#![expect(clippy::inline_always, reason = "operations are compiled as part of a kernel, with its instruction set")]

use std::arch::x86_64::{
    __m256, __m256i, __m512, _MM_HINT_T1, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm_prefetch,
    _mm256_add_ps, _mm256_castpd_ps, _mm256_castps_pd, _mm256_castps256_ps128, _mm256_cmpgt_epi32, _mm256_extractf128_ps,
    _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_loadu_ps, _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_mul_ps,
    _mm256_permute2f128_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_storeu_ps,
    _mm256_sub_ps, _mm256_unpackhi_pd, _mm256_unpackhi_ps, _mm256_unpacklo_pd, _mm256_unpacklo_ps, _mm512_add_ps,
    _mm512_castpd_ps, _mm512_castps_pd, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_mask_loadu_ps,
    _mm512_mask_storeu_ps, _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4,
    _mm512_storeu_ps, _mm512_sub_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::fmt::Debug;

use super::isa::{Avx2, Avx512};

/// Lanes of the widest registers.
pub(super) const WIDEST: usize = 16;

/// Registers of numbers, with the proof that they may be used.
pub(super) trait Simd: Copy + Debug + Send + Sync + 'static {
    /// A register.
    type Vector: Copy;
    /// Which lanes of a register take part.
    type Mask: Copy;
    /// As many registers as one has lanes.
    type Square: Copy + AsRef<[Self::Vector]> + AsMut<[Self::Vector]>;

    /// Numbers in a register.
    const LANES: usize;
    const REGISTERS: usize;

    /// Runs what is compiled for these registers.
    fn run<T>(self, work: impl FnOnce() -> T) -> T;

    fn zero(self) -> Self::Vector;
    /// The same number in all lanes.
    fn all(self, x: f32) -> Self::Vector;
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a · b + c, rounded once.
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// c − a · b, rounded once.
    fn fnma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// Of zeros.
    fn square(self) -> Self::Square;
    /// Of all lanes.
    fn sum(self, a: Self::Vector) -> f32;
    /// Lane i of register j becomes lane j of register i.
    fn transposed(self, rows: Self::Square) -> Self::Square;
    /// The first `count` lanes, or all.
    fn first(self, count: usize) -> Self::Mask;

    /// Calls a cache line to the second-level cache; a hint, whatever the address.
    fn prefetch(self, line: *const f32);

    /// # Safety
    /// All lanes may be read.
    unsafe fn load(self, from: *const f32) -> Self::Vector;
    /// Zeros in the other lanes.
    ///
    /// # Safety
    /// The mask's lanes may be read; the others are not touched.
    unsafe fn load_some(self, mask: Self::Mask, from: *const f32) -> Self::Vector;
    /// # Safety
    /// All lanes may be written.
    unsafe fn store(self, to: *mut f32, a: Self::Vector);
    /// Not for whole registers: with AVX2, this is twenty operations on AMD's processors.
    ///
    /// # Safety
    /// The mask's lanes may be written; the others are not touched.
    unsafe fn store_some(self, mask: Self::Mask, to: *mut f32, a: Self::Vector);
}

/// `Some` of an expression with the proof of an instruction set in a variable; `None` where kernels have no registers of their
/// own.
macro_rules! with_simd {
    ($isa:expr, |$simd:ident| $work:expr) => {
        match $isa {
            $crate::isa::Isa::Avx512($simd) => Some($work),
            $crate::isa::Isa::Avx2($simd) => Some($work),
            $crate::isa::Isa::Portable => None,
        }
    };
}
pub(super) use with_simd;

/// An intrinsic, of a proof that has it.
macro_rules! proven {
    ($intrinsic:expr) => {
        // SAFETY: a value of the type proves that the processor has the instruction; pointers are as the caller promises.
        unsafe { $intrinsic }
    };
}

impl Simd for Avx512 {
    type Vector = __m512;
    type Mask = u16;
    type Square = [__m512; 16];

    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn run<T>(self, work: impl FnOnce() -> T) -> T {
        #[target_feature(enable = "avx512f")]
        fn here<T>(work: impl FnOnce() -> T) -> T {
            work()
        }
        proven!(here(work))
    }

    #[inline(always)]
    fn zero(self) -> __m512 {
        proven!(_mm512_setzero_ps())
    }

    #[inline(always)]
    fn all(self, x: f32) -> __m512 {
        proven!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        proven!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        proven!(_mm512_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn square(self) -> [__m512; 16] {
        [self.zero(); 16]
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        proven!(_mm512_reduce_add_ps(a))
    }

    #[inline(always)]
    fn transposed(self, mut r: [__m512; 16]) -> [__m512; 16] {
        let mut t = r;
        for i in 0..8 {
            t[2 * i] = proven!(_mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]));
            t[2 * i + 1] = proven!(_mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]));
        }
        for i in 0..4 {
            for j in 0..2 {
                let (a, b) = (t[4 * i + j], t[4 * i + j + 2]);
                let (a, b) = proven!((_mm512_castps_pd(a), _mm512_castps_pd(b)));
                // Columns 2j and 2j + 1 (plus multiples of four) of rows 4i to 4i + 3.
                r[4 * i + 2 * j] = proven!(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)));
                r[4 * i + 2 * j + 1] = proven!(_mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
            }
        }
        for j in 0..4 {
            let low = proven!(_mm512_shuffle_f32x4::<0x88>(r[j], r[4 + j]));
            let low_odd = proven!(_mm512_shuffle_f32x4::<0xdd>(r[j], r[4 + j]));
            let high = proven!(_mm512_shuffle_f32x4::<0x88>(r[8 + j], r[12 + j]));
            let high_odd = proven!(_mm512_shuffle_f32x4::<0xdd>(r[8 + j], r[12 + j]));
            t[j] = proven!(_mm512_shuffle_f32x4::<0x88>(low, high));
            t[8 + j] = proven!(_mm512_shuffle_f32x4::<0xdd>(low, high));
            t[4 + j] = proven!(_mm512_shuffle_f32x4::<0x88>(low_odd, high_odd));
            t[12 + j] = proven!(_mm512_shuffle_f32x4::<0xdd>(low_odd, high_odd));
        }
        t
    }

    #[inline(always)]
    fn first(self, count: usize) -> u16 {
        if count >= Self::LANES { u16::MAX } else { (1 << count) - 1 }
    }

    #[inline(always)]
    fn prefetch(self, line: *const f32) {
        proven!(_mm_prefetch::<_MM_HINT_T1>(line.cast()));
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        proven!(_mm512_loadu_ps(from))
    }

    #[inline(always)]
    unsafe fn load_some(self, mask: u16, from: *const f32) -> __m512 {
        proven!(_mm512_mask_loadu_ps(self.zero(), mask, from))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, a: __m512) {
        proven!(_mm512_storeu_ps(to, a));
    }

    #[inline(always)]
    unsafe fn store_some(self, mask: u16, to: *mut f32, a: __m512) {
        proven!(_mm512_mask_storeu_ps(to, mask, a));
    }
}

impl Simd for Avx2 {
    type Vector = __m256;
    type Mask = __m256i;
    type Square = [__m256; 8];

    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn run<T>(self, work: impl FnOnce() -> T) -> T {
        #[target_feature(enable = "avx2,fma")]
        fn here<T>(work: impl FnOnce() -> T) -> T {
            work()
        }
        proven!(here(work))
    }

    #[inline(always)]
    fn zero(self) -> __m256 {
        proven!(_mm256_setzero_ps())
    }

    #[inline(always)]
    fn all(self, x: f32) -> __m256 {
        proven!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        proven!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn fnma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        proven!(_mm256_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn square(self) -> [__m256; 8] {
        [self.zero(); 8]
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        let four = proven!(_mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a)));
        let two = proven!(_mm_add_ps(four, _mm_movehl_ps(four, four)));
        proven!(_mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two))))
    }

    #[inline(always)]
    fn transposed(self, mut r: [__m256; 8]) -> [__m256; 8] {
        let mut t = r;
        for i in 0..4 {
            t[2 * i] = proven!(_mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]));
            t[2 * i + 1] = proven!(_mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]));
        }
        for i in 0..2 {
            for j in 0..2 {
                let (a, b) = (t[4 * i + j], t[4 * i + j + 2]);
                let (a, b) = proven!((_mm256_castps_pd(a), _mm256_castps_pd(b)));
                // Columns 2j and 2j + 1 (plus four) of rows 4i to 4i + 3.
                r[4 * i + 2 * j] = proven!(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)));
                r[4 * i + 2 * j + 1] = proven!(_mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
            }
        }
        for j in 0..4 {
            t[j] = proven!(_mm256_permute2f128_ps::<0x20>(r[j], r[4 + j]));
            t[4 + j] = proven!(_mm256_permute2f128_ps::<0x31>(r[j], r[4 + j]));
        }
        t
    }

    #[inline(always)]
    fn first(self, count: usize) -> __m256i {
        let count = count.min(Self::LANES) as i32;
        proven!(_mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)))
    }

    #[inline(always)]
    fn prefetch(self, line: *const f32) {
        proven!(_mm_prefetch::<_MM_HINT_T1>(line.cast()));
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        proven!(_mm256_loadu_ps(from))
    }

    #[inline(always)]
    unsafe fn load_some(self, mask: __m256i, from: *const f32) -> __m256 {
        proven!(_mm256_maskload_ps(from, mask))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, a: __m256) {
        proven!(_mm256_storeu_ps(to, a));
    }

    #[inline(always)]
    unsafe fn store_some(self, mask: __m256i, to: *mut f32, a: __m256) {
        proven!(_mm256_maskstore_ps(to, mask, a));
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::*;

    /// Every operation against the same in plain numbers.
    fn operations<S: Simd>(simd: S) {
        let numbers = |of: fn(f32) -> f32| -> Vec<f32> { (0..S::LANES).map(|i| of(i as f32)).collect() };
        let inputs = [numbers(|i| 1.5 + i), numbers(|i| 7.0 - 2.0 * i), numbers(|i| 0.25 * i * i)];
        // SAFETY: a register's numbers are in each.
        let [a, b, c] = inputs.each_ref().map(|x| unsafe { simd.load(x.as_ptr()) });
        let [x, y, z] = &inputs;
        let is = |name: &str, found: S::Vector, wanted: &dyn Fn(usize) -> f32| {
            let mut out = vec![f32::NAN; S::LANES];
            // SAFETY: there is room for a register.
            unsafe { simd.store(out.as_mut_ptr(), found) };
            assert_eq!(out, (0..S::LANES).map(wanted).collect::<Vec<_>>(), "{name} by {simd:?}");
        };
        simd.run(|| {
            is("zero", simd.zero(), &|_| 0.0);
            is("all", simd.all(-3.5), &|_| -3.5);
            is("add", simd.add(a, b), &|i| x[i] + y[i]);
            is("sub", simd.sub(a, b), &|i| x[i] - y[i]);
            is("mul", simd.mul(a, b), &|i| x[i] * y[i]);
            is("fma", simd.fma(a, b, c), &|i| x[i].mul_add(y[i], z[i]));
            is("fnma", simd.fnma(a, b, c), &|i| (-x[i]).mul_add(y[i], z[i]));
        });
        assert_eq!(simd.sum(c).to_bits(), z.iter().sum::<f32>().to_bits(), "sums of small numbers are exact");
    }

    /// Masked lanes are neither read nor written.
    fn masks<S: Simd>(simd: S) {
        let from: Vec<f32> = (0..S::LANES).map(|i| i as f32 + 1.0).collect();
        for count in 0..=S::LANES + 1 {
            let mask = simd.first(count);
            let mut out = [[-2.0; WIDEST]; 2];
            // SAFETY: all lanes are there, on both sides.
            unsafe {
                simd.store_some(mask, out[0].as_mut_ptr(), simd.load(from.as_ptr()));
                simd.store(out[1].as_mut_ptr(), simd.load_some(mask, from.as_ptr()));
            }
            for (out, other) in out.iter().zip([-2.0, 0.0]) {
                let wanted: Vec<f32> = (0..S::LANES).map(|i| if i < count { from[i] } else { other }).collect();
                assert_eq!(out[..S::LANES], wanted);
            }
        }
    }

    fn squares<S: Simd>(simd: S) {
        let mut square = simd.square();
        for (i, row) in square.as_mut().iter_mut().enumerate() {
            let row_of: Vec<f32> = (0..S::LANES).map(|j| (i * 100 + j) as f32).collect();
            // SAFETY: a register's numbers are there.
            *row = unsafe { simd.load(row_of.as_ptr()) };
        }
        for (i, row) in simd.transposed(square).as_ref().iter().enumerate() {
            let mut out = vec![f32::NAN; S::LANES];
            // SAFETY: there is room for a register.
            unsafe { simd.store(out.as_mut_ptr(), *row) };
            assert_eq!(out, (0..S::LANES).map(|j| (j * 100 + i) as f32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn operations_of_every_instruction_set_are_those_of_plain_numbers() {
        for isa in Isa::used().with_smaller() {
            with_simd!(isa, |simd| {
                operations(simd);
                masks(simd);
                squares(simd);
            });
        }
    }
}
