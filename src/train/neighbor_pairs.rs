//! Images and their mined neighbors: which neighbor joins an image in a step, and what the network reads of both.

use candle_core::Tensor;

use super::input_cache::CachedInputs;
use kinset_artifact::neighbors::NeighborTable;
use kinset_augment::Recipe;
use kinset_base::seed::Seed;
use kinset_stage::StageError;

/// Images, and who is near whom.
#[derive(Clone, Debug)]
pub struct NeighborPairs<'a> {
    pub inputs: CachedInputs<'a>,
    pub table: NeighborTable,
    /// How many of the neighbors of an image are candidates.
    pub candidates: usize,
    /// Whether an image is a candidate for its own neighbor.
    pub include_self: bool,
    /// What views go through.
    pub augment: &'a Recipe,
    /// Of neighbors and views.
    pub seed: Seed,
}

impl NeighborPairs<'_> {
    /// What is read of images in a view that only this name has in this epoch.
    pub fn view(&self, rows: &[usize], epoch: u64, name: &str) -> Result<Tensor, StageError> {
        self.inputs.read(rows, self.augment, self.seed.branch("views").at(epoch).branch(name))
    }

    /// What is read of images, and of a neighbor of each in this epoch.
    pub fn anchors_and_neighbors(&self, rows: &[usize], epoch: u64) -> Result<[Tensor; 2], StageError> {
        let neighbors = draw_neighbors(&self.table, self.candidates, self.include_self, rows, epoch, self.seed);
        Ok([self.view(rows, epoch, "anchor")?, self.view(&neighbors, epoch, "neighbor")?])
    }
}

/// The neighbors belong to these images.
///
/// # Errors
/// [`StageError::Mismatch`] if not; `port` says which neighbors.
pub fn check_same_images(table: &NeighborTable, ids: &[String], port: &str) -> Result<(), StageError> {
    if table.ids == ids {
        return Ok(());
    }
    Err(StageError::Mismatch {
        what: format!("`{port}` was computed on a different image set ({} images, expected {})", table.ids.len(), ids.len()),
        hint: "connect the neighbors of the features of the same images".into(),
    })
}

/// For each image one of its first `k` neighbors, or with `include_self` perhaps the image itself; the same in all of this epoch,
/// whatever batch the image is in.
pub fn draw_neighbors(
    table: &NeighborTable,
    k: usize,
    include_self: bool,
    rows: &[usize],
    epoch: u64,
    seed: Seed,
) -> Vec<usize> {
    let (own, seed) = (usize::from(include_self), seed.branch("partners").at(epoch));
    let draw = |&row: &usize| match seed.at(row as u64).rng().below(k.min(table.k) + own) {
        0 if include_self => row,
        drawn => table.neighbors(row)[drawn - own] as usize,
    };
    rows.iter().map(draw).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn neighbors_are_all_candidates_and_nobody_else_and_stay_for_an_epoch() {
        let table = NeighborTable {
            ids: (0..4).map(|row| row.to_string()).collect(),
            k: 3,
            index: vec![1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2],
            similarity: vec![0.5; 12],
            metric: "cosine".into(),
            exact: true,
            recall: None,
        };
        let drawn = |k, own| -> BTreeSet<usize> {
            (0..64).map(|epoch| draw_neighbors(&table, k, own, &[1], epoch, Seed::new(1))[0]).collect()
        };
        assert_eq!(drawn(2, false), BTreeSet::from([0, 2]));
        assert_eq!(drawn(2, true), BTreeSet::from([0, 1, 2]));
        assert_eq!(drawn(9, false), BTreeSet::from([0, 2, 3]), "no more than were mined");
        let again = |epoch| draw_neighbors(&table, 3, true, &[1], epoch, Seed::new(2));
        assert_eq!(again(5), again(5));
    }
}
