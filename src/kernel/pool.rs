//! Max and average pooling. Candle's max-pool gives a wrong gradient (it divides by the window, and counts ties twice) and
//! knows neither padding nor overlapping windows.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

use super::autograd::{Backward, GradSlot, Input, Saved, read, record, supported};
use super::error::KernelError;

/// The sizes of one pooling; `planes` = B · C maps.
#[derive(Clone, Copy)]
struct Shape {
    planes: usize,
    height: usize,
    width: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    out_height: usize,
    out_width: usize,
}

impl Shape {
    fn of(op: &'static str, x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Self> {
        let &[batch, channels, height, width] = x.dims() else {
            return Err(KernelError::Shape { op, shapes: vec![x.dims().to_vec()] }.wrap());
        };
        // More padding than half a window would let a window see no pixel.
        let fits = kernel > 0
            && stride > 0
            && 2 * padding <= kernel
            && height.min(width) > 0
            && height.min(width) + 2 * padding >= kernel;
        if !fits {
            return Err(KernelError::Window { op, kernel, stride, padding, height, width }.wrap());
        }
        let out = |side: usize| (side + 2 * padding - kernel) / stride + 1;
        Ok(Self {
            planes: batch * channels,
            height,
            width,
            kernel,
            stride,
            padding,
            out_height: out(height),
            out_width: out(width),
        })
    }

    /// Planes per task.
    fn chunk(&self) -> usize {
        (64 * 1024 / (self.height * self.width)).clamp(1, self.planes.max(1))
    }

    fn plane(&self) -> usize {
        self.height * self.width
    }

    fn map(&self) -> usize {
        self.out_height * self.out_width
    }

    /// The pixels that output `o` sees along an axis of length `side`.
    fn window(&self, o: usize, side: usize) -> std::ops::Range<usize> {
        (o * self.stride).saturating_sub(self.padding)..(o * self.stride + self.kernel - self.padding).min(side)
    }
}

/// The largest value of each window. The gradient goes to the first (in reading order) of equal maxima; padding never wins; NaN
/// does. As PyTorch.
///
/// # Shapes
/// [B, C, H, W] → [B, C, H', W'] with H' = ⌊(H + 2·padding − kernel) / stride⌋ + 1.
///
/// # Errors
/// Not four dimensions; a window that does not fit, or more padding than half of it.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    let s = Shape::of("max_pool2d", x, kernel, stride, padding)?;
    if !supported(&[x]) {
        return max_of_slices(x, &s);
    }
    let (batch, channels) = (x.dim(0)?, x.dim(1)?);
    let input = Input::of(x)?;
    let mut y = vec![0.0; s.planes * s.map()];
    let mut winners = vec![0u32; y.len()];
    read(&input.data, |x| {
        let tasks = y.par_chunks_mut(s.chunk() * s.map()).zip(winners.par_chunks_mut(s.chunk() * s.map()));
        tasks.zip(x.par_chunks(s.chunk() * s.plane())).for_each(|((y, winners), x)| {
            let planes = y.chunks_exact_mut(s.map()).zip(winners.chunks_exact_mut(s.map())).zip(x.chunks_exact(s.plane()));
            for ((y, winners), x) in planes {
                max_plane(&s, x, y, winners);
            }
        });
    })?;
    record(y, (batch, channels, s.out_height, s.out_width), &[&input], [None, None], || MaxBackward {
        shape: s,
        winners,
        slot: input.slot(),
    })
}

fn max_plane(s: &Shape, x: &[f32], y: &mut [f32], winners: &mut [u32]) {
    for oy in 0..s.out_height {
        for ox in 0..s.out_width {
            let (rows, columns) = (s.window(oy, s.height), s.window(ox, s.width));
            let mut winner = rows.start * s.width + columns.start;
            let mut best = x[winner];
            for row in rows {
                for (i, &v) in x[row * s.width..][columns.clone()].iter().enumerate() {
                    if v > best || v.is_nan() {
                        best = v;
                        winner = row * s.width + columns.start + i;
                    }
                }
            }
            y[oy * s.out_width + ox] = best;
            winners[oy * s.out_width + ox] = winner as u32;
        }
    }
}

/// The same through candle's operations: the running maximum over the window's shifted views. `where_cond` keeps the earlier of
/// equal values, gradient and all.
fn max_of_slices(x: &Tensor, s: &Shape) -> Result<Tensor> {
    let mut best: Option<Tensor> = None;
    for view in shifted(x, s, f64::NEG_INFINITY)? {
        best = Some(match best {
            None => view,
            Some(best) => best.ge(&view)?.where_cond(&best, &view)?,
        });
    }
    best.ok_or_else(|| KernelError::Shape { op: "max_pool2d", shapes: vec![x.dims().to_vec()] }.wrap())
}

