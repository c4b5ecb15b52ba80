//! Every transform against Pillow's bytes: the fixtures of the SCAN specification, and `tests/golden/augment/golden.json`, which
//! `make.py` beside it wrote.

use super::affine::{self, Inverse};
use super::color::{self, Step};
use super::crop::{Window, shorter_side};
use super::planes::Planes;
use super::strong::Op;
use super::{resize, tone};
use kinset_artifact::pixels::Pixels;

/// CRC-32 as in zlib.
pub(super) fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    !bytes.into_iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

pub(super) fn checksum(picture: &Planes) -> String {
    format!("{:08x}", crc32(picture.to_pixels().data))
}

/// The pictures of `make.py`.
pub(super) fn texture(name: &str, width: usize, height: usize, channels: usize) -> Pixels {
    let value = |i: usize| {
        let (y, x, c) = ((i / channels / width) as u32, (i / channels % width) as u32, (i % channels) as u32);
        match name {
            "stripes" => 37 * y + 53 * x + 91 * c + x * y,
            "smooth" => 40 + (2 * y + 3 * x + 50 * c) * (1 + c) / 4 % 150,
            "noise" => {
                let hash = (y * 7919 + x * 104_729 + c * 1_299_709 + 12345).wrapping_mul(2_654_435_761);
                (hash ^ (hash >> 15)).wrapping_mul(2_246_822_519) >> 13
            }
            other => panic!("no texture `{other}`"),
        }
    };
    Pixels::new(width, height, channels, (0..width * height * channels).map(|i| value(i) as u8).collect())
}

fn changed(picture: &Pixels, op: Op) -> Planes {
    let (mut planes, mut spare) = (Planes::of(picture), Planes::default());
    op.apply(&mut planes, &mut spare);
    planes
}

fn colored(picture: &Pixels, step: Step) -> Planes {
    let mut planes = Planes::of(picture);
    color::apply(&mut planes, &[step]);
    planes
}

fn scaled(picture: &Pixels, window: Window, size: (usize, usize)) -> Planes {
    let mut out = Planes::default();
    resize::crop_resize(picture, window, size, false, &mut resize::Scratch::default(), &mut out);
    out
}

#[test]
fn the_checksum_is_that_of_zlib() {
    assert_eq!(crc32(*b"123456789"), 0xcbf4_3926);
}

#[test]
fn the_fixtures_of_the_scan_specification_hold() {
    let picture = texture("stripes", 32, 32, 3);
    assert_eq!(checksum(&Planes::of(&picture)), "d352b8eb");
    let ops = [
        (Op::Equalize, "f29daea9"),
        (Op::Rotate(17.25), "f28a397c"),
        (Op::Rotate(-29.5), "033f33fe"),
        (Op::Solarize(100.5), "978e3b44"),
        (Op::Color(0.33), "ecea2dd7"),
        (Op::Contrast(0.33), "b6f1bd85"),
        (Op::Brightness(0.33), "8f8d6730"),
        (Op::Sharpness(0.33), "c047be04"),
        (Op::ShearX(0.08), "a7e10549"),
        (Op::ShearY(-0.06), "d720545a"),
        (Op::TranslateX(0.07), "610bfcc7"),
        (Op::TranslateY(-0.09), "63580268"),
        (Op::Posterize(5), "66de5145"),
        (Op::Identity, "d352b8eb"),
    ];
    for (op, expected) in ops {
        assert_eq!(checksum(&changed(&picture, op)), expected, "{op:?}");
    }
    let mut dull = picture.clone();
    dull.data.iter_mut().for_each(|value| *value = *value / 3 + 60);
    assert_eq!(crc32(dull.data.iter().copied()), 0x3644_9151);
    assert_eq!(checksum(&changed(&dull, Op::AutoContrast)), "dfe6796c");
    assert_eq!(checksum(&changed(&dull, Op::Equalize)), "f14d60d5");
    let jitters = [
        (Step::Brightness(1.3), "78c3671d"),
        (Step::Contrast(0.7), "08d7c6ab"),
        (Step::Saturation(1.25), "3c8657cb"),
        (Step::hue(0.07), "e88f4277"),
        (Step::hue(-0.07), "2d624185"),
        (Step::Gray, "9f0a3916"),
    ];
    for (step, expected) in jitters {
        assert_eq!(checksum(&colored(&picture, step)), expected, "{step:?}");
    }
    let window = Window { left: 2, top: 3, width: 24, height: 20 };
    assert_eq!(checksum(&scaled(&picture, window, (32, 32))), "35f73b72");

    let high = texture("stripes", 70, 90, 3);
    assert_eq!(crc32(high.data.iter().copied()), 0xc040_4f6f);
    let small = scaled(&high, Window::whole(70, 90), shorter_side(70, 90, 32));
    assert_eq!((small.width, small.height, checksum(&small).as_str()), (32, 41, "639d542c"));
    let mut centre = Planes::default();
    centre.load(&small.to_pixels(), Window::centre(32, 41, 24));
    assert_eq!(checksum(&centre), "9ae75a55");
}

