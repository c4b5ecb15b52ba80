//! Batches of views: many pictures become one normalized batch, in parallel, each view from its own leaf of randomness.
//!
//! A view depends on the picture, the recipe and the leaf, on nothing else: not on the batch it is made in, its place there, or
//! the thread. Each thread keeps its memory from view to view.

use std::borrow::Cow;
use std::cell::RefCell;

use rayon::prelude::*;

use super::affine::{self, Inverse};
use super::color::{self, Step};
use super::crop::{Window, shorter_side};
use super::cutout::Hole;
use super::error::Error;
use super::instance;
use super::planes::Planes;
use super::randaugment::RandAugment;
use super::recipe::{Plain, Recipe, Simclr, Strong};
use super::strong::Op;
use super::{flip, resize};
use kinset_artifact::encoder::{Filter, Resize};
use kinset_artifact::images::ImageSet;
use kinset_artifact::pixels::Pixels;
use kinset_base::seed::{Rng, Seed};
use kinset_stage::{Complaint, Settings};

pub trait Pictures: Sync {
    fn len(&self) -> usize;

    /// Shows the picture in a row, which is less than [`Pictures::len`].
    ///
    /// # Errors
    /// If it is decoded only now and cannot be.
    fn show<R>(&self, row: usize, look: impl FnOnce(&Pixels) -> R) -> Result<R, Error>;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Pictures for ImageSet {
    fn len(&self) -> usize {
        ImageSet::len(self)
    }

    fn show<R>(&self, row: usize, look: impl FnOnce(&Pixels) -> R) -> Result<R, Error> {
        ImageSet::show(self, row, look).map_err(|error| Error::Undecodable { row, why: error.to_string() })
    }
}

impl Pictures for [Pixels] {
    fn len(&self) -> usize {
        <[Pixels]>::len(self)
    }

    fn show<R>(&self, row: usize, look: impl FnOnce(&Pixels) -> R) -> Result<R, Error> {
        Ok(look(&self[row]))
    }
}

impl Pictures for Vec<Pixels> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn show<R>(&self, row: usize, look: impl FnOnce(&Pixels) -> R) -> Result<R, Error> {
        Ok(look(&self[row]))
    }
}

/// Largest view, pixels per side.
const LARGEST: usize = 16_384;

/// Makes views by one recipe, of one size, for one encoder.
#[derive(Clone, Debug)]
pub struct Viewer {
    kind: Kind,
    size: usize,
    /// Per channel, what each 8-bit value becomes.
    tables: Vec<[f32; 256]>,
    /// Whether gray pictures may stand for ones of three equal channels.
    gray: bool,
}

/// A recipe, ready to run.
#[derive(Clone, Debug)]
enum Kind {
    Centre(Option<usize>, Filter),
    Crop(Simclr),
    Instance(Simclr),
    Strong(Strong),
    RandAugment(Simclr, RandAugment),
}

