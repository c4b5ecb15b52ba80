//! Recipes: which transforms, in which order, how strong. Every number is a setting with a name, its default and where that
//! comes from.
//!
//! All recipes end alike: values 0–1, normalised with the encoder's mean and deviation. Gray pictures take part in all of them;
//! saturation, hue and gray do nothing to them.

use serde::{Deserialize, Serialize};

use super::instance::Instance;
use super::randaugment::RandAugment;

/// What happens to a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Recipe {
    /// Nothing random: resize, centre crop.
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

/// For evaluation and features: the centre of the picture. The `val` transform of all papers here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plain {
    /// Pixels of the shorter side before the centre is cut. Absent: the size of a view, which leaves pictures of that size as they
    /// are (CIFAR, STL). SCAN's ImageNet reader: 256 for views of 224.
    pub resize: Option<usize>,
}

/// Random resized crop and horizontal flip. SCAN's `standard`, which no shipped configuration uses; RUC's weak views with
/// `crop_scale = [0.2, 1.0]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Standard {
    /// Pixels of the shorter side before all else. Absent: pictures are taken as they are.
    pub resize: Option<usize>,
    /// Share of the picture that is cut out, uniform. torchvision's default: 0.08–1.
    pub crop_scale: [f64; 2],
    /// Width over height of what is cut out, log-uniform. torchvision's default: 3/4–4/3.
    pub crop_ratio: [f64; 2],
    /// Chance of a horizontal flip. SCAN: 0.5.
    pub flip: f64,
}

impl Default for Standard {
    fn default() -> Self {
        Self { resize: None, crop_scale: [0.08, 1.0], crop_ratio: [3.0 / 4.0, 4.0 / 3.0], flip: 0.5 }
    }
}

/// The views of SimCLR (Chen et al. 2020) as SCAN, NNM and their kin run it: no blur. The extras at the end are not theirs; they
/// are off by default, and help small gray pictures, which color jitter hardly touches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Simclr {
    /// Pixels of the shorter side before all else. Absent: pictures are taken as they are. SCAN's ImageNet reader: 256.
    pub resize: Option<usize>,
    /// Share of the picture that is cut out, uniform. SCAN: 0.2–1 (SimCLR's own: 0.08–1).
    pub crop_scale: [f64; 2],
    /// Width over height of what is cut out, log-uniform. torchvision's default: 3/4–4/3.
    pub crop_ratio: [f64; 2],
    /// Chance of a horizontal flip. SCAN: 0.5.
    pub flip: f64,
    /// Chance of color jitter: the four changes below in random order. SCAN: 0.8.
    pub jitter: f64,
    /// Brightness is multiplied by 1 ± this, uniform. SCAN: 0.4.
    pub brightness: f64,
    /// Contrast is multiplied by 1 ± this, uniform. SCAN: 0.4.
    pub contrast: f64,
    /// Saturation is multiplied by 1 ± this, uniform. SCAN: 0.4.
    pub saturation: f64,
    /// Hue turns by ± this share of the circle, uniform. SCAN: 0.1.
    pub hue: f64,
    /// Chance that all color goes. SCAN: 0.2.
    pub gray: f64,
    /// Extra: degrees of rotation either way, uniform; black corners. 0: off.
    pub rotate: f64,
    /// Extra: pixels of movement either way and along both axes, uniform; black borders – a random crop after padding. 0: off.
    pub shift: usize,
    /// Extra: chance of a Gaussian blur, the last change. 0: off. SimCLR on ImageNet: 0.5.
    pub blur: f64,
    /// Deviation of the blur in pixels, uniform. SimCLR on ImageNet: 0.1–2.
    pub blur_sigma: [f64; 2],
}

