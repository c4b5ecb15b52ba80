//! What operators have in common: inputs, errors, and places of axes.

use candle_core::{DType, Device, Tensor};

/// The largest tensor that is made, in numbers: what a damaged graph may ask for.
const LARGEST: usize = 1 << 29;

/// What an operator could not do, in words, or what the tensor library said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stuck {
    #[error("{0}")]
    Words(String),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

pub(super) type Step<T> = Result<T, Stuck>;

pub(super) fn stuck<T>(words: impl Into<String>) -> Step<T> {
    Err(Stuck::Words(words.into()))
}

/// What an operator reads; inputs may be left out.
pub(crate) struct Inputs<'a>(pub(crate) &'a [Option<&'a Tensor>]);

impl<'a> Inputs<'a> {
    pub(super) fn get(&self, place: usize) -> Option<&'a Tensor> {
        self.0.get(place).copied().flatten()
    }

    pub(super) fn at(&self, place: usize) -> Step<&'a Tensor> {
        self.get(place).map_or_else(|| stuck(format!("it lacks input {place}")), Ok)
    }

    /// Whole numbers, if they are there.
    pub(super) fn whole(&self, place: usize) -> Step<Option<Vec<i64>>> {
        match self.get(place) {
            Some(x) if x.dtype() == DType::I64 => Ok(Some(x.flatten_all()?.to_vec1()?)),
            Some(_) => stuck(format!("input {place} has no whole numbers")),
            None => Ok(None),
        }
    }

    pub(super) fn scalar(&self, place: usize) -> Step<Option<f32>> {
        match self.get(place) {
            Some(x) if x.elem_count() == 1 => Ok(Some(x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?[0])),
            Some(_) => stuck(format!("input {place} is not one number")),
            None => Ok(None),
        }
    }
}

/// Places of an axis counted from the front or, below 0, from the end.
pub(super) fn axis(at: i64, rank: usize) -> Step<usize> {
    let counted = if at < 0 { at + rank as i64 } else { at };
    if (0..rank as i64).contains(&counted) { Ok(counted as usize) } else { stuck(format!("there is no axis {at} of {rank}")) }
}

/// A place in a row of so many, negative ones from the end, cut to the row.
pub(super) fn bound(at: i64, count: usize) -> usize {
    let at = if at < 0 { at.saturating_add(count as i64) } else { at };
    at.clamp(0, count as i64) as usize
}

pub(super) fn sides(list: &[i64]) -> Step<Vec<usize>> {
    list.iter().map(|&side| usize::try_from(side).or_else(|_| stuck(format!("a side of {side}")))).collect()
}

/// Refuses what would take all memory.
pub(super) fn small(count: usize) -> Step<()> {
    if count <= LARGEST { Ok(()) } else { stuck(format!("it would make {count} numbers")) }
}

pub(super) fn whole(values: &[i64]) -> Step<Tensor> {
    Ok(Tensor::from_slice(values, values.len(), &Device::Cpu)?)
}

pub(super) fn spatial(x: &Tensor) -> Step<&Tensor> {
    if x.rank() == 4 { Ok(x) } else { stuck(format!("it takes maps `[B, C, H, W]`, not {:?}", x.dims())) }
}
