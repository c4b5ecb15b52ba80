//! Brightness, contrast, saturation, hue and gray, to the bit as Pillow and torchvision do them on 8-bit pictures.
//!
//! Each step rounds to 8 bits, as a chain of Pillow calls would. The arithmetic runs in f32 on blocks of pixels that stay in
//! the nearest cache from step to step; where Pillow computes in f64 (hue) a shorter f32 formula is used that gives the same
//! byte for every input – the tests go through all of them.

#![expect(clippy::inline_always, reason = "what is not inlined into `kernel::dispatch` is compiled for narrow vectors")]
#![expect(clippy::float_cmp, reason = "the floats compared here are whole numbers")]

use super::planes::Planes;
use kinset_kernel::dispatch::{Work, widest};

/// One change of color.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Mix with black: 0 is black, 1 the picture, more is brighter.
    Brightness(f32),
    /// Mix with the mean gray.
    Contrast(f32),
    /// Mix with the gray picture. Nothing to a gray picture.
    Saturation(f32),
    /// Turn the hue by this many 256ths of a circle; the trip through 8-bit HSV costs some colors even at 0. Nothing to a gray
    /// picture.
    Hue(u8),
    /// The gray picture in all channels. Nothing to a gray picture.
    Gray,
}

impl Step {
    /// A turn of the hue by a share of the circle, −0.5–0.5, truncated to 255ths as torchvision does.
    pub fn hue(share: f64) -> Self {
        Self::Hue((share * 255.0) as i32 as u8)
    }
}

pub fn apply(picture: &mut Planes, steps: &[Step]) {
    let mut rest = steps;
    // Contrast needs the mean of all that came before it: each run of steps begins with one at most.
    while let [first, others @ ..] = rest {
        let next = others.iter().position(|step| matches!(step, Step::Contrast(_))).unwrap_or(others.len());
        let (run, later) = rest.split_at(next + 1);
        let mean = if matches!(first, Step::Contrast(_)) { mean_gray(picture) } else { 0.0 };
        widest(Run { picture, steps: run, mean });
        rest = later;
    }
}

/// The mean of the gray picture, rounded half up.
fn mean_gray(picture: &Planes) -> f32 {
    let sum = widest(GraySum(picture)) as f64;
    (sum / picture.area() as f64 + 0.5).floor() as f32
}

/// Weights of red, green and blue in gray, in 65536ths (Rec. 601); they sum to 65536.
const GRAY: [u32; 3] = [19595, 38470, 7471];

/// Pixels that go through all steps together.
const BLOCK: usize = 64;

/// The sum of all pixels of the gray picture.
struct GraySum<'a>(&'a Planes);

impl Work for GraySum<'_> {
    type Output = u64;

    #[inline(always)]
    fn run(self) -> u64 {
        let Self(picture) = self;
        let area = picture.area();
        // One sum per place in a block, added up at the end: no detour through a single register in the loop.
        let mut sums = [0_u32; BLOCK];
        if picture.channels == 1 {
            for block in picture.data.chunks(BLOCK) {
                for (sum, &value) in sums.iter_mut().zip(block) {
                    *sum += u32::from(value);
                }
            }
        } else {
            let (red, rest) = picture.data.split_at(area);
            let (green, blue) = rest.split_at(area);
            for ((r, g), b) in red.chunks(BLOCK).zip(green.chunks(BLOCK)).zip(blue.chunks(BLOCK)) {
                for (((sum, &r), &g), &b) in sums.iter_mut().zip(r).zip(g).zip(b) {
                    *sum += (u32::from(r) * GRAY[0] + u32::from(g) * GRAY[1] + u32::from(b) * GRAY[2] + 32768) >> 16;
                }
            }
        }
        sums.iter().map(|&sum| u64::from(sum)).sum()
    }
}

/// Steps of which at most the first is a contrast, whose mean gray is known.
struct Run<'a> {
    picture: &'a mut Planes,
    steps: &'a [Step],
    mean: f32,
}

