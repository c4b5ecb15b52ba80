//! What the commands share that make a set from a pool: the run of the pipeline behind them, the files that they may write, what they leave.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::SetArgs;
use super::export::{self, Placed};
use super::inputs::{FileNames, Input, Inputs, PoolPictures};
use super::plan;
use crate::artifact::features::Features;
use crate::artifact::images::{Images, names_and_paths};
use crate::artifact::{Artifact, Stored};
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs;
use crate::base::output;
use crate::base::search_path::DataPaths;
use crate::base::stop::Stop;
use crate::base::unit;
use crate::cli::args::{CacheArgs, ClusterArgs};
use crate::cli::cluster::Where;
use crate::cli::common::{Failure, device_of};
use crate::cli::report;
use crate::cli::run::stop_on_signals;
use crate::cli::run_cache::RunCache;
use crate::cli::terminal::{self, Screen};
use crate::dataset::vectors::byte_of;
use crate::pipeline::cache::Cache;
use crate::pipeline::error::RunError;
use crate::pipeline::event::{Listener, Tell};
use crate::pipeline::journal::{Journal, runs_folder};
use crate::pipeline::run::{self, Options, Summary};
use crate::pipeline::spec::{self, Request, Spec};
use crate::pipeline::state::{self, Outlook};
use crate::registry;
use crate::report::gather::{Elsewhere, Finder};
use crate::store::Store;
use crate::store::digest::Digest;

/// Names that are shown of a long list.
const SHOWN: usize = 3;

/// Where results lie unless `--artifacts` says otherwise.
pub(in crate::cli) const ARTIFACTS: &str = "artifacts";

/// A flag that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(in crate::cli) struct Unfit {
    what: String,
    hint: String,
}

impl Fault for Unfit {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Usage.code("similar::flags").hint(self.hint.clone())
    }
}

/// Refuses what was typed.
pub(in crate::cli) fn unfit(what: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure::own(Unfit { what: what.into(), hint: hint.into() })
}

/// What clap cannot know of a set.
pub(in crate::cli) fn check(set: &SetArgs) -> Result<(), Failure> {
    if set.separator.as_deref().is_some_and(|separator| byte_of(separator).is_none()) {
        return Err(unfit("`--separator` is not one character", "name one such as `;`, or `tab` or `blank`"));
    }
    Ok(())
}

/// The pipeline behind a command, by the name of both.
pub(in crate::cli) struct Work<'a> {
    command: &'static str,
    set: &'a SetArgs,
    inputs: &'a Inputs,
    places: &'a DataPaths,
    store: &'a Store,
    screen: Screen,
    stop: Stop,
}

/// Refuses a folder in which something else would be overwritten: an input, one of some `lists` that are read, or one of the `files` of
/// a command that no earlier run of it wrote.
///
/// # Errors
/// [`Unfit`].
pub(in crate::cli) fn spare(
    command: &str,
    set: &SetArgs,
    inputs: &Inputs,
    files: &[String],
    lists: &[&Path],
) -> Result<(), Failure> {
    let plan = plan::file(command);
    let read: Vec<&Path> = inputs.all().map(|input| input.path.as_path()).chain(lists.iter().copied()).collect();
    let files: Vec<PathBuf> = files.iter().chain([&plan]).map(|name| set.save_dir.join(name)).collect();
    for file in &files {
        output::not_over(file, read.iter().copied())?;
    }
    let ours = fs::read_text(&set.save_dir.join(&plan)).is_ok_and(|text| text.starts_with(&plan::mark(command)));
    let foreign = files.iter().find(|file| !ours && (fs::exists(file) || fs::is_link(file)));
    foreign.map_or(Ok(()), |foreign| {
        Err(unfit(
            format!("`{}` would be overwritten", foreign.display()),
            format!("it was not written by `kinset {command}`: name another folder with `--save-dir`, or move the file away"),
        ))
    })
}

/// The store of a set.
///
/// # Errors
/// If it cannot be opened.
pub(in crate::cli) fn store(set: &SetArgs) -> Result<Store, Failure> {
    Ok(Store::open(&set.artifacts.clone().unwrap_or_else(|| set.save_dir.join(ARTIFACTS)))?)
}

