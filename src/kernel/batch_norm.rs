//! Batch normalization, with ReLU and residual sum fused, and L2 normalization of rows.
//!
//! Batch norm of a training step is bound by memory, not arithmetic, so the rectification and the residual sum that follow it
//! are fused into it, the mask of the rectification is recomputed from what is read anyway, and the input's gradient is written
//! over the output's.

#![expect(unsafe_code, reason = "outputs are written without being zeroed first")]

use std::sync::Arc;

use candle_core::{D, Device, Result, Tensor};
use rayon::prelude::*;

use super::autograd::{Backward, GradSlot, Input, Saved, read, record, supported};
use super::buffers::{Place, in_pieces, room, written};
use super::dispatch::vectorized;
use super::elementwise::{copy, mask};
use super::error::KernelError;

#[derive(Clone, Copy, Debug)]
pub enum After<'a> {
    Nothing,
    /// `max(y, 0)`.
    Relu,
    /// `max(y + residual, 0)`, the end of a residual block.
    AddRelu(&'a Tensor),
}

#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// [B, C, H, W], normalized, scaled, shifted, and what [`After`] says.
    pub output: Tensor,
    /// `[C]`, of this batch; no gradient.
    pub mean: Tensor,
    /// `[C]`, of this batch, biased (divided by n); no gradient. The running value wants n/(n − 1) of it.
    pub variance: Tensor,
    /// B·H·W, the number of values per channel.
    pub count: usize,
}

/// Floats per task; whole images.
const CHUNK: usize = 64 * 1024;

#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    channels: usize,
    map: usize,
}

impl Shape {
    fn of(op: &'static str, x: &Tensor, others: &[&Tensor]) -> Result<Self> {
        let shapes = || std::iter::once(x).chain(others.iter().copied()).map(|t| t.dims().to_vec()).collect();
        let &[batch, channels, height, width] = x.dims() else {
            return Err(KernelError::Shape { op, shapes: shapes() }.wrap());
        };
        if others.iter().any(|t| t.dims() != [channels]) || batch * height * width == 0 {
            return Err(KernelError::Shape { op, shapes: shapes() }.wrap());
        }
        Ok(Self { batch, channels, map: height * width })
    }

    /// Numbers in one task.
    fn chunk(&self) -> usize {
        let image = self.channels * self.map;
        image * (CHUNK / image).clamp(1, self.batch)
    }
}

/// Lanes of the partial sums.
const LANES: usize = 16;

/// Adds the lanes in a fixed order.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must be compiled with the features of its caller")]
fn fold(lanes: [f64; LANES]) -> f64 {
    let mut sum = 0.0;
    for lane in lanes {
        sum += lane;
    }
    sum
}

vectorized! {
    /// Per channel Σ (x − c) and Σ (x − c)², with `c` the channel's first value of the batch so that a large mean costs no
    /// digits.
    fn moments(x: &[f32], map: usize, centers: &[f32], sums: &mut [[f64; 2]]) {
        for image in x.chunks_exact(map * sums.len()) {
            for ((line, sum), &center) in image.chunks_exact(map).zip(sums.iter_mut()).zip(centers) {
                let (mut first, mut second) = ([0.0f64; LANES], [0.0f64; LANES]);
                let blocks = line.chunks_exact(LANES);
                for (i, v) in blocks.remainder().iter().enumerate() {
                    let v = f64::from(v - center);
                    first[i] += v;
                    second[i] += v * v;
                }
                for block in blocks {
                    for i in 0..LANES {
                        let v = f64::from(block[i] - center);
                        first[i] += v;
                        second[i] += v * v;
                    }
                }
                sum[0] += fold(first);
                sum[1] += fold(second);
            }
        }
    }
}

vectorized! {
    /// Per channel Σ g and Σ g (x − c).
    fn gradient_moments(g: &[f32], x: &[f32], map: usize, centers: &[f32], sums: &mut [[f64; 2]]) {
        let size = map * sums.len();
        for (g, x) in g.chunks_exact(size).zip(x.chunks_exact(size)) {
            for (((g, x), sum), &center) in g.chunks_exact(map).zip(x.chunks_exact(map)).zip(sums.iter_mut()).zip(centers) {
                let (mut first, mut second) = ([0.0f64; LANES], [0.0f64; LANES]);
                let (gs, xs) = (g.chunks_exact(LANES), x.chunks_exact(LANES));
                for (i, (g, x)) in gs.remainder().iter().zip(xs.remainder()).enumerate() {
                    first[i] += f64::from(*g);
                    second[i] += f64::from(g * (x - center));
                }
                for (g, x) in gs.zip(xs) {
                    for i in 0..LANES {
                        first[i] += f64::from(g[i]);
                        second[i] += f64::from(g[i] * (x[i] - center));
                    }
                }
                sum[0] += fold(first);
                sum[1] += fold(second);
            }
        }
    }
}