impl Work for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { picture, steps, mean } = self;
        let area = picture.area();
        if picture.channels == 1 {
            for plane in picture.data.chunks_mut(BLOCK) {
                let mut block = [load(plane)];
                for step in steps {
                    change_gray(&mut block, *step, mean);
                }
                store(&block[0], plane);
            }
        } else {
            let (red, rest) = picture.data.split_at_mut(area);
            let (green, blue) = rest.split_at_mut(area);
            for ((r, g), b) in red.chunks_mut(BLOCK).zip(green.chunks_mut(BLOCK)).zip(blue.chunks_mut(BLOCK)) {
                let mut block = [load(r), load(g), load(b)];
                for step in steps {
                    change(&mut block, *step, mean);
                }
                let [red, green, blue] = &block;
                store(red, r);
                store(green, g);
                store(blue, b);
            }
        }
    }
}

/// One block of a plane as f32, whole numbers 0–255.
type Block = [f32; BLOCK];

/// Takes up to [`BLOCK`] pixels out of a plane.
#[inline(always)]
fn load(plane: &[u8]) -> Block {
    let mut block = [0.0; BLOCK];
    if let Some(plane) = plane.first_chunk::<BLOCK>() {
        for i in 0..BLOCK {
            block[i] = f32::from(plane[i]);
        }
    } else {
        for (value, byte) in block.iter_mut().zip(plane) {
            *value = f32::from(*byte);
        }
    }
    block
}

/// Puts up to [`BLOCK`] pixels back into a plane.
#[inline(always)]
fn store(block: &Block, plane: &mut [u8]) {
    if let Some(plane) = plane.first_chunk_mut::<BLOCK>() {
        for i in 0..BLOCK {
            plane[i] = byte(block[i]);
        }
    } else {
        for (value, out) in block.iter().zip(plane) {
            *out = byte(*value);
        }
    }
}

/// A whole number 0–255 as a byte: adding 2^23 moves it into the low bits. Cheaper than a conversion that saturates.
#[inline(always)]
fn byte(whole: f32) -> u8 {
    (whole + 8_388_608.0).to_bits() as u8
}

#[inline(always)]
fn change_gray([plane]: &mut [Block; 1], step: Step, mean: f32) {
    match step {
        Step::Brightness(factor) => mix(0.0, plane, factor),
        Step::Contrast(factor) => mix(mean, plane, factor),
        Step::Saturation(_) | Step::Hue(_) | Step::Gray => {}
    }
}

#[inline(always)]
fn mix(from: f32, to: &mut Block, share: f32) {
    for value in to {
        *value = blend(from, *value, share);
    }
}

#[inline(always)]
fn change([red, green, blue]: &mut [Block; 3], step: Step, mean: f32) {
    match step {
        Step::Brightness(factor) => {
            mix(0.0, red, factor);
            mix(0.0, green, factor);
            mix(0.0, blue, factor);
        }
        Step::Contrast(factor) => {
            mix(mean, red, factor);
            mix(mean, green, factor);
            mix(mean, blue, factor);
        }
        Step::Saturation(factor) => {
            for i in 0..BLOCK {
                let gray = luminance(red[i], green[i], blue[i]);
                red[i] = blend(gray, red[i], factor);
                green[i] = blend(gray, green[i], factor);
                blue[i] = blend(gray, blue[i], factor);
            }
        }
        Step::Hue(turn) => {
            let turn = f32::from(turn);
            for i in 0..BLOCK {
                (red[i], green[i], blue[i]) = turn_hue(red[i], green[i], blue[i], turn);
            }
        }
        Step::Gray => {
            for i in 0..BLOCK {
                let gray = luminance(red[i], green[i], blue[i]);
                (red[i], green[i], blue[i]) = (gray, gray, gray);
            }
        }
    }
}

/// Pillow's `Image.blend`: from one value towards, or past, another; cut off, then truncated.
#[inline(always)]
fn blend(from: f32, to: f32, share: f32) -> f32 {
    let mixed = from + share * (to - from);
    larger(smaller(mixed, 255.0), 0.0).trunc()
}

/// Gray of a color. All terms and the sum are whole and below 2^24, hence exact.
#[inline(always)]
fn luminance(red: f32, green: f32, blue: f32) -> f32 {
    let weights = GRAY.map(|weight| weight as f32);
    let sum = red * weights[0] + green * weights[1] + blue * weights[2] + 32768.0;
    (sum * (1.0 / 65536.0)).trunc()
}

