//! Mean and standard deviation of each channel, measured on the images themselves.

use rayon::prelude::*;

use kinset_artifact::encoder::Normalization;
use kinset_base::stop::Stop;

use super::batch::Pictures;
use super::error::Error;

/// Pictures per chunk: sums are formed in fixed chunks, in order, so that they do not depend on the number of threads.
const CHUNK: usize = 256;
/// A channel that never changes gets this standard deviation instead of 0.
const FLOOR: f64 = 1e-3;

/// Mean and standard deviation of each channel over all pixels of all pictures.
///
/// # Units
/// Of pixels scaled to 0–1.
///
/// # Errors
/// A picture that cannot be read; a request to stop.
pub fn channels(pictures: &(impl Pictures + ?Sized), stop: &Stop) -> Result<Normalization, Error> {
    let chunks: Vec<usize> = (0..pictures.len()).step_by(CHUNK).collect();
    // Whole numbers: exact in any order.
    let sums = chunks
        .par_iter()
        .map(|&start| {
            let mut sums = [(0_u64, 0_u64, 0_u64); 3];
            for row in start..(start + CHUNK).min(pictures.len()) {
                stop.check()?;
                pictures.show(row, |picture| {
                    for pixel in picture.data.chunks_exact(picture.channels) {
                        for (sum, &value) in sums.iter_mut().zip(pixel) {
                            let value = u64::from(value);
                            *sum = (sum.0 + 1, sum.1 + value, sum.2 + value * value);
                        }
                    }
                })?;
            }
            Ok(sums)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let mut normalization = Normalization::new(Vec::new(), Vec::new());
    for channel in 0..3 {
        let (n, sum, square) = sums.iter().fold((0_u64, 0_u64, 0_u128), |(n, sum, square), part| {
            (n + part[channel].0, sum + part[channel].1, square + u128::from(part[channel].2))
        });
        if n == 0 {
            continue;
        }
        let mean = sum as f64 / n as f64;
        let variance = (square as f64 / n as f64 - mean * mean).max(0.0);
        normalization.mean.push((mean / 255.0) as f32);
        normalization.std.push((variance.sqrt() / 255.0).max(FLOOR) as f32);
    }
    Ok(normalization)
}