vectorized! {
    /// As [`gradient_moments`], after `g` was set to zero where `y` is not positive.
    fn mask_and_moments(g: &mut [f32], y: &[f32], x: &[f32], map: usize, centers: &[f32], sums: &mut [[f64; 2]]) {
        let size = map * sums.len();
        for ((g, y), x) in g.chunks_exact_mut(size).zip(y.chunks_exact(size)).zip(x.chunks_exact(size)) {
            let lines = g.chunks_exact_mut(map).zip(y.chunks_exact(map)).zip(x.chunks_exact(map));
            for ((((g, y), x), sum), &center) in lines.zip(sums.iter_mut()).zip(centers) {
                let (mut first, mut second) = ([0.0f64; LANES], [0.0f64; LANES]);
                let (mut gs, ys, xs) = (g.chunks_exact_mut(LANES), y.chunks_exact(LANES), x.chunks_exact(LANES));
                for ((g, y), x) in (&mut gs).zip(ys.clone()).zip(xs.clone()) {
                    for i in 0..LANES {
                        g[i] = if y[i] > 0.0 { g[i] } else { 0.0 };
                        first[i] += f64::from(g[i]);
                        second[i] += f64::from(g[i] * (x[i] - center));
                    }
                }
                for (i, ((g, y), x)) in gs.into_remainder().iter_mut().zip(ys.remainder()).zip(xs.remainder()).enumerate() {
                    *g = if *y > 0.0 { *g } else { 0.0 };
                    first[i] += f64::from(*g);
                    second[i] += f64::from(*g * (x - center));
                }
                sum[0] += fold(first);
                sum[1] += fold(second);
            }
        }
    }
}

vectorized! {
    /// As [`gradient_moments`], with `g` first set to zero where `x · scale + shift` is not positive.
    fn masked_gradient_moments(g: &[f32], x: &[f32], map: usize, centers: &[f32], lines: &[[f32; 2]], sums: &mut [[f64; 2]]) {
        let size = map * sums.len();
        for (g, x) in g.chunks_exact(size).zip(x.chunks_exact(size)) {
            let channels = g.chunks_exact(map).zip(x.chunks_exact(map)).zip(sums.iter_mut()).zip(centers).zip(lines);
            for ((((g, x), sum), &center), &[scale, shift]) in channels {
                let (mut first, mut second) = ([0.0f64; LANES], [0.0f64; LANES]);
                let (gs, xs) = (g.chunks_exact(LANES), x.chunks_exact(LANES));
                for (i, (g, x)) in gs.remainder().iter().zip(xs.remainder()).enumerate() {
                    let g = if x * scale + shift > 0.0 { *g } else { 0.0 };
                    first[i] += f64::from(g);
                    second[i] += f64::from(g * (x - center));
                }
                for (g, x) in gs.zip(xs) {
                    for i in 0..LANES {
                        let g = if x[i] * scale + shift > 0.0 { g[i] } else { 0.0 };
                        first[i] += f64::from(g);
                        second[i] += f64::from(g * (x[i] - center));
                    }
                }
                sum[0] += fold(first);
                sum[1] += fold(second);
            }
        }
    }
}

vectorized! {
    /// y = x · scale + shift, rectified if asked.
    fn affine<'a>(y: &'a mut [Place], x: &[f32], map: usize, lines: &[[f32; 2]], rectify: bool) -> &'a mut [f32] {
        let size = map * lines.len();
        assert!(y.len() == x.len() && y.len().is_multiple_of(size), "whole images");
        let floor = if rectify { 0.0 } else { f32::NEG_INFINITY };
        for (y, x) in y.chunks_exact_mut(size).zip(x.chunks_exact(size)) {
            for ((y, x), &[scale, shift]) in y.chunks_exact_mut(map).zip(x.chunks_exact(map)).zip(lines) {
                for (y, x) in y.iter_mut().zip(x) {
                    let v = x * scale + shift;
                    y.write(if v < floor { floor } else { v });
                }
            }
        }
        // SAFETY: each line of each image was just written.
        unsafe { y.assume_init_mut() }
    }
}

vectorized! {
    /// y = max(x · scale + shift + r, 0).
    fn affine_add_relu<'a>(y: &'a mut [Place], x: &[f32], r: &[f32], map: usize, lines: &[[f32; 2]]) -> &'a mut [f32] {
        let size = map * lines.len();
        assert!(y.len() == x.len() && y.len() == r.len() && y.len().is_multiple_of(size), "whole images");
        for ((y, x), r) in y.chunks_exact_mut(size).zip(x.chunks_exact(size)).zip(r.chunks_exact(size)) {
            let channels = y.chunks_exact_mut(map).zip(x.chunks_exact(map)).zip(r.chunks_exact(map)).zip(lines);
            for (((y, x), r), &[scale, shift]) in channels {
                for ((y, x), r) in y.iter_mut().zip(x).zip(r) {
                    let v = x * scale + shift + r;
                    y.write(if v < 0.0 { 0.0 } else { v });
                }
            }
        }
        // SAFETY: each line of each image was just written.
        unsafe { y.assume_init_mut() }
    }
}

