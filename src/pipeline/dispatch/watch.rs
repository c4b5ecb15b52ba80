//! The watching process: plans, submits what is missing, follows its jobs, and shows what they leave.
//!
//! A node is done when its record is there, whoever made it. A job that is gone without one is given some time, since file systems show
//! news late; then its node has failed, in the words of the worker, else of the scheduler.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use super::cluster::{After, Cluster, Death, Job, JobId, Queue, Standing, State};
use super::error::{DispatchError, last_lines};
use super::jobs;
use super::rules::{Needs, Rules};
use super::tail::Tail;
use super::ticket::{End, Form, Place, Task, Ticket, Worker};
use super::unit::{Unit, units};
use crate::attempt::{Attempt, Setback};
use crate::error::RunError;
use crate::event::{Event, Planned, Tell};
use crate::graph;
use crate::run::{Jobs, Options, Outcome, Summary};
use crate::spec::Spec;
use crate::state::{Known, Outlook, Why};
use kinset_base::clock::Stopwatch;
use kinset_base::fault::{Exit, Fault, chain};
use kinset_base::search_path::DataPaths;
use kinset_base::{fs, unit};
use kinset_stage::{Share, StageError};
use kinset_store::Store;
use kinset_store::digest::{Digest, Hasher};
use kinset_store::key::Manifest;
use kinset_store::record::{Lookup, Record};

/// The longest pause between two looks at the queue, while nothing changes.
const LONGEST: Duration = Duration::from_mins(5);

/// The pause after a scheduler was busy, which doubles up to [`LONGEST`].
const BUSY: Duration = Duration::from_secs(2);

/// How often the result of a node is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// How long a scheduler may be busy with one job before that is a failure of its own.
const PATIENCE: Duration = Duration::from_hours(1);

/// How a run is distributed.
pub struct Dispatch<'a> {
    pub cluster: &'a dyn Cluster,
    pub rules: &'a Rules,
    pub form: &'a Form,
    /// Makes the folder of the run's jobs, or says where it is.
    pub folder: &'a (dyn Fn() -> fs::Result<PathBuf> + Sync),
    /// Where earlier runs of the pipeline lie.
    pub runs: PathBuf,
    /// Hears what workers say, which they write down themselves.
    pub forward: Tell<'a>,
    /// Submit, and leave.
    pub detach: bool,
    /// Whether jobs end with this process, where they could go on.
    pub cancel: bool,
    /// What a worker may use for which no rule has a number.
    pub worker: Worker,
    /// How often files and processes are looked at.
    pub tick: Duration,
}

/// Runs a pipeline by jobs.
///
/// # Errors
/// Only what concerns the run as a whole; faults of stages are outcomes.
pub fn run(
    spec: &Spec,
    store: &Store,
    places: &DataPaths,
    options: &Options,
    dispatch: &Dispatch<'_>,
    tell: Tell<'_>,
) -> Result<Summary, RunError> {
    let clock = Stopwatch::start();
    let (pipeline, plan) = (spec.name.clone(), Planned::of(spec));
    let file = fs::absolute(&spec.path).unwrap_or_else(|_| spec.path.clone()).display().to_string();
    tell.tell(Event::RunStarted { pipeline, file, version: env!("CARGO_PKG_VERSION").into(), plan });
    let Some(_held) = store.lock_shared(|| !options.stop.requested())? else { return Err(StageError::Stopped.into()) };
    let attempt = Attempt::new(Outlook::of(spec, options, store, places), options, tell);
    let needed = graph::needed(spec, &options.chosen);
    let nodes = (0..spec.nodes.len()).map(|index| Standpoint {
        at: if needed.contains(&index) { At::Open } else { At::Over },
        outcome: (!needed.contains(&index)).then_some(Outcome::Skipped),
        ..Standpoint::default()
    });
    let mut watch = Watch {
        spec,
        options,
        dispatch,
        tell,
        attempt: &attempt,
        nodes: nodes.collect(),
        known: Known::new(),
        jobs: Vec::new(),
        numbered: 0,
        damaged: BTreeSet::new(),
        polled: None,
        pause: dispatch.rules.limits.poll,
        busy: None,
        submitted: None,
        warned: false,
        counts: Jobs::default(),
    };
    watch.follow()?;
    let summary = watch.summary(clock.seconds());
    tell.tell(Event::RunFinished { seconds: summary.seconds, ran: summary.ran().count(), exit: summary.exit() as u8 });
    Ok(summary)
}

/// Where a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Nobody is at it.
    #[default]
    Open,
    /// A thread of this process is.
    Here,
    /// A task of a job is.
    Job { job: usize, task: usize },
    /// It has an outcome.
    Over,
}

/// How one of several shares of a node stands, which tasks compute together before another puts them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shared {
    Open,
    Job { job: usize, task: usize },
    Over,
}

/// What is known of a node.
#[derive(Debug, Default)]
struct Standpoint {
    at: At,
    outcome: Option<Outcome>,
    /// What its key is made of, once its inputs are known.
    manifest: Option<Manifest>,
    /// When its result was looked for last.
    looked: Option<Stopwatch>,
    /// Whether a cache was asked for it.
    asked: bool,
    /// Why it runs, and how long it took, as its worker says.
    why: Option<String>,
    seconds: Option<f64>,
    adopted: bool,
    /// The bytes that came from a cache, if its worker had it from there.
    pulled: Option<u64>,
    /// Its shares, once they are wanted.
    shares: Vec<Shared>,
}