/// Memory that a thread keeps from view to view.
#[derive(Debug, Default)]
struct Scratch {
    resize: resize::Scratch,
    view: Planes,
    spare: Planes,
    steps: Vec<Step>,
    holes: Vec<Hole>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Viewer {
    /// Views of `size` x `size` pixels; `mean` and `std` `[C]` are of values 0–1, and their number is that of the channels.
    pub fn new(recipe: &Recipe, size: usize, mean: &[f32], std: &[f32]) -> Result<Self, Error> {
        if let Some(Complaint { path: field, message, .. }) = recipe.check().into_iter().next() {
            return Err(Error::Recipe { field, message });
        }
        if !(1..=LARGEST).contains(&size) {
            return Err(Error::Size { size });
        }
        if mean.len() != std.len() || !matches!(mean.len(), 1 | 3) {
            return Err(Error::Statistics { mean: mean.len(), std: std.len() });
        }
        let wrong = |&(_, (mean, std)): &(usize, (&f32, &f32))| !(mean.is_finite() && std.is_finite() && *std > 0.0);
        if let Some((channel, (&mean, &std))) = mean.iter().zip(std).enumerate().find(wrong) {
            return Err(Error::Deviation { channel, mean, std });
        }
        let cuts_squares = matches!(recipe, Recipe::Plain(_) | Recipe::Strong(_));
        if let Some(resize) = recipe.resize().filter(|&resize| cuts_squares && resize < size) {
            return Err(Error::Resize { resize, size });
        }
        let kind = match recipe {
            Recipe::Plain(plain) => Kind::Centre(plain.resize, Filter::Bilinear),
            Recipe::Standard(standard) => Kind::Crop(standard.into()),
            Recipe::Simclr(simclr) => Kind::Crop(simclr.clone()),
            Recipe::Strong(strong) => Kind::Strong(strong.clone()),
            Recipe::RandAugment(recipe) => Kind::RandAugment(recipe.into(), recipe.clone()),
            Recipe::Instance(instance) => Kind::Instance(instance.views()),
        };
        // The two f32 divisions of torchvision's ToTensor and Normalize.
        let table = |(mean, std): (&f32, &f32)| std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
        Ok(Self { kind, size, tables: mean.iter().zip(std).map(table).collect(), gray: false })
    }

    /// Plain views in the way a published network wants them.
    pub fn prepared(resize: Resize, size: usize, mean: &[f32], std: &[f32]) -> Result<Self, Error> {
        let plain = Self::new(&Plain { resize: Some(resize.shorter) }.into(), size, mean, std)?;
        Ok(Self { kind: Kind::Centre(Some(resize.shorter), resize.filter), gray: true, ..plain })
    }

    /// Takes gray pictures too, as ones of three equal channels.
    #[must_use]
    pub fn with_gray(self) -> Self {
        Self { gray: true, ..self }
    }

    /// Channels of a view, C.
    pub fn channels(&self) -> usize {
        self.tables.len()
    }

    /// Pixels per side of a view, S.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Numbers of one view, C·S·S.
    pub fn numbers(&self) -> usize {
        self.channels() * self.size * self.size
    }

    /// Views of some rows, from the leaf of randomness of each row: `[B, C, S, S]`.
    ///
    /// # Errors
    /// If a row does not exist, or its picture is empty or has other channels.
    pub fn views(
        &self,
        pictures: &(impl Pictures + ?Sized),
        rows: &[usize],
        leaf: impl Fn(usize) -> Seed + Sync,
    ) -> Result<Vec<f32>, Error> {
        let mut out = vec![0.0; rows.len() * self.numbers()];
        self.fill(pictures, rows, leaf, &mut out)?;
        Ok(out)
    }

    /// [`Viewer::views`] into memory that is there already.
    ///
    /// # Errors
    /// As there, or if `out` has not exactly the size of the batch.
    pub fn fill(
        &self,
        pictures: &(impl Pictures + ?Sized),
        rows: &[usize],
        leaf: impl Fn(usize) -> Seed + Sync,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let expected = rows.len() * self.numbers();
        if out.len() != expected {
            return Err(Error::Room { rows: rows.len(), expected, found: out.len() });
        }
        let count = pictures.len();
        let fault = out.par_chunks_mut(self.numbers()).zip(rows).find_map_first(|(out, &row)| {
            if row >= count {
                return Some(Error::Row { row, count });
            }
            let make = |picture: &Pixels| {
                self.suits(picture, row)?;
                SCRATCH.with_borrow_mut(|scratch| {
                    self.make(picture, &mut leaf(row).rng(), scratch);
                    self.normalize(scratch, out);
                });
                Ok(())
            };
            pictures.show(row, make).flatten().err()
        });
        fault.map_or(Ok(()), Err)
    }

    /// A view as a picture, for people to look at: what [`Viewer::views`] makes of the same leaf, before normalisation and
    /// cutout.
    pub fn look(&self, picture: &Pixels, leaf: Seed) -> Result<Pixels, Error> {
        self.suits(picture, 0)?;
        Ok(SCRATCH.with_borrow_mut(|scratch| {
            self.make(picture, &mut leaf.rng(), scratch);
            scratch.view.to_pixels()
        }))
    }

    fn suits(&self, picture: &Pixels, row: usize) -> Result<(), Error> {
        if picture.channels != self.channels() && !(self.gray && picture.channels == 1) {
            return Err(Error::Channels { row, found: picture.channels, expected: self.channels() });
        }
        if picture.data.is_empty() { Err(Error::Empty { row }) } else { Ok(()) }
    }

    /// Leaves the view in `scratch.view` and what is to be cut out of it in `scratch.holes`.
    fn make(&self, picture: &Pixels, rng: &mut Rng, scratch: &mut Scratch) {
        scratch.holes.clear();
        let size = self.size;
        match &self.kind {
            Kind::Centre(resize, filter) => {
                let picture = resized_by(*filter, picture, Some(resize.unwrap_or(size)), scratch);
                scratch.view.load(&picture, Window::centre(picture.width, picture.height, size));
            }
            Kind::Crop(recipe) => {
                let picture = resized(picture, recipe.resize, scratch);
                let (scale, ratio) = (recipe.crop_scale, recipe.crop_ratio);
                let window = Window::random_resized(picture.width, picture.height, scale, ratio, rng);
                crop_and_color(&picture, size, window, recipe, rng, scratch);
            }
            Kind::Instance(recipe) => {
                let picture = resized(picture, recipe.resize, scratch);
                let (scale, ratio) = (recipe.crop_scale, recipe.crop_ratio);
                let window = instance::window(picture.width, picture.height, scale, ratio, rng);
                crop_and_color(&picture, size, window, recipe, rng, scratch);
            }
            Kind::RandAugment(crop, recipe) => {
                let picture = resized(picture, crop.resize, scratch);
                let (scale, ratio) = (crop.crop_scale, crop.crop_ratio);
                let window = Window::random_resized(picture.width, picture.height, scale, ratio, rng);
                crop_and_color(&picture, size, window, crop, rng, scratch);
                recipe.change(&mut scratch.view, &mut scratch.spare, rng);
            }
            Kind::Strong(recipe) => {
                let picture = resized(picture, Some(recipe.resize.unwrap_or(size)), scratch);
                let mirrored = rng.chance(recipe.flip);
                scratch.view.load(&picture, Window::random_square(picture.width, picture.height, size, rng));
                if mirrored {
                    flip::mirror(&mut scratch.view);
                }
                for _ in 0..recipe.operations {
                    Op::draw(recipe, rng).apply(&mut scratch.view, &mut scratch.spare);
                }
                if recipe.cutout > 0 {
                    scratch.holes.extend((0..recipe.cutout_holes).map(|_| Hole::draw(size, recipe.cutout, rng)));
                }
            }
        }
    }

    fn normalize(&self, scratch: &Scratch, out: &mut [f32]) {
        let area = self.size * self.size;
        // The one plane of a gray view serves every channel.
        for ((plane, table), out) in
            scratch.view.data.chunks_exact(area).cycle().zip(&self.tables).zip(out.chunks_exact_mut(area))
        {
            for (value, out) in plane.iter().zip(out) {
                *out = table[usize::from(*value)];
            }
        }
        for hole in &scratch.holes {
            hole.cut(self.size, out);
        }
    }
}

/// The picture with its shorter side resized, or as it is.
fn resized<'a>(picture: &'a Pixels, shorter: Option<usize>, scratch: &mut Scratch) -> Cow<'a, Pixels> {
    resized_by(Filter::Bilinear, picture, shorter, scratch)
}

