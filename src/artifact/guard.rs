//! The edge to decoders: whatever a damaged file makes one of them do, the house sees an error.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a piece of decoding; a panic inside becomes an error in words, as if the decoder had refused.
pub(super) fn calmly<T, E: Display>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("the decoder gave up: {}", text.unwrap_or("it did not say why")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let index = std::hint::black_box(7);
        let text = calmly(|| Ok::<_, String>([1, 2, 3][index])).unwrap_err();
        assert!(text.contains("gave up") && text.contains("out of bounds"), "{text}");
        assert_eq!(calmly(|| Err::<(), _>("no")).unwrap_err(), "no");
        assert_eq!(calmly(|| Ok::<_, String>(3)).unwrap(), 3);
    }
}