impl<'a> Work<'a> {
    /// # Errors
    /// If signals cannot be heard.
    pub(in crate::cli) fn new(
        command: &'static str,
        set: &'a SetArgs,
        inputs: &'a Inputs,
        places: &'a DataPaths,
        store: &'a Store,
    ) -> Result<Self, Failure> {
        Ok(Self { command, set, inputs, places, store, screen: Screen::new(), stop: stop_on_signals()? })
    }

    /// Writes the pipeline, and runs it.
    ///
    /// # Errors
    /// If it cannot be written or run.
    pub(in crate::cli) fn run(&self, text: &str) -> Result<Done<'a>, Failure> {
        let Work { command, set, inputs, places, store, .. } = *self;
        let path = set.save_dir.join(plan::file(command));
        output::write(&path, text.as_bytes())?;
        let spec = spec::check(&path, text, &Request::default(), &registry::catalog())?;
        let (device, devices) = device_of(&spec)?;
        // There is no file of a pipeline that a cluster file could lie beside.
        let rules = Where::of(&ClusterArgs::default(), Path::new(&plan::file(command)))?.rules;
        let cache = RunCache::of(&CacheArgs::default(), &rules.cache, store.artifacts(), &self.stop)?;
        let journal = Journal::new(runs_folder(store.artifacts(), &spec.name));
        let listeners: [&dyn Listener; 2] = [&self.screen, &journal];
        let options = Options {
            registry: registry::catalog(),
            chosen: (0..spec.nodes.len()).collect(),
            forced: std::collections::BTreeSet::new(),
            threads: rayon::current_num_threads(),
            device,
            devices,
            shows: true,
            wait: true,
            checkpoint_every: Duration::from_secs_f64(set.checkpoint_every),
            stop: self.stop.clone(),
            cache: cache.clone().map(|cache| cache as Arc<dyn Cache>),
        };
        let summary = run::run(&spec, store, places, &options, Tell(&listeners))?;
        cache.inspect(|cache| drop(cache.finish()));
        Ok(Done { set, inputs, places, store, spec, summary })
    }
}

/// A run that is over.
pub(in crate::cli) struct Done<'a> {
    pub(in crate::cli) set: &'a SetArgs,
    pub(in crate::cli) inputs: &'a Inputs,
    places: &'a DataPaths,
    pub(in crate::cli) store: &'a Store,
    pub(in crate::cli) spec: Spec,
    pub(in crate::cli) summary: Summary,
}