fn resized_by<'a>(filter: Filter, picture: &'a Pixels, shorter: Option<usize>, scratch: &mut Scratch) -> Cow<'a, Pixels> {
    let (width, height) = (picture.width, picture.height);
    match shorter {
        Some(shorter) if shorter != width.min(height) => {
            let size = shorter_side(width, height, shorter);
            let whole = Window::whole(width, height);
            resize::crop_resize_by(filter, picture, whole, size, false, &mut scratch.resize, &mut scratch.spare);
            Cow::Owned(scratch.spare.to_pixels())
        }
        _ => Cow::Borrowed(picture),
    }
}

fn crop_and_color(picture: &Pixels, size: usize, window: Window, recipe: &Simclr, rng: &mut Rng, scratch: &mut Scratch) {
    let Scratch { resize: passes, view, spare, steps, .. } = scratch;
    let mirrored = rng.chance(recipe.flip);
    resize::crop_resize(picture, window, (size, size), mirrored, passes, view);
    if recipe.rotate > 0.0 {
        let degrees = rng.between(-recipe.rotate, recipe.rotate);
        affine::apply(view, Inverse::rotation(size, size, degrees), spare);
        std::mem::swap(view, spare);
    }
    if recipe.shift > 0 {
        let mut pixels = || rng.below(2 * recipe.shift + 1) as f64 - recipe.shift as f64;
        let x = pixels();
        affine::apply(view, Inverse::translation(x, pixels()), spare);
        std::mem::swap(view, spare);
    }
    steps.clear();
    if rng.chance(recipe.jitter) {
        jitter(recipe, rng, steps);
    }
    if rng.chance(recipe.gray) {
        steps.push(Step::Gray);
    }
    color::apply(view, steps);
    if recipe.blur > 0.0 && rng.chance(recipe.blur) {
        resize::blur(view, rng.between(recipe.blur_sigma[0], recipe.blur_sigma[1]), passes, spare);
        std::mem::swap(view, spare);
    }
}

