//! Stand-ins for the operations of `kernel`, made of candle's own, until those are there.

use candle_core::{D, Result, Tensor};

pub(super) enum After<'a> {
    Nothing,
    Relu,
    AddRelu(&'a Tensor),
}

pub(super) struct BatchNorm {
    pub(super) output: Tensor,
    pub(super) mean: Tensor,
    pub(super) variance: Tensor,
    pub(super) count: usize,
}

pub(super) fn conv2d(x: &Tensor, weight: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    x.conv2d(weight, padding, stride, 1, 1)
}

fn wide(t: &Tensor) -> Result<Tensor> {
    t.reshape((1, t.elem_count(), 1, 1))
}

fn finish(y: Tensor, after: After<'_>) -> Result<Tensor> {
    match after {
        After::Nothing => Ok(y),
        After::Relu => y.relu(),
        After::AddRelu(other) => (y + other)?.relu(),
    }
}

pub(super) fn batch_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64, after: After<'_>) -> Result<BatchNorm> {
    let mean = x.mean_keepdim((0, 2, 3))?;
    let centered = x.broadcast_sub(&mean)?;
    let variance = centered.sqr()?.mean_keepdim((0, 2, 3))?;
    let y = centered.broadcast_div(&(&variance + eps)?.sqrt()?)?;
    let y = y.broadcast_mul(&wide(gamma)?)?.broadcast_add(&wide(beta)?)?;
    let flat = |t: Tensor| t.detach().flatten_all();
    let count = x.elem_count() / gamma.elem_count();
    Ok(BatchNorm { output: finish(y, after)?, mean: flat(mean)?, variance: flat(variance)?, count })
}

pub(super) fn batch_norm_eval(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    eps: f64,
    after: After<'_>,
) -> Result<Tensor> {
    let y = x.broadcast_sub(&wide(mean)?)?.broadcast_div(&wide(&(variance + eps)?.sqrt()?)?)?;
    finish(y.broadcast_mul(&wide(gamma)?)?.broadcast_add(&wide(beta)?)?, after)
}

pub(super) fn relu(x: &Tensor) -> Result<Tensor> {
    x.relu()
}

pub(super) fn l2_normalize(x: &Tensor) -> Result<Tensor> {
    // The floor goes under the root: a root has no gradient at 0.
    let length = x.sqr()?.sum_keepdim(D::Minus1)?.maximum(1e-24)?.sqrt()?;
    x.broadcast_div(&length)
}

pub(super) fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
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
    x.mean((2, 3))
}
