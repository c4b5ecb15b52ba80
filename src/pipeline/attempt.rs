//! One attempt at a node: what it reads, its key, a look into the store, the lock of the key, the work, the publication. A run does it
//! in threads of its own; a worker process does it for a run elsewhere.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use rayon::prelude::*;
use serde_json::{Value, json};

use super::cache::Found;
use super::error::RunError;
use super::event::{Event, Tell};
use super::graph;
use super::run::{Options, Outcome};
use super::spec::Node;
use super::state::{Inputs, Known, Outlook, Why};
use kinset_artifact::Artifact;
use kinset_artifact::features::Features;
use kinset_artifact::images::Images;
use kinset_artifact::parquet::TableReader;
use kinset_base::clock::Stopwatch;
use kinset_base::fault::{Exit, Fault, chain};
use kinset_base::memory::Watch;
use kinset_stage::{AnyDraft, Context, Offers, Share, StageError};
use kinset_store::StoreError;
use kinset_store::blob::NewFile;
use kinset_store::digest::Digest;
use kinset_store::digest_cache::Stamp;
use kinset_store::key::Manifest;
use kinset_store::lock::{self, StageLock};
use kinset_store::record::{Lookup, Provenance, Record, StoredOutput};

/// Why a node has no result for now.
pub(super) enum Setback {
    Failed(RunError),
    /// It can have one once its input is whole again.
    Damaged(DamagedInput),
    /// An input was damaged and has been mended while it was at work.
    Mended,
}