/// One machine instruction each, unlike `f32::max` and `f32::min`, which mind NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// A color whose hue is turned, by way of Pillow's 8-bit HSV.
///
/// Pillow mixes f32 and f64. Over all inputs the same bytes come out in f32, if the hue is one rounding of (odd number ± share)
/// and the divisions by the chroma, the maximum and 6 are divisions; those by 255 may be products.
#[inline(always)]
fn turn_hue(red: f32, green: f32, blue: f32, turn: f32) -> (f32, f32, f32) {
    const SMALL: f32 = 1.0 / 255.0;
    let high = larger(larger(red, green), blue);
    let low = smaller(smaller(red, green), blue);
    let chroma = high - low;
    let middle = red + green + blue - high - low;
    // How far the middle channel is from the highest one, 0–1. Gray has no hue, and any will do: its saturation is 0.
    let share = (high - middle) / larger(chroma, 1.0);
    let towards_green = if blue == low { 1.0 - share } else { share - 1.0 };
    let towards_blue = if blue == low { 1.0 + share } else { 3.0 - share };
    let towards_red = if red == low { 3.0 + share } else { 5.0 - share };
    let sixths = if red == high {
        towards_green
    } else if green == high {
        towards_blue
    } else {
        towards_red
    };
    let circle = sixths / 6.0;
    let circle = if circle < 0.0 { circle + 1.0 } else { circle };
    let hue = (circle * 255.0).trunc();
    let saturation = (chroma / larger(high, 1.0) * 255.0).trunc() * SMALL;

    let turned = hue + turn;
    let turned = if turned >= 256.0 { turned - 256.0 } else { turned };
    let sixfold = turned * 6.0;
    let sector = ((sixfold + 0.5) * SMALL).trunc();
    let within = (sixfold - 255.0 * sector) * SMALL;
    // Odd sectors fall from the highest towards the lowest, even ones rise.
    let odd = sector - 2.0 * (sector * 0.5).trunc();
    let fall = if odd == 1.0 { within } else { 1.0 - within };
    let lowest = (high * (1.0 - saturation) + 0.5).trunc();
    let slope = (high * (1.0 - saturation * fall) + 0.5).trunc();
    // Sector 6 is hue 255, where the circle closes: as sector 0.
    let sector = if sector == 6.0 { 0.0 } else { sector };
    let levels = (high, slope, lowest);
    (
        pick(sector, [0.0, 5.0], [1.0, 4.0], levels),
        pick(sector, [1.0, 2.0], [0.0, 3.0], levels),
        pick(sector, [3.0, 4.0], [2.0, 5.0], levels),
    )
}