impl Default for Simclr {
    fn default() -> Self {
        Self {
            resize: None,
            crop_scale: [0.2, 1.0],
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            flip: 0.5,
            jitter: 0.8,
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.4,
            hue: 0.1,
            gray: 0.2,
            rotate: 0.0,
            shift: 0,
            blur: 0.0,
            blur_sigma: [0.1, 2.0],
        }
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

/// The strong views of SCAN's clustering and self-labelling stages (`ours` there; the list is in [`super::strong`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Strong {
    /// Pixels of the shorter side before the random crop. Absent: the size of a view, which leaves square pictures of that size
    /// uncut (CIFAR, STL). SCAN's ImageNet reader: 256 for views of 224.
    pub resize: Option<usize>,
    /// Chance of a horizontal flip. SCAN: 0.5.
    pub flip: f64,
    /// Operations per view, drawn with replacement. SCAN: 4.
    pub operations: usize,
    /// Degrees of rotation either way. SCAN: 30.
    pub rotate: f64,
    /// Shear either way, as a share. SCAN: 0.1.
    pub shear: f64,
    /// Movement either way, as a share of width or height. SCAN: 0.1.
    pub translate: f64,
    /// Factor of color, contrast, brightness and sharpness. SCAN: 0.05–0.95.
    pub enhance: [f64; 2],
    /// Threshold from which values are inverted. SCAN: 0–256.
    pub solarize: [f64; 2],
    /// Bits that stay, truncated. SCAN: 4–8, that is 4, 5, 6 or 7.
    pub posterize: [f64; 2],
    /// Longest side of the square that is erased at the end, in pixels; 0: none. SCAN: 16 for CIFAR, 32 for STL, 75 for ImageNet.
    pub cutout: usize,
    /// Squares that are erased. SCAN: 1.
    pub cutout_holes: usize,
}

impl Default for Strong {
    fn default() -> Self {
        Self {
            resize: None,
            flip: 0.5,
            operations: 4,
            rotate: 30.0,
            shear: 0.1,
            translate: 0.1,
            enhance: [0.05, 0.95],
            solarize: [0.0, 256.0],
            posterize: [4.0, 8.0],
            cutout: 16,
            cutout_holes: 1,
        }
    }
}

/// What is wrong with a setting: its name, and a message that continues "`name` …".
pub type Complaint = (&'static str, String);

/// Collects what is out of range.
#[derive(Default)]
pub(super) struct Check(Vec<Complaint>);

impl Check {
    pub(super) fn into_complaints(self) -> Vec<Complaint> {
        self.0
    }

    fn number(&mut self, field: &'static str, value: f64, low: f64, high: f64) -> &mut Self {
        if !(low..=high).contains(&value) {
            self.0.push((field, format!("is `{value}`, but must lie within {low}–{high}")));
        }
        self
    }

    pub(super) fn chance(&mut self, field: &'static str, value: f64) -> &mut Self {
        self.number(field, value, 0.0, 1.0)
    }

    pub(super) fn count(&mut self, field: &'static str, value: usize, low: usize, high: usize) -> &mut Self {
        if !(low..=high).contains(&value) {
            self.0.push((field, format!("is `{value}`, but must lie within {low}–{high}")));
        }
        self
    }

    fn range(&mut self, field: &'static str, [from, to]: [f64; 2], low: f64, high: f64) -> &mut Self {
        let inside = (low..=high).contains(&from) && (low..=high).contains(&to);
        if !(inside && from <= to) {
            self.0.push((field, format!("is `[{from}, {to}]`, but must rise within {low}–{high}")));
        }
        self
    }

    pub(super) fn resize(&mut self, value: Option<usize>) -> &mut Self {
        self.count("resize", value.unwrap_or(1), 1, 16384)
    }

    pub(super) fn crop(&mut self, scale: [f64; 2], ratio: [f64; 2], flip: f64) -> &mut Self {
        self.range("crop_scale", scale, 1e-4, 1.0).range("crop_ratio", ratio, 0.01, 100.0).chance("flip", flip)
    }
}

impl Plain {
    /// All settings out of range.
    pub fn check(&self) -> Vec<Complaint> {
        let mut check = Check::default();
        check.resize(self.resize);
        check.0
    }
}

impl Standard {
    /// All settings out of range.
    pub fn check(&self) -> Vec<Complaint> {
        let mut check = Check::default();
        check.resize(self.resize).crop(self.crop_scale, self.crop_ratio, self.flip);
        check.0
    }
}

impl Simclr {
    /// All settings out of range.
    pub fn check(&self) -> Vec<Complaint> {
        let mut check = Check::default();
        check
            .resize(self.resize)
            .crop(self.crop_scale, self.crop_ratio, self.flip)
            .chance("jitter", self.jitter)
            .number("brightness", self.brightness, 0.0, 10.0)
            .number("contrast", self.contrast, 0.0, 10.0)
            .number("saturation", self.saturation, 0.0, 10.0)
            .number("hue", self.hue, 0.0, 0.5)
            .chance("gray", self.gray)
            .number("rotate", self.rotate, 0.0, 180.0)
            .count("shift", self.shift, 0, 1024)
            .chance("blur", self.blur)
            .range("blur_sigma", self.blur_sigma, 0.01, 32.0);
        check.0
    }
}

impl Strong {
    /// All settings out of range.
    pub fn check(&self) -> Vec<Complaint> {
        let mut check = Check::default();
        check
            .resize(self.resize)
            .chance("flip", self.flip)
            .count("operations", self.operations, 0, 64)
            .number("rotate", self.rotate, 0.0, 180.0)
            .number("shear", self.shear, 0.0, 2.0)
            .number("translate", self.translate, 0.0, 1.0)
            .range("enhance", self.enhance, 0.0, 10.0)
            .range("solarize", self.solarize, 0.0, 256.0)
            .range("posterize", self.posterize, 0.0, 8.0)
            .count("cutout", self.cutout, 0, 16384)
            .count("cutout_holes", self.cutout_holes, 0, 64);
        check.0
    }
}

impl Recipe {
    /// All settings out of range.
    pub fn check(&self) -> Vec<Complaint> {
        match self {
            Self::Plain(recipe) => recipe.check(),
            Self::Standard(recipe) => recipe.check(),
            Self::Simclr(recipe) => recipe.check(),
            Self::Strong(recipe) => recipe.check(),
            Self::RandAugment(recipe) => recipe.check(),
            Self::Instance(recipe) => recipe.views().check(),
        }
    }

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
        let fields: Vec<_> = wrong.check().into_iter().map(|(field, _)| field).collect();
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
        assert_eq!(message, ("posterize", "is `[4, 9]`, but must rise within 0–8".to_owned()));
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
