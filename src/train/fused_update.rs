//! In-place updates of large tensors, fused into one pass.
//!
//! On a CPU in one parallel pass over fixed pieces, without a temporary: every element sees the same operations in the same order,
//! so the bits do not depend on the number of threads. Elsewhere the same rule is composed of candle's operations.

use std::ops::{Add, Div, Mul, Sub};

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, Device, InplaceOp3, Layout, Tensor, Var};
use rayon::prelude::*;

use kinset_kernel::dispatch::{Work, widest};

/// What one pass over a tensor does to each element `x`, given the elements `a` and `b` of two others.
#[derive(Clone, Copy, Debug)]
pub(super) enum UpdateRule {
    /// x ← μx + (b + λa).
    Velocity { momentum: f64, weight_decay: f64 },
    /// x ← x − η(a + λx).
    Descent { rate: f64, weight_decay: f64 },
    /// x ← x − η(b + λx + μa).
    LookAhead { momentum: f64, weight_decay: f64, rate: f64 },
    /// x ← βx + (1−β)(b + λa).
    Mean { beta: f64, weight_decay: f64 },
    /// x ← βx + (1−β)(b + λa)².
    Square { beta: f64, weight_decay: f64 },
    /// x ← x − η a / (√b / root + ε).
    Scaled { rate: f64, root: f64, epsilon: f64 },
    /// x ← αx + (1−α)a.
    Blend { decay: f64 },
}

/// One pass over `x`, which is one of neither `a` nor `b`.
pub(super) fn update(x: &Var, a: &Tensor, b: &Tensor, rule: UpdateRule) -> candle_core::Result<()> {
    if matches!(x.device(), Device::Cpu) {
        x.inplace_op3(a, b, &rule)
    } else {
        x.set(&rule.composed(&x.as_detached_tensor(), &a.detach(), &b.detach())?)
    }
}

/// The two precisions that weights come in.
trait Real: Copy + Send + Sync + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> {
    fn of(value: f64) -> Self;
    fn root(self) -> Self;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as Self
    }

    fn root(self) -> Self {
        self.sqrt()
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }

    fn root(self) -> Self {
        self.sqrt()
    }
}

/// Elements per piece of parallel work: large enough to be worth a task, and the same for any number of threads.
pub(super) const PIECE: usize = 1 << 15;

fn sweep<T: Real>(x: &mut [T], a: &[T], b: &[T], rule: impl Fn(T, T, T) -> T + Sync) {
    if x.len() <= PIECE {
        return widest(Piece { x, a, b, rule: &rule });
    }
    let pieces = x.par_chunks_mut(PIECE).zip(a.par_chunks(PIECE)).zip(b.par_chunks(PIECE));
    pieces.for_each(|((x, a), b)| widest(Piece { x, a, b, rule: &rule }));
}

/// One thread's part.
struct Piece<'a, T, R> {
    x: &'a mut [T],
    a: &'a [T],
    b: &'a [T],
    rule: &'a R,
}

impl<T: Real, R: Fn(T, T, T) -> T> Work for Piece<'_, T, R> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "as the trait asks")]
    #[inline(always)]
    fn run(self) {
        for ((x, &a), &b) in self.x.iter_mut().zip(self.a).zip(self.b) {
            *x = (self.rule)(*x, a, b);
        }
    }
}

impl UpdateRule {
    fn run<T: Real>(self, x: &mut [T], a: &[T], b: &[T]) {
        let t = T::of;
        match self {
            Self::Velocity { momentum, weight_decay } => {
                let (momentum, decay) = (t(momentum), t(weight_decay));
                sweep(x, a, b, |x, a, b| momentum * x + (b + decay * a));
            }
            Self::Descent { rate, weight_decay } => {
                let (rate, decay) = (t(rate), t(weight_decay));
                sweep(x, a, b, |x, a, _| x - rate * (a + decay * x));
            }
            Self::LookAhead { momentum, weight_decay, rate } => {
                let (momentum, decay, rate) = (t(momentum), t(weight_decay), t(rate));
                sweep(x, a, b, |x, a, b| x - rate * (b + decay * x + momentum * a));
            }
            Self::Mean { beta, weight_decay } => {
                let (beta, rest, decay) = (t(beta), t(1.0 - beta), t(weight_decay));
                sweep(x, a, b, |x, a, b| beta * x + rest * (b + decay * a));
            }
            Self::Square { beta, weight_decay } => {
                let (beta, rest, decay) = (t(beta), t(1.0 - beta), t(weight_decay));
                sweep(x, a, b, |x, a, b| {
                    let g = b + decay * a;
                    beta * x + rest * (g * g)
                });
            }
            Self::Scaled { rate, root, epsilon } => {
                let (rate, root, epsilon) = (t(rate), t(root), t(epsilon));
                sweep(x, a, b, |x, a, b| x - rate * (a / (b.root() / root + epsilon)));
            }
            Self::Blend { decay } => {
                let (decay, rest) = (t(decay), t(1.0 - decay));
                sweep(x, a, b, |x, a, _| decay * x + rest * a);
            }
        }
    }