impl Done<'_> {
    /// How the process ends if the run did not come to its end.
    pub(in crate::cli) fn broke_off(&self) -> Option<Exit> {
        let exit = self.summary.exit();
        if exit == Exit::Stopped {
            terminal::say("\nstopped; the same command resumes from here");
        }
        (exit != Exit::Done).then_some(exit)
    }

    /// The main output of a stage.
    pub(in crate::cli) fn stored<A: Artifact>(&self, stage: &str) -> Result<Stored<A>, Failure> {
        let index = self.spec.nodes.iter().position(|node| node.name == stage);
        let record = index.and_then(|index| self.summary.records.get(&index));
        let output = record.and_then(|record| record.outputs.iter().find(|(_, output)| output.kind == A::KIND));
        let Some((name, output)) = output else { return Err(RunError::NoKind { kind: stage.to_owned() }.into()) };
        Ok(state::stored(self.store, stage, name, output)?)
    }

    /// The features of the pool, shard by shard.
    pub(in crate::cli) fn pool(&self) -> Result<Vec<Stored<Features>>, Failure> {
        (1..=self.inputs.pool.len()).map(|shard| self.stored(&plan::pool(shard))).collect()
    }

    /// What the images are called by people, if features were made of them here.
    pub(in crate::cli) fn file_names(&self) -> Result<Option<FileNames>, Failure> {
        if !self.inputs.are_images() {
            return Ok(None);
        }
        let of = |features: &str| Ok::<_, Failure>(names_and_paths(&self.stored::<Images>(&plan::source(features))?)?);
        let (mut ids, mut paths, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for shard in 1..=self.inputs.pool.len() {
            starts.push(ids.len());
            let (shard_ids, shard_paths) = of(&plan::pool(shard))?;
            ids.extend(shard_ids);
            paths.extend(shard_paths);
        }
        let target = self.inputs.target.as_ref().map(|_| of(plan::TARGET)).transpose()?;
        Ok(Some(FileNames { target: target.map(|(_, paths)| paths), ids, paths, starts }))
    }

    /// Writes the page that shows the selections, with pictures where it is known where they lie.
    pub(in crate::cli) fn page(
        &self,
        target: Option<Finder<'_>>,
        pool: Option<&PoolPictures>,
    ) -> Result<Option<String>, Failure> {
        if self.set.no_report {
            return Ok(None);
        }
        let (spec, store, places) = (&self.spec, self.store, self.places);
        let outlook = Outlook { spec, registry: registry::catalog(), store, places, devices: device_of(spec)?.1 };
        let elsewhere = if self.inputs.are_images() {
            // They are results, like all others that a page shows.
            Elsewhere::default()
        } else {
            Elsewhere { target, pool: pool.map(|pictures| Box::new(|name: &str| pictures.find(name)) as Finder<'_>) }
        };
        let page = report::after_run(&outlook, &self.summary.records, self.set.save_dir.join(export::PAGE), elsewhere);
        Ok(page.map(|path| path.display().to_string()))
    }

    /// Writes `report.json`: what went in, what each stage was told, and `more`.
    pub(in crate::cli) fn report(&self, more: &[(&str, Value)]) -> Result<(), Failure> {
        let settings = self.spec.nodes.iter().map(|node| (node.name.clone(), node.settings.clone()));
        let mut report = json!({ "inputs": self.digests()?, "settings": settings.collect::<serde_json::Map<_, _>>() });
        for (name, value) in more {
            report[*name] = value.clone();
        }
        let mut text = serde_json::to_vec_pretty(&report).unwrap_or_default();
        text.push(b'\n');
        Ok(output::write(&self.set.save_dir.join(export::REPORT), &text)?)
    }

    /// What went in, and digests: of a file's bytes, of the features that were made of images.
    fn digests(&self) -> Result<Value, Failure> {
        let one = |input: &Input, stage: &str| -> Result<Value, Failure> {
            let digest = match input.images {
                None => Digest::of_file(&input.path)?,
                Some(_) => self.stored::<Features>(stage)?.digest(),
            };
            Ok(json!({ "path": input.path.display().to_string(), "blake3": digest.hex() }))
        };
        let all = |inputs: &[Input], stage: &dyn Fn(usize) -> String| {
            (1..).zip(inputs).map(|(number, input)| one(input, &stage(number))).collect::<Result<Vec<_>, _>>()
        };
        let Inputs { target, pool, held_out, .. } = self.inputs;
        let mut digests = json!({ "pool": all(pool, &plan::pool)? });
        if let Some(target) = target {
            digests["target"] = one(target, plan::TARGET)?;
            digests["held_out"] = all(held_out, &plan::held_out)?.into();
        }
        Ok(digests)
    }
}

/// Says what was not found or left of what should be put in place. `name` is that of the selection.
pub(in crate::cli) fn warn(name: &str, placed: &Placed, looked: bool) {
    if !looked {
        return;
    }
    for (names, what) in [
        (&placed.without_image, "have no picture"),
        (&placed.without_annotation, "have no annotation"),
        (&placed.outside, "are links that lead out of the folder of images and are not followed"),
    ] {
        if !names.is_empty() {
            let first: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
            let more = if names.len() > SHOWN { " …" } else { "" };
            terminal::say(&format!("warning: {name}: {} names {what}: {}{more}", names.len(), first.join(", ")));
        }
    }
    if placed.removed > 0 {
        terminal::say(&format!("{name}: {} of an earlier selection removed", unit::counted(placed.removed as u64, "link")));
    }
    if placed.strangers > 0 {
        terminal::say(&format!("warning: {name}: {} files are left from an earlier selection", placed.strangers));
    }
}
