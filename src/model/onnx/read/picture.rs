//! The input of an encoder: pictures of a shape.

use super::file::onnx;
use crate::error::Result;
use crate::onnx::messages::{Tensor as Numbers, ValueInfo};

/// The largest side, pixels.
const LARGEST: usize = 4096;

/// The sides of an input of floating numbers; 0 where any will do.
pub(super) fn sides(input: &ValueInfo) -> Option<Vec<usize>> {
    let tensor = input.kind.as_ref()?.tensor_type.as_ref()?;
    if !matches!(tensor.elem_type, Some(Numbers::FLOAT | Numbers::FLOAT16 | Numbers::BFLOAT16 | Numbers::DOUBLE)) {
        return None;
    }
    let sides =
        tensor.shape.as_ref()?.dim.iter().map(|side| side.dim_value.and_then(|side| usize::try_from(side).ok()).unwrap_or(0));
    Some(sides.collect())
}

/// What goes in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picture {
    pub(super) channels: usize,
    pub(super) size: usize,
    /// The channels come last.
    pub(super) last: bool,
    /// It takes one at a time.
    pub(super) alone: bool,
}

impl Picture {
    pub(super) fn of(name: &str, sides: &[usize], size: Option<usize>) -> Result<Self> {
        let shown: Vec<String> = sides.iter().map(|side| if *side == 0 { "?".to_owned() } else { side.to_string() }).collect();
        let wrong = |why: &str| onnx(format!("has an input `{name}` of shape [{}]: {why}", shown.join(", ")));
        let &[batch, one, two, three] = sides else {
            return Err(wrong("an encoder takes pictures `[batch, channels, height, width]`"));
        };
        let last = matches!(three, 1 | 3) && !matches!(one, 1 | 3);
        let (channels, height, width) = if last { (three, one, two) } else { (one, two, three) };
        let channels = match channels {
            // Whoever leaves it open takes color.
            0 => 3,
            1 | 3 => channels,
            _ => return Err(wrong("pictures have 1 or 3 channels")),
        };
        if batch > 1 {
            return Err(wrong("it takes batches of one size alone: export it with a dynamic batch axis"));
        }
        let fixed = height.max(width);
        if height != width && height * width != 0 {
            return Err(wrong("kinset shows squares"));
        }
        let size = match (fixed, size) {
            (0, None) => 224,
            (0, Some(size)) => size,
            (fixed, None) => fixed,
            (fixed, Some(size)) if fixed == size => size,
            (_, Some(size)) => return Err(wrong(&format!("`size` is {size}"))),
        };
        if !(1..=LARGEST).contains(&size) {
            return Err(wrong(&format!("sides of 1 to {LARGEST} pixels are taken")));
        }
        Ok(Self { channels, size, last, alone: batch == 1 })
    }
}
