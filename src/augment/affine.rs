//! Rotating, shearing and moving, to the bit as Pillow does it with the nearest pixel: black fill, same size.
//!
//! Every target pixel asks the inverse map where its center came from. Pillow steps that map in 16.16 fixed point, and plain
//! floats differ from it in rare pixels; pure scaling and moving it steps in floats.

use super::planes::Planes;

/// Where a target pixel comes from: `x = a·x' + b·y' + c`, `y = d·x' + e·y' + f`, in Pillow's order `[a, b, c, d, e, f]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inverse(pub [f64; 6]);

impl Inverse {
    /// Counter-clockwise by degrees about the middle of a picture.
    pub fn rotation(width: usize, height: usize, degrees: f64) -> Self {
        let radians = -degrees.rem_euclid(360.0).to_radians();
        // Pillow rounds to 15 digits, which makes right angles exact.
        let round = |value: f64| (value * 1e15).round_ties_even() / 1e15;
        let (cos, sin) = (round(radians.cos()), round(radians.sin()));
        let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
        Self([cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y])
    }

    /// Rows move by `share` of their distance from the top.
    pub fn shear_x(share: f64) -> Self {
        Self([1.0, share, 0.0, 0.0, 1.0, 0.0])
    }

    /// Columns move by `share` of their distance from the left.
    pub fn shear_y(share: f64) -> Self {
        Self([1.0, 0.0, 0.0, share, 1.0, 0.0])
    }

    /// The picture moves left and up by this many pixels.
    pub fn translation(x: f64, y: f64) -> Self {
        Self([1.0, 0.0, x, 0.0, 1.0, y])
    }
}

/// Moves a picture's pixels.
///
/// # Limits
/// Pillow leaves fixed point beyond coordinates of 32,768; this does not.
pub fn apply(from: &Planes, inverse: Inverse, to: &mut Planes) {
    to.reshape_like(from);
    to.data.fill(0);
    let Inverse([_, b, _, d, _, _]) = inverse;
    if b == 0.0 && d == 0.0 { straight(from, inverse, to) } else { slanted(from, inverse, to) }
}

/// 16.16 fixed point.
fn fixed(value: f64) -> i64 {
    (value * 65536.0 + 0.5).floor() as i64
}

fn slanted(from: &Planes, Inverse([a, b, c, d, e, f]): Inverse, to: &mut Planes) {
    let (width, height, area) = (from.width, from.height, from.area());
    let (mut row_x, mut row_y) = (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5));
    let (a, b, d, e) = (fixed(a), fixed(b), fixed(d), fixed(e));
    for line in 0..height {
        let (mut x, mut y) = (row_x, row_y);
        for target in line * width..(line + 1) * width {
            // Negative numbers turn into huge ones: one comparison each.
            let (column, row) = ((x >> 16) as usize, (y >> 16) as usize);
            if column < width && row < height {
                let source = row * width + column;
                for plane in (0..to.data.len()).step_by(area) {
                    to.data[plane + target] = from.data[plane + source];
                }
            }
            x += a;
            y += d;
        }
        row_x += b;
        row_y += e;
    }
}

fn straight(from: &Planes, Inverse([a, _, c, _, e, f]): Inverse, to: &mut Planes) {
    let (width, height) = (from.width, from.height);
    let sources = |step: f64, offset: f64, length: usize| {
        let mut at = offset + step * 0.5;
        let next = move |_| {
            let here = at;
            at += step;
            (here >= 0.0 && (here as usize) < length).then_some(here as usize)
        };
        (0..length).map(next)
    };
    let area = from.area().max(1);
    for (source, target) in from.data.chunks_exact(area).zip(to.data.chunks_exact_mut(area)) {
        for (row, line) in sources(e, f, height).zip(target.chunks_exact_mut(width.max(1))) {
            let Some(row) = row else { continue };
            let source = &source[row * width..(row + 1) * width];
            for (column, pixel) in sources(a, c, width).zip(line) {
                if let Some(column) = column {
                    *pixel = source[column];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picture(width: usize, height: usize) -> Planes {
        Planes { channels: 1, height, width, data: (0..width * height).map(|i| (i * 37 % 255 + 1) as u8).collect() }
    }

    #[test]
    fn quarter_turns_are_exact_and_counter_clockwise() {
        let square = Planes { channels: 1, height: 2, width: 2, data: vec![1, 2, 3, 4] };
        let mut out = Planes::default();
        apply(&square, Inverse::rotation(2, 2, 90.0), &mut out);
        assert_eq!(out.data, [2, 4, 1, 3]);
        apply(&square, Inverse::rotation(2, 2, 180.0), &mut out);
        assert_eq!(out.data, [4, 3, 2, 1]);
        apply(&square, Inverse::rotation(2, 2, -90.0), &mut out);
        assert_eq!(out.data, [3, 1, 4, 2]);
    }

    #[test]
    fn moving_leaves_black_behind() {
        let line = Planes { channels: 1, height: 1, width: 4, data: vec![1, 2, 3, 4] };
        let mut out = Planes::default();
        apply(&line, Inverse::translation(1.0, 0.0), &mut out);
        assert_eq!(out.data, [2, 3, 4, 0]);
        apply(&line, Inverse::translation(-2.0, 0.0), &mut out);
        assert_eq!(out.data, [0, 0, 1, 2]);
        apply(&line, Inverse::translation(0.0, 1.0), &mut out);
        assert_eq!(out.data, [0; 4]);
    }

    proptest! {
        #[test]
        fn channels_move_alike(width in 1_usize..30, height in 1_usize..30, degrees in -180.0..180.0_f64, x in -9.0..9.0_f64) {
            let one = picture(width, height);
            let three = Planes { channels: 3, data: one.data.repeat(3), ..one.clone() };
            for inverse in [Inverse::rotation(width, height, degrees), Inverse::translation(x, -x), Inverse::shear_x(x / 10.0)] {
                let (mut out, mut outs) = (Planes::default(), Planes::default());
                apply(&one, inverse, &mut out);
                apply(&three, inverse, &mut outs);
                prop_assert_eq!(out.data.repeat(3), outs.data);
            }
        }

        #[test]
        fn nothing_moves_by_nothing(width in 1_usize..30, height in 1_usize..30) {
            let from = picture(width, height);
            let mut out = Planes::default();
            for inverse in [Inverse::rotation(width, height, 0.0), Inverse::translation(0.0, 0.0), Inverse::shear_y(0.0)] {
                apply(&from, inverse, &mut out);
                prop_assert_eq!(&from, &out);
            }
        }
    }
}