/// Color jitter: each change whose strength is not 0, in random order.
fn jitter(recipe: &Simclr, rng: &mut Rng, steps: &mut Vec<Step>) {
    let mut order = [0, 1, 2, 3];
    rng.shuffle(&mut order);
    for change in order {
        let strength = [recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue][change];
        if strength > 0.0 {
            let factor = if change == 3 { 0.0 } else { rng.between((1.0 - strength).max(0.0), 1.0 + strength) as f32 };
            steps.push(match change {
                0 => Step::Brightness(factor),
                1 => Step::Contrast(factor),
                2 => Step::Saturation(factor),
                _ => Step::hue(rng.between(-strength, strength)),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::recipe::Standard;
    use super::*;

    const MEAN: [f32; 3] = [0.4914, 0.4822, 0.4465];
    const STD: [f32; 3] = [0.2023, 0.1994, 0.2010];

    fn pictures(count: usize, width: usize, height: usize, channels: usize) -> Vec<Pixels> {
        let mut rng = Seed::new(9).rng();
        let mut noise = || (0..width * height * channels).map(|_| rng.bits32() as u8).collect();
        (0..count).map(|_| Pixels::new(width, height, channels, noise())).collect()
    }

    fn recipes() -> Vec<Recipe> {
        let extras = Simclr { rotate: 15.0, shift: 3, blur: 0.5, ..Simclr::default() };
        vec![
            Plain::default().into(),
            Standard::default().into(),
            Simclr::default().into(),
            extras.into(),
            Simclr { resize: Some(40), ..Simclr::default() }.into(),
            Strong::default().into(),
            Strong { resize: Some(36), cutout_holes: 3, ..Strong::default() }.into(),
            RandAugment::default().into(),
            instance::Instance::default().into(),
        ]
    }

    fn viewer(recipe: &Recipe, size: usize, channels: usize) -> Viewer {
        Viewer::new(recipe, size, &MEAN[..channels], &STD[..channels]).unwrap()
    }

    #[test]
    fn a_view_does_not_depend_on_batch_order_or_threads() {
        let leaf = |row: usize| Seed::new(1).at(7).at(row as u64).at(1);
        for channels in [1, 3] {
            let pictures = pictures(23, 37, 33, channels);
            for recipe in recipes() {
                let viewer = viewer(&recipe, 32, channels);
                let rows: Vec<usize> = (0..23).collect();
                let all = viewer.views(&pictures, &rows, leaf).unwrap();
                let backwards: Vec<usize> = rows.iter().rev().copied().collect();
                for threads in [1, 2, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let again = pool.install(|| viewer.views(&pictures, &backwards, leaf)).unwrap();
                    for (row, view) in all.chunks(viewer.numbers()).enumerate() {
                        let at = (22 - row) * viewer.numbers();
                        assert_eq!(view, &again[at..at + viewer.numbers()], "row {row} of {recipe:?} on {threads} threads");
                        assert_eq!(view, viewer.views(&pictures, &[row], leaf).unwrap());
                    }
                }
            }
        }
    }

    #[test]
    fn leaves_make_views_differ_and_plain_does_not_listen() {
        let pictures = pictures(1, 32, 32, 3);
        for recipe in recipes() {
            let viewer = viewer(&recipe, 32, 3);
            let view = |n| viewer.views(&pictures, &[0], |_| Seed::new(n)).unwrap();
            let first = view(0);
            assert!(first.iter().all(|value| value.is_finite()));
            assert_eq!((1..8).any(|n| view(n) != first), recipe.is_random(), "{recipe:?}");
        }
    }

    #[test]
    fn the_plain_view_is_the_picture_normalised() {
        let formula = |i: usize| (37 * (i / 96) + 53 * (i / 3 % 32) + 91 * (i % 3) + (i / 96) * (i / 3 % 32)) as u8;
        let picture = vec![Pixels::new(32, 32, 3, (0..32 * 32 * 3).map(formula).collect())];
        let view = viewer(&Plain::default().into(), 32, 3).views(&picture, &[0], |_| Seed::new(0)).unwrap();
        for (channel, expected) in [-2.4290657, -0.6285719, 1.3294801].into_iter().enumerate() {
            assert!((f64::from(view[channel * 1024]) - expected).abs() < 2e-7, "{} {expected}", view[channel * 1024]);
        }
        let mean = view.iter().map(|&v| f64::from(v)).sum::<f64>() / 3072.0;
        assert!((mean - 0.1213728).abs() < 1e-6);
    }

    #[test]
    fn plain_views_resize_what_is_larger_and_smaller() {
        for (width, height, resize) in [(50, 70, None), (20, 11, None), (90, 33, Some(64))] {
            let picture = vec![Pixels::new(width, height, 1, vec![128; width * height])];
            let viewer = viewer(&Plain { resize }.into(), 32, 1);
            let view = viewer.views(&picture, &[0], |_| Seed::new(0)).unwrap();
            let expected = (128.0 / 255.0 - MEAN[0]) / STD[0];
            assert!(view.iter().all(|&v| (v - expected).abs() < 1e-6), "no black borders");
        }
    }

    #[test]
    fn a_published_network_sees_gray_as_three_equal_channels() {
        let gray = pictures(1, 41, 30, 1);
        let color = vec![Pixels::new(41, 30, 3, gray[0].data.iter().flat_map(|&v| [v; 3]).collect())];
        let resize = Resize { shorter: 24, filter: Filter::Bicubic };
        let viewer = Viewer::prepared(resize, 16, &MEAN, &STD).unwrap();
        let view = |pictures: &Vec<Pixels>| viewer.views(pictures, &[0], |_| Seed::new(0)).unwrap();
        assert_eq!(view(&gray), view(&color));
        let plain = Viewer::new(&Plain { resize: Some(24) }.into(), 16, &MEAN, &STD).unwrap();
        assert_ne!(view(&color), plain.views(&color, &[0], |_| Seed::new(0)).unwrap(), "another filter");
        assert!(plain.views(&gray, &[0], |_| Seed::new(0)).is_err());
        assert!(plain.with_gray().views(&gray, &[0], |_| Seed::new(0)).is_ok());
        assert!(Viewer::prepared(Resize { shorter: 15, ..resize }, 16, &MEAN, &STD).is_err());
    }

    #[test]
    fn what_one_looks_at_is_what_training_sees() {
        let pictures = pictures(1, 40, 30, 3);
        for recipe in recipes() {
            let viewer = viewer(&recipe, 24, 3);
            let seen = viewer.look(&pictures[0], Seed::new(3)).unwrap();
            let view = viewer.views(&pictures, &[0], |_| Seed::new(3)).unwrap();
            for (channel, plane) in view.chunks(24 * 24).enumerate() {
                for (i, &value) in plane.iter().enumerate() {
                    let expected = (f32::from(seen.data[i * 3 + channel]) / 255.0 - MEAN[channel]) / STD[channel];
                    assert!(
                        value.to_bits() == expected.to_bits() || matches!(recipe, Recipe::Strong(_)) && value.to_bits() == 0
                    );
                }
            }
        }
    }

    #[test]
    fn faults_are_told_with_their_numbers() {
        let gray = pictures(2, 8, 8, 1);
        let viewer = viewer(&Recipe::default(), 8, 3);
        let leaf = |_| Seed::new(0);
        assert_eq!(viewer.views(&gray, &[1, 0], leaf), Err(Error::Channels { row: 1, found: 1, expected: 3 }));
        assert_eq!(viewer.views(&gray, &[2], leaf), Err(Error::Row { row: 2, count: 2 }));
        assert_eq!(viewer.fill(&gray, &[0], leaf, &mut [0.0; 5]), Err(Error::Room { rows: 1, expected: 192, found: 5 }));
        let empty = vec![Pixels::new(0, 4, 3, Vec::new())];
        assert_eq!(viewer.views(&empty, &[0], leaf), Err(Error::Empty { row: 0 }));
        let new = |recipe: Recipe, size, mean: &[f32], std: &[f32]| Viewer::new(&recipe, size, mean, std).map(|_| ());
        assert_eq!(new(Recipe::default(), 0, &[0.5], &[0.5]), Err(Error::Size { size: 0 }));
        assert_eq!(new(Recipe::default(), 8, &[0.5; 2], &[0.5; 2]), Err(Error::Statistics { mean: 2, std: 2 }));
        assert_eq!(new(Recipe::default(), 8, &[0.5], &[0.0]), Err(Error::Deviation { channel: 0, mean: 0.5, std: 0.0 }));
        let small = Plain { resize: Some(7) };
        assert_eq!(new(small.into(), 8, &[0.5], &[0.5]), Err(Error::Resize { resize: 7, size: 8 }));
        let wild = Simclr { hue: 2.0, ..Simclr::default() };
        assert!(matches!(new(wild.into(), 8, &[0.5], &[0.5]), Err(Error::Recipe { field, .. }) if field == "hue"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn gray_in_three_channels_is_gray_in_one(width in 1_usize..50, height in 1_usize..50, size in 1_usize..40, seed: u64) {
            let one = pictures(1, width, height, 1);
            let data = one[0].data.iter().flat_map(|&v| [v; 3]).collect();
            let three = vec![Pixels::new(width, height, 3, data)];
            let resize = Some(size + 5);
            let all = [
                Recipe::default(),
                Simclr { rotate: 30.0, shift: 2, blur: 0.5, ..Simclr::default() }.into(),
                Strong { resize, ..Strong::default() }.into(),
                RandAugment { operations: 4, ..RandAugment::default() }.into(),
            ];
            for recipe in all {
                let (gray, color) = (viewer(&recipe, size, 1), Viewer::new(&recipe, size, &[MEAN[0]; 3], &[STD[0]; 3]).unwrap());
                let gray = gray.views(&one, &[0], |_| Seed::new(seed)).unwrap();
                let color = color.views(&three, &[0], |_| Seed::new(seed)).unwrap();
                prop_assert_eq!(gray.repeat(3), color);
            }
        }
    }
}
