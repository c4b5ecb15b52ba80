//! Vectorized exponential function: the C library's takes numbers one by one.

use super::dispatch::vectorized;

/// Below this the result is 0 (e^x would be subnormal); above its negative, infinite.
const LOWEST: f32 = -87.0;
const HIGHEST: f32 = 88.0;

/// 1.5 · 2²³: adding it leaves the nearest whole number in the last bits.
const SHIFT: f32 = 12_582_912.0;

/// eˣ, with a relative error of at most 2⁻²³ from −87 to 88; 0 below, infinite above; NaN in, NaN out.
///
/// For loops that compute more at once; they are compiled for wide registers, and so is this.
///
/// # Source
/// eˣ = 2ⁿ eʳ with n = ⌊x / ln 2⌉ and ln 2 in two parts (Cody and Waite, "Software Manual for the Elementary Functions",
/// 1980, chapter 6); eʳ for |r| ≤ ln 2 / 2 as its Taylor polynomial to r⁷, whose remainder is below 6e-9.
#[expect(clippy::inline_always, reason = "the caller is compiled once per processor feature, and this with it")]
#[inline(always)]
pub(super) fn power(of: f32) -> f32 {
    let near = of.clamp(LOWEST, HIGHEST);
    let shifted = near * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = near - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // The exponent of 2ⁿ, read from the last bits of the shifted number.
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(127) << 23);
    let y = p * power;
    let y = if of < LOWEST { 0.0 } else { y };
    if of > HIGHEST {
        f32::INFINITY
    } else if of.is_nan() {
        of
    } else {
        y
    }
}

vectorized! {
    /// x ← eˣ, as [`power`] has it.
    pub(super) fn exponential(x: &mut [f32]) {
        for x in x {
            *x = power(*x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_those_of_double_precision() {
        let xs: Vec<f32> = (-870_000..=880_000).map(|i| i as f32 * 1e-4).chain([0.0, -0.0, 1e-30, -1e-8]).collect();
        let mut found = xs.clone();
        exponential(&mut found);
        for (x, found) in xs.iter().zip(found) {
            let wanted = f64::from(*x).exp();
            let off = (f64::from(found) / wanted - 1.0).abs();
            assert!(off <= f64::from(f32::EPSILON), "e^{x}: {found} is not {wanted}");
        }
    }

    #[test]
    fn ends_and_no_numbers_are_what_they_should_be() {
        let mut x = [f32::NEG_INFINITY, -1e5, -87.5, 88.5, f32::INFINITY, 0.0, f32::NAN];
        exponential(&mut x);
        assert_eq!(x[..6], [0.0, 0.0, 0.0, f32::INFINITY, f32::INFINITY, 1.0]);
        assert!(x[6].is_nan());
    }
}