vectorized! {
    /// g ← a · g + b · (x − c) + d per channel.
    fn input_gradient(g: &mut [f32], x: &[f32], map: usize, centers: &[f32], coefficients: &[[f32; 3]]) {
        let size = map * centers.len();
        for (g, x) in g.chunks_exact_mut(size).zip(x.chunks_exact(size)) {
            let channels = g.chunks_exact_mut(map).zip(x.chunks_exact(map)).zip(centers).zip(coefficients);
            for (((g, x), &center), &[a, b, d]) in channels {
                for (g, x) in g.iter_mut().zip(x) {
                    *g = a * *g + (b * (x - center) + d);
                }
            }
        }
    }
}

vectorized! {
    /// As [`input_gradient`], to another place.
    fn input_gradient_of<'a>(
        out: &'a mut [Place],
        g: &[f32],
        x: &[f32],
        map: usize,
        centers: &[f32],
        coefficients: &[[f32; 3]],
    ) -> &'a mut [f32] {
        let size = map * centers.len();
        assert!(out.len() == g.len() && out.len() == x.len() && out.len().is_multiple_of(size), "whole images");
        assert_eq!(centers.len(), coefficients.len(), "coefficients of each channel");
        for ((out, g), x) in out.chunks_exact_mut(size).zip(g.chunks_exact(size)).zip(x.chunks_exact(size)) {
            let lines = out.chunks_exact_mut(map).zip(g.chunks_exact(map)).zip(x.chunks_exact(map));
            for ((((out, g), x), &center), &[a, b, d]) in lines.zip(centers).zip(coefficients) {
                for ((out, g), x) in out.iter_mut().zip(g).zip(x) {
                    out.write(a * *g + (b * (x - center) + d));
                }
            }
        }
        // SAFETY: each line of each image was just written.
        unsafe { out.assume_init_mut() }
    }
}

vectorized! {
    /// As [`input_gradient`], with `g` first set to zero where `x · scale + shift` is not positive.
    fn masked_input_gradient(
        g: &mut [f32],
        x: &[f32],
        map: usize,
        centers: &[f32],
        lines: &[[f32; 2]],
        coefficients: &[[f32; 3]],
    ) {
        let size = map * centers.len();
        for (g, x) in g.chunks_exact_mut(size).zip(x.chunks_exact(size)) {
            for ((((g, x), &center), &[a, b, d]), &[scale, shift]) in
                g.chunks_exact_mut(map).zip(x.chunks_exact(map)).zip(centers).zip(coefficients).zip(lines)
            {
                for (g, x) in g.iter_mut().zip(x) {
                    let kept = if x * scale + shift > 0.0 { *g } else { 0.0 };
                    *g = a * kept + (b * (x - center) + d);
                }
            }
        }
    }
}

/// Adds the tasks' sums in order.
fn add_up(parts: Vec<Vec<[f64; 2]>>, channels: usize) -> Vec<[f64; 2]> {
    let mut sums = vec![[0.0; 2]; channels];
    for part in parts {
        for (sum, part) in sums.iter_mut().zip(part) {
            sum[0] += part[0];
            sum[1] += part[1];
        }
    }
    sums
}

/// Mean and biased variance per channel.
fn statistics(s: &Shape, x: &[f32]) -> Vec<[f64; 2]> {
    let centers: Vec<f32> = x.chunks_exact(s.map).take(s.channels).map(|line| line[0]).collect();
    let parts = x
        .par_chunks(s.chunk())
        .map(|x| {
            let mut sums = vec![[0.0; 2]; s.channels];
            moments(x, s.map, &centers, &mut sums);
            sums
        })
        .collect();
    let n = (s.batch * s.map) as f64;
    let mut sums = add_up(parts, s.channels);
    for (sum, &center) in sums.iter_mut().zip(&centers) {
        let shifted = sum[0] / n;
        *sum = [f64::from(center) + shifted, (sum[1] / n - shifted * shifted).max(0.0)];
    }
    sums
}

/// Σ g and Σ g (x − c) per channel; `lines` says which `g` count.
fn reduce(s: &Shape, g: &[f32], x: &[f32], centers: &[f32], lines: Option<&[[f32; 2]]>) -> Vec<[f64; 2]> {
    let parts = g
        .par_chunks(s.chunk())
        .zip(x.par_chunks(s.chunk()))
        .map(|(g, x)| {
            let mut sums = vec![[0.0; 2]; s.channels];
            match lines {
                Some(lines) => masked_gradient_moments(g, x, s.map, centers, lines, &mut sums),
                None => gradient_moments(g, x, s.map, centers, &mut sums),
            }
            sums
        })
        .collect();
    add_up(parts, s.channels)
}

