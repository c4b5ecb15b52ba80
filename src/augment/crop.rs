//! Crop windows: the random one of random resized crop, the center, a random square, and the size after "shorter side to n".
//!
//! All follow torchvision 0.5, which the papers' numbers come from: Python's rounding is half to even, sizes after scaling are
//! truncated.

use kinset_base::seed::Rng;

/// A rectangle of pixels inside a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Columns left of it.
    pub left: usize,
    /// Rows above it.
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

/// How often a random window is drawn before the centered one is taken (torchvision 0.5).
const TRIES: usize = 10;

impl Window {
    /// All of a picture.
    pub fn whole(width: usize, height: usize) -> Self {
        Self { left: 0, top: 0, width, height }
    }

    /// The centered square of this size. Offsets round half to even; a picture smaller than the square is taken whole in that
    /// direction.
    pub fn centre(width: usize, height: usize, size: usize) -> Self {
        let offset = |length: usize| (length.saturating_sub(size) as f64 / 2.0).round_ties_even() as usize;
        Self { left: offset(width), top: offset(height), width: size.min(width), height: size.min(height) }
    }

    /// A square of this size at a uniformly random place.
    pub fn random_square(width: usize, height: usize, size: usize, rng: &mut Rng) -> Self {
        let (w, h) = (size.min(width), size.min(height));
        let top = rng.below(height - h + 1);
        let left = rng.below(width - w + 1);
        Self { left, top, width: w, height: h }
    }

    /// The window of random resized crop (torchvision 0.5, Szegedy et al. 2015): area share uniform in `scale`, width over
    /// height log-uniform in `ratio`, place uniform; after ten misfits the largest centered window within the ratio.
    pub fn random_resized(width: usize, height: usize, scale: [f64; 2], ratio: [f64; 2], rng: &mut Rng) -> Self {
        let area = (width * height) as f64;
        let log_ratio = [ratio[0].ln(), ratio[1].ln()];
        for _ in 0..TRIES {
            let target = rng.between(scale[0], scale[1]) * area;
            let aspect = rng.between(log_ratio[0], log_ratio[1]).exp();
            let w = (target * aspect).sqrt().round_ties_even() as usize;
            let h = (target / aspect).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let top = rng.below(height - h + 1);
                let left = rng.below(width - w + 1);
                return Self { left, top, width: w, height: h };
            }
        }
        Self::fallback(width, height, ratio)
    }

    /// The largest centered window whose width over height lies within `ratio`.
    fn fallback(width: usize, height: usize, ratio: [f64; 2]) -> Self {
        let own = width as f64 / height as f64;
        let (w, h) = if own < ratio[0] {
            (width, (width as f64 / ratio[0]).round_ties_even() as usize)
        } else if own > ratio[1] {
            ((height as f64 * ratio[1]).round_ties_even() as usize, height)
        } else {
            (width, height)
        };
        let (w, h) = (w.clamp(1, width), h.clamp(1, height));
        Self { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
    }
}

/// Width and height once the shorter side is `size` and the shape is kept; the longer side is truncated.
pub fn shorter_side(width: usize, height: usize, size: usize) -> (usize, usize) {
    if width <= height { (size, size * height / width) } else { (size * width / height, size) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::seed::Seed;

    #[test]
    fn the_longer_side_is_truncated() {
        assert_eq!(shorter_side(500, 375, 256), (341, 256));
        assert_eq!(shorter_side(70, 90, 32), (32, 41));
        assert_eq!(shorter_side(32, 32, 32), (32, 32));
    }

    #[test]
    fn centre_offsets_round_half_to_even() {
        assert_eq!(Window::centre(33, 35, 32), Window { left: 0, top: 2, width: 32, height: 32 });
        assert_eq!(Window::centre(32, 41, 24), Window { left: 4, top: 8, width: 24, height: 24 });
        assert_eq!(Window::centre(10, 40, 32), Window { left: 0, top: 4, width: 10, height: 32 });
    }

    #[test]
    fn random_windows_stay_inside_and_keep_scale_and_ratio() {
        let mut rng = Seed::new(5).rng();
        let (mut shares, mut corners) = (0.0, [0_usize; 2]);
        for _ in 0..4000 {
            let w = Window::random_resized(96, 96, [0.2, 1.0], [0.75, 4.0 / 3.0], &mut rng);
            assert!(w.left + w.width <= 96 && w.top + w.height <= 96);
            let share = (w.width * w.height) as f64 / (96.0 * 96.0);
            assert!((0.19..=1.0).contains(&share));
            assert!((0.73..=1.37).contains(&(w.width as f64 / w.height as f64)));
            shares += share / 4000.0;
            corners[usize::from(w.left * 2 > 96 - w.width)] += 1;
        }
        assert!((0.53..0.57).contains(&shares), "large windows fit less often, so the mean is below 0.6: {shares}");
        assert!(corners.iter().all(|&n| n > 1700), "{corners:?}");
    }

    #[test]
    fn pictures_too_long_for_the_ratio_fall_back_to_the_centre() {
        let mut rng = Seed::new(5).rng();
        let long = Window::random_resized(100, 10, [0.9, 1.0], [0.75, 1.25], &mut rng);
        assert_eq!(long, Window { left: 44, top: 0, width: 12, height: 10 });
        let high = Window::random_resized(9, 100, [0.9, 1.0], [0.75, 1.25], &mut rng);
        assert_eq!(high, Window { left: 0, top: 44, width: 9, height: 12 });
        assert_eq!(Window::fallback(7, 7, [0.75, 1.25]), Window::whole(7, 7));
    }

    #[test]
    fn random_squares_reach_every_corner() {
        let mut rng = Seed::new(6).rng();
        let mut seen = [[false; 3]; 2];
        for _ in 0..200 {
            let w = Window::random_square(5, 4, 3, &mut rng);
            seen[w.top][w.left] = true;
        }
        assert_eq!(seen, [[true; 3]; 2]);
    }
}
