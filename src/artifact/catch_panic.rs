//! Panics of decoders as errors: whatever a damaged file makes one of them do, callers see an error.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a piece of decoding; a panic inside becomes an error in words, as if the decoder had refused.
pub(super) fn catch_decoder_panic<T, E: Display>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(text.map_or("decoder panicked".into(), |text| format!("decoder panicked: {text}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let index = std::hint::black_box(7);
        let text = catch_decoder_panic(|| Ok::<_, String>([1, 2, 3][index])).unwrap_err();
        assert!(text.contains("panicked") && text.contains("out of bounds"), "{text}");
        assert_eq!(catch_decoder_panic(|| Err::<(), _>("no")).unwrap_err(), "no");
        assert_eq!(catch_decoder_panic(|| Ok::<_, String>(3)).unwrap(), 3);
    }
}