impl<E: Into<RunError>> From<E> for Setback {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// An output that is not what its stage wrote.
pub(super) struct DamagedInput {
    pub(super) maker: usize,
    /// What it said.
    pub(super) content: Digest,
    pub(super) why: String,
}

/// Whoever attempts nodes.
pub(super) struct Attempt<'a> {
    /// Held for reading from the publication of a record until its view is there.
    publishing: RwLock<()>,
    pub(super) outlook: Outlook<'a>,
    options: &'a Options,
    tell: Tell<'a>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(outlook: Outlook<'a>, options: &'a Options, tell: Tell<'a>) -> Self {
        Self { publishing: RwLock::default(), outlook, options, tell }
    }

    /// The first input of a node that is not what its stage wrote.
    fn damaged_input(&self, node: &Node, known: &Known) -> Result<Option<DamagedInput>, RunError> {
        for (maker, name, output) in wired(node, known) {
            if let Some(why) = self.outlook.store.damage(name, output)? {
                return Ok(Some(DamagedInput { maker, content: output.content, why }));
            }
        }
        Ok(None)
    }

    /// Which files a node reads.
    fn identities(&self, node: &Node, known: &Known) -> Result<Vec<Vec<u64>>, StoreError> {
        wired(node, known).map(|(_, _, output)| self.outlook.store.identities(output)).collect()
    }

    /// Brings one node to a result. All that it reads must be known.
    pub(super) fn node(&self, index: usize, known: &Known, forced: bool) -> Result<(Outcome, Record), Setback> {
        catch_unwind(AssertUnwindSafe(|| self.bring(index, known, forced)))
            .unwrap_or_else(|panic| Err(RunError::Panicked { what: message(&*panic) }.into()))
    }

    fn bring(&self, index: usize, known: &Known, forced: bool) -> Result<(Outcome, Record), Setback> {
        let (spec, store) = (self.outlook.spec, self.outlook.store);
        let node = &spec.nodes[index];
        let inputs = self.outlook.inputs(node, known)?;
        let key = inputs.manifest.key();
        let mut lookup = store.lookup(&key)?;
        if let Lookup::Hit(record) = &lookup
            && !forced
        {
            let record = record.clone();
            self.show(node, &inputs.manifest, &record)?;
            self.tell.tell(Event::StageFresh { stage: node.name.clone(), key: key.hex() });
            return Ok((Outcome::Fresh, record));
        }
        if !forced && let Some((record, bytes)) = self.pull(node, &inputs.manifest)? {
            return Ok((Outcome::Pulled { bytes }, record));
        }
        if !self.options.chosen.contains(&index) {
            let (stage, needs) = (node.name.clone(), self.reader_of(index));
            return Err(match lookup {
                Lookup::Damaged(why) => RunError::Damaged { stage, why }.into(),
                _ => RunError::NotChosen { stage, needs }.into(),
            });
        }

        let purpose = format!("{}/{}", spec.name, node.name);
        let (mut waited, mut last) = (false, None::<String>);
        let lock = store.lock_stage(&key, &purpose, |holder| {
            waited = true;
            let words = holder.map_or_else(|| "an unknown process".to_owned(), ToString::to_string);
            if last.as_ref() != Some(&words) && self.options.wait {
                self.tell.tell(Event::StageWaiting { stage: node.name.clone(), holder: words.clone() });
            }
            last = Some(words);
            self.options.wait && !self.options.stop.requested()
        })?;
        let Some(lock) = lock else {
            if self.options.stop.requested() {
                return Err(StageError::Stopped.into());
            }
            return Err(RunError::Held { holder: last.unwrap_or_default() }.into());
        };
        if waited || !forced {
            // Without a wait too: another may have ended between the look and the lock.
            lookup = if waited { store.lookup_after_waiting(&key)? } else { store.lookup(&key)? };
            if let Lookup::Hit(record) = lookup {
                self.show(node, &inputs.manifest, &record)?;
                self.tell.tell(Event::StageFinished { stage: node.name.clone(), key: key.hex(), seconds: 0.0, adopted: true });
                return Ok((Outcome::Adopted, record));
            }
        }

        if let Some(damaged) = self.damaged_input(node, known)? {
            // Nobody knows since when: it may be what the checkpoints come from.
            store.remove_scratch(&key)?;
            return Err(Setback::Damaged(damaged));
        }
        let why = if forced { Why::Forced } else { self.why(node, &inputs, &lookup)? };
        let why = match why {
            // Nobody was interrupted: others have computed it together.
            Why::Unfinished if !store.has_scratch(&key) => Why::Told("puts its parts together".to_owned()),
            why => why,
        };
        self.tell.tell(Event::StageStarted {
            stage: node.name.clone(),
            kind: node.kind.clone(),
            key: key.hex(),
            why: why.to_string(),
        });
        let clock = Stopwatch::start();
        let record = self.work(node, &inputs, known, forced, &lock)?;
        let seconds = clock.seconds();
        self.tell.tell(Event::StageFinished { stage: node.name.clone(), key: key.hex(), seconds, adopted: false });
        Ok((Outcome::Ran { why, seconds }, record))
    }

    /// Computes what falls to one of several processes of a node that they compute together. All that it reads must be known.
    pub(super) fn share(&self, index: usize, known: &Known, forced: bool, share: Share) -> Result<(), Setback> {
        catch_unwind(AssertUnwindSafe(|| self.take_share(index, known, forced, share)))
            .unwrap_or_else(|panic| Err(RunError::Panicked { what: message(&*panic) }.into()))
    }

    fn take_share(&self, index: usize, known: &Known, forced: bool, share: Share) -> Result<(), Setback> {
        let (node, store) = (&self.outlook.spec.nodes[index], self.outlook.store);
        let Inputs { manifest, offers, .. } = self.outlook.inputs(node, known)?;
        let key = manifest.key();
        let is_done = || Ok::<_, StoreError>(!forced && matches!(store.lookup(&key)?, Lookup::Hit(_)));
        if is_done()? {
            return Ok(());
        }
        if let Some(damaged) = self.damaged_input(node, known)? {
            store.remove_scratch(&key)?;
            return Err(Setback::Damaged(damaged));
        }
        let (stage, kind, why) = (node.name.clone(), node.kind.clone(), share.to_string());
        self.tell.tell(Event::StageStarted { stage, kind, key: key.hex(), why });
        let folder = store.make_shared(&manifest)?;
        // Without the lock of the key, and without outputs: both are for whoever puts the shares together.
        let cx = self.context(node, folder.clone(), folder.clone()).with_shared(Some(folder));
        let before = self.identities(node, known)?;
        let ran = self.outlook.stage(node)?.share(&node.settings, &offers, share, &cx);
        let damaged = self.damaged_input(node, known)?;
        if damaged.is_some() || self.identities(node, known)? != before {
            store.remove_scratch(&key)?;
            return Err(damaged.map_or(Setback::Mended, Setback::Damaged));
        }
        match ran {
            // Its folder goes when the result is there.
            Err(_) if is_done()? => Ok(()),
            ran => Ok(ran?),
        }
    }

    /// What is lent to a node at work, but for what goes with its key.
    fn context<'c>(&'c self, node: &'c Node, work: PathBuf, out: PathBuf) -> Context<'c> {
        let (device, stop) = (self.options.device.clone(), self.options.stop.clone());
        Context::new(&node.name, device, Outlook::seed(node), self.outlook.places, stop, work, out, &self.tell)
            .with_checkpoint_every(self.options.checkpoint_every)
    }

    /// The result of a node that is not here, if a cache has it, and how many bytes came. What a cache has and is of no use is told.
    pub(super) fn pull(&self, node: &Node, manifest: &Manifest) -> Result<Option<(Record, u64)>, RunError> {
        let Some(cache) = &self.options.cache else { return Ok(None) };
        let stage = || node.name.clone();
        let told = AtomicU64::new(0);
        let moved = |done: u64, total: u64| {
            let percent = done.saturating_mul(100) / total.max(1);
            if told.fetch_max(percent, Ordering::Relaxed) < percent {
                let unit = "% from the cache".into();
                self.tell.tell(Event::Progress { stage: stage(), done: percent, total: 100, unit, text: None });
            }
        };
        let found = cache.pull(self.outlook.store, manifest, &moved, &self.options.stop);
        match found {
            _ if self.options.stop.requested() => Err(StageError::Stopped.into()),
            Found::Nothing => Ok(None),
            Found::Unusable(text) => {
                self.tell.tell(Event::Warning { stage: stage(), text });
                Ok(None)
            }
            Found::Here(record, bytes) => {
                self.show(node, manifest, &record)?;
                self.tell.tell(Event::StagePulled { stage: stage(), key: record.key.hex(), bytes });
                Ok(Some((*record, bytes)))
            }
        }
    }

    /// Runs the stage and publishes what it wrote.
    fn work(&self, node: &Node, inputs: &Inputs, known: &Known, forced: bool, lock: &StageLock) -> Result<Record, Setback> {
        let store = self.outlook.store;
        let key = inputs.manifest.key();
        let stage = self.outlook.stage(node)?;
        let clock = Stopwatch::start();
        let memory = Watch::start();
        let shared = store.shared(&key);
        let resumed = shared.is_some() || store.has_scratch(&key);
        let out = store.draft()?;
        let cx = self
            .context(node, store.scratch(&inputs.manifest, lock)?, out.path().to_owned())
            .with_lock(lock)
            .with_shared(shared)
            .with_raw(&inputs.raw, inputs.digests.iter().map(|(digest, _)| *digest))
            .with_origin(origin(&inputs.manifest, node));
        let before = self.identities(node, known)?;
        let ran = stage.run(&node.settings, &inputs.offers, &cx);
        // Whatever the stage says of bytes that were written to meanwhile, it does not count.
        let damaged = self.damaged_input(node, known)?;
        if damaged.is_some() || self.identities(node, known)? != before {
            store.remove_scratch(&key)?;
            return Err(damaged.map_or(Setback::Mended, Setback::Damaged));
        }
        let drafts = ran.map_err(|error| match lock.check() {
            // Whatever it says then comes of that.
            Err(taken @ StoreError::Taken { .. }) => taken.into(),
            _ => named(error, out.path(), &node.name),
        })?;

        let unchecked = if cx.raw_checked() { &[][..] } else { &inputs.raw[..] };
        let stamps: Vec<_> = unchecked.par_iter().map(|file| Stamp::of(&file.path)).collect();
        for ((file, (_, before)), after) in unchecked.iter().zip(&inputs.digests).zip(stamps) {
            if after? != *before {
                return Err(RunError::Moved { path: file.path.display().to_string() }.into());
            }
        }
        let mut outputs = BTreeMap::new();
        for AnyDraft { output, artifact, files } in &drafts {
            let files: Vec<NewFile<'_>> =
                files.iter().map(|file| NewFile { name: file.name, path: &file.path, logical: file.logical }).collect();
            outputs.insert((*output).to_owned(), store.publish_output(artifact, &files)?);
        }
        let mut facts = Provenance {
            seconds: clock.seconds(),
            threads: self.options.threads,
            peak_memory: memory.peak(),
            host: Some(lock::host()),
            ..Provenance::default()
        };
        if resumed {
            facts.notes.insert("resumed".into(), "from a checkpoint; the seconds are those of the last attempt".into());
        }
        // By this later runs tell how long they will take.
        if let Some(images) = rows(&inputs.offers) {
            facts.notes.insert(IMAGES.into(), images.to_string());
        }
        facts.notes.extend(cx.kept().into_iter().map(|(name, lines)| (name.to_owned(), lines.join("\n"))));
        let _until_shown = self.publishing.read().unwrap_or_else(PoisonError::into_inner);
        let published = store.publish(&inputs.manifest, outputs, facts)?;
        store.remove_scratch(&key)?;
        if published.differed && forced {
            return Err(RunError::Unsteady { key: key.to_string() }.into());
        }
        self.show(node, &inputs.manifest, &published.record)?;
        self.push(node, &published.record);
        Ok(published.record)
    }

    /// Why a stage runs. It waits while others are between record and view: a result of the same kind that is not shown yet would
    /// pass for an earlier one of this stage.
    fn why(&self, node: &Node, inputs: &Inputs, lookup: &Lookup) -> Result<Why, RunError> {
        let _all_shown = self.publishing.write().unwrap_or_else(PoisonError::into_inner);
        self.outlook.why(node, &inputs.manifest, lookup)
    }

    /// Puts the result under its readable name, if this run does.
    pub(super) fn show(&self, node: &Node, manifest: &Manifest, record: &Record) -> Result<(), RunError> {
        if self.options.shows {
            self.outlook.store.update_view(&self.outlook.spec.name, &node.name, manifest, record)?;
        }
        Ok(())
    }

    /// Sends a result that was just computed, if this run does.
    pub(super) fn push(&self, node: &Node, record: &Record) {
        if let Some(cache) = &self.options.cache {
            cache.push(&node.name, record);
        }
    }

    pub(super) fn reader_of(&self, index: usize) -> String {
        let reads = |node: &&Node| graph::inputs(node).any(|above| above == index);
        self.outlook.spec.nodes.iter().find(reads).map_or_else(String::new, |node| node.name.clone())
    }
}

