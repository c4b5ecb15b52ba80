//! Sizes of a convolution.

use candle_core::{Result, Tensor};

use super::super::error::KernelError;

#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) batch: usize,
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
}

impl Shape {
    pub(super) fn of(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Result<Self> {
        let wrong = || KernelError::Shape { op: "conv2d", shapes: vec![x.dims().to_vec(), w.dims().to_vec()] }.wrap();
        let (&[batch, channels, height, width], &[outputs, inputs, kernel, side]) = (x.dims(), w.dims()) else {
            return Err(wrong());
        };
        if inputs != channels
            || kernel != side
            || kernel == 0
            || stride == 0
            || batch * channels * height * width * outputs == 0
        {
            return Err(wrong());
        }
        if height + 2 * padding < kernel || width + 2 * padding < kernel {
            return Err(KernelError::Window { op: "conv2d", kernel, stride, padding, height, width }.wrap());
        }
        let out_height = (height + 2 * padding - kernel) / stride + 1;
        let out_width = (width + 2 * padding - kernel) / stride + 1;
        Ok(Self { batch, channels, height, width, outputs, kernel, stride, padding, out_height, out_width })
    }

    pub(super) fn image(&self) -> usize {
        self.channels * self.height * self.width
    }

    pub(super) fn map(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Rows of the unfolded input.
    pub(super) fn taps(&self) -> usize {
        self.channels * self.kernel * self.kernel
    }

    /// Is the unfolded input the input?
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// The convolution that gives the input's gradient from the output's, if there is one.
    pub(super) fn backwards(&self) -> Option<Self> {
        (self.stride == 1 && self.padding < self.kernel).then(|| Self {
            channels: self.outputs,
            outputs: self.channels,
            height: self.out_height,
            width: self.out_width,
            out_height: self.height,
            out_width: self.width,
            padding: self.kernel - 1 - self.padding,
            ..*self
        })
    }
}
