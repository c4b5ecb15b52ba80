//! A classifier that was fitted to labels: a type of its own, so that no label-free method starts from it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::encoder::Classifier;
use super::error::{ArtifactError, Result, display};
use super::meta::{read_json, save_checked};
use super::{Artifact, Draft, Stored};

const FILE: &str = "probe.json";

/// A classifier of named classes, in `probe.json` and the two files of a classifier. It has seen labels, so it is not label-free:
///
/// ```compile_fail,E0277
/// fn only_label_free<A: kinset_artifact::LabelFree>() {}
/// only_label_free::<kinset_artifact::probe::Probe>();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// `[K]`: what its outputs are called.
    pub names: Vec<String>,
    pub classifier: Classifier,
}

artifact!(Probe, "probe", [FILE, Classifier::FILES[0], Classifier::FILES[1], Classifier::FILES[2]], ground_truth);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    names: Vec<String>,
}

impl Probe {
    /// Writes its files into a folder.
    pub fn save(&self, dir: &Path) -> Result<Draft<Self>> {
        let card = Card { names: self.names.clone() };
        let mut files = vec![save_checked((dir, FILE, Self::KIND), &card, |path| self.check(path))?];
        files.extend(self.classifier.save(dir)?.files);
        Ok(Draft::new(files))
    }

    pub fn load(stored: &Stored<Self>) -> Result<Self> {
        let path = stored.file(FILE);
        let Card { names } = read_json(path, Self::KIND)?;
        let files = Classifier::FILES.iter().map(|file| stored.file(file).to_owned()).collect();
        let probe = Self { names, classifier: Classifier::load(&Stored::new(files, stored.digest(), stored.origin()))? };
        probe.check(path)?;
        Ok(probe)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let (names, clusters) = (self.names.len(), self.classifier.card.clusters);
        if names == clusters {
            return Ok(());
        }
        let what = format!("there are {names} names for {clusters} outputs");
        Err(ArtifactError::Contradiction { path: display(path), what })
    }
}
