//! Stand-ins for the operations of `kernel`, made of candle's own, until those are there.

use candle_core::{Result, Tensor, Var};

pub(super) fn conv2d(x: &Tensor, weight: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    x.conv2d(weight, padding, stride, 1, 1)
}

#[expect(clippy::too_many_arguments, reason = "a stand-in")]
pub(super) fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    running: (&Var, &Var),
    train: bool,
    momentum: f64,
    eps: f64,
    relu: bool,
) -> Result<Tensor> {
    let channels = x.dim(1)?;
    let wide = |t: &Tensor| t.reshape((1, channels, 1, 1));
    let (mean, variance) = if train {
        let n = (x.elem_count() / channels) as f64;
        let mean = x.mean_keepdim(0)?.mean_keepdim(2)?.mean_keepdim(3)?;
        let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)?.mean_keepdim(2)?.mean_keepdim(3)?;
        let blend = |var: &Var, now: &Tensor, scale: f64| -> Result<()> {
            let now = now.detach().flatten_all()?;
            var.set(&((var.as_detached_tensor() * (1.0 - momentum))? + (now * (momentum * scale))?)?)
        };
        blend(running.0, &mean, 1.0)?;
        blend(running.1, &variance, n / (n - 1.0))?;
        (mean, variance)
    } else {
        (wide(&running.0.as_detached_tensor())?, wide(&running.1.as_detached_tensor())?)
    };
    let y = x.broadcast_sub(&mean)?.broadcast_div(&(variance + eps)?.sqrt()?)?;
    let y = y.broadcast_mul(&wide(gamma)?)?.broadcast_add(&wide(beta)?)?;
    if relu { y.relu() } else { Ok(y) }
}

pub(super) fn relu(x: &Tensor) -> Result<Tensor> {
    x.relu()
}

pub(super) fn max_pool(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    // Zero padding does for values that went through a ReLU.
    let x = x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?;
    let rows = (h + 2 * padding - kernel) / stride + 1;
    let columns = (w + 2 * padding - kernel) / stride + 1;
    let at = |offset: usize, count: usize| {
        let places: Vec<u32> = (0..count).map(|i| (i * stride + offset) as u32).collect();
        Tensor::from_vec(places, count, x.device())
    };
    let mut most: Option<Tensor> = None;
    for dy in 0..kernel {
        let row = x.index_select(&at(dy, rows)?, 2)?;
        for dx in 0..kernel {
            let shifted = row.index_select(&at(dx, columns)?, 3)?;
            most = Some(match most {
                None => shifted,
                Some(most) => most.maximum(&shifted)?,
            });
        }
    }
    most.ok_or_else(|| candle_core::Error::Msg("an empty window".into()))
}

pub(super) fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    x.mean(3)?.mean(2)
}
