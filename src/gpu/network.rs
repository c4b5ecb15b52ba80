//! What a residual network is: the shapes of its layers, and how its numbers lie in one row.

use std::ops::Range;

/// A convolution without bias, and the batch norm after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    pub inputs: usize,
    pub outputs: usize,
    /// Side of the kernel, pixels.
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

/// Units one after the other, and a way around them: a unit, or nothing but a sum. Rectified after each unit but the last, and after
/// the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub units: Vec<Unit>,
    pub shortcut: Option<Unit>,
}

/// The largest value of each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

/// A residual network up to the mean over all pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub first: Unit,
    pub pool: Option<Pool>,
    pub blocks: Vec<Block>,
}

/// Where the numbers of a unit lie, in the row of weights and in that of statistics.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// `[outputs, inputs, kernel, kernel]`.
    pub(crate) weight: Range<usize>,
    pub(crate) gamma: Range<usize>,
    pub(crate) beta: Range<usize>,
    /// `[2, outputs]`, mean and variance.
    pub(crate) moments: Range<usize>,
}

impl Unit {
    /// Pixels along an axis of the output.
    pub(crate) fn side(&self, side: usize) -> usize {
        (side + 2 * self.padding).saturating_sub(self.kernel) / self.stride + 1
    }
}

impl Pool {
    /// Pixels along an axis of the output.
    pub(crate) fn side(&self, side: usize) -> usize {
        (side + 2 * self.padding).saturating_sub(self.kernel) / self.stride + 1
    }
}

impl Network {
    /// All units in the order in which their numbers lie in rows: the first, then of each block its units and its shortcut.
    pub fn units(&self) -> impl Iterator<Item = &Unit> {
        std::iter::once(&self.first).chain(self.blocks.iter().flat_map(|block| block.units.iter().chain(&block.shortcut)))
    }

    /// D.
    pub fn features(&self) -> usize {
        self.blocks.last().and_then(|block| block.units.last()).unwrap_or(&self.first).outputs
    }

    /// B · H · W of each unit's output: what batch norm takes its statistics from.
    pub fn counts(&self, [images, height, width]: [usize; 3]) -> Vec<usize> {
        let of = |(h, w): (usize, usize)| images * h * w;
        let after = |unit: &Unit, (h, w): (usize, usize)| (unit.side(h), unit.side(w));
        let mut map = after(&self.first, (height, width));
        let mut counts = vec![of(map)];
        if let Some(pool) = &self.pool {
            map = (pool.side(map.0), pool.side(map.1));
        }
        for block in &self.blocks {
            let from = map;
            for unit in &block.units {
                map = after(unit, map);
                counts.push(of(map));
            }
            counts.extend(block.shortcut.iter().map(|unit| of(after(unit, from))));
        }
        counts
    }

    /// The places of all units, in their order. A row of weights holds of each unit weight, gamma and beta; a row of statistics mean
    /// and variance.
    pub(crate) fn places(&self) -> Vec<Place> {
        let (mut weights, mut statistics) = (0, 0);
        let next = |from: &mut usize, count: usize| {
            let range = *from..*from + count;
            *from = range.end;
            range
        };
        let of = |unit: &Unit| Place {
            weight: next(&mut weights, unit.outputs * unit.inputs * unit.kernel * unit.kernel),
            gamma: next(&mut weights, unit.outputs),
            beta: next(&mut weights, unit.outputs),
            moments: next(&mut statistics, 2 * unit.outputs),
        };
        self.units().map(of).collect()
    }

    /// Numbers in the row of weights, and in that of statistics.
    pub fn lengths(&self) -> (usize, usize) {
        self.places().last().map_or((0, 0), |place| (place.beta.end, place.moments.end))
    }
}
