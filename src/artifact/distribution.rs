//! Distributions: how often each class occurs in a pool and in selections from it. Counted from labels, so no method may read them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{ArtifactError, Result, display};
use super::meta::{load_checked, save_checked};
use super::{Artifact, Draft, Stored};
use kinset_math::entropy::entropy_of_counts;
use kinset_store::digest::Digest;

const FILE: &str = "distribution.json";

/// How often each class occurs before and after a selection, in JSON. Not label-free:
///
/// ```compile_fail,E0277
/// fn only_label_free<A: kinset_artifact::LabelFree>() {}
/// only_label_free::<kinset_artifact::distribution::Distribution>();
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// The ground truth that was counted, shard by shard.
    pub labels: Vec<Digest>,
    /// Names of the classes, C.
    pub classes: Vec<String>,
    /// The pool first, then each selection.
    pub sets: Vec<Counted>,
}

/// One set of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// `pool`, or its place among the inputs: `selections[1]`.
    pub name: String,
    /// What was counted; nothing for the pool, which is what the labels name.
    pub measured: Option<Digest>,
    /// Images whose class is not known.
    pub unknown: u64,
    /// `[C]`.
    pub images: Vec<u64>,
    /// Effective number of classes: exp of the entropy, 1 to C; 0 if no class is known.
    pub effective: f64,
}

artifact!(Distribution, "distribution", [FILE], ground_truth);

impl Counted {
    /// Counts classes from 0; −1 is unknown.
    ///
    /// # Panics
    /// If a class is not below `classes`.
    pub fn new(name: String, measured: Option<Digest>, classes: usize, labels: impl Iterator<Item = i32>) -> Self {
        let (mut images, mut unknown) = (vec![0; classes], 0);
        for label in labels {
            match usize::try_from(label) {
                Ok(class) => images[class] += 1,
                Err(_) => unknown += 1,
            }
        }
        let effective = effective(&images);
        Self { name, measured, unknown, images, effective }
    }
}

/// exp of the entropy; 0 of nothing.
fn effective(images: &[u64]) -> f64 {
    if images.iter().all(|&count| count == 0) { 0.0 } else { entropy_of_counts(images).exp() }
}

impl Distribution {
    /// Writes `distribution.json` into a folder.
    pub fn save(&self, dir: &Path) -> Result<Draft<Self>> {
        Ok(Draft::new(vec![save_checked((dir, FILE, Self::KIND), self, |path| self.check(path))?]))
    }

    pub fn load(stored: &Stored<Self>) -> Result<Self> {
        load_checked(stored.file(FILE), Self::KIND, Self::check)
    }

    fn check(&self, path: &Path) -> Result<()> {
        if self.classes.is_empty() || self.sets.is_empty() {
            return Err(ArtifactError::Empty { path: display(path), what: "classes" });
        }
        match self.sets.iter().find(|set| set.images.len() != self.classes.len() || !fits(set)) {
            Some(set) => {
                let what = format!("the numbers of `{}` are not those of {} classes", set.name, self.classes.len());
                Err(ArtifactError::Contradiction { path: display(path), what })
            }
            None => Ok(()),
        }
    }
}

fn fits(set: &Counted) -> bool {
    (set.effective - effective(&set.images)).abs() <= 1e-9 * set.effective.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    fn counted() -> Distribution {
        let set = |name: &str, labels: &[i32]| Counted::new(name.into(), None, 3, labels.iter().copied());
        Distribution {
            labels: vec![Digest::of(b"labels")],
            classes: vec!["a".into(), "b".into(), "c".into()],
            sets: vec![set("pool", &[0, 0, 0, 1, 2, -1]), set("selections[0]", &[2, 1]), set("selections[1]", &[-1])],
        }
    }

    #[test]
    fn distributions_come_back_with_their_effective_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let found = Distribution::load(&stored(&counted().save(dir.path()).unwrap())).unwrap();
        assert_eq!(found, counted());
        assert_eq!((found.sets[0].unknown, &found.sets[0].images[..]), (1, &[3, 1, 1][..]));
        let effective: Vec<f64> = found.sets.iter().map(|set| set.effective).collect();
        let three = (-0.6 * 0.6_f64.ln() - 2.0 * 0.2 * 0.2_f64.ln()).exp();
        assert!(
            (effective[0] - three).abs() < 1e-12 && (effective[1] - 2.0).abs() < 1e-12 && effective[2] == 0.0,
            "{effective:?}"
        );
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut Distribution)| {
            let mut found = counted();
            change(&mut found);
            found.save(dir.path()).unwrap_err().to_string()
        };
        assert!(refuse(|d| d.sets[1].images.truncate(2)).contains("`selections[0]` are not those of 3 classes"));
        assert!(refuse(|d| d.sets[0].effective = 2.5).contains("`pool`"));
        assert!(refuse(|d| d.classes.clear()).contains("no classes"));
    }
}
