//! `kinset cache`: results in object storage, compared with those here, pushed, pulled, collected.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::{ClusterArgs, PipelineArgs, PlaceArgs, SelectArgs};
use super::cluster::Where;
use super::common::{Answer, Failure, pipeline, places, selection};
use super::run::stop_on_signals;
use super::run_cache::Settings;
use super::terminal;
use crate::base::fault::{Exit, chain};
use crate::base::stop::Stopped;
use crate::base::unit;
use crate::pipeline::dispatch::rules;
use crate::pipeline::graph;
use crate::pipeline::spec::Spec;
use crate::pipeline::state::{Known, Outlook};
use crate::registry;
use crate::remote::gc::{Policy, RESPITE};
use crate::remote::push::Pushed;
use crate::remote::{Remote, RemoteError, Work};
use crate::stage::Stop;
use crate::store::Store;
use crate::store::key::{Key, Manifest};
use crate::store::record::{Lookup, Record};

/// Compare the results here with a cache in object storage, push or pull them, remove old ones
#[derive(Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

/// `cache`.
#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// List which results are here and which are in the cache
    #[command(after_help = "\
Without a pipeline all results are counted.

Examples:
  kinset cache status pipelines/stl10.toml --url s3://bucket/team
  kinset cache status")]
    Status(WhichArgs),
    /// Send results to the cache: files first, then the record that names them; what is there is not sent again
    #[command(after_help = "\
Without a pipeline all results of the store are sent. Exit code 6 if something could not be sent.

Examples:
  kinset cache push pipelines/stl10.toml --url s3://bucket/team
  kinset cache push --url file:///mnt/team/kinset")]
    Push(WhichArgs),
    /// Bring results from the cache; each file is compared with its hash
    #[command(after_help = "\
Without a pipeline all results of the cache are brought. Exit code 6 if something there is damaged.

Examples:
  kinset cache pull pipelines/stl10.toml --url s3://bucket/team
  kinset cache pull pipelines/stl10.toml --only pretext,features --url https://example.org/team")]
    Pull(WhichArgs),
    /// List results in the cache that are old and that no named pipeline uses; remove them with --delete
    #[command(after_help = "\
Age is counted from when a result was pushed: object storage does not tell when one was read.
Files that no result names any more are removed a day later, by another call.

