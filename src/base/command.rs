//! Other programs: the one place that starts any, asks them something, or keeps them at work.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use super::clock::Stopwatch;
use super::fault::{Diagnosis, Exit, Fault};
use super::fs::{self, FileError};

/// How often a program that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("cannot start `{program}`")]
    NotStarted {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("`{program}` did not answer within {seconds} seconds")]
    Slow { program: String, seconds: u64 },
    #[error("the connection to `{program}` failed")]
    Broken {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    File(#[from] FileError),
}

impl Fault for CommandError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NotStarted { program, .. } => Exit::Machine
                .code("command::not-started")
                .hint(format!("check that `{program}` is installed and on the search path (`PATH`)")),
            Self::Slow { .. } => Exit::Machine.code("command::slow"),
            Self::Broken { .. } => Exit::Machine.code("command::broken"),
            Self::File(error) => error.diagnosis(),
        }
    }
}

/// What a program answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its exit code; nothing if a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A program, and what it is told when it starts.
#[derive(Clone, Debug)]
pub struct Program {
    name: PathBuf,
    args: Vec<OsString>,
    scrubbed: &'static [&'static str],
    kept: &'static [&'static str],
}

impl Program {
    pub fn new(name: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), args: Vec::new(), scrubbed: &[], kept: &[] }
    }

    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Leaves out the variables of the environment that begin with one of `scrubbed`, but for those of `kept`.
    #[must_use]
    pub fn without(self, scrubbed: &'static [&'static str], kept: &'static [&'static str]) -> Self {
        Self { scrubbed, kept, ..self }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.name);
        command.args(&self.args);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if self.scrubbed.iter().any(|prefix| text.starts_with(prefix)) && !self.kept.contains(&text.as_ref()) {
                command.env_remove(&name);
            }
        }
        command
    }

    fn shown(&self) -> String {
        self.name.display().to_string()
    }

    fn spawn(&self, command: &mut Command) -> Result<Child, CommandError> {
        command.spawn().map_err(|source| CommandError::NotStarted { program: self.shown(), source })
    }

    /// Starts the program, gives it `input`, and waits for its answer; what takes longer than `patience` is ended.
    ///
    /// # Errors
    /// If it cannot be started, or does not end in time. An exit code of its own is an answer.
    pub fn ask(&self, input: &str, patience: Duration) -> Result<Said, CommandError> {
        let broken = |source| CommandError::Broken { program: self.shown(), source };
        let mut child = self.spawn(self.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        // Each pipe has a thread of its own, so that none fills up while another is waited for.
        let (stdin, out, err) = (child.stdin.take(), drain(child.stdout.take()), drain(child.stderr.take()));
        let input = input.to_owned();
        let feed = std::thread::spawn(move || match stdin.map(|mut stdin| stdin.write_all(input.as_bytes())) {
            // Whoever does not want to hear it all has said what it thinks.
            Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        });
        let clock = Stopwatch::start();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(broken)? {
                break status;
            }
            if clock.elapsed() > patience {
                child.kill().and_then(|()| child.wait()).map_err(broken)?;
                return Err(CommandError::Slow { program: self.shown(), seconds: patience.as_secs() });
            }
            std::thread::sleep(LOOK);
        };
        let text = |pipe: std::thread::JoinHandle<io::Result<Vec<u8>>>| match pipe.join() {
            Ok(bytes) => bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(broken),
            Err(_) => Err(broken(io::Error::other("its reader panicked"))),
        };
        feed.join().map_err(|_| broken(io::Error::other("its writer panicked")))?.map_err(broken)?;
        Ok(Said { code: status.code(), out: text(out)?, err: text(err)? })
    }

    /// Starts the program and leaves it at work; what it prints goes to the end of `log`. It can hear from its standard input whether
    /// whoever started it is still there.
    ///
    /// # Errors
    /// If it cannot be started, or there is no log.
    pub fn start(&self, log: &Path) -> Result<Running, CommandError> {
        let log = fs::append(log)?;
        let broken = |source| CommandError::Broken { program: self.shown(), source };
        let both = log.try_clone().map_err(broken)?;
        let mut child = self.spawn(self.command().stdin(Stdio::piped()).stdout(log).stderr(both))?;
        let stdin = child.stdin.take();
        Ok(Running { child, stdin })
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<io::Result<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes))?;
        Ok(bytes)
    })
}

/// A program at work.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Code(i32),
    /// A signal ended it.
    Signal,
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn ended(&mut self) -> io::Result<Option<Ended>> {
        Ok(self.child.try_wait()?.map(|status| status.code().map_or(Ended::Signal, Ended::Code)))
    }

    /// Closes its standard input: it is to stop.
    pub fn let_go(&mut self) {
        self.stdin = None;
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn what_is_asked_on_standard_input_is_answered_with_both_outputs_and_the_code() {
        let long = "x".repeat(1 << 20);
        let shell = |text: &str| Program::new("sh").args(["-c", text]);
        let said = shell("cat; echo no >&2; exit 3").ask(&long, PATIENCE).unwrap();
        assert_eq!((said.code, said.out.len(), said.err.as_str()), (Some(3), long.len(), "no\n"));
        let deaf = shell("exec <&-; echo $0").ask(&long, PATIENCE).unwrap();
        assert_eq!((deaf.code, deaf.out.as_str()), (Some(0), "sh\n"));
        let slow = shell("sleep 60").ask("", Duration::from_millis(50)).unwrap_err();
        assert_eq!((slow.code(), slow.exit()), ("command::slow", Exit::Machine));
        let missing = Program::new("kinset-no-such-program").ask("", PATIENCE).unwrap_err();
        assert!(missing.hint().is_some_and(|hint| hint.contains("PATH")), "{missing}");
    }

    #[test]
    fn a_program_at_work_is_told_by_the_end_of_its_input() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut running = Program::new("sh").args(["-c", "cat; echo over; exit 4"]).start(&log).unwrap();
        assert_eq!(running.ended().unwrap(), None);
        running.let_go();
        let clock = Stopwatch::start();
        while running.ended().unwrap().is_none() && clock.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
        }
        assert_eq!(running.ended().unwrap(), Some(Ended::Code(4)));
        assert_eq!(fs::read_text(&log).unwrap(), "over\n");
    }

    #[test]
    fn variables_of_the_environment_are_left_out_by_what_they_begin_with() {
        let asks = Program::new("sh").args(["-c", "echo ${CARGO_PKG_NAME-none} ${CARGO_PKG_VERSION-none}"]);
        let said = asks.without(&["CARGO_"], &["CARGO_PKG_NAME"]).ask("", PATIENCE).unwrap();
        assert_eq!(said.out, format!("{} none\n", std::env::var("CARGO_PKG_NAME").unwrap()));
    }
}
