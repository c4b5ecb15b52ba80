//! `kinset exec-stage`: a worker, which does one task of a ticket. Schedulers and runs with several processes start it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::args::MachineArgs;
use super::cluster::device_of_class;
use super::common::{Answer, Failure};
use super::run::{GRACE, Heard, for_engine, stop_on_signals_within};
use super::run_cache::{RunCache, Settings};
use super::terminal::{self, Screen};
use crate::base::fault::{Exit, chain};
use crate::pipeline::dispatch::error::DispatchError;
use crate::pipeline::dispatch::slurm::{self, Own};
use crate::pipeline::dispatch::ticket::{End, Place, Ticket};
use crate::pipeline::dispatch::worker::{self, Work};
use crate::pipeline::error::RunError;
use crate::pipeline::event::{Listener, Tell};
use crate::pipeline::journal::Journal;
use crate::pipeline::run::Options;
use crate::registry;
use crate::stage::{StageError, Stop};
use crate::store::Store;
use crate::store::digest::Digest;

/// Run the stages of a ticket that `kinset run` has written
#[derive(Debug, Args)]
#[command(
    hide = true,
    after_help = "\
`kinset run` with an executor writes tickets, and jobs run this. Events, a log and how it ended are left beside the ticket.

Example:
  kinset exec-stage artifacts/stl10/runs/2026-11-28T10-36-00.000Z/jobs/03-cluster.json 2"
)]
pub struct ExecStageArgs {
    /// The ticket
    #[arg(value_name = "TICKET")]
    ticket: PathBuf,
    /// Which task of it
    #[arg(value_name = "INDEX", default_value_t = 0)]
    index: usize,
    /// Stop when standard input ends: whoever started this has gone
    #[arg(long)]
    attended: bool,
}

/// A warning comes long before the end of a job's time: even a long step may end by itself.
const WARNED: Duration = Duration::from_mins(1);

/// What Slurm tells its jobs.
fn own() -> Option<Own> {
    Own::of(|name| std::env::var(name).ok())
}

/// What of the machine the ticket allows, if it can be read; whoever reads it next says why it cannot.
pub(super) fn machine(args: &ExecStageArgs) -> MachineArgs {
    let Ok(ticket) = Ticket::load(&args.ticket) else { return MachineArgs::default() };
    MachineArgs { threads: ticket.threads.or_else(|| own()?.cpus), memory: ticket.memory }
}

pub(super) fn run(args: &ExecStageArgs) -> Answer {
    match perform(args) {
        Ok(exit) => Ok(exit),
        Err(failure) => {
            // Whoever watches hears of it; where the ticket itself cannot be read, nobody may be there.
            if args.ticket.is_file()
                && let Err(error) = worker::leave(&Place::of(&args.ticket), args.index, failure.fault())
            {
                terminal::say(&format!("warning: nobody is told how this ended: {}", chain(&error)));
            }
            Err(failure)
        }
    }
}

fn perform(args: &ExecStageArgs) -> Answer {
    let work = Work::load(&args.ticket, args.index)?;
    let spec = work.spec(&registry::catalog())?;
    let store = Store::open(&work.ticket.artifacts)?;
    let before = work.mark(&store);
    let (ticket, index) = (args.ticket.clone(), args.index);
    let warned = work.ticket.restarts.signal.clone();
    let grace = move |signal: &str| if signal == warned { WARNED } else { GRACE };
    let Heard { stop, signal } = stop_on_signals_within(grace, move |signal| {
        // The step goes on until the process ends; what is kept is what was kept before.
        let again = || -> Result<(), Failure> {
            let work = Work::load(&ticket, index)?;
            let store = Store::open(&work.ticket.artifacts)?;
            stopped(&work, &store, before, Some(signal))?;
            Ok(())
        };
        if let Err(failure) = again() {
            failure.report();
        }
    })?;
    if args.attended {
        end_with_input(&stop)?;
    }
    let settings = work.ticket.cache.as_ref().map(Settings::of_ticket).transpose()?;
    let cache = settings.map_or(Ok(None), |settings| RunCache::with(&settings, &work.ticket.artifacts, &stop))?;
    let device = device_of_class(&spec, work.device_class())?;
    let (screen, journal) = (Screen::new(), Journal::at_end_of(&work.events())?);
    let listeners: [&dyn Listener; 2] = [&screen, &journal];
    let nodes = |forced: bool| {
        let tasks = work.tasks().iter().filter(move |task| !forced || task.forced);
        tasks.filter_map(|task| spec.nodes.iter().position(|node| node.name == task.stage)).collect()
    };
    let options = Options {
        registry: registry::catalog(),
        chosen: nodes(false),
        forced: nodes(true),
        threads: rayon::current_num_threads(),
        device,
        devices: work.ticket.devices.clone(),
        shows: false,
        wait: true,
        checkpoint_every: Duration::from_secs_f64(work.ticket.checkpoint_every),
        stop,
        cache: for_engine(cache.as_ref()),
    };
    let places = work.ticket.places();
    let mut end = work.run(&spec, &store, &places, &options, Tell(&listeners))?;
    if let Some(cache) = cache {
        cache.finish();
    }
    if end.exit == Exit::Stopped as u8 {
        end = stopped(&work, &store, before, signal.name())?;
    }
    Ok(Exit::of_code(i32::from(end.exit)))
}

/// What becomes of a task that was stopped: where the end of its time was announced, the job is queued again, unless nothing moves.
fn stopped(work: &Work, store: &Store, before: Digest, signal: Option<&str>) -> Result<End, Failure> {
    let stage = work.tasks().first().map(|task| task.stage.clone()).unwrap_or_default();
    let mut end = End::of(&stage, &RunError::from(StageError::Stopped));
    let path = work.place.end(work.index);
    let restarts = &work.ticket.restarts;
    if let Some(own) = own().filter(|own| slurm::may_requeue(&work.ticket, own, signal)) {
        let stalls = work.stalls(before, work.mark(store))?;
        if stalls >= restarts.without_progress {
            end = End::of(&stage, &RunError::from(DispatchError::NoProgress { times: stalls }));
        } else {
            // First, since Slurm ends a job that it queues again.
            End { again: true, ..end.clone() }.write(&path)?;
            match slurm::requeue(&own.job) {
                Ok(()) => return Ok(End { again: true, ..end }),
                Err(error) => terminal::say(&format!("warning: the job is not queued again: {}", chain(&error))),
            }
        }
    }
    end.write(&path)?;
    Ok(end)
}

/// Asks to stop when standard input ends, and ends the process if that takes too long.
fn end_with_input(stop: &Stop) -> Result<(), Failure> {
    let stop = stop.clone();
    let wait = move || {
        let mut none = [0; 16];
        while std::io::stdin().read(&mut none).is_ok_and(|read| read > 0) {}
        stop.request();
        std::thread::sleep(GRACE);
        signal_hook::low_level::exit(Exit::Stopped as i32);
    };
    let failed = |error| crate::base::fs::FileError::new("listen to standard input of", Path::new("this process"), error);
    std::thread::Builder::new().name("input".into()).spawn(wait).map_err(failed)?;
    Ok(())
}