/// One view [B, C, H', W'] per position in the window, in reading order; outside lies `border`.
fn shifted(x: &Tensor, s: &Shape, border: f64) -> Result<Vec<Tensor>> {
    let (batch, channels) = (x.dim(0)?, x.dim(1)?);
    let pad = |x: &Tensor, axis: usize, before: usize, after: usize| -> Result<Tensor> {
        let side = |n: usize| -> Result<Tensor> {
            let mut dims = x.dims().to_vec();
            dims[axis] = n;
            Tensor::full(border, dims, x.device())?.to_dtype(x.dtype())
        };
        Tensor::cat(&[side(before)?, x.clone(), side(after)?], axis)
    };
    // Long enough for `out` whole steps from any position in the window.
    let after = |out: usize, side: usize| (out * s.stride + s.kernel).saturating_sub(side + s.padding);
    let x = pad(x, 2, s.padding, after(s.out_height, s.height))?;
    let x = pad(&x, 3, s.padding, after(s.out_width, s.width))?;
    let mut views = Vec::with_capacity(s.kernel * s.kernel);
    for ky in 0..s.kernel {
        for kx in 0..s.kernel {
            let view = x.narrow(2, ky, s.out_height * s.stride)?.narrow(3, kx, s.out_width * s.stride)?.contiguous()?;
            let view = view.reshape((batch * channels, s.out_height, s.stride, s.out_width, s.stride))?;
            let view = view.narrow(2, 0, 1)?.narrow(4, 0, 1)?.contiguous()?;
            views.push(view.reshape((batch, channels, s.out_height, s.out_width))?);
        }
    }
    Ok(views)
}

struct MaxBackward {
    shape: Shape,
    winners: Vec<u32>,
    slot: Option<Arc<GradSlot>>,
}

impl Backward for MaxBackward {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }
    fn backward(&self, gradient: Vec<f32>, _: Saved<'_>) -> Result<[Option<Tensor>; 2]> {
        let Some(slot) = &self.slot else { return Ok([None, None]) };
        let s = &self.shape;
        let mut dx = vec![0.0; s.planes * s.plane()];
        let tasks = gradient.par_chunks(s.chunk() * s.map()).zip(self.winners.par_chunks(s.chunk() * s.map()));
        dx.par_chunks_mut(s.chunk() * s.plane()).zip(tasks).for_each(|(dx, (g, winners))| {
            for ((dx, g), winners) in
                dx.chunks_exact_mut(s.plane()).zip(g.chunks_exact(s.map())).zip(winners.chunks_exact(s.map()))
            {
                for (g, winner) in g.iter().zip(winners) {
                    dx[*winner as usize] += g;
                }
            }
        });
        slot.add(dx);
        Ok([None, None])
    }
}

/// The mean of each window; no padding.
///
/// # Shapes
/// [B, C, H, W] → [B, C, H', W'] with H' = ⌊(H − kernel) / stride⌋ + 1.
pub fn avg_pool2d(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let s = Shape::of("avg_pool2d", x, kernel, stride, 0)?;
    let (batch, channels) = (x.dim(0)?, x.dim(1)?);
    if !supported(&[x]) {
        let mut sum: Option<Tensor> = None;
        for view in shifted(x, &s, 0.0)? {
            sum = Some(if let Some(sum) = sum { (sum + view)? } else { view });
        }
        let sum = sum.ok_or_else(|| KernelError::Shape { op: "avg_pool2d", shapes: vec![x.dims().to_vec()] }.wrap())?;
        return sum / (kernel * kernel) as f64;
    }
    let input = Input::of(x)?;
    let mut y = vec![0.0; s.planes * s.map()];
    read(&input.data, |x| {
        y.par_chunks_mut(s.chunk() * s.map()).zip(x.par_chunks(s.chunk() * s.plane())).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(s.map()).zip(x.chunks_exact(s.plane())) {
                for (o, y) in y.iter_mut().enumerate() {
                    let (rows, columns) = (s.window(o / s.out_width, s.height), s.window(o % s.out_width, s.width));
                    let mut sum = 0.0;
                    for row in rows {
                        for v in &x[row * s.width..][columns.clone()] {
                            sum += f64::from(*v);
                        }
                    }
                    *y = (sum / (kernel * kernel) as f64) as f32;
                }
            }
        });
    })?;
    record(y, (batch, channels, s.out_height, s.out_width), &[&input], [None, None], || MeanBackward {
        shape: s,
        slot: input.slot(),
    })
}

/// The mean of each map.
///
/// # Shapes
/// [B, C, H, W] → [B, C].
///
/// # Errors
/// Not four dimensions, or empty maps.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    let &[batch, channels, height, width] = x.dims() else {
        return Err(KernelError::Shape { op: "global_avg_pool", shapes: vec![x.dims().to_vec()] }.wrap());
    };
    if !supported(&[x]) || height * width == 0 {
        return x.flatten_from(2)?.mean(D::Minus1);
    }
    let input = Input::of(x)?;
    let map = height * width;
    let mut y = vec![0.0; batch * channels];
    let planes = (64 * 1024 / map).max(1);
    read(&input.data, |x| {
        y.par_chunks_mut(planes).zip(x.par_chunks(planes * map)).for_each(|(y, x)| {
            for (y, x) in y.iter_mut().zip(x.chunks_exact(map)) {
                let mut sum = 0.0;
                for v in x {
                    sum += f64::from(*v);
                }
                *y = (sum / map as f64) as f32;
            }
        });
    })?;
    let shape =
        Shape { planes: batch * channels, height, width, kernel: 0, stride: 0, padding: 0, out_height: 1, out_width: 1 };
    record(y, (batch, channels), &[&input], [None, None], || MeanBackward { shape, slot: input.slot() })
}