impl Standpoint {
    /// The tasks that are at its shares, if that is still of use.
    fn tasks(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let over = self.at == At::Over;
        self.shares.iter().filter_map(move |share| match share {
            Shared::Job { job, task } if !over => Some((*job, *task)),
            _ => None,
        })
    }
}

/// A job that was submitted, by this run or an earlier one.
struct Sent {
    id: JobId,
    place: Place,
    tasks: Vec<Followed>,
}

/// A task of a job.
struct Followed {
    nodes: Vec<usize>,
    /// Whether it computes a share of its node.
    share: bool,
    /// Units done, and units in all, as far as it has said.
    progress: (u64, u64),
    tail: Tail,
    standing: Option<Standing>,
    /// Since when the queue does not know it any more, or knows that it has ended.
    gone: Option<Stopwatch>,
    seen: bool,
}

impl Followed {
    fn new(nodes: Vec<usize>, share: bool, tail: Tail) -> Self {
        Self { nodes, share, progress: (0, 0), tail, standing: None, gone: None, seen: false }
    }
}

/// A job that could not be submitted yet.
struct Busy {
    since: Stopwatch,
    tried: Stopwatch,
    pause: Duration,
}

/// What a thread of this process reports of a node.
type Report = (usize, Result<(Outcome, Record), Setback>);

struct Watch<'a> {
    spec: &'a Spec,
    options: &'a Options,
    dispatch: &'a Dispatch<'a>,
    tell: Tell<'a>,
    attempt: &'a Attempt<'a>,
    nodes: Vec<Standpoint>,
    known: Known,
    jobs: Vec<Sent>,
    /// Tickets written so far.
    numbered: usize,
    /// Nodes whose results were found to be damaged. Once is bad luck.
    damaged: BTreeSet<usize>,
    polled: Option<Stopwatch>,
    pause: Duration,
    busy: Option<Busy>,
    submitted: Option<Stopwatch>,
    /// Whether it was said that the scheduler does not answer.
    warned: bool,
    /// Jobs of this run, and those of earlier ones that it has found.
    counts: Jobs,
}