/// As [`reduce`], after `g` was set to zero where `y` is.
fn mask_and_reduce(s: &Shape, g: &mut [f32], y: &[f32], x: &[f32], centers: &[f32]) -> Vec<[f64; 2]> {
    let parts = g
        .par_chunks_mut(s.chunk())
        .zip(y.par_chunks(s.chunk()))
        .zip(x.par_chunks(s.chunk()))
        .map(|((g, y), x)| {
            let mut sums = vec![[0.0; 2]; s.channels];
            mask_and_moments(g, y, x, s.map, centers, &mut sums);
            sums
        })
        .collect();
    add_up(parts, s.channels)
}

/// a g + b (x − c) + d.
fn write(s: &Shape, g: &[f32], x: &[f32], centers: &[f32], coefficients: &[[f32; 3]]) -> Vec<f32> {
    in_pieces(g.len(), s.chunk(), |i, out| {
        let range = i * s.chunk()..i * s.chunk() + out.len();
        input_gradient_of(out, &g[range.clone()], &x[range], s.map, centers, coefficients)
    })
}

/// g ← a g + b (x − c) + d, masked if `lines` are given.
fn rewrite(s: &Shape, g: &mut [f32], x: &[f32], centers: &[f32], lines: Option<&[[f32; 2]]>, coefficients: &[[f32; 3]]) {
    g.par_chunks_mut(s.chunk()).zip(x.par_chunks(s.chunk())).for_each(|(g, x)| match lines {
        Some(lines) => masked_input_gradient(g, x, s.map, centers, lines, coefficients),
        None => input_gradient(g, x, s.map, centers, coefficients),
    });
}

/// y = x · scale + shift per channel, and what follows.
fn apply(s: &Shape, x: &[f32], residual: Option<&[f32]>, lines: &[[f32; 2]], rectify: bool) -> Vec<f32> {
    in_pieces(x.len(), s.chunk(), |i, y| {
        let range = i * s.chunk()..i * s.chunk() + y.len();
        match residual {
            Some(r) => affine_add_relu(y, &x[range.clone()], &r[range], s.map, lines),
            None => affine(y, &x[range], s.map, lines, rectify),
        }
    })
}

/// The tensors of one call, looked up.
struct Call {
    input: Input,
    residual: Option<Input>,
    rectify: bool,
}

impl Call {
    fn of(op: &'static str, x: &Tensor, after: After<'_>) -> Result<Self> {
        let residual = match after {
            After::AddRelu(r) if r.dims() != x.dims() => {
                return Err(KernelError::Shape { op, shapes: vec![x.dims().to_vec(), r.dims().to_vec()] }.wrap());
            }
            After::AddRelu(r) => Some(Input::of(r)?),
            After::Nothing | After::Relu => None,
        };
        Ok(Self { input: Input::of(x)?, residual, rectify: !matches!(after, After::Nothing) })
    }

    fn inputs(&self) -> Vec<&Input> {
        std::iter::once(&self.input).chain(&self.residual).collect()
    }

    fn output(&self, s: &Shape, lines: &[[f32; 2]]) -> Result<Vec<f32>> {
        read(&self.input.data, |x| match &self.residual {
            Some(r) => read(&r.data, |r| apply(s, x, Some(r), lines, true)),
            None => Ok(apply(s, x, None, lines, self.rectify)),
        })?
    }
}

/// Candle's own operations, for other devices and types.
fn finish(y: Tensor, after: After<'_>) -> Result<Tensor> {
    match after {
        After::Nothing => Ok(y),
        After::Relu => y.relu(),
        After::AddRelu(r) => (y + r)?.relu(),
    }
}

fn per_channel(v: &Tensor) -> Result<Tensor> {
    v.reshape((1, v.elem_count(), 1, 1))
}

