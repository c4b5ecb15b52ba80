//! The pictures of a result's rows: which set they are in, and where in it. All commands find them here.

use super::common::Failure;
use super::result_images::images_behind;
use crate::artifact::error::ArtifactError;
use crate::artifact::images::{ImageSet, Images};
use crate::artifact::{Artifact, Stored};
use crate::pipeline::error::RunError;
use crate::pipeline::state::{self, Outlook, State};

/// The pictures of a table's rows.
#[derive(Debug)]
pub(super) struct Pictures {
    pub(super) images: Stored<Images>,
    pub(super) set: ImageSet,
    /// Where the picture of each row lies in the set.
    place: Vec<Option<u32>>,
}

impl Pictures {
    /// Finds the pictures of these images, by their ids or, where those are names of files, by their paths.
    ///
    /// # Errors
    /// If the table of pictures cannot be read.
    pub(super) fn of(images: Stored<Images>, ids: &[String]) -> Result<Self, ArtifactError> {
        let set = ImageSet::open_within(&images, 0)?;
        let mut place = rows_of(ids, set.ids());
        if place.iter().all(Option::is_none) {
            place = rows_of(ids, &set.paths()?);
        }
        Ok(Self { images, set, place })
    }

    /// Those of the images that a stage's rows are of; nothing if they are of none, or their set is not there.
    ///
    /// # Errors
    /// If they are not what was written.
    pub(super) fn behind(
        outlook: &Outlook<'_>,
        states: &[State],
        index: usize,
        ids: &[String],
    ) -> Result<Option<Self>, Failure> {
        Ok(images_of(outlook, states, index)?.map(|images| Self::of(images, ids)).transpose()?)
    }

    pub(super) fn place(&self, row: usize) -> Option<u32> {
        self.place.get(row).copied().flatten()
    }

    /// True if no row lacks its picture.
    pub(super) fn are_all(&self) -> bool {
        self.place.iter().all(Option::is_some)
    }

    /// The path of each row's picture; empty for arrays, and where there is none.
    ///
    /// # Errors
    /// If the table of pictures cannot be read.
    pub(super) fn paths(&self) -> Result<Vec<String>, ArtifactError> {
        let paths = self.set.paths()?;
        Ok(self.place.iter().map(|place| place.map(|place| paths[place as usize].clone()).unwrap_or_default()).collect())
    }
}

/// The images that a stage's rows are of: those it makes or reads, or what it reads was made of.
///
/// # Errors
/// If they are not what was written.
pub(super) fn images_of(outlook: &Outlook<'_>, states: &[State], index: usize) -> Result<Option<Stored<Images>>, RunError> {
    let found = |node: usize, output: Option<&str>| {
        let State::Fresh { record, .. } = &states[node] else { return None };
        let fits = |name: &str| output.is_none_or(|output| output == name);
        let (name, found) = record.outputs.iter().find(|(name, found)| found.kind == Images::KIND && fits(name))?;
        Some(state::stored(outlook.store, &outlook.spec.nodes[node].name, name, found))
    };
    let behind = || images_behind(outlook.spec, index).into_iter().find_map(|at| found(at.node, Some(at.output)));
    found(index, None).or_else(behind).transpose()
}

/// Where each of some names stands among others; nothing for one that is not there, or there twice.
pub(super) fn rows_of(names: &[String], among: &[String]) -> Vec<Option<u32>> {
    if names == among {
        return (0..names.len() as u32).map(Some).collect();
    }
    let mut order: Vec<u32> = (0..among.len() as u32).collect();
    order.sort_unstable_by_key(|&row| &among[row as usize]);
    let find = |name: &String| {
        let first = order.partition_point(|&row| among[row as usize] < *name);
        let is = |at: usize| order.get(at).is_some_and(|&row| among[row as usize] == *name);
        (is(first) && !is(first + 1)).then(|| order[first])
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_name_and_never_by_number() {
        let names = |of: &[&str]| of.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(rows_of(&names(&["a", "b"]), &names(&["a", "b"])), [Some(0), Some(1)]);
        assert_eq!(
            rows_of(&names(&["c", "x", "a", "b"]), &names(&["b", "c", "a", "b"])),
            [Some(1), None, Some(2), None],
            "one that is there twice is neither"
        );
    }
}
