//! One decoded picture.

/// A decoded picture: rows from top to bottom, pixels from left to right, channels interleaved, 8 bits each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 (gray) or 3 (RGB).
    pub channels: usize,
    /// `[height, width, channels]`, 0–255.
    pub data: Vec<u8>,
}

impl Pixels {
    /// A picture from its parts.
    ///
    /// # Panics
    /// If `data` does not hold `height · width · channels` bytes.
    pub fn new(width: usize, height: usize, channels: usize, data: Vec<u8>) -> Self {
        assert_eq!(data.len(), width * height * channels, "the bytes do not fit the shape");
        Self { width, height, channels, data }
    }
}