/// Batch normalization of a training step: (x − mean) / √(variance + eps) · gamma + beta with the statistics of this batch,
/// then what `after` says.
///
/// # Shapes
/// `x` `[B, C, H, W]`, `gamma` and `beta` `[C]`, a residual as `x`.
///
/// # Paper
/// Ioffe and Szegedy, "Batch Normalization", 2015, algorithm 1.
pub fn batch_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64, after: After<'_>) -> Result<BatchNorm> {
    let shape = Shape::of("batch_norm", x, &[gamma, beta])?;
    let count = shape.batch * shape.map;
    let others = if let After::AddRelu(r) = after { r } else { x };
    if !supported(&[x, gamma, beta, others]) {
        let mean = x.mean_keepdim((0, 2, 3))?;
        let centered = x.broadcast_sub(&mean)?;
        let variance = centered.sqr()?.mean_keepdim((0, 2, 3))?;
        let y = centered.broadcast_div(&(&variance + eps)?.sqrt()?)?;
        let y = y.broadcast_mul(&per_channel(gamma)?)?.broadcast_add(&per_channel(beta)?)?;
        let flat = |t: Tensor| t.detach().flatten_all();
        return Ok(BatchNorm { output: finish(y, after)?, mean: flat(mean)?, variance: flat(variance)?, count });
    }
    let call = Call::of("batch_norm", x, after)?;
    let (gamma, beta) = (gamma.contiguous()?, beta.contiguous()?);
    let moments = read(&call.input.data, |x| statistics(&shape, x))?;
    let inverse: Vec<f64> = moments.iter().map(|[_, variance]| (variance + eps).sqrt().recip()).collect();
    let lines: Vec<[f32; 2]> = read(&gamma, |gamma| {
        read(&beta, |beta| {
            let channels = moments.iter().zip(&inverse).zip(gamma.iter().zip(beta));
            channels
                .map(|(([mean, _], inverse), (gamma, beta))| {
                    let scale = f64::from(*gamma) * inverse;
                    [scale as f32, (f64::from(*beta) - mean * scale) as f32]
                })
                .collect()
        })
    })??;
    let y = call.output(&shape, &lines)?;
    let column = |i: usize| Tensor::from_vec(moments.iter().map(|m| m[i] as f32).collect(), shape.channels, &Device::Cpu);
    let (mean, variance) = (column(0)?, column(1)?);
    let output = record(y, x.shape(), &call.inputs(), [Some(&gamma), Some(&beta)], || BatchBackward {
        shape,
        x: call.input.data.clone(),
        slot: call.input.slot(),
        has_residual: call.residual.is_some(),
        residual: call.residual.as_ref().and_then(Input::slot),
        mask_from: if call.rectify && call.residual.is_none() { Some(lines) } else { None },
        means: moments.iter().map(|m| m[0]).collect(),
        inverse,
    })?;
    Ok(BatchNorm { output, mean, variance, count })
}

struct BatchBackward {
    shape: Shape,
    x: Tensor,
    slot: Option<Arc<GradSlot>>,
    /// Is the residual sum fused?
    has_residual: bool,
    /// There if the residual's gradient is wanted.
    residual: Option<Arc<GradSlot>>,
    /// There if rectified without residual: scale and shift, to see again which outputs were positive.
    mask_from: Option<Vec<[f32; 2]>>,
    means: Vec<f64>,
    inverse: Vec<f64>,
}

impl Backward for BatchBackward {
    fn name(&self) -> &'static str {
        "batch_norm"
    }
    fn keeps_output(&self) -> bool {
        self.has_residual
    }
    fn backward(&self, mut gradient: Vec<f32>, saved: Saved<'_>) -> Result<[Option<Tensor>; 2]> {
        let [Some(gamma), Some(_)] = saved.parameters else { return Err(KernelError::NoGradient { op: "batch_norm" }.wrap()) };
        let s = &self.shape;
        let centers: Vec<f32> = self.means.iter().map(|&m| m as f32).collect();
        let lines = self.mask_from.as_deref();
        let output = saved.output.filter(|_| self.has_residual);
        let mut sums = read(&self.x, |x| match output {
            Some(y) => read(y, |y| mask_and_reduce(s, &mut gradient, y, x, &centers)),
            None if self.has_residual => Err(KernelError::NoGradient { op: "batch_norm" }.wrap()),
            None => Ok(reduce(s, &gradient, x, &centers, lines)),
        })??;
        // The centers are the means rounded; put back the rest, then both sums are exact in what follows.
        for ((sum, mean), center) in sums.iter_mut().zip(&self.means).zip(&centers) {
            sum[1] += sum[0] * (f64::from(*center) - mean);
        }
        if let Some(slot) = &self.slot {
            let n = (s.batch * s.map) as f64;
            let coefficients: Vec<[f32; 3]> = read(gamma, |gamma| {
                let channels = sums.iter().zip(&self.inverse).zip(gamma).zip(self.means.iter().zip(&centers));
                channels
                    .map(|((([g, gx], inverse), gamma), (mean, center))| {
                        let a = f64::from(*gamma) * inverse;
                        let b = -a * inverse * inverse * gx / n;
                        [a as f32, b as f32, (-a * g / n + b * (f64::from(*center) - mean)) as f32]
                    })
                    .collect()
            })?;
            // The residual gets the gradient as it is, the input a new one.
            let of_input = read(&self.x, |x| {
                if self.residual.is_some() {
                    write(s, &gradient, x, &centers, &coefficients)
                } else {
                    rewrite(s, &mut gradient, x, &centers, lines, &coefficients);
                    std::mem::take(&mut gradient)
                }
            })?;
            slot.add(of_input);
        }
        if let Some(slot) = &self.residual {
            slot.add(gradient);
        }
        let of_gamma: Vec<f32> = sums.iter().zip(&self.inverse).map(|([_, gx], inverse)| (gx * inverse) as f32).collect();
        let of_beta: Vec<f32> = sums.iter().map(|[g, _]| *g as f32).collect();
        Ok([
            Some(Tensor::from_vec(of_gamma, s.channels, &Device::Cpu)?),
            Some(Tensor::from_vec(of_beta, s.channels, &Device::Cpu)?),
        ])
    }
}

