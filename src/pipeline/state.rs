//! The state of a stage: whether it has to run, and why. What `plan`, `explain`, `status` and `run` all ask is answered here, once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::catalog::Registry;
use super::error::RunError;
use super::graph;
use super::run::Options;
use super::spec::{Node, Spec};
use kinset_artifact::features::Features;
use kinset_artifact::parquet::TableReader;
use kinset_artifact::{Artifact, Stored};
use kinset_base::search_path::DataPaths;
use kinset_base::seed::Seed;
use kinset_stage::ports::STANDS_FOR;
use kinset_stage::{AnyStage, Offer, Offers, RawFiles, StageError};
use kinset_store::Store;
use kinset_store::digest::Digest;
use kinset_store::digest_cache::Stamp;
use kinset_store::key::{Input, Key, Manifest};
use kinset_store::manifest_diff::Difference;
use kinset_store::record::{Lookup, Record, StoredOutput};

/// An output of a stage, to be read.
///
/// # Errors
/// As [`intact`].
pub fn stored<A: Artifact>(store: &Store, stage: &str, name: &str, output: &StoredOutput) -> Result<Stored<A>, RunError> {
    intact(store, stage, name, output)?;
    Ok(Stored::new(store.paths(output), output.content, stage))
}

/// Compares an output of a stage with its digests.
///
/// # Errors
/// [`RunError::DamagedResult`] if it is not what the stage wrote.
pub fn intact(store: &Store, stage: &str, name: &str, output: &StoredOutput) -> Result<(), RunError> {
    match store.damage(name, output)? {
        Some(why) => Err(RunError::DamagedResult { stage: stage.to_owned(), why }),
        None => Ok(()),
    }
}

/// Raw files that are digested at a time.
const PIECE: usize = 1024;

/// What is known of a stage before anything runs.
#[derive(Debug)]
pub enum State {
    /// Its result is there and whole.
    Fresh {
        /// What its key is made of.
        manifest: Manifest,
        record: Box<Record>,
    },
    /// It has to run.
    Stale { key: Key, why: Why },
    /// It reads what has to be made first; whether it runs depends on what comes out.
    Waits {
        /// The stages it waits for.
        on: Vec<String>,
    },
    /// Its inputs cannot be had.
    Broken { error: RunError },
}

/// Why a stage has to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// Nothing like it ever ran here.
    Never,
    /// These fields of its key differ from its last result, the likeliest cause first.
    Changed(Vec<Difference>),
    /// The same was done before, and its result has gone.
    Gone,
    /// Its result is damaged.
    Damaged(String),
    /// Somebody said so.
    Forced,
    /// What a worker process said.
    Told(String),
    /// It was begun and did not end.
    Unfinished,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never ran"),
            Self::Forced => f.write_str("forced"),
            Self::Told(why) => f.write_str(why),
            Self::Gone => f.write_str("its result was deleted"),
            Self::Unfinished => f.write_str("interrupted; will resume"),
            Self::Damaged(what) => write!(f, "damaged: {what}"),
            Self::Changed(differences) => match differences.as_slice() {
                [] => f.write_str("changed"),
                [first] => write!(f, "{first}"),
                [first, rest @ ..] => write!(f, "{first} (and {} more)", rest.len()),
            },
        }
    }
}

/// Results by node.
pub type Known = BTreeMap<usize, Record>;

/// What a stage reads, found and digested.
#[derive(Debug)]
pub struct Inputs {
    /// What is wired to each port.
    pub offers: Offers,
    /// Files outside the store.
    pub raw: RawFiles,
    /// Their digests, and what they looked like before they were read.
    pub digests: Vec<(Digest, Option<Stamp>)>,
    /// What the key is made of.
    pub manifest: Manifest,
}

/// A pipeline over a store: everything needed to tell how its stages stand.
pub struct Outlook<'a> {
    pub spec: &'a Spec,
    pub registry: Registry,
    pub store: &'a Store,
    /// Where raw data are looked for.
    pub places: &'a DataPaths,
    /// The class of device of each stage.
    pub devices: Devices,
}

