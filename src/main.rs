//! The program: parses the command line, runs the command, and exits with its code.

use std::process::ExitCode;

/// Steps of training ask for the same large blocks again and again; the kernel hands them back without asking the system.
#[global_allocator]
static ALLOCATOR: kinset::kernel::CachingAllocator = kinset::kernel::CachingAllocator::new();

fn main() -> ExitCode {
    kinset::kernel::keep_large_blocks_apart();
    kinset::kernel::keep_candle_on_one_thread();
    ExitCode::from(kinset::cli::main() as u8)
}
