//! The strong transform of SCAN's clustering and self-labeling stages, named `ours` there: a few operations out of fourteen,
//! drawn with replacement, each with a uniform magnitude.
//!
//! It resembles RandAugment (Cubuk et al. 2020) but is not it: every operation has its own range instead of a common level, and
//! the enhancements only ever dull, darken or soften.

use super::affine::{self, Inverse};
use super::color::{self, Step};
use super::planes::Planes;
use super::recipe::Strong;
use super::tone;
use kinset_base::seed::Rng;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    Identity,
    AutoContrast,
    Equalize,
    /// Counter-clockwise, degrees.
    Rotate(f64),
    /// [`tone::solarize`], threshold 0–256.
    Solarize(f64),
    /// [`Step::Saturation`].
    Color(f32),
    Contrast(f32),
    Brightness(f32),
    Sharpness(f32),
    ShearX(f64),
    ShearY(f64),
    /// To the left, as a share of the width.
    TranslateX(f64),
    /// Up, as a share of the height.
    TranslateY(f64),
    /// [`tone::posterize`], bits kept.
    Posterize(u32),
}

const OPS: usize = 14;

impl Op {
    /// A uniformly random operation with a uniformly random magnitude.
    pub fn draw(recipe: &Strong, rng: &mut Rng) -> Self {
        let op = rng.below(OPS);
        let mut within = |[low, high]: [f64; 2]| rng.between(low, high);
        let either_way = |limit: f64| [-limit, limit];
        match op {
            0 => Self::Identity,
            1 => Self::AutoContrast,
            2 => Self::Equalize,
            3 => Self::Rotate(within(either_way(recipe.rotate))),
            4 => Self::Solarize(within(recipe.solarize)),
            5 => Self::Color(within(recipe.enhance) as f32),
            6 => Self::Contrast(within(recipe.enhance) as f32),
            7 => Self::Brightness(within(recipe.enhance) as f32),
            8 => Self::Sharpness(within(recipe.enhance) as f32),
            9 => Self::ShearX(within(either_way(recipe.shear))),
            10 => Self::ShearY(within(either_way(recipe.shear))),
            11 => Self::TranslateX(within(either_way(recipe.translate))),
            12 => Self::TranslateY(within(either_way(recipe.translate))),
            _ => Self::Posterize(within(recipe.posterize) as u32),
        }
    }

    /// Changes a picture. `spare` is memory.
    pub fn apply(self, picture: &mut Planes, spare: &mut Planes) {
        match self {
            Self::Identity => {}
            Self::AutoContrast => tone::autocontrast(picture),
            Self::Equalize => tone::equalize(picture),
            Self::Solarize(threshold) => tone::solarize(picture, threshold),
            Self::Color(factor) => color::apply(picture, &[Step::Saturation(factor)]),
            Self::Contrast(factor) => color::apply(picture, &[Step::Contrast(factor)]),
            Self::Brightness(factor) => color::apply(picture, &[Step::Brightness(factor)]),
            Self::Posterize(bits) => tone::posterize(picture, bits),
            Self::Sharpness(factor) => {
                tone::sharpness(picture, factor, spare);
                std::mem::swap(picture, spare);
            }
            Self::Rotate(degrees) => moved(picture, spare, Inverse::rotation(picture.width, picture.height, degrees)),
            Self::ShearX(share) => moved(picture, spare, Inverse::shear_x(share)),
            Self::ShearY(share) => moved(picture, spare, Inverse::shear_y(share)),
            Self::TranslateX(share) => moved(picture, spare, Inverse::translation(share * picture.width as f64, 0.0)),
            Self::TranslateY(share) => moved(picture, spare, Inverse::translation(0.0, share * picture.height as f64)),
        }
    }
}

fn moved(picture: &mut Planes, spare: &mut Planes, inverse: Inverse) {
    affine::apply(picture, inverse, spare);
    std::mem::swap(picture, spare);
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::seed::Seed;

    #[test]
    fn all_operations_are_drawn_about_equally_often_and_within_range() {
        let mut rng = Seed::new(8).rng();
        let recipe = Strong::default();
        let mut counts = [0_usize; OPS];
        let (mut bits, mut left) = ([0_usize; 9], 0_usize);
        for _ in 0..14_000 {
            let op = Op::draw(&recipe, &mut rng);
            let index = match op {
                Op::Identity => 0,
                Op::AutoContrast => 1,
                Op::Equalize => 2,
                Op::Rotate(v) => {
                    assert!(v.abs() <= 30.0);
                    3
                }
                Op::Solarize(v) => {
                    assert!((0.0..256.0).contains(&v));
                    4
                }
                Op::Color(v) | Op::Contrast(v) | Op::Brightness(v) | Op::Sharpness(v) => {
                    assert!((0.05..=0.95).contains(&v));
                    match op {
                        Op::Color(_) => 5,
                        Op::Contrast(_) => 6,
                        Op::Brightness(_) => 7,
                        _ => 8,
                    }
                }
                Op::ShearX(v) | Op::ShearY(v) | Op::TranslateX(v) | Op::TranslateY(v) => {
                    assert!(v.abs() <= 0.1);
                    left += usize::from(v < 0.0);
                    match op {
                        Op::ShearX(_) => 9,
                        Op::ShearY(_) => 10,
                        Op::TranslateX(_) => 11,
                        _ => 12,
                    }
                }
                Op::Posterize(v) => {
                    bits[v as usize] += 1;
                    13
                }
            };
            counts[index] += 1;
        }
        assert!(counts.iter().all(|&n| (850..1150).contains(&n)), "{counts:?}");
        assert_eq!(bits.iter().filter(|&&n| n > 0).count(), 4, "4 to 7 bits");
        assert!((1800..2200).contains(&left), "{left}");
    }
}