/// What a table says of where it comes from. Names of stages and files are in no key, so they are not in here either.
fn origin(manifest: &Manifest, node: &Node) -> BTreeMap<String, Value> {
    let inputs: BTreeMap<&String, Value> = manifest.inputs.iter().map(|(port, input)| (port, json!(input))).collect();
    let mut origin = BTreeMap::from([
        ("stage".to_owned(), json!(manifest.kind)),
        ("key".to_owned(), json!(manifest.key().hex())),
        ("inputs".to_owned(), json!(inputs)),
    ]);
    if manifest.seed.is_some() {
        origin.insert("seed".to_owned(), json!(node.seed));
    }
    origin
}

/// Names the output where an error names the private folder it was written to. Where the machine or the store is at fault, the place
/// is what matters.
fn named(error: StageError, draft: &Path, stage: &str) -> RunError {
    let (said, diagnosis, draft) = (chain(&error), error.diagnosis(), draft.display().to_string());
    if !said.contains(&draft) || matches!(diagnosis.exit, Exit::Machine | Exit::Store) {
        return error.into();
    }
    RunError::Told { said: output_named(&said, &draft, stage), diagnosis }
}

fn output_named(said: &str, draft: &str, stage: &str) -> String {
    let (mut text, mut rest) = (String::new(), said);
    while let Some((before, after)) = rest.split_once(draft) {
        let end = after.find(['`', ' ', ':', ',', '\n']).unwrap_or(after.len());
        let output = after[..end].split(['/', '\\']).find(|part| !part.is_empty()).unwrap_or("result");
        text.push_str(&format!("{before}{output} of {stage}"));
        rest = &after[end..];
    }
    text + rest
}

