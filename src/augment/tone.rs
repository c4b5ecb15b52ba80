//! Auto-contrast, equalize, solarize, posterize and sharpness, to the bit as Pillow's `ImageOps` and `ImageEnhance` do them.

use super::planes::Planes;

fn histogram(plane: &[u8]) -> [usize; 256] {
    let mut counts = [0; 256];
    for &value in plane {
        counts[usize::from(value)] += 1;
    }
    counts
}

/// Replaces every value by its entry.
fn map(plane: &mut [u8], table: &[u8; 256]) {
    for value in plane {
        *value = table[usize::from(*value)];
    }
}

/// Stretches each channel over 0–255.
pub fn autocontrast(picture: &mut Planes) {
    for plane in picture.planes_mut() {
        let (Some(&low), Some(&high)) = (plane.iter().min(), plane.iter().max()) else { continue };
        if low < high {
            let scale = 255.0 / f64::from(high - low);
            let offset = -f64::from(low) * scale;
            // The conversion truncates and cuts off.
            map(plane, &std::array::from_fn(|value| (value as f64 * scale + offset) as u8));
        }
    }
}

/// Flattens each channel's histogram.
pub fn equalize(picture: &mut Planes) {
    for plane in picture.planes_mut() {
        let counts = histogram(plane);
        let Some(highest) = counts.iter().rev().find(|&&count| count > 0) else { continue };
        let step = (plane.len() - highest) / 255;
        if step > 0 {
            let mut below = step / 2;
            let table = counts.map(|count| {
                let level = (below / step).min(255) as u8;
                below += count;
                level
            });
            map(plane, &table);
        }
    }
}

/// Inverts all values from `threshold` on.
pub fn solarize(picture: &mut Planes, threshold: f64) {
    let table = std::array::from_fn(|value| if (value as f64) < threshold { value as u8 } else { 255 - value as u8 });
    map(&mut picture.data, &table);
}

/// Keeps the top `bits` bits, 0–8.
pub fn posterize(picture: &mut Planes, bits: u32) {
    let mask = (0xff_u32 << (8 - bits.min(8))) as u8;
    for value in &mut picture.data {
        *value &= mask;
    }
}

/// Mixes a picture with a smoothed one: 0 is smooth, 1 the picture. The outermost pixels are not smoothed.
pub fn sharpness(from: &Planes, factor: f32, to: &mut Planes) {
    to.reshape_like(from);
    to.data.copy_from_slice(&from.data);
    let (width, height) = (from.width, from.height);
    if width < 3 || height < 3 {
        return;
    }
    for (source, target) in from.planes().zip(to.data.chunks_exact_mut(width * height)) {
        let lines = source.windows(3 * width).step_by(width).zip(target.chunks_exact_mut(width).skip(1));
        for (lines, out) in lines {
            let (above, rest) = lines.split_at(width);
            let (here, under) = rest.split_at(width);
            for (x, out) in out[1..width - 1].iter_mut().enumerate() {
                let three = |line: &[u8]| u32::from(line[x]) + u32::from(line[x + 1]) + u32::from(line[x + 2]);
                let sum = three(above) + three(here) + three(under) + 4 * u32::from(here[x + 1]);
                let smooth = ((2 * sum + 13) / 26) as f32;
                // The conversion truncates and cuts off.
                *out = (smooth + factor * (f32::from(here[x + 1]) - smooth)) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(data: &[u8]) -> Planes {
        Planes { channels: 1, height: 1, width: data.len(), data: data.to_vec() }
    }

    #[test]
    fn contrast_is_stretched_to_both_ends() {
        let mut picture = line(&[100, 150, 200]);
        autocontrast(&mut picture);
        assert_eq!(picture.data, [0, 127, 254], "as in Pillow, whose 200 · 2.55 − 255 is a hair below 255");
        let mut even = line(&[9, 9]);
        autocontrast(&mut even);
        assert_eq!(even.data, [9, 9]);
    }

    #[test]
    fn equalizing_needs_enough_pixels() {
        let mut few = line(&[1, 2, 3]);
        equalize(&mut few);
        assert_eq!(few.data, [1, 2, 3]);
        let mut even = line(&[5; 600]);
        equalize(&mut even);
        assert_eq!(even.data, [5; 600]);
        let mut two = line(&[vec![10; 300], vec![20; 300]].concat());
        equalize(&mut two);
        assert_eq!((two.data[0], two.data[599]), (0, 255));
    }

    #[test]
    fn solarize_and_posterize_by_hand() {
        let mut picture = line(&[0, 99, 100, 255]);
        solarize(&mut picture, 99.5);
        assert_eq!(picture.data, [0, 99, 155, 0]);
        let mut picture = line(&[0, 15, 16, 255]);
        posterize(&mut picture, 4);
        assert_eq!(picture.data, [0, 0, 16, 240]);
        posterize(&mut picture, 0);
        assert_eq!(picture.data, [0; 4]);
    }

    #[test]
    fn sharpness_leaves_borders_and_small_pictures_alone() {
        let mut out = Planes::default();
        let dot = Planes { channels: 1, height: 3, width: 3, data: vec![0, 0, 0, 0, 130, 0, 0, 0, 0] };
        sharpness(&dot, 0.0, &mut out);
        assert_eq!(out.data, [0, 0, 0, 0, 50, 0, 0, 0, 0]);
        let small = line(&[1, 200, 1]);
        sharpness(&small, 0.0, &mut out);
        assert_eq!(out, small);
    }
}
