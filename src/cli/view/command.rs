//! `kinset view`: the groups of a pipeline in the browser.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::access::Access;
use super::answers::Answers;
use super::http;
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs::FileError;
use crate::cli::args::PipelineArgs;
use crate::cli::common::{Answer, Failure, outlook};
use crate::cli::label::Subject;
use crate::cli::terminal::{self, Reader};
use crate::dataset::names::Names;
use crate::report::gather::Glance;

/// Show the groups in the browser: name, merge, move, reject
#[derive(Debug, Args)]
#[command(after_help = "\
The page is served to this machine alone, at an address with a secret part. It writes names, to
photos.names.toml beside photos.toml (see `kinset label`), and nothing else. Ctrl-C ends it.

Examples:
  kinset view photos.toml
  kinset view photos.toml --stage kmeans_assignments
  kinset view photos.toml --port 8000                     behind `ssh -L 8000:127.0.0.1:8000`")]
pub struct ViewArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage whose groups are shown [default: the one that names were given to, else the last that predicts]
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// The port [default: one that is free]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u16,
}

/// Hundredths of a second that a change which is under way is waited for at the end.
const PATIENCE: u32 = 150;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot listen on port {port} of 127.0.0.1")]
    Port {
        port: u16,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot take connections any more")]
    Closed {
        #[source]
        source: std::io::Error,
    },
    #[error("the system gives no random numbers for a secret address")]
    Random {
        #[source]
        source: getrandom::Error,
    },
}

impl Fault for Trouble {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Port { .. } => Exit::Machine.code("view::port").hint("leave `--port` out, and a free one is taken"),
            Self::Closed { .. } => Exit::Machine.code("view::closed").hint("start `kinset view` again"),
            Self::Random { .. } => Exit::Machine.code("view::random"),
        }
    }
}

pub(in crate::cli) fn run(args: &ViewArgs) -> Answer {
    let failed = |error| FileError::new("listen to signals of", Path::new("this process"), error);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let answers = outlook(&args.pipeline, |spec, outlook| {
        let Subject { held, table, path } = Subject::find(spec, outlook, &args.pipeline, args.stage.as_deref())?;
        Names::read(&path)?.check(&path, &held.stage, held.digest, table.clusters)?;
        let sights = Glance::at(outlook, Some(&held.stage)).sights();
        terminal::say(&format!("names go to {}; Ctrl-C ends the page", path.display()));
        Ok(Answers::open(&spec.name, &held.stage, held.digest, table, path, sights)?)
    })?;
    let answers = Arc::new(answers);
    let access = Access::new().map_err(|source| Failure::own(Trouble::Random { source }))?;
    let listen =
        || TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = listen().map_err(|source| Failure::own(Trouble::Port { port: args.port, source }))?;
    let url = format!("http://{address}/{}/\n", access.token());

    let (tell, told) = mpsc::channel();
    let answering = Arc::clone(&answers);
    let served = tell.clone();
    let serve = move || {
        let answer = move |request: &http::Request| match access.pass(request) {
            Ok(rest) => answering.answer(rest, request),
            Err(refused) => refused,
        };
        // The end of the process is the end of whoever listens.
        let _ = served.send(http::serve(&listener, answer));
    };
    let stop = move || {
        if signals.forever().next().is_some() {
            let _ = tell.send(Ok(()));
        }
    };
    std::thread::Builder::new().name("page".into()).spawn(serve).map_err(failed)?;
    std::thread::Builder::new().name("signals".into()).spawn(stop).map_err(failed)?;
    // Nobody can come to an address that nobody has read.
    if terminal::print_part(&url)? == Reader::Gone {
        return Ok(Exit::Done);
    }
    let ended = told.recv().unwrap_or(Ok(()));
    // What is being written is written to its end, unless it waits for somebody who holds the folder.
    for _ in 0..PATIENCE {
        if answers.is_idle() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    ended.map_err(|source| Failure::own(Trouble::Closed { source }))?;
    Ok(Exit::Done)
}
