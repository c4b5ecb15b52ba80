//! # cli: the command line
//!
//! One file per command. Data go to standard output, messages go to standard error; messages are lower case without a full stop,
//! values stand in back-ticks, the causes follow, and `hint:` comes last. Color alone never carries information.
//!
//! Not here: anything else. This is the only module that prints, and nobody imports it but `main`.

pub mod args;
mod cluster;
mod common;
mod doctor_peers;
mod doctor_slurm;
mod expected;
mod export_tables;
mod init_encoder;
mod near_images;
mod odd_images;
mod pictures;
mod result_images;
mod run_cache;
mod terminal;
mod version;

use clap::Parser;
use clap::error::ErrorKind;

use crate::base::fault::Exit;
use crate::base::memory;
use crate::kernel::isa::Isa;
use args::{Cli, MachineArgs};
use common::{Answer, Failure};

/// From each entry the module, what may be typed, and the call of the module's `run`.
macro_rules! commands {
    ($($vis:vis $module:ident: $Command:ident($Args:ident),)*) => {
        $($vis mod $module;)*

        /// What to do.
        #[derive(Debug, clap::Subcommand)]
        pub enum Command {
            $($Command(Box<$module::$Args>),)*
        }

        fn dispatch(command: &Command) -> Answer {
            match command {
                $(Command::$Command(args) => $module::run(args),)*
            }
        }
    };
}

// All commands, in the order of `kinset --help`. Adding one is one file and its line here.
commands! {
    run: Run(RunArgs),
    plan: Plan(PlanArgs),
    explain: Explain(ExplainArgs),
    graph: Graph(GraphArgs),
    compare: Compare(CompareArgs),
    status: Status(StatusArgs),
    jobs: Jobs(JobsArgs),
    diff: Diff(DiffArgs),
    report: Report(ReportArgs),
    plot: Plot(PlotArgs),
    inspect: Inspect(InspectArgs),
    duplicates: Duplicates(DuplicatesArgs),
    verify: Verify(VerifyArgs),
    gc: Gc(GcArgs),
    cache: Cache(CacheArgs),
    pub similar: Similar(SimilarArgs),
    pub curate: Curate(CurateArgs),
    label: Label(LabelArgs),
    pub view: View(ViewArgs),
    predict: Predict(PredictArgs),
    export: Export(ExportArgs),
    data: Data(DataArgs),
    methods: Methods(MethodsArgs),
    init: Init(InitArgs),
    doctor: Doctor(DoctorArgs),
    schema: Schema(SchemaArgs),
    completions: Completions(CompletionsArgs),
    man: Man(ManArgs),
    exec_stage: ExecStage(ExecStageArgs),
}

/// Does what was typed; returns how the process should end.
pub fn main() -> Exit {
    common::exit_without_memory();
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) if error.kind() == ErrorKind::DisplayVersion && std::env::args_os().any(|arg| arg == "--verbose") => {
            return common::start_threads(None).and_then(|()| version::run()).unwrap_or_else(|failure| failure.report());
        }
        Err(error) => return terminal::parsed(&error).unwrap_or_else(|failure| failure.report()),
    };
    if let Err(fault) = Isa::chosen() {
        return Failure::own(fault).report();
    }
    let machine = match &command {
        Command::Run(args) => args.machine,
        Command::Compare(args) => args.machine,
        Command::Similar(args) => args.set.machine,
        Command::Curate(args) => args.set.machine,
        Command::ExecStage(args) => exec_stage::machine(args),
        _ => MachineArgs::default(),
    };
    if let Some(bytes) = machine.memory {
        memory::allow(bytes);
    }
    let done = common::start_threads(machine.threads).and_then(|()| dispatch(&command));
    done.unwrap_or_else(|failure| failure.report())
}
