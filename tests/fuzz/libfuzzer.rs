//! libFuzzer at the target that this binary is named for.
#![no_main]

#[path = "targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Decoders run guarded, which catches panics of their crates: only what comes out of ours counts.
    let _ = std::panic::take_hook();
    let known = targets::TARGETS.iter().find(|(name, _)| *name == env!("CARGO_BIN_NAME"));
    known.unwrap().1(bytes);
});