struct MeanBackward {
    /// `kernel` 0 is the whole map.
    shape: Shape,
    slot: Option<Arc<GradSlot>>,
}

impl Backward for MeanBackward {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }
    fn backward(&self, gradient: Vec<f32>, _: Saved<'_>) -> Result<[Option<Tensor>; 2]> {
        let Some(slot) = &self.slot else { return Ok([None, None]) };
        let s = &self.shape;
        let mut dx = vec![0.0; s.planes * s.plane()];
        let tasks = dx.par_chunks_mut(s.chunk() * s.plane()).zip(gradient.par_chunks(s.chunk() * s.map()));
        tasks.for_each(|(dx, g)| {
            for (dx, g) in dx.chunks_exact_mut(s.plane()).zip(g.chunks_exact(s.map())) {
                if s.kernel == 0 {
                    dx.fill(g[0] / s.plane() as f32);
                    continue;
                }
                for (o, g) in g.iter().enumerate() {
                    let columns = s.window(o % s.out_width, s.width);
                    for row in s.window(o / s.out_width, s.height) {
                        for dx in &mut dx[row * s.width..][columns.clone()] {
                            *dx += g / (s.kernel * s.kernel) as f32;
                        }
                    }
                }
            }
        });
        slot.add(dx);
        Ok([None, None])
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{agrees_with_differences, doubles, floats, normal, run, same_bits};
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn pools_agree_with_differences() {
        for dims in [[2, 3, 7, 9], [1, 1, 3, 3], [4, 4, 4, 4], [3, 2, 8, 5]] {
            let x = [normal("x", &dims)];
            agrees_with_differences("max 2/2", &|t| max_pool2d(&t[0], 2, 2, 0), &x);
            agrees_with_differences("max 3/2/1", &|t| max_pool2d(&t[0], 3, 2, 1), &x);
            agrees_with_differences("max 3/1", &|t| max_pool2d(&t[0], 3, 1, 0), &x);
            agrees_with_differences("max 1/3", &|t| max_pool2d(&t[0], 1, 3, 0), &x);
            agrees_with_differences("avg 2/2", &|t| avg_pool2d(&t[0], 2, 2), &x);
            agrees_with_differences("avg 3/2", &|t| avg_pool2d(&t[0], 3, 2), &x);
            agrees_with_differences("avg 2/3", &|t| avg_pool2d(&t[0], 2, 3), &x);
            agrees_with_differences("global", &|t| global_avg_pool(&t[0]), &x);
        }
    }

    #[test]
    fn the_first_of_equal_maxima_gets_the_gradient_in_both_precisions() {
        // Two windows; the maximum 5 twice in the first, all zero in the second.
        let x = Tensor::new(&[1.0f32, 5.0, 0.0, 0.0, 5.0, 2.0, 0.0, 0.0], &Device::Cpu).unwrap().reshape((1, 1, 2, 4)).unwrap();
        let r = doubles(&normal("cotangent", &[1, 1, 1, 2]));
        let expected = [0.0, r[0], r[1], 0.0, 0.0, 0.0, 0.0, 0.0];
        for dtype in [DType::F32, DType::F64] {
            let (y, gradients) = run(&|t| max_pool2d(&t[0], 2, 2, 0), &[x.to_dtype(dtype).unwrap()]);
            assert_eq!(doubles(&y), [5.0, 0.0]);
            assert_eq!(doubles(&gradients[0]), expected);
        }
    }

    #[test]
    fn padding_never_wins_and_nan_does() {
        let x = Tensor::full(-3.0f32, (1, 1, 3, 3), &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::F64] {
            assert_eq!(doubles(&max_pool2d(&x.to_dtype(dtype).unwrap(), 3, 2, 1).unwrap()), [-3.0; 4]);
        }
        let x = Tensor::new(&[1.0f32, f32::NAN, 7.0, 2.0], &Device::Cpu).unwrap().reshape((1, 1, 2, 2)).unwrap();
        assert!(floats(&max_pool2d(&x, 2, 2, 0).unwrap())[0].is_nan());
    }

    #[test]
    fn a_window_that_does_not_fit_is_refused() {
        let x = normal("x", &[1, 1, 2, 5]);
        assert!(max_pool2d(&x, 3, 1, 0).is_err());
        assert!(max_pool2d(&x, 2, 0, 0).is_err());
        assert!(max_pool2d(&x, 2, 2, 2).is_err());
        assert!(avg_pool2d(&x, 7, 1).is_err());
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let x = [normal("x", &[19, 16, 28, 28])];
        same_bits("max", &|t| max_pool2d(&t[0], 3, 2, 1), &x);
        same_bits("avg", &|t| global_avg_pool(&avg_pool2d(&t[0], 2, 2)?), &x);
    }
}
