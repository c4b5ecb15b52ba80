//! The functions of cuDNN that are called, and its numbers.

use super::error::{GpuError, Result};
use super::library::table;

table! {
    /// `libcudnn.so.9`.
    Cudnn {
        fn cudnnCreate(handle: *mut usize);
        fn cudnnDestroy(handle: usize);
        fn cudnnSetStream(handle: usize, stream: usize);
        fn cudnnCreateTensorDescriptor(descriptor: *mut usize);
        fn cudnnDestroyTensorDescriptor(descriptor: usize);
        fn cudnnSetTensor4dDescriptor(descriptor: usize, format: i32, kind: i32, n: i32, c: i32, h: i32, w: i32);
        fn cudnnCreateFilterDescriptor(descriptor: *mut usize);
        fn cudnnDestroyFilterDescriptor(descriptor: usize);
        fn cudnnSetFilter4dDescriptor(descriptor: usize, kind: i32, format: i32, k: i32, c: i32, h: i32, w: i32);
        fn cudnnCreateConvolutionDescriptor(descriptor: *mut usize);
        fn cudnnDestroyConvolutionDescriptor(descriptor: usize);
        fn cudnnSetConvolution2dDescriptor(
            descriptor: usize, padding_h: i32, padding_w: i32, stride_h: i32, stride_w: i32, dilation_h: i32,
            dilation_w: i32, mode: i32, compute: i32,
        );
        fn cudnnSetConvolutionMathType(descriptor: usize, math: i32);
        fn cudnnGetConvolutionForwardAlgorithm_v7(
            handle: usize, x: usize, w: usize, convolution: usize, y: usize, asked: i32, found: *mut i32,
            results: *mut Algorithm,
        );
        fn cudnnGetConvolutionBackwardDataAlgorithm_v7(
            handle: usize, w: usize, y: usize, convolution: usize, x: usize, asked: i32, found: *mut i32,
            results: *mut Algorithm,
        );
        fn cudnnGetConvolutionBackwardFilterAlgorithm_v7(
            handle: usize, x: usize, y: usize, convolution: usize, w: usize, asked: i32, found: *mut i32,
            results: *mut Algorithm,
        );
        fn cudnnGetConvolutionForwardWorkspaceSize(
            handle: usize, x: usize, w: usize, convolution: usize, y: usize, algorithm: i32, bytes: *mut usize,
        );
        fn cudnnGetConvolutionBackwardDataWorkspaceSize(
            handle: usize, w: usize, y: usize, convolution: usize, x: usize, algorithm: i32, bytes: *mut usize,
        );
        fn cudnnGetConvolutionBackwardFilterWorkspaceSize(
            handle: usize, x: usize, y: usize, convolution: usize, w: usize, algorithm: i32, bytes: *mut usize,
        );
        fn cudnnConvolutionForward(
            handle: usize, alpha: *const f32, x: usize, x_at: u64, w: usize, w_at: u64, convolution: usize,
            algorithm: i32, workspace: u64, bytes: usize, beta: *const f32, y: usize, y_at: u64,
        );
        fn cudnnConvolutionBackwardData(
            handle: usize, alpha: *const f32, w: usize, w_at: u64, y: usize, y_at: u64, convolution: usize,
            algorithm: i32, workspace: u64, bytes: usize, beta: *const f32, x: usize, x_at: u64,
        );
        fn cudnnConvolutionBackwardFilter(
            handle: usize, alpha: *const f32, x: usize, x_at: u64, y: usize, y_at: u64, convolution: usize,
            algorithm: i32, workspace: u64, bytes: usize, beta: *const f32, w: usize, w_at: u64,
        );
    }
}

/// What a function's status says.
pub(crate) fn done(call: &'static str, code: i32) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(GpuError::Call { call, code, reason: "cuDNN refused".into() }) }
}

/// What cuDNN says of an algorithm (`cudnnConvolutionFwdAlgoPerf_t` and its likes, which are laid out alike).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Algorithm {
    pub(crate) number: i32,
    pub(crate) status: i32,
    _time: f32,
    _memory: usize,
    /// 1 if equal inputs give equal bytes.
    pub(crate) reproducible: i32,
    _math: i32,
    _reserved: [i32; 3],
}

/// `CUDNN_TENSOR_NHWC`.
pub(crate) const NHWC: i32 = 1;
/// `CUDNN_DATA_FLOAT`.
pub(crate) const FLOAT: i32 = 0;
/// `CUDNN_CROSS_CORRELATION`: the kernel is not flipped.
pub(crate) const CROSS_CORRELATION: i32 = 1;
/// `CUDNN_FMA_MATH`: no products of shortened numbers (TF32).
pub(crate) const FMA_MATH: i32 = 3;
