//! RandAugment (Cubuk et al. 2020) as RUC runs it: two different operations out of fourteen, each with an even chance, all at one
//! level; then a gray square.
//!
//! It is neither FixMatch's list nor SCAN's ([`super::strong`]). The level goes through formulas that rise for some operations
//! and fall for others, so that the authors' level 1 of 10 is near the strongest end of most: a factor of 0.109, 41 degrees, a
//! shear of 0.27.

use super::planes::Planes;
use super::recipe::Simclr;
use super::strong::Op;
use kinset_base::seed::Rng;

kinset_stage::settings! {
    /// The strong views of RUC: random resized crop, flip, RandAugment, a gray square.
    #[derive(PartialEq)]
    pub struct RandAugment {
        /// Pixels of the shorter side before all else. Absent: pictures are taken as they are.
        resize: Option<usize> = None, within 1..=16_384;
        /// Share of the picture that is cut out, uniform. RUC: 0.2–1.
        crop_scale: [f64; 2] = [0.2, 1.0], rising 1e-4..=1.0;
        /// Width over height of what is cut out, log-uniform. torchvision's default: 3/4–4/3.
        crop_ratio: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0], rising 0.01..=100.0;
        /// Chance of a horizontal flip. RUC: 0.5.
        flip: f64 = 0.5, within 0..=1;
        /// Different operations drawn per view, of fourteen. RUC: 2.
        operations: usize = 2, within 0..=OPS;
        /// Chance that a drawn operation is carried out. RUC: 0.5.
        chance: f64 = 0.5, within 0..=1;
        /// Level of all operations, 1–10. RUC: 1, which its draw from 1 up to but without 2 always gives.
        level: u32 = 1, within 1..=HIGHEST;
        /// Side of the gray square, pixels; 0: none. RUC: 16 whatever the size of the view. Both ends are filled, so that one
        /// side more is gray.
        cutout: usize = 16, within 0..=16_384;
    }
}

impl From<&RandAugment> for Simclr {
    /// The crop and the flip.
    fn from(recipe: &RandAugment) -> Self {
        let &RandAugment { resize, crop_scale, crop_ratio, flip, .. } = recipe;
        Self { resize, crop_scale, crop_ratio, flip, jitter: 0.0, gray: 0.0, ..Self::default() }
    }
}

/// How many operations there are to draw from.
const OPS: usize = 14;
/// What the square is filled with.
const GRAY: u8 = 127;
const HIGHEST: u32 = 10;

impl RandAugment {
    /// v·max/10 + bias.
    fn strength(&self, most: f64, bias: f64) -> f64 {
        f64::from(self.level) * most / f64::from(HIGHEST) + bias
    }

    /// The same, truncated before the bias is added.
    fn whole_strength(&self, most: f64, bias: f64) -> f64 {
        self.strength(most, 0.0).trunc() + bias
    }

    /// One of the fourteen at this recipe's level, for a picture of so many pixels. Rotation, shear and movement go the other
    /// way if `mirrored`.
    ///
    /// # Panics
    /// If the index is not below 14.
    pub fn operation(&self, index: usize, mirrored: bool, width: usize, height: usize) -> Op {
        let sign = if mirrored { -1.0 } else { 1.0 };
        let enhance = self.strength(0.99, 0.01) as f32;
        let (turn, shift) = (sign * self.whole_strength(45.0, -45.0), self.strength(0.3, -0.3));
        // Whole pixels, as a share of the side: that is what the operation takes.
        let pixels = |side: usize| sign * (shift * side as f64).trunc() / side.max(1) as f64;
        match index {
            0 => Op::AutoContrast,
            1 => Op::Brightness(enhance),
            2 => Op::Color(enhance),
            3 => Op::Contrast(enhance),
            4 => Op::Equalize,
            5 => Op::Identity,
            6 => Op::Posterize(self.whole_strength(1.0, 8.0) as u32),
            7 => Op::Rotate(turn),
            8 => Op::Sharpness(enhance),
            9 => Op::ShearX(sign * shift),
            10 => Op::ShearY(sign * shift),
            11 => Op::Solarize(256.0 - self.whole_strength(256.0, 0.0)),
            12 => Op::TranslateX(pixels(width)),
            13 => Op::TranslateY(pixels(height)),
            other => unreachable!("there is no operation {other}"),
        }
    }

