//! Recipes: which transforms, in which order, how strong. Every number is a setting with a name, its default and where that
//! comes from.
//!
//! All recipes end alike: values 0–1, normalized with the encoder's mean and deviation. Gray pictures take part in all of them;
//! saturation, hue and gray do nothing to them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::instance::Instance;
use super::randaugment::RandAugment;
use kinset_stage::{Complaint, Limit, Settings};

/// What happens to a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Recipe {
    /// Nothing random: resize, center crop.
    Plain(Plain),
    /// Random resized crop and flip.
    Standard(Standard),
    /// Random resized crop, flip, color jitter, gray.
    Simclr(Simclr),
    /// Flip, random crop, operations out of a list, cutout.
    Strong(Strong),
    /// Random resized crop, flip, different operations out of a list at one level, a gray square.
    #[serde(rename = "randaugment")]
    RandAugment(RandAugment),
    /// An older random resized crop, color jitter always, gray; no flip.
    Instance(Instance),
}

impl Default for Recipe {
    fn default() -> Self {
        Self::Plain(Plain::default())
    }
}

kinset_stage::settings! {
    /// For evaluation and features: the center of the picture. The `val` transform of all papers here.
    #[derive(PartialEq)]
    pub struct Plain {
        /// Pixels of the shorter side before the center is cut. Absent: the size of a view, which leaves pictures of that size
        /// as they are (CIFAR, STL). SCAN's ImageNet reader: 256 for views of 224.
        resize: Option<usize> = None, within 1..=16_384;
    }
}

kinset_stage::settings! {
    /// Random resized crop and horizontal flip. SCAN's `standard`, which no shipped configuration uses; RUC's weak views with
    /// `crop_scale = [0.2, 1.0]`.
    #[derive(PartialEq)]
    pub struct Standard {
        /// Pixels of the shorter side before all else. Absent: pictures are taken as they are.
        resize: Option<usize> = None, within 1..=16_384;
        /// Share of the picture that is cut out, uniform. torchvision's default: 0.08–1.
        crop_scale: [f64; 2] = [0.08, 1.0], rising 1e-4..=1.0;
        /// Width over height of what is cut out, log-uniform. torchvision's default: 3/4–4/3.
        crop_ratio: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0], rising 0.01..=100.0;
        /// Chance of a horizontal flip. SCAN: 0.5.
        flip: f64 = 0.5, within 0..=1;
    }
}

kinset_stage::settings! {
    /// The views of SimCLR (Chen et al. 2020) as SCAN, NNM and their kin run it: no blur. The extras at the end are not theirs;
    /// they are off by default, and help small gray pictures, which color jitter hardly touches.
    #[derive(PartialEq)]
    pub struct Simclr {
        /// Pixels of the shorter side before all else. Absent: pictures are taken as they are. SCAN's ImageNet reader: 256.
        resize: Option<usize> = None, within 1..=16_384;
        /// Share of the picture that is cut out, uniform. SCAN: 0.2–1 (SimCLR's own: 0.08–1).
        crop_scale: [f64; 2] = [0.2, 1.0], rising 1e-4..=1.0;
        /// Width over height of what is cut out, log-uniform. torchvision's default: 3/4–4/3.
        crop_ratio: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0], rising 0.01..=100.0;
        /// Chance of a horizontal flip. SCAN: 0.5.
        flip: f64 = 0.5, within 0..=1;
        /// Chance of color jitter: the four changes below in random order. SCAN: 0.8.
        jitter: f64 = 0.8, within 0..=1;
        /// Brightness is multiplied by 1 ± this, uniform. SCAN: 0.4.
        brightness: f64 = 0.4, within 0..=10;
        /// Contrast is multiplied by 1 ± this, uniform. SCAN: 0.4.
        contrast: f64 = 0.4, within 0..=10;
        /// Saturation is multiplied by 1 ± this, uniform. SCAN: 0.4.
        saturation: f64 = 0.4, within 0..=10;
        /// Hue turns by ± this share of the circle, uniform. SCAN: 0.1.
        hue: f64 = 0.1, within 0.0..=0.5;
        /// Chance that all color goes. SCAN: 0.2.
        gray: f64 = 0.2, within 0..=1;
        /// Extra: degrees of rotation either way, uniform; black corners. 0: off.
        rotate: f64 = 0.0, within 0..=180;
        /// Extra: pixels of movement either way and along both axes, uniform; black borders – a random crop after padding. 0:
        /// off.
        shift: usize = 0, within 0..=1024;
        /// Extra: chance of a Gaussian blur, the last change. 0: off. SimCLR on ImageNet: 0.5.
        blur: f64 = 0.0, within 0..=1;
        /// Deviation of the blur in pixels, uniform. SimCLR on ImageNet: 0.1–2.
        blur_sigma: [f64; 2] = [0.1, 2.0], rising 0.01..=32.0;
    }
}

impl From<&Standard> for Simclr {
    /// The same without color.
    fn from(standard: &Standard) -> Self {
        Self {
            resize: standard.resize,
            crop_scale: standard.crop_scale,
            crop_ratio: standard.crop_ratio,
            flip: standard.flip,
            jitter: 0.0,
            gray: 0.0,
            ..Self::default()
        }
    }
}