/// Texture; width, height, channels; operation; arguments; width and height of the result; checksum.
type Case = (String, [usize; 3], String, Vec<f64>, [usize; 2], String);

/// What `make.py` wrote.
#[derive(serde::Deserialize)]
pub(super) struct Golden {
    /// Checksum of all 2^24 colors in HSV.
    pub(super) every_color_to_hsv: String,
    /// Checksum of all 2^24 HSV triples as colors.
    pub(super) every_hsv_to_color: String,
    cases: Vec<Case>,
}

pub(super) fn read() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/augment/golden.json")).unwrap()
}

#[test]
fn random_operations_give_the_bytes_of_pillow() {
    let golden = read();
    assert!(golden.cases.len() > 900);
    let mut wrong = Vec::new();
    for (name, [width, height, channels], op, args, size, expected) in &golden.cases {
        let picture = texture(name, *width, *height, *channels);
        let first = args.first().copied().unwrap_or(0.0);
        let mut planes = Planes::of(&picture);
        let mut out = Planes::default();
        let mut colored = |step| color::apply(&mut planes, &[step]);
        match op.as_str() {
            "resize" => {
                let [left, top, w, h, to_width, to_height] = [0, 1, 2, 3, 4, 5].map(|i| args[i] as usize);
                out = scaled(&picture, Window { left, top, width: w, height: h }, (to_width, to_height));
            }
            "autocontrast" => tone::autocontrast(&mut planes),
            "equalize" => tone::equalize(&mut planes),
            "solarize" => tone::solarize(&mut planes, first),
            "posterize" => tone::posterize(&mut planes, first as u32),
            "sharpness" => tone::sharpness(&planes, first as f32, &mut out),
            "saturation" => colored(Step::Saturation(first as f32)),
            "contrast" => colored(Step::Contrast(first as f32)),
            "brightness" => colored(Step::Brightness(first as f32)),
            "gray" => colored(Step::Gray),
            "hue" => colored(Step::Hue(first as u8)),
            "rotate" => affine::apply(&planes, Inverse::rotation(*width, *height, first), &mut out),
            "shear_x" => affine::apply(&planes, Inverse::shear_x(first), &mut out),
            "shear_y" => affine::apply(&planes, Inverse::shear_y(first), &mut out),
            "translate_x" => affine::apply(&planes, Inverse::translation(first * *width as f64, 0.0), &mut out),
            "translate_y" => affine::apply(&planes, Inverse::translation(0.0, first * *height as f64), &mut out),
            other => panic!("no operation `{other}`"),
        }
        let result = if out.data.is_empty() { planes } else { out };
        if [result.width, result.height] != *size || checksum(&result) != *expected {
            wrong.push(format!("{op} {args:?} of {name} {width}x{height}x{channels}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), golden.cases.len());
}