    /// Draws operations and a square, and changes a picture that was cropped already. `spare` is memory.
    pub fn change(&self, picture: &mut Planes, spare: &mut Planes, rng: &mut Rng) {
        let mut order: [usize; OPS] = std::array::from_fn(|index| index);
        for place in 0..self.operations.min(OPS) {
            let index = pick(&mut order, place, rng);
            if rng.chance(self.chance) {
                let mirrored = rng.chance(0.5);
                self.operation(index, mirrored, picture.width, picture.height).apply(picture, spare);
            }
        }
        if self.cutout > 0 {
            let mut corner = |side: usize| (rng.between(0.0, side as f64) - self.cutout as f64 / 2.0).max(0.0) as usize;
            let left = corner(picture.width);
            let top = corner(picture.height);
            gray_square(picture, left, top, self.cutout);
        }
    }
}

/// The operation at this place of a random order; those before are drawn already.
fn pick(order: &mut [usize; OPS], place: usize, rng: &mut Rng) -> usize {
    order.swap(place, place + rng.below(OPS - place));
    order[place]
}

/// Fills a square from this corner, both ends included, as far as the picture reaches.
fn gray_square(picture: &mut Planes, left: usize, top: usize, length: usize) {
    let (width, right, bottom) =
        (picture.width, (left + length + 1).min(picture.width), (top + length + 1).min(picture.height));
    for plane in picture.planes_mut() {
        for row in plane.chunks_exact_mut(width).take(bottom).skip(top) {
            row[left.min(right)..right].fill(GRAY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{checksum, texture};
    use super::*;
    use kinset_base::seed::Seed;

    /// Texture; width, height, channels; operation; mirrored; checksum.
    type Change = (String, [usize; 3], usize, bool, String);
    /// Texture; width, height, channels; left, top; checksum.
    type Square = (String, [usize; 3], [usize; 2], String);

    #[derive(serde::Deserialize)]
    struct Golden {
        names: Vec<String>,
        changes: Vec<Change>,
        squares: Vec<Square>,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../tests/golden/ruc/views.json")).unwrap()
    }

    fn grays(values: &[u8]) -> usize {
        values.iter().map(|&value| usize::from(value == GRAY)).sum()
    }

    #[test]
    fn every_operation_at_the_authors_level_gives_the_bytes_of_pillow() {
        let golden = golden();
        assert_eq!(golden.names.len(), OPS);
        let mut wrong = Vec::new();
        for (name, [width, height, channels], index, mirrored, expected) in &golden.changes {
            let mut planes = Planes::of(&texture(name, *width, *height, *channels));
            let op = RandAugment::default().operation(*index, *mirrored, *width, *height);
            op.apply(&mut planes, &mut Planes::default());
            if checksum(&planes) != *expected {
                wrong.push(format!("{} as {op:?} of {name} {width}x{height}x{channels}", golden.names[*index]));
            }
        }
        assert!(golden.changes.len() > 200 && wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), golden.changes.len());
    }

    #[test]
    fn gray_squares_give_the_bytes_of_pillow() {
        let golden = golden();
        assert!(golden.squares.len() > 20);
        for (name, [width, height, channels], [left, top], expected) in &golden.squares {
            let mut planes = Planes::of(&texture(name, *width, *height, *channels));
            gray_square(&mut planes, *left, *top, 16);
            assert_eq!(checksum(&planes), *expected, "{name} {width}x{height}x{channels} from {left}, {top}");
        }
    }

    #[test]
    fn level_one_is_near_the_strongest_end() {
        // methods/ruc.md section 8.1.
        let at = |index, mirrored, side| RandAugment::default().operation(index, mirrored, side, side);
        let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-7, "{found} is not {wanted}");
        for index in [1, 2, 3, 8] {
            match at(index, false, 32) {
                Op::Brightness(v) | Op::Color(v) | Op::Contrast(v) | Op::Sharpness(v) => near(f64::from(v), 0.109),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(at(6, false, 32), Op::Posterize(8));
        assert_eq!(at(11, false, 32), Op::Solarize(231.0));
        for (mirrored, sign) in [(false, -1.0), (true, 1.0)] {
            assert_eq!(at(7, mirrored, 32), Op::Rotate(sign * 41.0));
            let (Op::ShearX(x), Op::ShearY(y)) = (at(9, mirrored, 32), at(10, mirrored, 32)) else { panic!("no shear") };
            near(x, sign * 0.27);
            near(y, sign * 0.27);
            for (side, pixels) in [(32, 8.0), (96, 25.0)] {
                let (Op::TranslateX(x), Op::TranslateY(y)) = (at(12, mirrored, side), at(13, mirrored, side)) else {
                    panic!("no movement")
                };
                near(x * side as f64, sign * pixels);
                near(y * side as f64, sign * pixels);
            }
        }
    }

    #[test]
    fn the_square_is_9_to_17_pixels_wide_and_252_pixels_large_on_average() {
        // methods/ruc.md section 14: expectations 252 at 32 pixels, 277 at 96.
        for (side, mean) in [(32, 252.0), (96, 277.0)] {
            let recipe = RandAugment { operations: 0, ..RandAugment::default() };
            let mut rng = Seed::new(3).rng();
            let (mut area, tries) = (0_usize, 4000);
            for _ in 0..tries {
                let mut planes = Planes { channels: 1, height: side, width: side, data: vec![0; side * side] };
                recipe.change(&mut planes, &mut Planes::default(), &mut rng);
                let gray = grays(&planes.data);
                let wide = planes.data.chunks(side).map(grays).max().unwrap();
                assert!(
                    (9..=17).contains(&wide) && gray.is_multiple_of(wide) && (9..=17).contains(&(gray / wide)),
                    "{wide}: {gray}"
                );
                area += gray;
            }
            let found = area as f64 / f64::from(tries);
            assert!((found - mean).abs() < 3.0, "{found} at {side}");
        }
    }

    #[test]
    fn operations_are_different_and_as_likely_as_each_other() {
        let mut rng = Seed::new(4).rng();
        let mut counts = [0_usize; OPS];
        for _ in 0..7000 {
            let mut order: [usize; OPS] = std::array::from_fn(|index| index);
            let (first, second) = (pick(&mut order, 0, &mut rng), pick(&mut order, 1, &mut rng));
            assert_ne!(first, second);
            counts[first] += 1;
            counts[second] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    }

    #[test]
    fn half_of_the_operations_are_not_carried_out() {
        let picture = Planes::of(&texture("noise", 16, 16, 1));
        let recipe = RandAugment { operations: 1, cutout: 0, ..RandAugment::default() };
        let mut rng = Seed::new(5).rng();
        let untouched = (0..2000)
            .filter(|_| {
                let mut planes = picture.clone();
                recipe.change(&mut planes, &mut Planes::default(), &mut rng);
                planes == picture
            })
            .count();
        // A half, and of the other half identity, eight bits, and the color of gray; the noise fills 0–255 nearly.
        assert!((1150..1450).contains(&untouched), "{untouched}");
        let never = RandAugment { chance: 0.0, operations: OPS, ..recipe };
        let mut planes = picture.clone();
        never.change(&mut planes, &mut Planes::default(), &mut rng);
        assert_eq!(planes, picture);
    }
}