/// The class of device that each stage runs on, which is part of the keys of those that compute there: `cpu`, `cuda`, `metal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    usual: String,
    /// Of stages that run elsewhere, by name.
    of: BTreeMap<String, String>,
}

impl From<&str> for Devices {
    /// The same for all stages.
    fn from(class: &str) -> Self {
        Self { usual: class.to_owned(), of: BTreeMap::new() }
    }
}

impl Devices {
    /// Says where a stage runs.
    pub fn put(&mut self, stage: &str, class: &str) {
        if class != self.usual {
            self.of.insert(stage.to_owned(), class.to_owned());
        }
    }

    pub fn class(&self, stage: &str) -> &str {
        self.of.get(stage).unwrap_or(&self.usual)
    }
}

impl<'a> Outlook<'a> {
    /// The pipeline as a run sees it.
    pub fn of(spec: &'a Spec, options: &Options, store: &'a Store, places: &'a DataPaths) -> Self {
        Self { spec, registry: options.registry, store, places, devices: options.devices.clone() }
    }

    /// The stage behind a node.
    ///
    /// # Errors
    /// If the registry does not know it; the plan has checked that.
    pub fn stage(&self, node: &Node) -> Result<&'static dyn AnyStage, RunError> {
        self.registry.find(&node.kind).ok_or_else(|| RunError::NoKind { kind: node.kind.clone() })
    }

    /// Why a stage that has to run would refuse the number of its images, where that is known before anything runs.
    pub fn refusal(&self, states: &[State], index: usize) -> Option<StageError> {
        let (node, state) = (&self.spec.nodes[index], &states[index]);
        // What a port brings in place of a setting is not known before it is there.
        let open = node.ports.keys().any(|port| port.ends_with(STANDS_FOR));
        if open || !matches!(state, State::Stale { .. } | State::Waits { .. }) {
            return None;
        }
        self.stage(node).ok()?.fits(&node.settings, self.images(states, index)?).err()
    }

    /// How many images a stage reads by its features or images; nothing where something has to run before that is known.
    pub fn images(&self, states: &[State], index: usize) -> Option<usize> {
        let ports = &self.spec.nodes[index].ports;
        let [reference] = ports.get("features").or_else(|| ports.get("images"))?.as_slice() else { return None };
        if let State::Fresh { record, .. } = &states[reference.node] {
            let files = self.store.paths(record.outputs.get(reference.output)?);
            // What cannot be read is told when it is needed.
            return TableReader::open(files.first()?, reference.artifact).ok().map(|table| table.rows());
        }
        // Features have a row for each image; of how many images another stage leaves nothing is known.
        if reference.artifact == Features::KIND { self.images(states, reference.node) } else { None }
    }

    /// A node's branch of the tree of randomness: the seed and the kind, not the name, so that renaming changes nothing.
    pub fn seed(node: &Node) -> Seed {
        Seed::new(node.seed).branch(&node.kind)
    }

    /// Finds and digests what a node reads. All nodes above must be known.
    ///
    /// # Errors
    /// Raw data that cannot be found or read; an optional output that was not written.
    pub fn inputs(&self, node: &Node, known: &Known) -> Result<Inputs, RunError> {
        let stage = self.stage(node)?;
        let mut manifest = stage.manifest(&node.settings)?;
        if stage.on_device() {
            manifest = manifest.numerics(&self.spec.precision, self.devices.class(&node.name));
        }
        if stage.seeded() {
            manifest = manifest.seed(Self::seed(node).fingerprint());
        }
        let mut offers = Offers::new();
        for (port, references) in &node.ports {
            let mut wired = Vec::with_capacity(references.len());
            for reference in references {
                let maker = &self.spec.nodes[reference.node];
                let missing = || RunError::NoOutput { output: self.spec.reference(reference), maker: maker.name.clone() };
                let output =
                    known.get(&reference.node).and_then(|record| record.outputs.get(reference.output)).ok_or_else(missing)?;
                wired.push(Offer {
                    artifact: output.kind.clone(),
                    files: output.files.iter().map(|file| self.store.blob_path(&file.blob)).collect(),
                    digest: output.content,
                    origin: self.spec.reference(reference),
                });
            }
            let digests: Vec<Digest> = wired.iter().map(|offer| offer.digest).collect();
            let input = match digests.as_slice() {
                [one] if stage.ports().iter().any(|p| p.name == port && !p.arity.is_list()) => Input::One(*one),
                _ => Input::Many(digests),
            };
            manifest = manifest.input(port, input);
            offers.insert(port.clone(), wired);
        }
        let raw = stage.raw_files(&node.settings, self.places)?;
        let mut digests = Vec::with_capacity(raw.len());
        // What is read is remembered piece by piece: a run that is ended while it reads many files reads few of them again.
        for files in raw.chunks(PIECE) {
            digests.extend(self.store.digest_files(files)?);
        }
        if !raw.is_empty() {
            let named = raw.iter().zip(&digests).map(|(file, (digest, _))| (file.name.as_str(), *digest));
            manifest = manifest.input("raw", kinset_artifact::content_digest("raw files", named));
        }
        Ok(Inputs { offers, raw, digests, manifest })
    }

    /// Why a node that is no hit has to run.
    pub fn why(&self, node: &Node, manifest: &Manifest, lookup: &Lookup) -> Result<Why, RunError> {
        if let Lookup::Damaged(damage) = lookup {
            return Ok(Why::Damaged(damage.clone()));
        }
        let key = manifest.key();
        if self.store.has_scratch(&key) || self.store.shared(&key).is_some() {
            return Ok(Why::Unfinished);
        }
        Ok(match self.store.compare(&self.spec.name, &node.name, manifest)? {
            None => Why::Never,
            Some(nearest) if nearest.differences.is_empty() => Why::Gone,
            Some(nearest) => Why::Changed(nearest.differences),
        })
    }

    /// How every node stands, in the order of the pipeline's nodes. `forced` nodes are stale whatever their keys say.
    pub fn states(&self, forced: &BTreeSet<usize>) -> Vec<State> {
        self.states_after(forced, &BTreeMap::new())
    }

    /// As [`Outlook::states`], when the results of some stages, by name, are known to have these keys: then their raw files are not looked
    /// at again.
    pub fn states_after(&self, forced: &BTreeSet<usize>, made: &BTreeMap<String, Key>) -> Vec<State> {
        let mut states: Vec<Option<State>> = self.spec.nodes.iter().map(|_| None).collect();
        let mut known = Known::new();
        for &index in &self.spec.order {
            let node = &self.spec.nodes[index];
            let state = match made.get(&node.name).map(|key| self.stored(node, key)) {
                Some(Ok(Some(fresh))) => Ok(fresh),
                Some(Err(error)) => Err(error),
                _ => self.state(node, &known, forced.contains(&index)),
            };
            let state = state.unwrap_or_else(|error| State::Broken { error });
            if let State::Fresh { record, .. } = &state {
                known.insert(index, (**record).clone());
            }
            states[index] = Some(state);
        }
        states.into_iter().flatten().collect()
    }

    /// The state of a node whose result has this key, if it is there and whole.
    fn stored(&self, node: &Node, key: &Key) -> Result<Option<State>, RunError> {
        let (Some(manifest), Lookup::Hit(record)) = (self.store.manifest(&node.kind, key)?, self.store.lookup(key)?) else {
            return Ok(None);
        };
        Ok(Some(State::Fresh { manifest, record: Box::new(record) }))
    }

    fn state(&self, node: &Node, known: &Known, forced: bool) -> Result<State, RunError> {
        let on: BTreeSet<usize> = graph::inputs(node).filter(|above| !known.contains_key(above)).collect();
        if !on.is_empty() {
            return Ok(State::Waits { on: on.iter().map(|&above| self.spec.nodes[above].name.clone()).collect() });
        }
        let manifest = self.inputs(node, known)?.manifest;
        let key = manifest.key();
        if forced {
            return Ok(State::Stale { key, why: Why::Forced });
        }
        match self.store.lookup(&key)? {
            Lookup::Hit(record) => Ok(State::Fresh { manifest, record: Box::new(record) }),
            lookup => Ok(State::Stale { key, why: self.why(node, &manifest, &lookup)? }),
        }
    }
}
