//! The views of instance discrimination: a random resized crop by an older law than torchvision's of today, color jitter on every
//! view, gray now and then, no flip: what AND was trained with (torchvision 0.2.2).
//!
//! The law: area uniform, width over height *uniform* (later versions: log-uniform), then a coin that swaps the two sides if the
//! turned window keeps the ratio; after ten misfits the centered square of the shorter side.

use super::crop::Window;
use super::recipe::{Recipe, Simclr};
use kinset_base::seed::Rng;

kinset_stage::settings! {
    /// The training views of AND; the defaults are its `configs/base.yaml`.
    #[derive(PartialEq)]
    pub struct Instance {
        /// Pixels of the shorter side before all else. Absent: pictures are taken as they are.
        resize: Option<usize> = None, within 1..=16_384;
        /// Share of the picture that is cut out, uniform. AND: 0.2–1.
        crop_scale: [f64; 2] = [0.2, 1.0], rising 1e-4..=1.0;
        /// Width over height of what is cut out, uniform. AND: 3/4–4/3.
        crop_ratio: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0], rising 0.01..=100.0;
        /// Chance of a horizontal flip. AND: 0, switched off "for reproduction" (on digits a flip is another class).
        flip: f64 = 0.0, within 0..=1;
        /// Chance of color jitter: the four changes below in random order. AND: 1.
        jitter: f64 = 1.0, within 0..=1;
        /// Brightness is multiplied by 1 ± this, uniform. AND: 0.4.
        brightness: f64 = 0.4, within 0..=10;
        /// Contrast is multiplied by 1 ± this, uniform. AND: 0.4.
        contrast: f64 = 0.4, within 0..=10;
        /// Saturation is multiplied by 1 ± this, uniform. AND: 0.4.
        saturation: f64 = 0.4, within 0..=10;
        /// Hue turns by ± this share of the circle, uniform. AND: 0.4.
        hue: f64 = 0.4, within 0.0..=0.5;
        /// Chance that all color goes. AND: 0.2.
        gray: f64 = 0.2, within 0..=1;
    }
}

impl Instance {
    /// The same settings for what comes after the crop, which SimCLR's views share.
    pub fn views(&self) -> Simclr {
        let Self { resize, crop_scale, crop_ratio, flip, jitter, brightness, contrast, saturation, hue, gray } = *self;
        Simclr {
            resize,
            crop_scale,
            crop_ratio,
            flip,
            jitter,
            brightness,
            contrast,
            saturation,
            hue,
            gray,
            ..Simclr::default()
        }
    }
}

impl From<Instance> for Recipe {
    fn from(recipe: Instance) -> Self {
        Self::Instance(recipe)
    }
}

/// How often a window is drawn before the centered square is taken.
const TRIES: usize = 10;

/// Sides before and after the coin, and whether the turned window would keep the ratio.
fn sides(area: f64, aspect: f64, swap: bool, ratio: [f64; 2]) -> (usize, usize) {
    let side = |square: f64| square.sqrt().round_ties_even() as usize;
    let (width, height) = (side(area * aspect), side(area / aspect));
    let turned = height as f64 / width.max(1) as f64;
    if swap && (ratio[0]..=ratio[1]).contains(&turned) { (height, width) } else { (width, height) }
}

