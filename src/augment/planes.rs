//! A picture on its way through the transforms: one plane per channel, so that loops run over neighbors in memory and the
//! normalized tensor `[C, H, W]` is read off in order.

use super::crop::Window;
use kinset_artifact::pixels::Pixels;

/// A picture as planes, 8 bits each. Reused from sample to sample: [`Planes::reshape`] keeps the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planes {
    /// 1 (gray) or 3 (RGB).
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Pixels per row.
    pub width: usize,
    /// `[channels, height, width]`, 0–255.
    pub data: Vec<u8>,
}

impl Planes {
    /// Takes another shape. What the pixels hold then is unspecified.
    pub fn reshape(&mut self, channels: usize, height: usize, width: usize) {
        (self.channels, self.height, self.width) = (channels, height, width);
        self.data.resize(channels * height * width, 0);
    }

    pub fn reshape_like(&mut self, other: &Self) {
        self.reshape(other.channels, other.height, other.width);
    }

    /// Pixels of one plane.
    pub fn area(&self) -> usize {
        self.height * self.width
    }

    /// The planes, in the order of the channels.
    pub fn planes(&self) -> impl Iterator<Item = &[u8]> {
        self.data.chunks_exact(self.area().max(1))
    }

    pub fn planes_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let area = self.area().max(1);
        self.data.chunks_exact_mut(area)
    }

    /// Takes in a window of a picture.
    pub fn load(&mut self, picture: &Pixels, window: Window) {
        let channels = picture.channels;
        self.reshape(channels, window.height, window.width);
        let area = self.area();
        for y in 0..window.height {
            let start = ((window.top + y) * picture.width + window.left) * channels;
            let row = &picture.data[start..start + window.width * channels];
            let at = y * window.width;
            if channels == 3 {
                let (red, rest) = self.data.split_at_mut(area);
                let (green, blue) = rest.split_at_mut(area);
                let ends = at..at + window.width;
                let outs = red[ends.clone()].iter_mut().zip(&mut green[ends.clone()]).zip(&mut blue[ends]);
                for (((r, g), b), pixel) in outs.zip(row.as_chunks::<3>().0) {
                    [*r, *g, *b] = *pixel;
                }
            } else {
                self.data[at..at + window.width].copy_from_slice(row);
            }
        }
    }

    /// The whole of a picture as planes.
    pub fn of(picture: &Pixels) -> Self {
        let mut planes = Self::default();
        planes.load(picture, Window::whole(picture.width, picture.height));
        planes
    }

    /// Back to interleaved pixels.
    pub fn to_pixels(&self) -> Pixels {
        let mut data = vec![0; self.data.len()];
        for (channel, plane) in self.planes().enumerate() {
            for (to, from) in data.iter_mut().skip(channel).step_by(self.channels).zip(plane) {
                *to = *from;
            }
        }
        Pixels::new(self.width, self.height, self.channels, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_and_pixels_are_two_views_of_one_picture() {
        let picture = Pixels::new(2, 2, 3, (0..12).collect());
        let planes = Planes::of(&picture);
        assert_eq!(planes.data, [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        assert_eq!(planes.to_pixels(), picture);
        let gray = Pixels::new(3, 1, 1, vec![7, 8, 9]);
        assert_eq!(Planes::of(&gray).data, gray.data);
    }

    #[test]
    fn a_window_is_cut_out() {
        let picture = Pixels::new(4, 3, 1, (0..12).collect());
        let mut planes = Planes::default();
        planes.load(&picture, Window { left: 1, top: 1, width: 2, height: 2 });
        assert_eq!(planes.data, [5, 6, 9, 10]);
    }
}
