//! The functions of the driver's library that are called, and its numbers.

use super::library::table;

table! {
    /// `libcuda.so.1`, of the driver.
    Driver {
        fn cuInit(flags: u32);
        fn cuDriverGetVersion(version: *mut i32);
        fn cuDeviceGetCount(count: *mut i32);
        fn cuDeviceGet(device: *mut i32, index: i32);
        fn cuDeviceGetName(name: *mut u8, length: i32, device: i32);
        fn cuDeviceGetAttribute(value: *mut i32, attribute: i32, device: i32);
        fn cuDevicePrimaryCtxRetain(context: *mut usize, device: i32);
        fn cuDevicePrimaryCtxRelease_v2(device: i32);
        fn cuCtxSetCurrent(context: usize);
        fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
        fn cuMemAlloc_v2(address: *mut u64, bytes: usize);
        fn cuMemFree_v2(address: u64);
        fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, stream: usize);
        fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, stream: usize);
        fn cuStreamCreate(stream: *mut usize, flags: u32);
        fn cuStreamDestroy_v2(stream: usize);
        fn cuStreamSynchronize(stream: usize);
        fn cuModuleLoadData(module: *mut usize, image: *const u8);
        fn cuModuleUnload(module: usize);
        fn cuModuleGetFunction(function: *mut usize, module: usize, name: *const u8);
        fn cuLaunchKernel(
            function: usize, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
            shared: u32, stream: usize, arguments: *const *const u64, extra: usize,
        );
        fn cuGetErrorString(code: i32, text: *mut *const std::ffi::c_char);
    }
}

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `…_MINOR`.
pub(crate) const CAPABILITY: [i32; 2] = [75, 76];
/// `CU_STREAM_NON_BLOCKING`: the default stream, which nobody here uses, does not wait for it.
pub(crate) const NON_BLOCKING: u32 = 1;
/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub(crate) const OUT_OF_MEMORY: i32 = 2;
/// `CUDA_ERROR_NO_DEVICE`, which `cuInit` says too.
pub(crate) const NO_DEVICE: i32 = 100;
