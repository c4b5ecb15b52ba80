//! Cutout (DeVries and Taylor 2017): a square of a view is erased.
//!
//! As the SCAN authors run it: on the normalized tensor, so that the hole shows the mean color of the data set, not black; the
//! side is drawn anew for every view, uniform over `1..=length`, and halved with truncation, so that sides are even and length
//! 1 cuts nothing.

use kinset_base::seed::Rng;

/// A rectangle of a view, ends excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// First and last row.
    rows: (usize, usize),
    /// First and last column.
    columns: (usize, usize),
}

impl Hole {
    /// A hole about a uniformly random pixel of a `size` x `size` view, cut off at the borders.
    pub fn draw(size: usize, length: usize, rng: &mut Rng) -> Self {
        let side = 1 + rng.below(length.max(1));
        let half = side / 2;
        let mut span = || {
            let centre = rng.below(size);
            (centre.saturating_sub(half), (centre + half).min(size))
        };
        let rows = span();
        Self { rows, columns: span() }
    }

    /// Sets the hole to 0 in a view `[C, size, size]`.
    pub fn cut(self, size: usize, view: &mut [f32]) {
        for plane in view.chunks_exact_mut(size * size) {
            for row in plane[self.rows.0 * size..self.rows.1 * size].chunks_exact_mut(size) {
                row[self.columns.0..self.columns.1].fill(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::seed::Seed;

    #[test]
    fn holes_are_even_squares_cut_off_at_the_border() {
        let mut rng = Seed::new(4).rng();
        let (mut nothing, mut largest) = (0, 0);
        for _ in 0..2000 {
            let hole = Hole::draw(32, 16, &mut rng);
            assert!(hole.rows.1 <= 32 && hole.columns.1 <= 32);
            let (height, width) = (hole.rows.1 - hole.rows.0, hole.columns.1 - hole.columns.0);
            assert!(height <= 16 && width <= 16);
            nothing += usize::from(height * width == 0);
            largest = largest.max(height * width);
        }
        assert_eq!(largest, 256);
        assert!((80..180).contains(&nothing), "one length of sixteen cuts nothing: {nothing}");
    }

    #[test]
    fn a_hole_goes_through_all_channels() {
        let mut view = vec![1.0; 2 * 9];
        Hole { rows: (0, 2), columns: (1, 3) }.cut(3, &mut view);
        let plane = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        assert_eq!(view, [plane, plane].concat());
    }
}
