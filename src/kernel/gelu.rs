//! GELU, the activation of transformers, exact and as CLIP's quick approximation by a sigmoid.

use std::f32::consts::{FRAC_1_SQRT_2, PI};
use std::sync::Arc;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::accumulate::CHUNK;
use super::autograd::{Backward, GradSlot, Input, Saved, read, record, supported};
use super::buffers::{in_pieces, with_scratch};
use super::dispatch::vectorized;
use super::exponential::{exponential, power};

/// Slope of the sigmoid that approximates Φ.
const STEEP: f64 = 1.702;

vectorized! {
    fn half_square(e: &mut [f32], x: &[f32]) {
        for (e, x) in e.iter_mut().zip(x) {
            *e = -0.5 * x * x;
        }
    }
}

/// Φ(x) from e^(−x²/2), with an absolute error below 2e-7.
///
/// # Source
/// Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26.
#[expect(clippy::inline_always, reason = "the caller is compiled once per processor feature, and this with it")]
#[inline(always)]
fn phi(x: f32, e: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * FRAC_1_SQRT_2 * x.abs());
    let p = 1.061_405_4;
    let p = p * t - 1.453_152_1;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_72;
    let p = p * t + 0.254_829_6;
    let tail = 0.5 * p * t * e;
    if x < 0.0 { tail } else { 1.0 - tail }
}

vectorized! {
    fn below(below: &mut [f32], x: &[f32], e: &[f32]) {
        for ((below, x), e) in below.iter_mut().zip(x).zip(e) {
            *below = phi(*x, *e);
        }
    }
}

vectorized! {
    /// x ← x · Φ(x), in one pass what [`half_square`] and [`below`] do in several.
    fn gelu_in_place(x: &mut [f32]) {
        for x in x {
            *x *= phi(*x, power(-0.5 * *x * *x));
        }
    }
}

vectorized! {
    /// x ← x · σ(1.702 x)
    fn quick_gelu_in_place(x: &mut [f32]) {
        for x in x {
            *x /= 1.0 + power(-STEEP as f32 * *x);
        }
    }
}

vectorized! {
    /// gradient · (Φ + x φ), with φ the density, from Φ and e^(−x²/2).
    fn slope(gradient: &mut [f32], x: &[f32], phi: &[f32], e: &[f32], density: f32) {
        for (((g, x), phi), e) in gradient.iter_mut().zip(x).zip(phi).zip(e) {
            *g *= phi + x * density * e;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Gelu,
    QuickGelu,
}

impl Activation {
    /// In place, on the calling thread.
    pub(super) fn apply(self, x: &mut [f32]) {
        match self {
            Self::Gelu => gelu_in_place(x),
            Self::QuickGelu => quick_gelu_in_place(x),
        }
    }

    pub(super) fn of(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => gelu(x),
            Self::QuickGelu => quick_gelu(x),
        }
    }
}

/// The activation of `x`, a chunk at a time, on all cores.
fn activated(x: &[f32], activation: Activation) -> Vec<f32> {
    in_pieces(x.len(), CHUNK, |i, y| {
        let x = &x[i * CHUNK..][..y.len()];
        let y = y.write_copy_of_slice(x);
        activation.apply(y);
        y
    })
}

/// x · Φ(x), exact but for rounding.
///
/// # Paper
/// Hendrycks & Gimpel 2016, "Gaussian error linear units", section 2.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if !supported(&[x]) {
        return x.gelu_erf();
    }
    let input = Input::of(x)?;
    let y = read(&input.data, |x| activated(x, Activation::Gelu))?;
    record(y, x.shape(), &[&input], [None, None], || GeluBackward { x: input.data.clone(), slot: input.slot() })
}

struct GeluBackward {
    x: Tensor,
    slot: Option<Arc<GradSlot>>,
}

impl Backward for GeluBackward {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn backward(&self, mut gradient: Vec<f32>, _: Saved<'_>) -> Result<[Option<Tensor>; 2]> {
        let density = 1.0 / (2.0 * PI).sqrt();
        read(&self.x, |x| {
            gradient.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(g, x)| {
                with_scratch([x.len(), x.len(), 0], |e, phi, _| {
                    half_square(e, x);
                    exponential(e);
                    below(phi, x, e);
                    slope(g, x, phi, e, density);
                });
            });
        })?;
        if let Some(slot) = &self.slot {
            slot.add(gradient);
        }
        Ok([None, None])
    }
}

/// x · σ(1.702 x): what OpenAI's CLIP computes in place of [`gelu`].
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    if !supported(&[x]) || x.track_op() {
        // 1 + tanh(z / 2) is 2 σ(z), and has a gradient everywhere.
        return ((x * (STEEP / 2.0))?.tanh()? + 1.0)?.mul(&(x * 0.5)?);
    }
    let x = x.contiguous()?;
    let y = read(&x, |x| activated(x, Activation::QuickGelu))?;
    Tensor::from_vec(y, x.shape(), x.device())
}

#[cfg(test)]
mod tests {
    use super::super::check::{agrees_with_differences, doubles, normal, same_bits};
    use super::*;
    use candle_core::{Device, Var};

    fn wide() -> Tensor {
        (normal("x", &[3, 5, 7]) * 3.0).unwrap()
    }

    #[test]
    fn values_and_gradients_agree_with_differences() {
        agrees_with_differences("gelu", &|t| gelu(&t[0]), &[wide()]);
        agrees_with_differences("quick_gelu", &|t| quick_gelu(&t[0]), &[wide()]);
    }

    #[test]
    fn what_is_not_recorded_says_the_same() {
        let x = wide();
        let tracked = Var::from_tensor(&x).unwrap();
        for (plain, recorded) in [
            (gelu(&x).unwrap(), gelu(tracked.as_tensor()).unwrap()),
            (quick_gelu(&x).unwrap(), quick_gelu(tracked.as_tensor()).unwrap()),
        ] {
            assert!(!plain.track_op() && recorded.track_op());
            for (a, b) in doubles(&plain).iter().zip(doubles(&recorded.detach())) {
                assert!((a - b).abs() < 1e-6, "{a} is not {b}");
            }
        }
    }

    #[test]
    fn far_out_nothing_or_all_passes() {
        let x = Tensor::new(&[-40.0_f32, -1e4, 0.0, 40.0, 1e4], &Device::Cpu).unwrap();
        for f in [gelu, quick_gelu] {
            let y = doubles(&f(&x).unwrap());
            assert!(y[0].abs() < 1e-12 && y[1].abs() < 1e-12 && y[2] == 0.0, "{y:?}");
            assert_eq!(y[3..], [40.0, 1e4]);
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        same_bits("gelu", &|t| gelu(&t[0]), &[normal("x", &[3, 40_001])]);
    }
}
