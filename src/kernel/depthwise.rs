//! Depthwise convolution, each channel by a window of its own, as mobile networks have it. Without gradients: networks that have it are
//! frozen.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::autograd::{read, supported};
use super::dispatch::vectorized;
use super::error::KernelError;

/// The sizes of one window's way over a map.
#[derive(Clone, Copy)]
struct Shape {
    height: usize,
    width: usize,
    kernel: usize,
    stride: usize,
    out_height: usize,
    out_width: usize,
}

vectorized! {
    /// Adds to a row of the result what one row of the window makes of a row of the (padded) map.
    fn add_row(y: &mut [f32], x: &[f32], w: &[f32], stride: usize) {
        for (k, &w) in w.iter().enumerate() {
            if stride == 1 {
                for (y, &x) in y.iter_mut().zip(&x[k..]) {
                    *y += w * x;
                }
            } else {
                for (y, &x) in y.iter_mut().zip(x[k..].iter().step_by(stride)) {
                    *y += w * x;
                }
            }
        }
    }
}

/// Cross-correlation of every channel with its window, without padding.
///
/// # Shapes
/// `x` `[B, C, H, W]`, `w` `[C, 1, k, k]` → `[B, C, H', W']` with H' = ⌊(H − k) / stride⌋ + 1.
///
/// # Errors
/// Shapes that do not fit, a window larger than the map.
pub fn depthwise_conv2d(x: &Tensor, w: &Tensor, stride: usize) -> Result<Tensor> {
    let wrong = || KernelError::Shape { op: "depthwise_conv2d", shapes: vec![x.dims().to_vec(), w.dims().to_vec()] }.wrap();
    let (&[batch, channels, height, width], &[windows, 1, kernel, across]) = (x.dims(), w.dims()) else { return Err(wrong()) };
    if windows != channels || kernel != across || kernel == 0 || stride == 0 || height.min(width) < kernel {
        return Err(wrong());
    }
    if !supported(&[x, w]) || x.track_op() || w.track_op() {
        return x.conv2d(w, 0, stride, 1, channels);
    }
    let out = |side: usize| (side - kernel) / stride + 1;
    let s = Shape { height, width, kernel, stride, out_height: out(height), out_width: out(width) };
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let mut y = vec![0.0; batch * channels * s.out_height * s.out_width];
    read(&x, |x| {
        read(&w, |w| {
            y.par_chunks_mut(s.out_height * s.out_width).enumerate().for_each(|(map, y)| {
                let plane = &x[map * s.height * s.width..][..s.height * s.width];
                let window = &w[map % channels * kernel * kernel..][..kernel * kernel];
                for (row, y) in y.chunks_exact_mut(s.out_width).enumerate() {
                    for (down, w) in window.chunks_exact(s.kernel).enumerate() {
                        add_row(y, &plane[(row * s.stride + down) * s.width..][..s.width], w, s.stride);
                    }
                }
            });
        })
    })??;
    Tensor::from_vec(y, (batch, channels, s.out_height, s.out_width), x.device())
}

#[cfg(test)]
mod tests {
    use super::super::check::normal;
    use super::*;

    #[test]
    fn it_is_what_candle_computes_by_groups() {
        for (kernel, stride, side) in [(3, 1, 9), (3, 2, 10), (5, 2, 11), (7, 1, 7), (1, 3, 8)] {
            let (x, w) = (normal("map", &[2, 6, side, side + 2]), normal("window", &[6, 1, kernel, kernel]));
            let wanted = x.conv2d(&w, 0, stride, 1, 6).unwrap();
            let found = depthwise_conv2d(&x, &w, stride).unwrap();
            assert_eq!(found.dims(), wanted.dims());
            let off = (found - wanted).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(off < 1e-5, "{kernel} {stride} {side}: {off}");
        }
        let (x, w) = (normal("map", &[1, 2, 3, 3]), normal("window", &[2, 1, 4, 4]));
        assert!(depthwise_conv2d(&x, &w, 1).is_err() && depthwise_conv2d(&x, &x, 1).is_err());
    }
}