    /// The same as tensor operations, for devices without the sweep.
    fn composed(self, x: &Tensor, a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Velocity { momentum, weight_decay } => (x * momentum)? + (b + (a * weight_decay)?)?,
            Self::Descent { rate, weight_decay } => x - ((a + (x * weight_decay)?)? * rate)?,
            Self::LookAhead { momentum, weight_decay, rate } => x - (((b + (x * weight_decay)?)? + (a * momentum)?)? * rate)?,
            Self::Mean { beta, weight_decay } => (x * beta)? + ((b + (a * weight_decay)?)? * (1.0 - beta))?,
            Self::Square { beta, weight_decay } => (x * beta)? + ((b + (a * weight_decay)?)?.sqr()? * (1.0 - beta))?,
            Self::Scaled { rate, root, epsilon } => x - ((a / ((b.sqrt()? / root)? + epsilon)?)? * rate)?,
            Self::Blend { decay } => (x * decay)? + (a * (1.0 - decay))?,
        }
    }
}

impl InplaceOp3 for UpdateRule {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<()> {
        let ranges = (x_layout.contiguous_offsets(), a_layout.contiguous_offsets(), b_layout.contiguous_offsets());
        let (Some((x0, x1)), Some((a0, a1)), Some((b0, b1))) = ranges else {
            return Err(candle_core::Error::RequiresContiguous { op: "optimizer-step" }.bt());
        };
        match (x, a, b) {
            (CpuStorage::F32(x), CpuStorage::F32(a), CpuStorage::F32(b)) => {
                self.run(&mut x[x0..x1], &a[a0..a1], &b[b0..b1]);
            }
            (CpuStorage::F64(x), CpuStorage::F64(a), CpuStorage::F64(b)) => {
                self.run(&mut x[x0..x1], &a[a0..a1], &b[b0..b1]);
            }
            (x, ..) => {
                return Err(candle_core::Error::UnsupportedDTypeForOp(x.dtype(), "optimizer-step").bt());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_and_its_composition_agree() {
        let tensor = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap();
        let (a, b) = (tensor(&[0.3, 2.0]), tensor(&[1.5, 0.7]));
        let (momentum, weight_decay, rate, beta) = (0.9, 0.01, 0.3, 0.8);
        for rule in [
            UpdateRule::Velocity { momentum, weight_decay },
            UpdateRule::Descent { rate, weight_decay },
            UpdateRule::LookAhead { momentum, weight_decay, rate },
            UpdateRule::Mean { beta, weight_decay },
            UpdateRule::Square { beta, weight_decay },
            UpdateRule::Scaled { rate, root: 0.7, epsilon: 1e-3 },
            UpdateRule::Blend { decay: beta },
        ] {
            let x = Var::new(&[1.0_f64, -2.0], &Device::Cpu).unwrap();
            let wanted = rule.composed(&x.as_detached_tensor(), &a, &b).unwrap().to_vec1::<f64>().unwrap();
            update(&x, &a, &b, rule).unwrap();
            for (found, wanted) in x.to_vec1::<f64>().unwrap().iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-14, "{rule:?}");
            }
        }
    }

    #[test]
    fn long_tensors_are_changed_to_their_end() {
        let n = 2 * PIECE + 5;
        let x = Var::from_vec(vec![1_f32; n], n, &Device::Cpu).unwrap();
        let a = Tensor::from_vec((0..n).map(|i| i as f32).collect(), n, &Device::Cpu).unwrap();
        update(&x, &a, &a, UpdateRule::Blend { decay: 0.5 }).unwrap();
        let found = x.to_vec1::<f32>().unwrap();
        assert!(found.iter().enumerate().all(|(i, &v)| (v - 0.5 - 0.5 * i as f32).abs() < 1e-2));
    }
}