/// A random window by the older law.
pub fn window(width: usize, height: usize, scale: [f64; 2], ratio: [f64; 2], rng: &mut Rng) -> Window {
    let area = (width * height) as f64;
    for _ in 0..TRIES {
        let target = rng.between(scale[0], scale[1]) * area;
        let aspect = rng.between(ratio[0], ratio[1]);
        let (w, h) = sides(target, aspect, rng.chance(0.5), ratio);
        // Windows of no pixels, which tiny pictures may draw, are misfits too.
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = rng.below(height - h + 1);
            let left = rng.below(width - w + 1);
            return Window { left, top, width: w, height: h };
        }
    }
    let side = width.min(height);
    Window { left: (width - side) / 2, top: (height - side) / 2, width: side, height: side }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::color::{self, Step};
    use super::super::golden::{crc32, texture};
    use super::super::planes::Planes;
    use super::super::{Viewer, resize};
    use super::*;
    use kinset_base::seed::Seed;
    use kinset_stage::Settings;

    /// What `tests/golden/and/make.py` wrote.
    #[derive(Deserialize)]
    struct Golden {
        /// Area, aspect, whether the coin says swap; width and height.
        sides: Vec<(f64, f64, bool, [usize; 2])>,
        chains: Vec<Chain>,
    }

    /// Texture, its shape, window, steps by name and amount, checksum of the 32 × 32 view.
    type Chain = (String, [usize; 3], [usize; 4], Vec<(String, f64)>, String);

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../tests/golden/and/augment.json")).unwrap()
    }

    #[test]
    fn the_sides_of_a_window_are_those_of_the_specification() {
        let golden = golden();
        assert!(golden.sides.len() >= 200 && golden.sides.iter().any(|case| case.2 && case.3[0] != case.3[1]));
        for (area, aspect, swap, [width, height]) in golden.sides {
            assert_eq!(sides(area, aspect, swap, [0.75, 4.0 / 3.0]), (width, height), "{area} {aspect} {swap}");
        }
    }

    #[test]
    fn a_chain_of_crop_jitter_and_gray_has_the_bytes_of_pillow() {
        let golden = golden();
        assert!(golden.chains.len() >= 60);
        for (name, [width, height, channels], [left, top, w, h], steps, expected) in golden.chains {
            let picture = texture(&name, width, height, channels);
            let mut view = Planes::default();
            let window = Window { left, top, width: w, height: h };
            resize::crop_resize(&picture, window, (32, 32), false, &mut resize::Scratch::default(), &mut view);
            let steps: Vec<Step> = steps
                .iter()
                .map(|(name, amount)| match name.as_str() {
                    "brightness" => Step::Brightness(*amount as f32),
                    "contrast" => Step::Contrast(*amount as f32),
                    "saturation" => Step::Saturation(*amount as f32),
                    "hue" => Step::hue(*amount),
                    "gray" => Step::Gray,
                    other => panic!("no step `{other}`"),
                })
                .collect();
            color::apply(&mut view, &steps);
            assert_eq!(
                format!("{:08x}", crc32(view.to_pixels().data)),
                expected,
                "{name} {width}x{height}x{channels} {steps:?}"
            );
        }
    }

    #[test]
    fn windows_stay_inside_and_are_wide_as_often_as_high() {
        let mut rng = Seed::new(5).rng();
        let (mut wide, mut high, mut share) = (0_u32, 0_u32, 0.0);
        for _ in 0..4000 {
            let w = window(32, 32, [0.2, 1.0], [0.75, 4.0 / 3.0], &mut rng);
            assert!(w.left + w.width <= 32 && w.top + w.height <= 32);
            let ratio = w.width as f64 / w.height as f64;
            assert!((0.7..1.43).contains(&ratio), "{w:?}");
            wide += u32::from(w.width > w.height);
            high += u32::from(w.height > w.width);
            share += (w.width * w.height) as f64 / 1024.0 / 4000.0;
        }
        // Uniform ratios alone would be above 1 in four draws of seven; the coin evens that out.
        assert!((0.93..1.07).contains(&(f64::from(wide) / f64::from(high))), "{wide} {high}");
        assert!((0.52..0.58).contains(&share), "{share}");
    }

    #[test]
    fn what_fits_no_window_falls_back_to_the_centred_square() {
        let mut rng = Seed::new(5).rng();
        assert_eq!(window(100, 10, [0.9, 1.0], [0.75, 1.25], &mut rng), Window { left: 45, top: 0, width: 10, height: 10 });
        assert_eq!(window(9, 100, [0.9, 1.0], [0.75, 1.25], &mut rng), Window { left: 0, top: 45, width: 9, height: 9 });
    }

    #[test]
    fn every_view_is_jittered_and_none_is_mirrored() {
        let ramp: Vec<u8> = (0..32 * 32).map(|i| (i % 32 * 6 + 20) as u8).collect();
        let picture = kinset_artifact::pixels::Pixels::new(32, 32, 1, ramp);
        let viewer = Viewer::new(&Instance::default().into(), 32, &[0.5], &[0.5]).unwrap();
        for seed in 0..200 {
            let view = viewer.look(&picture, Seed::new(seed)).unwrap();
            assert!(view.data[0] <= view.data[31], "a flip would turn the ramp around");
        }
    }

    #[test]
    fn settings_are_checked_and_strangers_refused() {
        let read = serde_json::from_str::<Recipe>;
        let recipe = read(r#"{"kind": "instance", "hue": 0.1}"#).unwrap();
        assert_eq!(recipe, Instance { hue: 0.1, ..Instance::default() }.into());
        assert!(recipe.check().is_empty() && recipe.is_random());
        assert!(read(r#"{"kind": "instance", "blur": 0.5}"#).is_err());
        assert_eq!(Recipe::from(Instance { hue: 0.7, ..Instance::default() }).check()[0].path, "hue");
    }
}
