//! The same network by the processor's kernels: what a card is compared with.

use candle_core::Tensor;
use kinset_kernel::{After, batch_norm, batch_norm_eval, conv2d, global_avg_pool, max_pool2d};

use super::error::{GpuError, Result};
use super::network::{Network, Place, Unit};
use super::operation::Statistics;

/// As [`super::features`], on the processor.
pub(crate) fn features(
    network: &Network,
    images: &Tensor,
    weights: &Tensor,
    statistics: Statistics<'_>,
) -> Result<(Tensor, Vec<f32>)> {
    let mut run = Run { places: network.places().into_iter(), weights, statistics, moments: Vec::new() };
    let mut x = run.unit(&network.first, images, After::Relu)?;
    if let Some(pool) = network.pool {
        x = max_pool2d(&x, pool.kernel, pool.stride, pool.padding)?;
    }
    for block in &network.blocks {
        let Some((last, firsts)) = block.units.split_last() else { continue };
        let mut y = x.clone();
        for unit in firsts {
            y = run.unit(unit, &y, After::Relu)?;
        }
        // Places are in the order of units, and the shortcut's is the last.
        let of_last = run.next()?;
        if let Some(shortcut) = &block.shortcut {
            x = run.unit(shortcut, &x, After::Nothing)?;
            // Its moments stand after those of the unit that is yet to come.
            let of_shortcut = run.moments.split_off(run.moments.len() - run.of_batch(2 * shortcut.outputs));
            x = run.unit_at(&of_last, last, &y, After::AddRelu(&x))?;
            run.moments.extend(of_shortcut);
        } else {
            x = run.unit_at(&of_last, last, &y, After::AddRelu(&x))?;
        }
    }
    Ok((global_avg_pool(&x)?, run.moments))
}

struct Run<'a> {
    places: std::vec::IntoIter<Place>,
    weights: &'a Tensor,
    statistics: Statistics<'a>,
    moments: Vec<f32>,
}

impl Run<'_> {
    fn next(&mut self) -> Result<Place> {
        self.places.next().ok_or(GpuError::Length { what: "units", found: 0, wanted: 1 })
    }

    /// So many numbers, or none if statistics are given.
    fn of_batch(&self, count: usize) -> usize {
        if matches!(self.statistics, Statistics::Batch) { count } else { 0 }
    }

    fn unit(&mut self, unit: &Unit, x: &Tensor, after: After<'_>) -> Result<Tensor> {
        let place = self.next()?;
        self.unit_at(&place, unit, x, after)
    }

    fn unit_at(&mut self, place: &Place, unit: &Unit, x: &Tensor, after: After<'_>) -> Result<Tensor> {
        let part = |range: &std::ops::Range<usize>| self.weights.narrow(0, range.start, range.len());
        let (gamma, beta) = (part(&place.gamma)?, part(&place.beta)?);
        let weight = part(&place.weight)?.reshape((unit.outputs, unit.inputs, unit.kernel, unit.kernel))?;
        let y = conv2d(x, &weight, unit.stride, unit.padding)?;
        match self.statistics {
            Statistics::Batch => {
                let normal = batch_norm(&y, &gamma, &beta, 1e-5, after)?;
                self.moments.extend(normal.mean.to_vec1::<f32>()?);
                self.moments.extend(normal.variance.to_vec1::<f32>()?);
                Ok(normal.output)
            }
            Statistics::Fixed(row) => {
                let row = Tensor::new(&row[place.moments.clone()], x.device())?;
                let (mean, variance) = (row.narrow(0, 0, unit.outputs)?, row.narrow(0, unit.outputs, unit.outputs)?);
                Ok(batch_norm_eval(&y, &gamma, &beta, &mean, &variance, 1e-5, after)?)
            }
        }
    }
}