/// The outputs that a node reads: who made each, and its name.
fn wired<'k>(node: &'k Node, known: &'k Known) -> impl Iterator<Item = (usize, &'k str, &'k StoredOutput)> {
    node.ports.values().flatten().filter_map(|reference| {
        let output = known.get(&reference.node)?.outputs.get(reference.output)?;
        Some((reference.node, reference.output, output))
    })
}

/// The note of a record that says how many images its stage read.
pub const IMAGES: &str = "images";

/// How many images a stage reads by its features or images.
fn rows(offers: &Offers) -> Option<usize> {
    let of = |kind: &'static str| {
        let [offer] = offers.get(kind)?.as_slice() else { return None };
        // A table that cannot be read has stopped the stage.
        TableReader::open(offer.files.first()?, kind).ok().map(|table| table.rows())
    };
    // The ports are called as what they take.
    of(Features::KIND).or_else(|| of(Images::KIND))
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::fs;

    #[test]
    fn an_error_names_the_output_and_not_the_folder_it_was_written_to() {
        let said = "`/a/store/tmp/draft-x1/images/images.parquet` holds no images: cannot read `/a/store/tmp/draft-x1`";
        let named = output_named(said, "/a/store/tmp/draft-x1", "data.photos");
        assert_eq!(named, "`images of data.photos` holds no images: cannot read `result of data.photos`");
        let path = Path::new("/a/store/tmp/draft-x1");
        let error =
            |kind: std::io::ErrorKind| StageError::File(fs::FileError::new("write", &path.join("images/x"), kind.into()));
        let data = super::named(error(std::io::ErrorKind::NotFound), path, "s");
        assert_eq!(data.to_string(), "cannot write `images of s`: no such file or folder");
        let full = super::named(error(std::io::ErrorKind::StorageFull), path, "s");
        assert!(chain(&full).contains("draft-x1") && full.exit() == Exit::Machine, "where it is full is what matters");
        assert!(matches!(super::named(StageError::Stopped, path, "s"), RunError::Stage(StageError::Stopped)));
    }
}