/// y = x · scale + shift per channel, then what `after` says: batch norm with running statistics, with scale = gamma /
/// √(variance + eps) and shift = beta − mean · scale (see [`batch_norm_eval`]).
///
/// # Shapes
/// `x` `[B, C, H, W]`, `scale` and `shift` `[C]`, a residual as `x`.
pub fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor, after: After<'_>) -> Result<Tensor> {
    let shape = Shape::of("scale_shift", x, &[scale, shift])?;
    let others = if let After::AddRelu(r) = after { r } else { x };
    if !supported(&[x, scale, shift, others]) {
        return finish(x.broadcast_mul(&per_channel(scale)?)?.broadcast_add(&per_channel(shift)?)?, after);
    }
    let call = Call::of("scale_shift", x, after)?;
    let (scale, shift) = (scale.contiguous()?, shift.contiguous()?);
    let lines: Vec<[f32; 2]> =
        read(&scale, |scale| read(&shift, |shift| scale.iter().zip(shift).map(|(a, b)| [*a, *b]).collect()))??;
    let y = call.output(&shape, &lines)?;
    let train = scale.track_op() || shift.track_op();
    record(y, x.shape(), &call.inputs(), [Some(&scale), Some(&shift)], || ScaleBackward {
        shape,
        x: call.input.data.clone(),
        slot: call.input.slot(),
        residual: call.residual.as_ref().and_then(Input::slot),
        rectify: call.rectify,
        lines,
        train,
    })
}

/// Batch normalization with given statistics: what a network does when it is not training.
///
/// # Shapes
/// `x` `[B, C, H, W]`, the others `[C]`.
pub fn batch_norm_eval(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    eps: f64,
    after: After<'_>,
) -> Result<Tensor> {
    let scale = (gamma / (variance + eps)?.sqrt()?)?;
    let shift = (beta - (mean * &scale)?)?;
    scale_shift(x, &scale, &shift, after)
}

struct ScaleBackward {
    shape: Shape,
    x: Tensor,
    slot: Option<Arc<GradSlot>>,
    /// There if a residual is fused and its gradient is wanted.
    residual: Option<Arc<GradSlot>>,
    rectify: bool,
    lines: Vec<[f32; 2]>,
    train: bool,
}

impl Backward for ScaleBackward {
    fn name(&self) -> &'static str {
        "scale_shift"
    }
    fn keeps_output(&self) -> bool {
        self.rectify
    }
    fn backward(&self, mut gradient: Vec<f32>, saved: Saved<'_>) -> Result<[Option<Tensor>; 2]> {
        let s = &self.shape;
        if self.rectify {
            let output = saved.output.ok_or_else(|| KernelError::NoGradient { op: "scale_shift" }.wrap())?;
            read(output, |y| mask(&mut gradient, y))?;
        }
        if let Some(slot) = &self.residual {
            slot.add(copy(&gradient));
        }
        let zeros = vec![0.0; s.channels];
        let gradients = if self.train {
            let sums = read(&self.x, |x| reduce(s, &gradient, x, &zeros, None))?;
            let column = |i: usize| Tensor::from_vec(sums.iter().map(|m| m[i] as f32).collect(), s.channels, &Device::Cpu);
            [Some(column(1)?), Some(column(0)?)]
        } else {
            [None, None]
        };
        if let Some(slot) = &self.slot {
            let lines: Vec<[f32; 2]> = self.lines.iter().map(|[scale, _]| [*scale, 0.0]).collect();
            gradient.par_chunks_mut(s.chunk()).for_each(|g| multiply(g, s.map, &lines));
            slot.add(gradient);
        }
        Ok(gradients)
    }
}

vectorized! {
    fn multiply(g: &mut [f32], map: usize, lines: &[[f32; 2]]) {
        for g in g.chunks_exact_mut(map * lines.len()) {
            for (g, &[scale, _]) in g.chunks_exact_mut(map).zip(lines) {
                for g in g {
                    *g *= scale;
                }
            }
        }
    }
}