/// What a channel is in a sector of the circle: highest in two, sloping in two, lowest in the others.
#[inline(always)]
fn pick(sector: f32, highest: [f32; 2], sloping: [f32; 2], (high, slope, low): (f32, f32, f32)) -> f32 {
    if sector == highest[0] || sector == highest[1] {
        high
    } else if sector == sloping[0] || sector == sloping[1] {
        slope
    } else {
        low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::golden;
    use super::*;

    /// Pillow's conversions, spelled out: f32 and f64 where it has them.
    fn to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
        let (high, low) = (red.max(green).max(blue), red.min(green).min(blue));
        if high == low {
            return [0, 0, high];
        }
        let chroma = f32::from(high - low);
        let saturation = chroma / f32::from(high);
        let [r, g, b] = [red, green, blue].map(|v| f32::from(high - v) / chroma);
        let hue = if red == high {
            b - g
        } else if green == high {
            (2.0 + f64::from(r) - f64::from(b)) as f32
        } else {
            (4.0 + f64::from(g) - f64::from(r)) as f32
        };
        let hue = ((f64::from(hue) / 6.0 + 1.0) % 1.0) as f32;
        [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, high]
    }

    fn from_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
        if saturation == 0 {
            return [value; 3];
        }
        let sixths = f64::from(hue) * 6.0 / 255.0;
        let sector = sixths.floor();
        let (f, s, v) = ((sixths - sector) as f32, f32::from(saturation) / 255.0, f64::from(value));
        let p = (v * (1.0 - f64::from(s))).round() as u8;
        let q = (v * (1.0 - f64::from(s * f))).round() as u8;
        let t = (v * (1.0 - f64::from(s) * (1.0 - f64::from(f)))).round() as u8;
        match sector as u8 % 6 {
            0 => [value, t, p],
            1 => [q, value, p],
            2 => [p, value, t],
            3 => [p, q, value],
            4 => [t, p, value],
            _ => [value, p, q],
        }
    }

    #[test]
    fn the_conversions_spelled_out_here_are_those_of_pillow() {
        let all = || (0..1_u32 << 24).map(|color| [(color >> 16) as u8, (color >> 8) as u8, color as u8]);
        let golden = golden::read();
        assert_eq!(format!("{:08x}", golden::crc32(all().flat_map(to_hsv))), golden.every_color_to_hsv);
        assert_eq!(format!("{:08x}", golden::crc32(all().flat_map(from_hsv))), golden.every_hsv_to_color);
    }

    /// 2^16 colors: all with this red.
    fn colors(red: u8) -> Planes {
        let mut data = vec![red; 1 << 16];
        data.extend((0..1 << 16).map(|i| (i >> 8) as u8));
        data.extend((0..1 << 16).map(|i| i as u8));
        Planes { channels: 3, height: 256, width: 256, data }
    }

    #[test]
    fn every_color_turns_as_in_pillow() {
        // Which turn meets which red does not matter to the first half of the trip, and the second sees every hue anyway.
        for red in 0..=255_u8 {
            let turns = if red == 255 { vec![0, 1, 17, 128, 238, 255] } else { vec![red.wrapping_mul(77), 3] };
            for turn in turns {
                let mut picture = colors(red);
                apply(&mut picture, &[Step::Hue(turn)]);
                for i in 0..1 << 16 {
                    let [h, s, v] = to_hsv([red, (i >> 8) as u8, i as u8]);
                    let expected = from_hsv([h.wrapping_add(turn), s, v]);
                    let found = [picture.data[i], picture.data[i + (1 << 16)], picture.data[i + (2 << 16)]];
                    assert_eq!(found, expected, "red {red}, pixel {i:04x}, turn {turn}");
                }
            }
        }
    }

    #[test]
    fn every_color_has_the_gray_of_integer_arithmetic() {
        for red in 0..=255_u8 {
            let mut picture = colors(red);
            apply(&mut picture, &[Step::Gray]);
            for i in 0..1_usize << 16 {
                let sum = u32::from(red) * 19595 + (i as u32 >> 8) * 38470 + (i as u32 & 255) * 7471;
                let gray = ((sum + 32768) >> 16) as u8;
                assert_eq!([picture.data[i], picture.data[i + (1 << 16)], picture.data[i + (2 << 16)]], [gray; 3]);
            }
        }
    }

    #[test]
    fn factor_one_changes_nothing_and_factors_are_cut_off() {
        let mut picture = colors(9);
        for step in [Step::Brightness(1.0), Step::Contrast(1.0), Step::Saturation(1.0)] {
            apply(&mut picture, &[step]);
            assert_eq!(picture, colors(9), "{step:?}");
        }
        let mut dots = Planes { channels: 1, height: 1, width: 3, data: vec![0, 100, 250] };
        apply(&mut dots, &[Step::Brightness(2.6)]);
        assert_eq!(dots.data, [0, 255, 255]);
        let mut dots = Planes { channels: 1, height: 1, width: 3, data: vec![0, 100, 250] };
        apply(&mut dots, &[Step::Contrast(2.0)]);
        assert_eq!(dots.data, [0, 83, 255], "mean 116.67 counts as 117");
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let factor = 0.0_f32..2.5;
        let step = prop_oneof![
            factor.clone().prop_map(Step::Brightness),
            factor.clone().prop_map(Step::Contrast),
            factor.prop_map(Step::Saturation),
            any::<u8>().prop_map(Step::Hue),
            Just(Step::Gray),
        ];
        prop::collection::vec(step, 0..7)
    }

    proptest! {
        #[test]
        fn a_gray_picture_in_three_channels_stays_gray_and_equals_one_channel(
            data in prop::collection::vec(any::<u8>(), 1..300), steps in steps()
        ) {
            let mut one = Planes { channels: 1, height: 1, width: data.len(), data };
            let mut three = Planes { channels: 3, height: 1, width: one.width, data: one.data.repeat(3) };
            apply(&mut one, &steps);
            apply(&mut three, &steps);
            prop_assert_eq!(one.data.repeat(3), three.data);
        }

        #[test]
        fn steps_together_are_steps_one_by_one(data in prop::collection::vec(any::<u8>(), 3..400), steps in steps()) {
            let width = data.len() / 3;
            let mut together = Planes { channels: 3, height: 1, width, data: data[..width * 3].to_vec() };
            let mut single = together.clone();
            apply(&mut together, &steps);
            for step in steps {
                apply(&mut single, &[step]);
            }
            prop_assert_eq!(together, single);
        }
    }
}
