//! The shape of a published vision transformer, and the preprocessing of its input.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose transformer it is: what lies around its blocks, and how these compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// DINOv2: layer scale, GELU, ε 1e-6; the features are the class token after the last norm.
    Dinov2,
    /// CLIP's image encoder: a norm before the blocks, "quick" GELU, ε 1e-5; the features are the projected class token.
    Clip,
}

/// The shape of a vision transformer, beside what every encoder has. Its width is that of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transformer {
    pub family: Family,
    /// Blocks, L.
    pub depth: usize,
    /// Attention heads, A.
    pub heads: usize,
    /// Side of a patch, pixels.
    pub patch: usize,
    /// Positions were learned for this many patches a side; for others they are interpolated.
    pub grid: usize,
    /// Units of the hidden layer of a block.
    pub hidden: usize,
    /// Tokens that belong to no patch (DINOv2 with registers: 4).
    pub registers: usize,
    /// Outputs of the last projection (CLIP); none: the tokens' width.
    pub output: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Pillow's `BILINEAR`.
    Bilinear,
    /// Pillow's `BICUBIC`.
    Bicubic,
}

/// What pictures go through before a published network: the shorter side to so many pixels, then the center is cut. Gray ones
/// become three equal channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// Pixels of the shorter side.
    pub shorter: usize,
    pub filter: Filter,
}

impl Resize {
    /// In words: `cut out of 256 (bicubic)`.
    pub fn told(&self) -> String {
        format!("cut out of {} ({})", self.shorter, self.filter.name())
    }
}

impl Filter {
    /// Its name in settings and in what is exported.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
        }
    }
}

impl Transformer {
    /// Numbers per image that come out of tokens of this width.
    pub fn features(&self, width: usize) -> usize {
        self.output.unwrap_or(width)
    }
}