/// Rows of unit length: x / max(‖x‖, 1e-12), as PyTorch's `normalize`.
///
/// # Shapes
/// [B, D] → [B, D].
pub fn l2_normalize(x: &Tensor) -> Result<Tensor> {
    let &[_, width] = x.dims() else {
        return Err(KernelError::Shape { op: "l2_normalize", shapes: vec![x.dims().to_vec()] }.wrap());
    };
    if !supported(&[x]) || width == 0 {
        let norm = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        // The gradient of the root at zero is infinite; below the floor the norm is a constant.
        let small = norm.le(FLOOR)?;
        let safe = x.where_small(&small)?;
        return x.broadcast_div(&safe);
    }
    let input = Input::of(x)?;
    let (y, norms) = read(&input.data, |x| {
        let mut y = room(None, x.len());
        let norms: Vec<f64> = y
            .par_chunks_mut(width)
            .zip(x.par_chunks(width))
            .map(|(y, x)| {
                let norm = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt().max(FLOOR);
                for (y, x) in y.iter_mut().zip(x) {
                    y.write((f64::from(*x) / norm) as f32);
                }
                norm
            })
            .collect();
        // SAFETY: each row was just written.
        (unsafe { written(y) }, norms)
    })?;
    record(y, x.shape(), &[&input], [None, None], || UnitBackward { width, norms, slot: input.slot() })
}

/// Shortest length that is divided by.
const FLOOR: f64 = 1e-12;

/// Candle's part of [`l2_normalize`].
trait WhereSmall {
    /// The norm of each row, or the floor where `small`; with a gradient that is zero there, not NaN.
    fn where_small(&self, small: &Tensor) -> Result<Tensor>;
}

impl WhereSmall for Tensor {
    fn where_small(&self, small: &Tensor) -> Result<Tensor> {
        let squares = self.sqr()?.sum_keepdim(D::Minus1)?;
        let floor = Tensor::full(FLOOR, squares.shape(), squares.device())?.to_dtype(squares.dtype())?;
        let ones = squares.ones_like()?;
        small.where_cond(&floor, &small.where_cond(&ones, &squares)?.sqrt()?)
    }
}

struct UnitBackward {
    width: usize,
    norms: Vec<f64>,
    slot: Option<Arc<GradSlot>>,
}