Examples:
  kinset cache gc --older-than 90d --url s3://bucket/team
  kinset cache gc pipelines/*.toml --older-than 90d --delete")]
    Gc {
        #[command(flatten)]
        which: WhichArgs,
        /// How old a result must be to be removed, for example 90d
        #[arg(long, value_name = "TIME", value_parser = age)]
        older_than: Duration,
        /// Remove the results instead of listing them
        #[arg(long)]
        delete: bool,
    },
}

/// Which results, here and there.
#[derive(Debug, Args)]
struct WhichArgs {
    /// The pipelines whose results are meant
    #[arg(value_name = "PIPELINE")]
    pipelines: Vec<PathBuf>,
    /// The cache: s3://BUCKET/PREFIX, gs://…, az://…, file:///FOLDER, or to read only https://HOST/PATH
    /// [default: $KINSET_CACHE, else the cluster file's]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Only these stages (comma-separated)
    #[arg(long, value_name = "STAGES", value_delimiter = ',', requires = "pipelines")]
    only: Vec<String>,
    /// Override a setting of the pipelines (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Override settings", requires = "pipelines")]
    set: Vec<String>,
    /// Apply a profile of the pipelines
    #[arg(long, value_name = "NAME", help_heading = "Override settings", requires = "pipelines")]
    profile: Option<String>,
    /// Override the seed of the pipelines
    #[arg(long, value_name = "N", help_heading = "Override settings", requires = "pipelines")]
    seed: Option<u64>,
    /// The cluster file [default: $KINSET_CLUSTER, else cluster.toml beside the pipeline, else ~/.config/kinset/cluster.toml]
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    #[command(flatten)]
    places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn age(text: &str) -> Result<Duration, String> {
    rules::duration(text).ok_or_else(|| "a time such as `90d` or `12h` is expected".to_owned())
}

/// A result that is meant: by its pipeline's stage, or by its key.
struct Meant {
    name: String,
    manifest: Manifest,
    here: Option<Record>,
    there: There,
}

/// What the cache has of a result.
enum There {
    Whole(Record),
    Not,
    Unusable(RemoteError),
}

/// What is asked of whom.
struct Asked<'a> {
    which: &'a WhichArgs,
    remote: Remote,
    stop: Stop,
}

pub(super) fn run(CacheArgs { command }: &CacheArgs) -> Answer {
    let which = match command {
        CacheCommand::Status(which)
        | CacheCommand::Push(which)
        | CacheCommand::Pull(which)
        | CacheCommand::Gc { which, .. } => which,
    };
    let beside = which.pipelines.first().cloned().unwrap_or_default();
    let cluster = ClusterArgs { executor: None, cluster: which.cluster.clone() };
    let settings = Settings::named(which.url.as_ref(), &Where::of(&cluster, &beside)?.rules.cache)?;
    let asked = Asked { which, remote: settings.open()?, stop: stop_on_signals()? };
    match command {
        CacheCommand::Status(_) => asked.status(),
        CacheCommand::Push(_) => asked.push(),
        CacheCommand::Pull(_) => asked.pull(),
        CacheCommand::Gc { older_than, delete, .. } => asked.collect(*older_than, *delete),
    }
}

impl Asked<'_> {
    fn url(&self) -> String {
        self.remote.address().to_string()
    }

    fn store(&self, writes: bool) -> Result<Store, Failure> {
        let artifacts = &self.which.places.artifacts;
        Ok(if writes { Store::open(artifacts)? } else { Store::open_to_read(artifacts)? })
    }

    /// Calls back with every stage of the named pipelines that is meant, in an order in which each comes after what it reads; `act` may
    /// bring its result here. Names those of which nothing can be told, because something that they read is nowhere.
    fn each(&self, store: &Store, act: &mut dyn FnMut(Meant) -> Result<(), Failure>) -> Result<Vec<String>, Failure> {
        let mut unknown = Vec::new();
        for file in &self.which.pipelines {
            let args = PipelineArgs {
                pipeline: file.clone(),
                set: self.which.set.clone(),
                profile: self.which.profile.clone(),
                seed: self.which.seed,
                device: None,
                places: self.which.places.clone(),
            };
            let spec = pipeline(&args)?;
            let select = SelectArgs { only: self.which.only.clone(), ..SelectArgs::default() };
            let chosen = selection(&spec, &select)?.nodes;
            let places = places(&args.places, Some(file));
            let cluster = ClusterArgs { executor: None, cluster: self.which.cluster.clone() };
            let devices = Where::of(&cluster, file)?.devices(&spec)?;
            let outlook = Outlook { spec: &spec, registry: registry::catalog(), store, places: &places, devices };
            unknown.extend(self.each_of(&outlook, &chosen, act)?);
        }
        Ok(unknown)
    }

    fn each_of(
        &self,
        outlook: &Outlook<'_>,
        chosen: &BTreeSet<usize>,
        act: &mut dyn FnMut(Meant) -> Result<(), Failure>,
    ) -> Result<Vec<String>, Failure> {
        let Spec { nodes, order, name, .. } = outlook.spec;
        let named = |index: usize| match self.which.pipelines.len() {
            1 => nodes[index].name.clone(),
            _ => format!("{name}/{}", nodes[index].name),
        };
        let needed = graph::needed(outlook.spec, chosen);
        let (mut known, mut unknown) = (Known::new(), Vec::new());
        for &index in order.iter().filter(|index| needed.contains(index)) {
            self.stop.check().map_err(RemoteError::from)?;
            let node = &nodes[index];
            if !graph::inputs(node).all(|above| known.contains_key(&above)) {
                unknown.extend(chosen.contains(&index).then(|| named(index)));
                continue;
            }
            let manifest = outlook.inputs(node, &known)?.manifest;
            let here = if let Lookup::Hit(record) = outlook.store.lookup(&manifest.key())? { Some(record) } else { None };
            let there = self.there(&manifest)?;
            // The keys below need what it says, not its files.
            match (&here, &there) {
                (Some(record), _) | (None, There::Whole(record)) => drop(known.insert(index, record.clone())),
                _ => {}
            }
            if chosen.contains(&index) {
                act(Meant { name: named(index), manifest, here, there })?;
            }
        }
        Ok(unknown)
    }

    fn there(&self, manifest: &Manifest) -> Result<There, Failure> {
        match self.remote.record(manifest) {
            Ok(None) => Ok(There::Not),
            Ok(Some(record)) => Ok(There::Whole(record)),
            Err(error) if !error.is_of_the_place() => Ok(There::Unusable(error)),
            Err(error) => Err(error.into()),
        }
    }

    fn status(&self) -> Answer {
        let store = self.store(false)?;
        if self.which.pipelines.is_empty() {
            let (here, there) = (store.keys()?, self.remote.keys()?);
            let both = here.iter().filter(|key| there.contains_key(key)).count();
            let (only_here, only_there) = (here.len() - both, there.len() - both);
            if self.which.json {
                let count = json!({ "url": self.url(), "both": both, "only_here": only_here, "only_there": only_there });
                terminal::print_json(&count)?;
            } else {
                terminal::print(&format!(
                    "{both} results are here and in `{}`, {only_here} only here, {only_there} only there\n",
                    self.url()
                ))?;
            }
            return Ok(Exit::Done);
        }
        let mut table = terminal::table(&["stage", "key", "here", "cache"], &[]);
        let (mut rows, mut only_here, mut only_there) = (Vec::new(), 0_u64, 0_u64);
        let unknown = self.each(&store, &mut |meant| {
            let key = meant.manifest.key();
            let there = match &meant.there {
                There::Whole(record) if self.remote.has_all(record)? => "yes".to_owned(),
                There::Whole(_) => "damaged: a file of it is missing".to_owned(),
                There::Not => "no".to_owned(),
                There::Unusable(error) => format!("unusable: {}", chain(error)),
            };
            let (is_here, is_there) = (meant.here.is_some(), there == "yes");
            only_here += u64::from(is_here && !is_there);
            only_there += u64::from(is_there && !is_here);
            let here = if is_here { "yes" } else { "no" };
            table.add_row([meant.name.clone(), key.short(), here.to_owned(), there.clone()]);
            let why = (!matches!(there.as_str(), "yes" | "no")).then_some(&there);
            rows.push(json!({ "stage": meant.name, "key": key.hex(), "here": is_here, "there": is_there, "why": why }));
            Ok(())
        })?;
        for stage in &unknown {
            table.add_row([stage.as_str(), "–", "no", "unknown: what it reads is nowhere"]);
            rows.push(json!({ "stage": stage, "key": null, "here": false, "there": null, "why": "what it reads is nowhere" }));
        }
        if self.which.json {
            terminal::print_json(&json!({ "url": self.url(), "stages": rows }))?;
            return Ok(Exit::Done);
        }
        terminal::print(&terminal::text(&table))?;
        let counted = |count| unit::counted(count, "result");
        terminal::say(&match (only_here, only_there) {
            (0, 0) => format!("\n`{}` has what is here", self.url()),
            (0, there) => format!("\n`kinset cache pull` would bring {}", counted(there)),
            (here, 0) => format!("\n`kinset cache push` would send {}", counted(here)),
            (here, there) => {
                format!("\n`kinset cache push` would send {}, `pull` would bring {}", counted(here), counted(there))
            }
        });
        Ok(Exit::Done)
    }

    fn push(&self) -> Answer {
        self.remote.writable()?;
        let store = self.store(false)?;
        let _held = store.lock_shared(|| !self.stop.requested())?;
        let (mut keys, mut absent): (Vec<(String, Key)>, Vec<String>) = (Vec::new(), Vec::new());
        if self.which.pipelines.is_empty() {
            keys.extend(store.keys()?.into_iter().map(|key| (key.short(), key)));
        } else {
            let unknown = self.each(&store, &mut |meant| {
                match meant.here {
                    Some(record) => keys.push((meant.name, record.key)),
                    None => absent.push(meant.name),
                }
                Ok(())
            })?;
            absent.extend(unknown);
        }
        let bar = terminal::bytes_bar(None, "sent");
        let moved = |bytes: u64| bar.inc(bytes);
        let (mut sent, mut objects, mut bytes, mut there) = (0_u64, 0, 0, 0_u64);
        let (mut differ, mut failed) = (Vec::new(), Vec::new());
        for (name, key) in keys {
            bar.set_message(name.clone());
            match self.remote.push(&store, &key, Work { stop: &self.stop, moved: &moved }) {
                Ok(Pushed::Sent { objects: more, bytes: length }) => {
                    sent += 1;
                    objects += more;
                    bytes += length;
                }
                Ok(Pushed::There) => there += 1,
                Ok(Pushed::Differs) => differ.push(name),
                Err(error @ (RemoteError::NotHere { .. } | RemoteError::Newer { .. })) => failed.push((name, chain(&error))),
                Err(error) => return Err(error.into()),
            }
        }
        bar.finish_and_clear();
        if self.which.json {
            terminal::print_json(&json!({
                "url": self.url(), "sent": sent, "objects": objects, "bytes": bytes, "there": there, "differ": differ,
                "absent": absent, "failed": as_json(&failed),
            }))?;
        } else {
            let (results, objects, size) =
                (unit::counted(sent, "result"), unit::counted(objects, "object"), unit::bytes(bytes));
            terminal::print(&format!("sent {results} ({objects}, {size}) to `{}`; {there} were there\n", self.url()))?;
            if !absent.is_empty() {
                terminal::say(&format!("not here: {}", absent.join(", ")));
            }
            if !differ.is_empty() {
                terminal::say(&format!("another result of the same key is there, and stays: {}", differ.join(", ")));
            }
            say_failed(&failed);
        }
        Ok(if failed.is_empty() { Exit::Done } else { Exit::Store })
    }

    fn pull(&self) -> Answer {
        let store = self.store(true)?;
        let _held = store.lock_shared(|| !self.stop.requested())?.ok_or(RemoteError::from(Stopped))?;
        let bar = terminal::bytes_bar(None, "pulled");
        let moved = |bytes: u64| bar.inc(bytes);
        let (mut pulled, mut bytes, mut here) = (0_u64, 0_u64, 0_u64);
        let (mut absent, mut failed) = (Vec::new(), Vec::new());
        let mut take = |name: String, result: Result<Option<u64>, RemoteError>| {
            match result {
                Ok(Some(length)) => {
                    pulled += 1;
                    bytes += length;
                }
                Ok(None) => absent.push(name),
                Err(error) if !error.is_of_the_place() && !matches!(error, RemoteError::Stopped(_)) => {
                    failed.push((name, chain(&error)));
                }
                Err(error) => return Err(error.into()),
            }
            Ok::<(), Failure>(())
        };
        let bring = |name: &str, manifest: &Manifest, record: Record| {
            bar.set_message(name.to_owned());
            let work = Work { stop: &self.stop, moved: &moved };
            self.remote.bring(&store, manifest, record, work).map(|pulled| Some(pulled.bytes))
        };
        let unknown = if self.which.pipelines.is_empty() {
            for key in self.remote.keys()?.into_keys() {
                if let Lookup::Hit(_) = store.lookup(&key)? {
                    here += 1;
                    continue;
                }
                let found = self.remote.whole(&key);
                let result = found.and_then(|found| match found {
                    Some((record, manifest)) => bring(&key.short(), &manifest, record),
                    None => Ok(None),
                });
                take(key.short(), result)?;
            }
            Vec::new()
        } else {
            self.each(&store, &mut |meant| {
                if meant.here.is_some() {
                    here += 1;
                    return Ok(());
                }
                let result = match meant.there {
                    There::Whole(record) => bring(&meant.name, &meant.manifest, record),
                    There::Not => Ok(None),
                    There::Unusable(error) => Err(error),
                };
                take(meant.name, result)
            })?
        };
        bar.finish_and_clear();
        absent.extend(unknown);
        if self.which.json {
            terminal::print_json(&json!({
                "url": self.url(), "pulled": pulled, "bytes": bytes, "here": here, "absent": absent, "failed": as_json(&failed),
            }))?;
        } else {
            let (results, size) = (unit::counted(pulled, "result"), unit::bytes(bytes));
            terminal::print(&format!("pulled {results} ({size}) from `{}`; {here} were here\n", self.url()))?;
            if !absent.is_empty() {
                terminal::say(&format!("not there: {}", absent.join(", ")));
            }
            say_failed(&failed);
        }
        Ok(if failed.is_empty() { Exit::Done } else { Exit::Store })
    }

    fn collect(&self, older_than: Duration, delete: bool) -> Answer {
        let store = self.store(false)?;
        let mut policy = Policy::older_than(older_than);
        self.each(&store, &mut |meant| {
            policy.keep.insert(meant.manifest.key());
            Ok(())
        })?;
        let plan = self.remote.collect(&policy, delete, &self.stop)?;
        let bytes = |blobs: &[(_, u64)]| blobs.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let age = |seconds: f64| unit::duration(Duration::from_secs_f64(seconds.max(0.0)));
        if self.which.json {
            let results: Vec<Value> = plan
                .results
                .iter()
                .map(|victim| json!({ "key": victim.key.hex(), "kind": victim.kind, "age_seconds": victim.age }))
                .collect();
            terminal::print_json(&json!({
                "url": self.url(), "deleted": delete, "results": results, "kept": plan.kept, "before": plan.before,
                "files": plan.blobs.len(), "freed": plan.freed(), "later": plan.condemned.len(), "later_bytes": bytes(&plan.condemned),
            }))?;
            return Ok(Exit::Done);
        }
        if plan.results.is_empty() {
            terminal::print("no result to remove\n")?;
        } else {
            let mut table = terminal::table(&["result", "pushed"], &[]);
            for victim in &plan.results {
                let kind = if victim.kind.is_empty() { "damaged" } else { &victim.kind };
                table.add_row([format!("{kind} {}", victim.key.short()), format!("{} ago", age(victim.age))]);
            }
            terminal::print(&terminal::text(&table))?;
        }
        let (freed, before) = (unit::bytes(plan.freed()), unit::bytes(plan.before));
        terminal::say(&if delete {
            format!("\nfreed {freed} of {before}")
        } else {
            format!("\n`--delete` would free {freed} of {before}; nothing was removed")
        });
        if !plan.condemned.is_empty() {
            let (files, size, day) = (
                unit::counted(plan.condemned.len() as u64, "file"),
                unit::bytes(bytes(&plan.condemned)),
                age(RESPITE.as_secs_f64()),
            );
            terminal::say(&format!(
                "{files} ({size}) that no result names can be removed {day} after a `--delete` has seen them"
            ));
        }
        Ok(Exit::Done)
    }
}

fn as_json(failed: &[(String, String)]) -> Vec<Value> {
    failed.iter().map(|(name, why)| json!({ "result": name, "why": why })).collect()
}

fn say_failed(failed: &[(String, String)]) {
    for (name, why) in failed {
        terminal::say(&format!("warning: {name}: {why}"));
    }
}