impl Watch<'_> {
    fn follow(&mut self) -> Result<(), RunError> {
        self.look();
        let cluster = self.dispatch.cluster;
        if cluster.keeps_order() && cluster.written().is_none() {
            self.attach()?;
        }
        let (report, reports) = mpsc::channel::<Report>();
        let attempt = self.attempt;
        std::thread::scope(|scope| {
            let mut asked = false;
            loop {
                self.look();
                let stopping = self.options.stop.requested();
                let leaves = cluster.keeps_order() && !self.dispatch.cancel;
                if stopping && !asked && !leaves {
                    self.cancel(&|_| true);
                }
                asked |= stopping;
                if !stopping {
                    self.submit();
                    if let Some(index) = self.next_here() {
                        self.nodes[index].at = At::Here;
                        let (known, done) = (self.known.clone(), report.clone());
                        let forced = self.options.forced.contains(&index);
                        let work = move || {
                            // The loop outlives its threads, so somebody listens.
                            let _ = done.send((index, attempt.node(index, &known, forced)));
                        };
                        if let Err(source) = std::thread::Builder::new().spawn_scoped(scope, work) {
                            self.take(index, Err(RunError::NoThread { source }.into()));
                        }
                    }
                }
                let here = self.nodes.iter().any(|node| node.at == At::Here);
                let in_jobs = self.at_work() > 0 || self.has_processes();
                let waits = self.busy.is_some() && !stopping;
                if !here && !waits && (!in_jobs || (leaves && (stopping || self.dispatch.detach))) {
                    return;
                }
                if let Ok((index, result)) = reports.recv_timeout(self.dispatch.tick) {
                    self.take(index, result);
                }
                self.listen();
                self.poll();
                self.judge();
            }
        });
        Ok(())
    }

    fn name(&self, index: usize) -> String {
        self.spec.nodes[index].name.clone()
    }

    fn needs_here(&self, index: usize) -> bool {
        self.dispatch.rules.needs(&self.spec.nodes[index]).here == Some(true)
    }

    /// Looks at all nodes of which everything above is known: some have a result by now, some never will.
    fn look(&mut self) {
        let spec = self.spec;
        for &index in &spec.order {
            let Standpoint { at, looked, .. } = &self.nodes[index];
            if matches!(at, At::Over | At::Here) {
                continue;
            }
            let node = &spec.nodes[index];
            if let Some(above) =
                graph::inputs(node).find(|&above| self.nodes[above].outcome.as_ref().is_some_and(Outcome::is_lost))
            {
                let by = self.name(above);
                self.tell.tell(Event::StageBlocked { stage: self.name(index), by: by.clone() });
                self.end(index, Outcome::Blocked { by });
                continue;
            }
            let due = looked.is_none_or(|looked| looked.elapsed() >= LOOK);
            if !due || !graph::inputs(node).all(|above| self.known.contains_key(&above)) {
                continue;
            }
            self.nodes[index].looked = Some(Stopwatch::start());
            if let Err(error) = self.look_at(index) {
                self.fail(index, error);
            }
        }
    }

    /// Looks for the result of a node whose inputs are known.
    fn look_at(&mut self, index: usize) -> Result<(), RunError> {
        let (node, outlook) = (&self.spec.nodes[index], &self.attempt.outlook);
        let manifest = match self.nodes[index].manifest.take() {
            Some(manifest) => manifest,
            None => outlook.inputs(node, &self.known)?.manifest,
        };
        self.nodes[index].manifest = Some(manifest.clone());
        let in_job = matches!(self.nodes[index].at, At::Job { .. });
        let forced = self.options.forced.contains(&index);
        let lookup = outlook.store.lookup(&manifest.key())?;
        match lookup {
            // What was there before is no result of a node that was forced: its worker says when it is done.
            Lookup::Hit(record) if !forced || self.nodes[index].seconds.is_some() => {
                self.attempt.show(node, &manifest, &record)?;
                self.finish(index, record);
            }
            _ if in_job => {}
            _ if !forced && !self.options.stop.requested() && !std::mem::replace(&mut self.nodes[index].asked, true) => {
                if let Some((record, bytes)) = self.attempt.pull(node, &manifest)? {
                    self.known.insert(index, record);
                    self.end(index, Outcome::Pulled { bytes });
                } else {
                    self.look_at(index)?;
                }
            }
            lookup if !self.options.chosen.contains(&index) => {
                let stage = self.name(index);
                return Err(match lookup {
                    Lookup::Damaged(why) => RunError::Damaged { stage, why },
                    _ => RunError::NotChosen { stage, needs: self.attempt.reader_of(index) },
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Tasks that are not over, as far as is known.
    fn at_work(&self) -> usize {
        let of = |node: &Standpoint| usize::from(matches!(node.at, At::Job { .. })) + node.tasks().count();
        self.nodes.iter().map(of).sum()
    }

    /// Whether processes of shares still stop, which nobody needs any more.
    fn has_processes(&self) -> bool {
        let mut tasks = self.jobs.iter().flat_map(|job| &job.tasks);
        !self.dispatch.cluster.keeps_order() && tasks.any(|task| task.share && task.gone.is_none())
    }

    /// Whether this task is at a node.
    fn is_at(&self, node: usize, job: usize, task: usize) -> bool {
        self.nodes[node].at == At::Job { job, task } || self.nodes[node].tasks().any(|at| at == (job, task))
    }

    fn end(&mut self, index: usize, outcome: Outcome) {
        self.nodes[index].at = At::Over;
        self.nodes[index].outcome = Some(outcome);
    }

    fn fail(&mut self, index: usize, error: RunError) {
        self.cancel_shares(index);
        let stage = self.name(index);
        let outcome = if error.exit() == Exit::Stopped {
            self.tell.tell(Event::StageStopped { stage });
            Outcome::Stopped
        } else {
            self.tell.tell(Event::StageFailed { stage, error: chain(&error), hint: error.hint() });
            Outcome::Failed { error }
        };
        self.end(index, outcome);
    }

    fn finish(&mut self, index: usize, record: Record) {
        // Its last words may be there only now.
        if let At::Job { job, task } = self.nodes[index].at {
            self.listen_to(job, task);
        }
        let (stage, key) = (self.name(index), record.key.hex());
        let Standpoint { at, why, seconds, adopted, pulled, .. } = &self.nodes[index];
        let (in_job, seconds) = (matches!(at, At::Job { .. }), seconds.unwrap_or(record.seconds));
        let outcome = match (why, pulled) {
            _ if in_job && *adopted => Outcome::Adopted,
            (Some(why), _) if in_job => Outcome::Ran { why: Why::Told(why.clone()), seconds },
            (None, Some(bytes)) if in_job => Outcome::Pulled { bytes: *bytes },
            _ => Outcome::Fresh,
        };
        if let Outcome::Ran { .. } = outcome {
            self.attempt.push(&self.spec.nodes[index], &record);
        }
        self.tell.tell(match &outcome {
            Outcome::Fresh => Event::StageFresh { stage, key },
            Outcome::Pulled { bytes } => Event::StagePulled { stage, key, bytes: *bytes },
            outcome => Event::StageFinished { stage, key, seconds, adopted: matches!(outcome, Outcome::Adopted) },
        });
        self.known.insert(index, record);
        self.end(index, outcome);
    }

    /// Takes what a thread of this process reports.
    fn take(&mut self, index: usize, result: Result<(Outcome, Record), Setback>) {
        match result {
            Ok((outcome, record)) => {
                self.known.insert(index, record);
                self.end(index, outcome);
            }
            Err(Setback::Mended) => self.nodes[index] = Standpoint::default(),
            Err(Setback::Failed(error)) => self.fail(index, error),
            Err(Setback::Damaged(input)) => {
                let store = self.attempt.outlook.store;
                let key = self.known.get(&input.maker).map(|record| record.key);
                let forgotten = store.forget_readers(&input.content).and_then(|_| key.map_or(Ok(()), |key| store.forget(&key)));
                match forgotten {
                    Ok(()) => self.heal(index, input.maker, input.why),
                    Err(error) => self.fail(index, error.into()),
                }
            }
        }
    }

    /// Has the maker of a damaged input run again, and all below it looked at anew.
    fn heal(&mut self, index: usize, maker: usize, why: String) {
        self.cancel_shares(index);
        if !self.damaged.insert(maker) {
            return self.fail(index, RunError::Damaged { stage: self.name(maker), why });
        }
        let mut below = BTreeSet::from([maker]);
        for &node in &self.spec.order {
            if graph::inputs(&self.spec.nodes[node]).any(|above| below.contains(&above)) {
                below.insert(node);
            }
        }
        if self.dispatch.cluster.keeps_order() {
            // They wait for what will not come.
            self.cancel(&|node| below.contains(&node) && node != index);
        }
        for node in below {
            let waits = self.dispatch.cluster.keeps_order() && matches!(self.nodes[node].at, At::Job { .. });
            if self.known.remove(&node).is_some() || waits {
                self.nodes[node] = Standpoint::default();
            }
        }
        self.nodes[index] = Standpoint::default();
    }

    /// Cancels the jobs of nodes that are not over.
    fn cancel(&self, which: &dyn Fn(usize) -> bool) {
        let meant = self.nodes.iter().enumerate().filter(|(node, _)| which(*node));
        let jobs = meant.flat_map(|(_, node)| {
            let whole = if let At::Job { job, .. } = node.at { Some(job) } else { None };
            node.tasks().map(|(job, _)| job).chain(whole)
        });
        self.cancel_jobs(jobs.collect());
    }

    /// Stops the processes of the shares of a node. Jobs that go on by themselves may: what they find is kept.
    fn cancel_shares(&self, index: usize) {
        if self.dispatch.cluster.keeps_order() {
            return;
        }
        self.cancel_jobs(self.nodes[index].tasks().map(|(job, _)| job).collect());
    }

    fn cancel_jobs(&self, jobs: BTreeSet<usize>) {
        let ids: Vec<JobId> = jobs.into_iter().map(|job| self.jobs[job].id.clone()).collect();
        if ids.is_empty() {
            return;
        }
        if let Err(error) = self.dispatch.cluster.cancel(&ids) {
            tracing::warn!("jobs could not be cancelled: {}", chain(&error));
        }
    }

    /// Who of the nodes that somebody is at computes the same.
    fn twin(&self, index: usize) -> bool {
        let key = |node: &Standpoint| node.manifest.as_ref().map(Manifest::key);
        let own = key(&self.nodes[index]);
        let busy = |node: &Standpoint| matches!(node.at, At::Job { .. } | At::Here) || node.tasks().next().is_some();
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != index);
        own.is_some() && others.map(|(_, node)| node).any(|node| busy(node) && key(node) == own)
    }

    /// A node that this process is to run now; one at a time, since these are small.
    fn next_here(&self) -> Option<usize> {
        if self.dispatch.cluster.written().is_some() || self.nodes.iter().any(|node| node.at == At::Here) {
            return None;
        }
        let ready = |&index: &usize| {
            let mut above = graph::inputs(&self.spec.nodes[index]);
            self.options.chosen.contains(&index)
                && self.nodes[index].at == At::Open
                && above.all(|above| self.known.contains_key(&above))
                && self.needs_here(index)
        };
        self.spec.order.iter().copied().find(ready)
    }

    /// Nodes that can be submitted now, in the order of the pipeline.
    fn open(&self) -> Vec<usize> {
        let cluster = self.dispatch.cluster;
        let (mut open, mut keys) = (BTreeSet::new(), BTreeSet::new());
        let mut found = Vec::new();
        for &index in &self.spec.order {
            let node = &self.nodes[index];
            let there = |above: usize| {
                let comes = matches!(self.nodes[above].at, At::Job { .. }) || open.contains(&above);
                self.known.contains_key(&above) || (cluster.keeps_order() && comes)
            };
            let ready = node.at == At::Open
                && self.options.chosen.contains(&index)
                && graph::inputs(&self.spec.nodes[index]).all(there)
                && !self.twin(index)
                && !self.needs_here(index);
            // Of several that compute the same, one does.
            if ready && node.manifest.as_ref().is_none_or(|manifest| keys.insert(manifest.key())) {
                open.insert(index);
                found.push(index);
            }
        }
        found
    }

    /// What the job of a node asks for. One that is cut is in no chain: its shares begin when what it reads is there.
    fn needs(&self, index: usize) -> Needs {
        let needs = self.dispatch.rules.needs(&self.spec.nodes[index]);
        if self.shares(index) > 1 { Needs { fuse: None, ..needs } } else { needs }
    }

    /// Into how many shares a node is cut.
    fn shares(&self, index: usize) -> usize {
        self.dispatch.rules.shares(&self.spec.nodes[index], self.options.registry)
    }

    fn submit(&mut self) {
        if self.busy.as_ref().is_some_and(|busy| busy.tried.elapsed() < busy.pause) {
            return;
        }
        let cluster = self.dispatch.cluster;
        let open = self.open();
        let units = units(self.spec, &open, |node| self.needs(node), cluster.most_tasks());
        for unit in units {
            // Above it something was not submitted.
            let reads: BTreeSet<usize> = (0..unit.tasks.len()).flat_map(|task| unit.reads(self.spec, task)).collect();
            let comes = |&node: &usize| self.known.contains_key(&node) || matches!(self.nodes[node].at, At::Job { .. });
            if !reads.iter().all(comes) {
                continue;
            }
            for shares in self.open_shares(&unit).chunks(cluster.most_tasks().max(1)) {
                let tasks = shares.iter().map(|(node, _)| vec![*node]).collect();
                let unit = Unit { name: format!("{}-parts", unit.name), tasks, needs: unit.needs.clone() };
                if !self.submit_if_room(&unit, Some(shares)) {
                    return;
                }
            }
            let over = |node: usize| self.nodes[node].shares.iter().all(|share| *share == Shared::Over);
            let whole = unit.nodes().all(|node| self.nodes[node].at == At::Open && (cluster.keeps_order() || over(node)));
            if whole && !self.submit_if_room(&unit, None) {
                return;
            }
        }
    }

    /// The shares of a unit that nobody is at, by node and number.
    fn open_shares(&mut self, unit: &Unit) -> Vec<(usize, usize)> {
        let mut open = Vec::new();
        for node in unit.nodes() {
            let count = self.shares(node);
            let shares = &mut self.nodes[node].shares;
            if shares.is_empty() && count > 1 {
                shares.resize(count, Shared::Open);
            }
            open.extend((0..shares.len()).filter(|&number| shares[number] == Shared::Open).map(|number| (node, number)));
        }
        open
    }

    /// Submits a unit, or these shares of its nodes; false if that, and what comes after it, has to wait.
    fn submit_if_room(&mut self, unit: &Unit, shares: Option<&[(usize, usize)]>) -> bool {
        let (cluster, limits) = (self.dispatch.cluster, &self.dispatch.rules.limits);
        let at_work = self.at_work();
        if self.options.stop.requested() || (at_work > 0 && at_work + unit.tasks.len() > cluster.most_at_once()) {
            return false;
        }
        if cluster.keeps_order() && cluster.written().is_none() {
            let pause = self.submitted.map_or(Duration::ZERO, |last| limits.submit_every.saturating_sub(last.elapsed()));
            std::thread::sleep(pause);
        }
        match self.submit_one(unit, shares) {
            Ok(()) => {
                self.busy = None;
                self.submitted = Some(Stopwatch::start());
            }
            Err(error @ DispatchError::Busy { .. }) if !self.gives_up() => {
                let busy = self.busy.take();
                let pause = busy.as_ref().map_or(BUSY, |busy| (busy.pause * 2).min(LONGEST));
                let since = busy.map_or_else(Stopwatch::start, |busy| busy.since);
                tracing::warn!("{}; it is asked again in {}", chain(&error), unit::duration(pause));
                self.busy = Some(Busy { since, tried: Stopwatch::start(), pause });
                return false;
            }
            Err(error) => {
                self.busy = None;
                let (said, diagnosis) = (chain(&error), error.diagnosis());
                let nodes: BTreeSet<usize> = unit.nodes().collect();
                for node in nodes {
                    self.fail(node, RunError::Told { said: said.clone(), diagnosis: diagnosis.clone() });
                }
            }
        }
        true
    }

    fn gives_up(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.since.elapsed() > PATIENCE)
    }

    fn submit_one(&mut self, unit: &Unit, shares: Option<&[(usize, usize)]>) -> Result<(), DispatchError> {
        let Dispatch { cluster, form, .. } = self.dispatch;
        let own: BTreeSet<usize> = unit.nodes().collect();
        let mut keys = BTreeMap::new();
        for above in graph::needed(self.spec, &own).difference(&own) {
            let record = self.known.get(above).map(|record| record.key);
            // Nobody but its own worker has to read the raw data of a source.
            let source = || self.nodes[*above].manifest.as_ref().map(Manifest::key);
            keys.extend(record.or_else(source).map(|key| (self.name(*above), key)));
        }
        let mut tasks = Vec::with_capacity(unit.tasks.len());
        for (place, nodes) in unit.tasks.iter().enumerate() {
            let share = shares.map(|shares| (shares[place].0, shares[place].1));
            let task = |&node: &usize| Task {
                stage: self.spec.nodes[node].name.clone(),
                forced: self.options.forced.contains(&node),
                share: share.map(|(node, number)| Share { number, of: self.nodes[node].shares.len() }),
                plan: self.plan(node),
            };
            tasks.push(nodes.iter().map(task).collect());
        }
        let worker = Worker {
            threads: unit.needs.cpus.and_then(|cpus| u16::try_from(cpus).ok()).or(self.dispatch.worker.threads),
            memory: unit.needs.memory.or(self.dispatch.worker.memory),
        };
        let ticket = form.fill(unit.name.clone(), worker, keys, tasks);
        let folder = (self.dispatch.folder)()?;
        fs::create_folders(&folder)?;
        let after = self.after(unit, shares.is_some());
        // What could not be submitted leaves its number to the next.
        let place = Place { folder, stem: format!("{:02}-{}", self.numbered + 1, unit.name) };
        let comment = ticket.comment();
        fs::write_atomic(&place.ticket(), &serde_json::to_vec_pretty(&ticket).unwrap_or_default())?;
        let remembers = cluster.keeps_order() && cluster.written().is_none();
        if remembers {
            jobs::note(&place, &comment, None)?;
        }
        let id = cluster.submit(&Job { place: &place, ticket: &ticket, needs: &unit.needs, comment: &comment }, &after)?;
        if remembers {
            jobs::note(&place, &comment, Some(&id))?;
        }
        self.numbered += 1;
        if cluster.keeps_order() {
            self.counts.submitted += 1;
            let event = Event::Job { unit: unit.name.clone(), job: id.clone(), tasks: unit.tasks.len(), attached: false };
            self.tell.tell(event);
        }
        match shares {
            None => self.add(id, place, unit.tasks.clone(), &own),
            Some(shares) => self.add_shares(id, place, shares.iter().map(|share| Some(*share))),
        }
        // It is to be seen soon.
        self.pause = self.dispatch.rules.limits.poll;
        Ok(())
    }

    fn add(&mut self, id: JobId, place: Place, tasks: Vec<Vec<usize>>, nodes: &BTreeSet<usize>) {
        let job = self.jobs.len();
        let mut followed = Vec::with_capacity(tasks.len());
        for (task, of_task) in tasks.into_iter().enumerate() {
            for &node in of_task.iter().filter(|node| nodes.contains(node)) {
                self.nodes[node].at = At::Job { job, task };
                self.nodes[node].looked = Some(Stopwatch::start());
            }
            let tail = Tail::new(place.events(task));
            followed.push(Followed::new(of_task, false, tail));
        }
        self.jobs.push(Sent { id, place, tasks: followed });
    }

    /// Follows a job whose tasks compute these shares; of a task that computes none of ours nothing is said.
    fn add_shares(&mut self, id: JobId, place: Place, shares: impl Iterator<Item = Option<(usize, usize)>>) {
        let job = self.jobs.len();
        let mut followed = Vec::new();
        for (task, share) in shares.enumerate() {
            if let Some((node, number)) = share {
                self.nodes[node].shares[number] = Shared::Job { job, task };
            }
            let nodes = share.iter().map(|(node, _)| *node).collect();
            followed.push(Followed::new(nodes, true, Tail::new(place.events(task))));
        }
        self.jobs.push(Sent { id, place, tasks: followed });
    }

    /// What a unit starts after: what it reads, and its own shares if it puts them together.
    fn after(&self, unit: &Unit, shares: bool) -> Vec<After> {
        // By job, for each of our tasks those of its tasks that it reads.
        let mut read: BTreeMap<usize, Vec<BTreeSet<usize>>> = BTreeMap::new();
        for own in 0..unit.tasks.len() {
            for above in unit.reads(self.spec, own) {
                if let At::Job { job, task } = self.nodes[above].at {
                    read.entry(job).or_insert_with(|| vec![BTreeSet::new(); unit.tasks.len()])[own].insert(task);
                }
            }
        }
        let mut after = Vec::new();
        for (job, read) in read {
            let Sent { id, tasks, .. } = &self.jobs[job];
            let all: BTreeSet<usize> = read.iter().flatten().copied().collect();
            let each = tasks.len() > 1
                && tasks.len() == read.len()
                && read.iter().enumerate().all(|(own, read)| read.len() == 1 && read.contains(&own));
            if each {
                after.push(After::Each(id.clone()));
            } else if all.len() == tasks.len() {
                after.push(After::Whole(id.clone()));
            } else {
                after.extend(all.into_iter().map(|task| After::Task(id.clone(), task)));
            }
        }
        let mut of_shares: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (job, task) in unit.nodes().filter(|_| !shares).flat_map(|node| self.nodes[node].tasks()) {
            of_shares.entry(job).or_default().insert(task);
        }
        for (job, own) in of_shares {
            let Sent { id, tasks, .. } = &self.jobs[job];
            if own.len() == tasks.len() {
                after.push(After::Whole(id.clone()));
            } else {
                // Of a job of an earlier run others may have failed.
                after.extend(own.into_iter().map(|task| After::Task(id.clone(), task)));
            }
        }
        after
    }

    /// What a node computes, as far as the plan knows: its kind and settings, and the plans of what it reads. The raw data of a source
    /// are known.
    fn plan(&self, index: usize) -> Digest {
        let mut plans: BTreeMap<usize, Digest> = BTreeMap::new();
        let needed = graph::needed(self.spec, &BTreeSet::from([index]));
        for &at in self.spec.order.iter().filter(|at| needed.contains(at)) {
            let node = &self.spec.nodes[at];
            let mut hasher = Hasher::derived("kinset 2026-11 planned stage");
            if node.ports.is_empty()
                && let Some(manifest) = &self.nodes[at].manifest
            {
                hasher.field(&manifest.key().hex());
            }
            let class = self.options.devices.class(&node.name);
            hasher.field(&node.kind).field(&node.settings.to_string()).field(&node.seed.to_string());
            hasher.field(class).field(&self.spec.precision);
            for (port, references) in &node.ports {
                hasher.field(port);
                for reference in references {
                    // All above come before in the order.
                    let plan = plans.get(&reference.node).map(Digest::hex).unwrap_or_default();
                    hasher.field(&plan).field(reference.output);
                }
            }
            plans.insert(at, hasher.finish());
        }
        plans.remove(&index).unwrap_or_else(|| Digest::of(b""))
    }

    /// Follows jobs of earlier runs that are to do what is missing now.
    fn attach(&mut self) -> Result<(), DispatchError> {
        let queue = self.dispatch.cluster.poll()?;
        // A job that ended since the look at the store is not in the queue, and its result was not there yet: another look comes before
        // anything is submitted.
        self.nodes.iter_mut().for_each(|node| node.looked = None);
        let alive = |id: &JobId, task: usize| {
            queue.get(&(id.clone(), task)).is_some_and(|standing| !matches!(standing.state, State::Ended(_)))
        };
        // The newest first: it knows best what is missing.
        for job in jobs::submitted(&self.dispatch.runs, &queue).into_iter().rev() {
            let Some(id) = job.job else { continue };
            if !queue.keys().any(|(other, task)| *other == id && alive(&id, *task)) {
                continue;
            }
            let Ok(ticket) = Ticket::load(&job.place.ticket()) else { continue };
            let mut nodes = BTreeSet::new();
            let mut tasks = Vec::with_capacity(ticket.tasks.len());
            let mut shares = Vec::new();
            for (task, of_task) in ticket.tasks.iter().enumerate() {
                let mut found = Vec::new();
                let mut of_share = None;
                for Task { stage, forced, share, plan } in of_task {
                    let Some(node) = self.spec.nodes.iter().position(|node| node.name == *stage) else { continue };
                    let free = match share {
                        None => self.nodes[node].at == At::Open,
                        Some(share) => self.wants(node, *share),
                    };
                    let ours = alive(&id, task)
                        && free
                        && self.options.chosen.contains(&node)
                        && (*forced || !self.options.forced.contains(&node))
                        && self.plan(node) == *plan;
                    if ours {
                        nodes.insert(node);
                        found.push(node);
                        of_share = share.map(|share| (node, share.number));
                    }
                }
                shares.push(of_share);
                tasks.push(found);
            }
            if nodes.is_empty() {
                continue;
            }
            self.counts.attached += 1;
            let event = Event::Job { unit: ticket.unit, job: id.clone(), tasks: tasks.len(), attached: true };
            self.tell.tell(event);
            if shares.iter().any(Option::is_some) {
                self.add_shares(id, job.place, shares.into_iter());
            } else {
                self.add(id, job.place, tasks, &nodes);
            }
            // What was said before is known.
            let job = self.jobs.len() - 1;
            for task in 0..self.jobs[job].tasks.len() {
                for event in self.jobs[job].tasks[task].tail.more() {
                    if !self.jobs[job].tasks[task].share {
                        self.hear(&event);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a share of a node is missing, cut as it is now.
    fn wants(&mut self, index: usize, share: Share) -> bool {
        if self.nodes[index].at == At::Over || self.shares(index) != share.of {
            return false;
        }
        let shares = &mut self.nodes[index].shares;
        shares.resize(share.of, Shared::Open);
        shares.get(share.number) == Some(&Shared::Open)
    }

    /// Passes on what workers have said since the last look.
    fn listen(&mut self) {
        for job in 0..self.jobs.len() {
            for task in 0..self.jobs[job].tasks.len() {
                self.listen_to(job, task);
            }
        }
    }

    fn listen_to(&mut self, job: usize, task: usize) {
        let Followed { nodes, share, .. } = &self.jobs[job].tasks[task];
        let share = *share;
        if !nodes.iter().any(|&node| self.is_at(node, job, task)) {
            return;
        }
        for event in self.jobs[job].tasks[task].tail.more() {
            // Of its node as a whole a share knows nothing.
            let event = if share {
                self.together(job, task, event)
            } else {
                self.hear(&event);
                event
            };
            // How a stage ended, this process says itself, once it has seen so.
            let passes = matches!(
                event,
                Event::StageStarted { .. }
                    | Event::StageWaiting { .. }
                    | Event::Metric { .. }
                    | Event::Progress { .. }
                    | Event::Note { .. }
                    | Event::Warning { .. }
            );
            if passes {
                self.dispatch.forward.tell(event);
            }
        }
    }

    /// The progress of a share as that of all shares of its node that have begun.
    fn together(&mut self, job: usize, task: usize, mut event: Event) -> Event {
        if let Event::Progress { done, total, .. } = &mut event {
            self.jobs[job].tasks[task].progress = (*done, *total);
            let node = self.jobs[job].tasks[task].nodes.clone();
            let twins = self.jobs.iter().flat_map(|job| &job.tasks).filter(|twin| twin.share && twin.nodes == node);
            (*done, *total) = twins.fold((0, 0), |sum, twin| (sum.0 + twin.progress.0, sum.1 + twin.progress.1));
        }
        event
    }

    fn hear(&mut self, event: &Event) {
        let node = |stage: &str| self.spec.nodes.iter().position(|node| node.name == stage);
        match event {
            Event::StageStarted { stage, why, .. } => {
                if let Some(node) = node(stage) {
                    // A restart goes on with what was begun.
                    let first = self.nodes[node].why.is_none();
                    self.nodes[node].why = if first { Some(why.clone()) } else { self.nodes[node].why.take() };
                }
            }
            Event::StageFinished { stage, seconds, adopted, .. } => {
                if let Some(node) = node(stage) {
                    (self.nodes[node].seconds, self.nodes[node].adopted) = (Some(*seconds), *adopted);
                    self.nodes[node].looked = None;
                }
            }
            Event::StagePulled { stage, bytes, .. } => {
                if let Some(node) = node(stage) {
                    self.nodes[node].pulled = Some(*bytes);
                    self.nodes[node].looked = None;
                }
            }
            Event::StageFresh { stage, .. } => {
                if let Some(node) = node(stage) {
                    self.nodes[node].looked = None;
                }
            }
            _ => {}
        }
    }

    /// Asks how the jobs stand, if it is time.
    fn poll(&mut self) {
        let cluster = self.dispatch.cluster;
        let due = !cluster.keeps_order() || self.polled.is_none_or(|last| last.elapsed() >= self.pause);
        if self.jobs.is_empty() || !due || cluster.written().is_some() {
            return;
        }
        self.polled = Some(Stopwatch::start());
        let queue: Queue = match cluster.poll() {
            Ok(queue) => queue,
            Err(error) => {
                // No answer says nothing about any job.
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!("{}; jobs go on", chain(&error));
                }
                return;
            }
        };
        self.warned = false;
        let mut changed = false;
        for Sent { id, tasks, .. } in &mut self.jobs {
            for (number, task) in tasks.iter_mut().enumerate() {
                let standing = queue.get(&(id.clone(), number)).cloned();
                changed |= standing != task.standing;
                task.seen |= standing.is_some();
                let ended = standing.as_ref().is_none_or(|standing| matches!(standing.state, State::Ended(_)));
                task.gone = if ended { task.gone.or_else(|| Some(Stopwatch::start())) } else { None };
                task.standing = standing;
                if ended && task.gone.is_some_and(|gone| gone.elapsed() < LOOK) {
                    task.nodes.iter().for_each(|&node| self.nodes[node].looked = None);
                }
            }
        }
        let poll = self.dispatch.rules.limits.poll;
        self.pause = if changed { poll } else { self.pause.mul_f64(1.5).clamp(poll, LONGEST.max(poll)) };
    }

    /// Finds the tasks that end without a result.
    fn judge(&mut self) {
        for job in 0..self.jobs.len() {
            for task in 0..self.jobs[job].tasks.len() {
                let unfinished = |&&node: &&usize| self.is_at(node, job, task);
                let Some(&node) = self.jobs[job].tasks[task].nodes.iter().find(unfinished) else { continue };
                self.judge_task(job, task, node);
            }
        }
    }

    /// Says what became of a task of which `node` is the first that has no result.
    fn judge_task(&mut self, job: usize, task: usize, node: usize) {
        let cluster = self.dispatch.cluster;
        // What it waits for is not there: that is what has to be judged first, and this may not even have begun.
        if !graph::inputs(&self.spec.nodes[node]).all(|above| self.known.contains_key(&above)) {
            return;
        }
        let Sent { place, tasks, .. } = &self.jobs[job];
        let (gone, share) = (tasks[task].gone, tasks[task].share);
        let settled = gone.is_some_and(|gone| gone.elapsed() >= self.dispatch.rules.limits.settle);
        // Of a job that is at work nobody else knows more than its own files.
        let end = if gone.is_some() || cluster.keeps_order() { End::read(&place.end(task)) } else { None };
        let stopped = end.as_ref().is_some_and(|end| end.exit == Exit::Stopped as u8);
        match end {
            Some(end) if !end.again && !stopped && end.exit != 0 => {
                let of = |stage: &String| self.spec.nodes.iter().position(|node| node.name == *stage);
                let at = end.stage.as_ref().and_then(of).unwrap_or(node);
                if let Some(maker) = end.damaged.as_ref().and_then(of) {
                    return self.heal(at, maker, end.message);
                }
                return self.fail(at, end.error());
            }
            // When all stop, each keeps what it has.
            Some(_) if stopped && gone.is_some() && !cluster.keeps_order() && share && self.options.stop.requested() => {
                return self.share_is(node, (job, task), Shared::Open);
            }
            Some(_) if stopped && gone.is_some() && !cluster.keeps_order() => {
                return self.fail(node, StageError::Stopped.into());
            }
            Some(end) if share && end.exit == 0 && !end.again => return self.share_is(node, (job, task), Shared::Over),
            _ => {}
        }
        if !settled {
            return;
        }
        // Once more, since it may have ended between the last look and the last answer.
        self.listen_to(job, task);
        self.nodes[node].looked = None;
        self.look();
        if !self.is_at(node, job, task) {
            return;
        }
        let Sent { id, place, tasks } = &self.jobs[job];
        let Followed { standing, seen, .. } = &tasks[task];
        let death = match standing {
            Some(Standing { state: State::Ended(death), .. }) => Some(death.clone()),
            _ => cluster.post_mortem(id, task),
        };
        let known = matches!(death, Some(Death::Cancelled | Death::Time | Death::Memory | Death::Node));
        if stopped && !known {
            return self.fail(node, StageError::Stopped.into());
        }
        let log = place.log(task);
        let tail = last_lines(&log);
        let death = death.unwrap_or(Death::Vanished);
        let completed = matches!(&death, Death::Code(0)) || matches!(&death, Death::Word(word) if word == "completed");
        let error = if completed && End::read(&place.end(task)).is_some_and(|end| end.exit == 0) {
            DispatchError::Moved
        } else {
            // The allocation that fails last ends the process, and nobody but its log knows.
            let unnamed = matches!(death, Death::Code(_) | Death::Word(_) | Death::Vanished);
            let death = if unnamed && tail.contains("memory allocation of") { Death::Memory } else { death };
            let memory = if death == Death::Memory { self.memory(node) } else { None };
            DispatchError::Died { death, seen: *seen, log: log.display().to_string(), tail, memory }
        };
        self.fail(node, error.into());
    }

    /// Says how the share of a node stands that a task was at.
    fn share_is(&mut self, node: usize, (job, task): (usize, usize), now: Shared) {
        // Its last words may be there only now.
        self.listen_to(job, task);
        let shares = &mut self.nodes[node].shares;
        shares.iter_mut().filter(|share| **share == Shared::Job { job, task }).for_each(|share| *share = now);
    }

    /// What the last result of a stage needed at most, for people.
    fn memory(&self, index: usize) -> Option<String> {
        let store = self.attempt.outlook.store;
        // A convenience of a message.
        let view = store.view(&self.spec.name, &self.spec.nodes[index].name).ok()??;
        match store.lookup(&view.key) {
            Ok(Lookup::Hit(record)) => record.peak_memory.map(unit::bytes),
            _ => None,
        }
    }

    fn summary(mut self, seconds: f64) -> Summary {
        let (stopped, detach) = (self.options.stop.requested(), self.dispatch.detach);
        let outcome = |node: Standpoint| match (node.outcome, node.at) {
            (Some(outcome), _) => outcome,
            (None, At::Job { .. }) if detach && !stopped => Outcome::Submitted,
            (None, _) => Outcome::Stopped,
        };
        let outcomes = std::mem::take(&mut self.nodes).into_iter().map(outcome).collect();
        Summary { outcomes, records: self.known, seconds, jobs: self.counts }
    }
}