impl Backward for UnitBackward {
    fn name(&self) -> &'static str {
        "l2_normalize"
    }
    fn keeps_output(&self) -> bool {
        true
    }
    /// dx = (dy − y ⟨y, dy⟩) / ‖x‖; below the floor the length is a constant and dx = dy / floor.
    fn backward(&self, mut gradient: Vec<f32>, saved: Saved<'_>) -> Result<[Option<Tensor>; 2]> {
        let output = saved.output.ok_or_else(|| KernelError::NoGradient { op: "l2_normalize" }.wrap())?;
        if let Some(slot) = &self.slot {
            read(output, |y| {
                gradient.par_chunks_mut(self.width).zip(y.par_chunks(self.width)).zip(&self.norms).for_each(
                    |((g, y), &norm)| {
                        let along = if norm > FLOOR {
                            g.iter().zip(y).map(|(g, y)| f64::from(*g) * f64::from(*y)).sum::<f64>()
                        } else {
                            0.0
                        };
                        for (g, y) in g.iter_mut().zip(y) {
                            *g = ((f64::from(*g) - f64::from(*y) * along) / norm) as f32;
                        }
                    },
                );
            })?;
            slot.add(gradient);
        }
        Ok([None, None])
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{agrees_with_differences, distance, doubles, floats, normal, run, same_bits};
    use super::*;

    fn inputs(dims: &[usize]) -> Vec<Tensor> {
        let c = &dims[1..2];
        vec![normal("x", dims), normal("gamma", c), normal("beta", c), normal("residual", dims)]
    }

    #[test]
    fn batch_norm_agrees_with_differences() {
        for dims in [[4, 3, 5, 5], [2, 1, 1, 1], [1, 4, 3, 7], [5, 5, 5, 5], [3, 2, 17, 16]] {
            let inputs = inputs(&dims);
            let norm = |t: &[Tensor], after: After<'_>| Ok(batch_norm(&t[0], &t[1], &t[2], 1e-3, after)?.output);
            agrees_with_differences("nothing", &|t| norm(t, After::Nothing), &inputs[..3]);
            agrees_with_differences("relu", &|t| norm(t, After::Relu), &inputs[..3]);
            agrees_with_differences("add relu", &|t| norm(t, After::AddRelu(&t[3])), &inputs);
        }
    }

    #[test]
    fn what_needs_no_gradient_changes_none_of_the_others() {
        let inputs = inputs(&[3, 5, 7, 6]);
        let with = |t: &[Tensor], x: &Tensor, r: &Tensor| Ok(batch_norm(x, &t[0], &t[1], 1e-3, After::AddRelu(r))?.output);
        let (_, all) = run(&|t| with(&t[1..], &t[0], &t[3]), &inputs);
        let (_, no_residual) = run(&|t| with(&t[1..], &t[0], &inputs[3]), &inputs[..3]);
        let (_, no_input) = run(&|t| with(t, &inputs[0], &t[2]), &inputs[1..]);
        for (which, (all, part)) in all[..3].iter().zip(&no_residual).chain(all[1..].iter().zip(&no_input)).enumerate() {
            assert_eq!(floats(all), floats(part), "gradient {which}");
        }
    }

    #[test]
    fn given_statistics_agree_with_differences() {
        for dims in [[4, 3, 5, 5], [1, 1, 1, 1], [3, 2, 17, 16]] {
            let mut inputs = inputs(&dims);
            let scale = |t: &[Tensor], after: After<'_>| scale_shift(&t[0], &t[1], &t[2], after);
            agrees_with_differences("nothing", &|t| scale(t, After::Nothing), &inputs[..3]);
            agrees_with_differences("relu", &|t| scale(t, After::Relu), &inputs[..3]);
            agrees_with_differences("add relu", &|t| scale(t, After::AddRelu(&t[3])), &inputs);
            inputs[3] = normal("mean", &dims[1..2]);
            inputs.push(normal("variance", &dims[1..2]).sqr().unwrap());
            agrees_with_differences("eval", &|t| batch_norm_eval(&t[0], &t[1], &t[2], &t[3], &t[4], 0.1, After::Relu), &inputs);
        }
    }

    #[test]
    fn statistics_survive_a_mean_much_larger_than_the_spread() {
        let x = (normal("x", &[8, 2, 9, 9]) + 10_000.0).unwrap();
        let (one, zero) =
            (Tensor::ones(2, candle_core::DType::F32, &Device::Cpu).unwrap(), normal("zero", &[2]).zeros_like().unwrap());
        let got = batch_norm(&x, &one, &zero, 1e-5, After::Nothing).unwrap();
        let wide = x.to_dtype(candle_core::DType::F64).unwrap();
        let mean = wide.mean_keepdim((0, 2, 3)).unwrap();
        let variance = wide.broadcast_sub(&mean).unwrap().sqr().unwrap().mean_keepdim((0, 2, 3)).unwrap();
        assert!(distance(&doubles(&got.mean), &doubles(&mean)) < 1e-7);
        assert!(distance(&doubles(&got.variance), &doubles(&variance)) < 1e-6);
        assert_eq!(got.count, 8 * 81);
    }

    #[test]
    fn a_constant_channel_becomes_beta() {
        let x = Tensor::full(3.5f32, (4, 1, 2, 2), &Device::Cpu).unwrap();
        let (gamma, beta) = (normal("gamma", &[1]), normal("beta", &[1]));
        let got = batch_norm(&x, &gamma, &beta, 1e-5, After::Nothing).unwrap();
        assert_eq!(doubles(&got.variance), [0.0]);
        let beta = doubles(&beta)[0];
        assert!(doubles(&got.output).iter().all(|y| (y - beta).abs() < 1e-4));
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let inputs = inputs(&[37, 16, 14, 14]);
        same_bits("relu", &|t| Ok(batch_norm(&t[0], &t[1], &t[2], 1e-5, After::Relu)?.output), &inputs[..3]);
        same_bits("add relu", &|t| Ok(batch_norm(&t[0], &t[1], &t[2], 1e-5, After::AddRelu(&t[3]))?.output), &inputs);
        same_bits("eval", &|t| scale_shift(&t[0], &t[1], &t[2], After::AddRelu(&t[3])), &inputs);
        same_bits("l2", &|t| l2_normalize(&t[0].flatten_from(1)?), &inputs[..1]);
    }

    #[test]
    fn rows_get_unit_length_and_the_gradient_of_differences() {
        agrees_with_differences("l2", &|t| l2_normalize(&t[0]), &[normal("x", &[7, 13])]);
        agrees_with_differences("l2 narrow", &|t| l2_normalize(&t[0]), &[normal("x", &[5, 1])]);
        let y = floats(&l2_normalize(&normal("x", &[6, 128])).unwrap());
        for row in y.chunks_exact(128) {
            assert!((row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_zero_row_stays_zero_and_its_gradient_is_finite() {
        let x = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let (y, gradients) = run(&|t| l2_normalize(&t[0]), std::slice::from_ref(&x));
        assert_eq!(floats(&y), [0.0; 6]);
        assert!(floats(&gradients[0]).iter().all(|g| g.is_finite()));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let t = inputs(&[2, 3, 4, 4]);
        assert!(batch_norm(&t[0], &normal("g", &[4]), &t[2], 1e-5, After::Nothing).is_err());
        assert!(batch_norm(&t[0], &t[1], &t[2], 1e-5, After::AddRelu(&normal("r", &[2, 3, 4, 5]))).is_err());
        assert!(l2_normalize(&t[0]).is_err());
    }
}