kinset_stage::settings! {
    /// The strong views of SCAN's clustering and self-labeling stages (`ours` there; the list is in [`super::strong`]).
    #[derive(PartialEq)]
    pub struct Strong {
        /// Pixels of the shorter side before the random crop. Absent: the size of a view, which leaves square pictures of that
        /// size uncut (CIFAR, STL). SCAN's ImageNet reader: 256 for views of 224.
        resize: Option<usize> = None, within 1..=16_384;
        /// Chance of a horizontal flip. SCAN: 0.5.
        flip: f64 = 0.5, within 0..=1;
        /// Operations per view, drawn with replacement. SCAN: 4.
        operations: usize = 4, within 0..=64;
        /// Degrees of rotation either way. SCAN: 30.
        rotate: f64 = 30.0, within 0..=180;
        /// Shear either way, as a share. SCAN: 0.1.
        shear: f64 = 0.1, within 0..=2;
        /// Movement either way, as a share of width or height. SCAN: 0.1.
        translate: f64 = 0.1, within 0..=1;
        /// Factor of color, contrast, brightness and sharpness. SCAN: 0.05–0.95.
        enhance: [f64; 2] = [0.05, 0.95], rising 0..=10;
        /// Threshold from which values are inverted. SCAN: 0–256.
        solarize: [f64; 2] = [0.0, 256.0], rising 0..=256;
        /// Bits that stay, truncated. SCAN: 4–8, that is 4, 5, 6 or 7.
        posterize: [f64; 2] = [4.0, 8.0], rising 0..=8;
        /// Longest side of the square that is erased at the end, in pixels; 0: none. SCAN: 16 for CIFAR, 32 for STL, 75 for
        /// ImageNet.
        cutout: usize = 16, within 0..=16_384;
        /// Squares that are erased. SCAN: 1.
        cutout_holes: usize = 1, within 0..=64;
    }
}

impl Settings for Recipe {
    fn check(&self) -> Vec<Complaint> {
        match self {
            Self::Plain(recipe) => recipe.check(),
            Self::Standard(recipe) => recipe.check(),
            Self::Simclr(recipe) => recipe.check(),
            Self::Strong(recipe) => recipe.check(),
            Self::RandAugment(recipe) => recipe.check(),
            Self::Instance(recipe) => recipe.check(),
        }
    }

    fn limits(&self) -> Vec<(String, Limit)> {
        match self {
            Self::Plain(recipe) => recipe.limits(),
            Self::Standard(recipe) => recipe.limits(),
            Self::Simclr(recipe) => recipe.limits(),
            Self::Strong(recipe) => recipe.limits(),
            Self::RandAugment(recipe) => recipe.limits(),
            Self::Instance(recipe) => recipe.limits(),
        }
    }
}

impl Recipe {
    /// Whether two views of a picture may differ.
    pub fn is_random(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Pixels of the shorter side before all else, if that is fixed.
    pub fn resize(&self) -> Option<usize> {
        match self {
            Self::Plain(recipe) => recipe.resize,
            Self::Standard(recipe) => recipe.resize,
            Self::Simclr(recipe) => recipe.resize,
            Self::Strong(recipe) => recipe.resize,
            Self::RandAugment(recipe) => recipe.resize,
            Self::Instance(recipe) => recipe.resize,
        }
    }
}

impl From<Plain> for Recipe {
    fn from(recipe: Plain) -> Self {
        Self::Plain(recipe)
    }
}

impl From<Standard> for Recipe {
    fn from(recipe: Standard) -> Self {
        Self::Standard(recipe)
    }
}

impl From<Simclr> for Recipe {
    fn from(recipe: Simclr) -> Self {
        Self::Simclr(recipe)
    }
}

impl From<Strong> for Recipe {
    fn from(recipe: Strong) -> Self {
        Self::Strong(recipe)
    }
}

impl From<RandAugment> for Recipe {
    fn from(recipe: RandAugment) -> Self {
        Self::RandAugment(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range() {
        for recipe in [
            Plain::default().into(),
            Standard::default().into(),
            Simclr::default().into(),
            Strong::default().into(),
            RandAugment::default().into(),
        ] {
            let recipe: Recipe = recipe;
            assert_eq!(recipe.check(), [], "{recipe:?}");
        }
    }

    #[test]
    fn every_field_out_of_range_is_named() {
        let wrong = Simclr {
            resize: Some(0),
            crop_scale: [0.5, 0.2],
            crop_ratio: [0.0, 1.0],
            flip: 1.5,
            jitter: -0.1,
            brightness: f64::NAN,
            contrast: -1.0,
            saturation: f64::INFINITY,
            hue: 0.6,
            gray: 2.0,
            rotate: 200.0,
            shift: 5000,
            blur: 2.0,
            blur_sigma: [0.0, 1.0],
        };
        let fields: Vec<_> = wrong.check().into_iter().map(|complaint| complaint.path).collect();
        let all = [
            "resize",
            "crop_scale",
            "crop_ratio",
            "flip",
            "jitter",
            "brightness",
            "contrast",
            "saturation",
            "hue",
            "gray",
            "rotate",
            "shift",
            "blur",
            "blur_sigma",
        ];
        assert_eq!(fields, all);
        let message = Recipe::from(Strong { posterize: [4.0, 9.0], ..Strong::default() }).check().remove(0);
        assert_eq!(message, Complaint::new("posterize", "is [4, 9], and must rise within 0–8"));
    }

    #[test]
    fn text_names_the_recipe_and_unknown_settings_are_refused() {
        let recipe: Recipe = serde_json::from_str(r#"{"kind": "simclr", "hue": 0.2}"#).unwrap();
        assert_eq!(recipe, Simclr { hue: 0.2, ..Simclr::default() }.into());
        let back: Recipe = serde_json::from_str(&serde_json::to_string(&recipe).unwrap()).unwrap();
        assert_eq!(back, recipe);
        assert!(serde_json::from_str::<Recipe>(r#"{"kind": "simclr", "colour": 0.2}"#).is_err());
        assert!(serde_json::from_str::<Recipe>(r#"{"kind": "plain", "resize": 256, "flip": 0.5}"#).is_err());
        assert!(serde_json::from_str::<Recipe>(r#"{"kind": "weak"}"#).is_err());
    }
}
