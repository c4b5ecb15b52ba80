//! Inputs of the benchmarks: numbers by formula, so that a peer in Python draws the same ones (`pieces/ground.py`).

use kinset::artifact::pixels::Pixels;
use kinset::math::cosine::normalize_rows;

/// A number that looks random: SplitMix64 (Steele et al. 2014) at this place of its sequence.
pub(crate) fn mixed(place: u64) -> u64 {
    let z = (place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Near to a standard normal: the sum of four uniform 16-bit numbers, scaled. Exact in `f32` but for the last product.
pub(crate) fn bells(count: usize) -> Vec<f32> {
    let one = |place: usize| {
        let bits = mixed(place as u64);
        let sum = (0..4).map(|part| (bits >> (16 * part)) as u16).map(i32::from).sum::<i32>() - 131_070;
        sum as f32 * (1.0 / 37_837.23)
    };
    (0..count).map(one).collect()
}

/// Rows of unit length, `[rows, dim]`.
pub(crate) fn unit_rows(rows: usize, dim: usize) -> Vec<f32> {
    let mut values = bells(rows * dim);
    assert!(normalize_rows(&mut values, dim).is_empty(), "no row is zero");
    values
}

/// Square pictures of noise.
pub(crate) fn pictures(count: usize, size: usize, channels: usize) -> Vec<Pixels> {
    let bytes = size * size * channels;
    let picture = |number: usize| (number * bytes..(number + 1) * bytes).map(|place| mixed(place as u64) as u8).collect();
    (0..count).map(|number| Pixels::new(size, size, channels, picture(number))).collect()
}
