//! Terminal output: lines, colors, bars, tables.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use tracing_subscriber::filter::LevelFilter;

use super::common::{Answer, Failure};
use crate::base::clock::Stopwatch;
use crate::base::fault::{Diagnosis, Exit, Fault, chain};
use crate::base::shown::{shown, shown_in_color};
use crate::base::unit;
use crate::pipeline::event::{Event, Listener};

/// True if standard error takes colours.
pub(super) fn colored() -> bool {
    io::stderr().is_terminal() && may_color()
}

fn may_color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns of the terminal; 100 where there is none.
pub(super) fn width() -> usize {
    Table::new().set_content_arrangement(ContentArrangement::Dynamic).width().map_or(100, usize::from)
}

/// Says something on standard error; what a terminal would obey is shown escaped. A reader that has gone is no reason to fail.
pub(super) fn say(text: &str) {
    say_raw(&shown(text));
}

/// As [`say`], for text that may be colored.
pub(super) fn say_in_color(text: &str) {
    if colored() { say_raw(&shown_in_color(text)) } else { say(text) }
}

fn say_raw(text: &str) {
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "{}", text.trim_end_matches('\n'));
}

/// Says what went wrong, why, and what to do.
pub(super) fn error(fault: &dyn Fault) {
    let (red, bold, off) = if colored() { ("\x1b[31;1m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let mut text = format!("{red}error{off}[{}]: {bold}{}{off}", fault.code(), shown(&chain_of(fault)));
    if let Some(hint) = fault.hint() {
        text.push_str(&format!("\n\nhint: {}", shown(&hint)));
    }
    say_raw(&text);
}

fn chain_of(fault: &dyn Fault) -> String {
    let mut text = fault.to_string();
    if let Some(cause) = fault.source() {
        text.push_str(&format!("\n  because: {}", chain(cause)));
    }
    text
}

/// Says what the command line's parser has to say: help goes to standard output, what was mistyped to standard error.
pub(super) fn parsed(error: &clap::Error) -> Answer {
    let text = error.render();
    if error.use_stderr() {
        say_in_color(&if colored() { text.ansi().to_string() } else { text.to_string() });
        // 2, as every mistake on the command line.
        return Ok(Exit::Usage);
    }
    let color = io::stdout().is_terminal() && may_color();
    write_out(&if color { text.ansi().to_string() } else { text.to_string() })?;
    Ok(Exit::Done)
}

/// Whether anybody still reads standard output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    There,
    Gone,
}

/// Standard output that takes nothing more: a full disk.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct Unwritten {
    #[source]
    source: io::Error,
}

impl Fault for Unwritten {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Machine.code("output::standard").hint("what was written there is not complete; free some space, then run again")
    }
}

/// Answers people on standard output; what a terminal would obey is shown escaped.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_raw(&shown(text))
}

/// Answers on standard output with what another program may read; only a terminal gets it escaped.
pub(super) fn print_data(text: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() { print(text) } else { print_raw(text) }
}

/// Answers with one of many parts of what another program may read. Once nobody reads, there is no need for more.
pub(super) fn print_part(text: &str) -> Result<Reader, Failure> {
    if io::stdout().is_terminal() { write_out(&shown(text)) } else { write_out(text) }
}

fn print_raw(text: &str) -> Result<(), Failure> {
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    write_out(&format!("{text}{end}")).map(drop)
}

/// Writes all of it. A reader that has gone has seen what it wanted: the command ends as it would have.
fn write_out(text: &str) -> Result<Reader, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(source) => Err(Failure::own(Unwritten { source })),
    }
}

/// The style of a bar: this template, and what is left once that can be told.
fn style(template: &str) -> ProgressStyle {
    let tell = |state: &ProgressState, out: &mut dyn fmt::Write| {
        // A writer that fails is the terminal's, and nobody is left to see it.
        let _ = out.write_str(&left(state.len().is_some(), state.per_sec(), state.eta()));
    };
    let style = ProgressStyle::with_template(&format!("{template}{{left}}"));
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("left", tell)
}

/// How long the rest may take, if something was done to tell it by; nothing where that is less than a second, since it is not done.
fn left(of_total: bool, per_second: f64, rest: Duration) -> String {
    if of_total && per_second > 0.0 && rest >= Duration::from_secs(1) {
        format!(" · {:#} left", HumanDuration(rest))
    } else {
        String::new()
    }
}

/// A bar of this many units; unseen where there is no terminal.
pub(super) fn bar(total: u64, unit: &'static str) -> ProgressBar {
    let bar = if io::stderr().is_terminal() { ProgressBar::new(total) } else { ProgressBar::hidden() };
    bar.set_length(total);
    bar.set_style(style("{bar:24.cyan/blue} {human_pos}/{human_len} {msg} · {per_sec}"));
    bar.with_message(unit)
}

/// A bar of bytes, of which there may be an unknown number.
pub(super) fn bytes_bar(total: Option<u64>, name: &str) -> ProgressBar {
    let bar = if io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
    let template = match total {
        Some(total) => {
            bar.set_length(total);
            "{bar:24.cyan/blue} {binary_bytes}/{binary_total_bytes} {msg} · {binary_bytes_per_sec}"
        }
        None => "{spinner} {binary_bytes} {msg} · {binary_bytes_per_sec}",
    };
    bar.set_style(style(template));
    bar.with_message(shown(name).into_owned())
}

/// Answers with JSON on standard output.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    // Our own types have text keys and finite numbers, so this cannot fail.
    print_data(&serde_json::to_string_pretty(value).unwrap_or_default())
}

/// An empty table with these columns; `right` are aligned to the right.
pub(super) fn table(columns: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>());
    for &index in right {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A table as text, without trailing blanks.
pub(super) fn text(table: &Table) -> String {
    table.trim_fmt()
}

/// Shows events as lines, and bars where there is a terminal.
pub(super) struct Screen {
    bars: Option<Bars>,
    colored: bool,
    /// When a line about progress was written last, where there are no bars.
    progress: Mutex<Option<Stopwatch>>,
}

/// The bars at the bottom of the terminal, one for each stage that is at work.
struct Bars {
    all: MultiProgress,
    of: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Bars {
    fn show(&self, stage: &str, (done, total): (u64, u64), unit: &str, text: Option<&str>) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = of.entry(stage.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(total).with_style(style("{bar:24.cyan/blue} {pos}/{len} {msg}")));
            // Units that an earlier run finished do not count for the speed of this one.
            bar.set_position(done);
            bar.reset_eta();
            bar
        });
        // A stage may count one thing after the other.
        if bar.length() != Some(total) || done < bar.position() {
            bar.reset();
            bar.set_length(total);
        }
        bar.set_message(text.map_or_else(|| format!("{stage} · {unit}"), |text| format!("{stage} · {unit} · {}", shown(text))));
        bar.set_position(done);
    }

    fn remove(&self, stage: &str) {
        if let Some(bar) = self.of.lock().unwrap_or_else(PoisonError::into_inner).remove(stage) {
            bar.finish_and_clear();
        }
    }
}

impl Screen {
    /// Takes over standard error: bars at the bottom, lines above them.
    pub(super) fn new() -> Self {
        let terminal = io::stderr().is_terminal();
        let bars = terminal.then(|| Bars { all: MultiProgress::new(), of: Mutex::default() });
        // What the library itself has to say, between the lines of the run.
        let log = bars.as_ref().map(|bars| bars.all.clone());
        let (level, writer) = if terminal { (LevelFilter::INFO, log) } else { (LevelFilter::WARN, None) };
        tracing_subscriber::fmt()
            .with_writer(move || Log(Between(writer.clone())))
            // It would say so on standard error, which is what failed, and panic there.
            .log_internal_errors(false)
            .without_time()
            .with_target(false)
            .with_ansi(terminal)
            .with_max_level(level)
            .init();
        Self { bars, colored: colored(), progress: Mutex::new(None) }
    }

    /// Says what to expect of a run.
    pub(super) fn expect(&self, text: &str) {
        self.line(DIM, "note", text);
    }

    fn line(&self, color: &str, word: &str, text: &str) {
        let text = shown(text);
        let line =
            if self.colored { format!("\x1b[{color}m{word:>9}\x1b[0m  {text}\n") } else { format!("{word:>9}  {text}\n") };
        let _ = Between(self.bars.as_ref().map(|bars| bars.all.clone())).write_all(line.as_bytes());
    }
}

/// Standard error, with the bars out of the way while something is written.
struct Between(Option<MultiProgress>);

impl Write for Between {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().lock().write(text);
        self.0.as_ref().map_or_else(write, |bars| bars.suspend(write))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What the library has to say: a whole event at a time, colored where the terminal is.
struct Log(Between);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let event = String::from_utf8_lossy(text);
        let event = if self.0.0.is_some() { shown_in_color(&event).into() } else { shown(&event) };
        self.0.write_all(event.as_bytes())?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

const GREEN: &str = "32;1";
const CYAN: &str = "36;1";
const YELLOW: &str = "33;1";
const RED: &str = "31;1";
const DIM: &str = "2";

impl Listener for Screen {
    fn hear(&self, event: &Event) {
        if let (
            Some(bars),
            Event::StageFinished { stage, .. }
            | Event::StageFailed { stage, .. }
            | Event::StageStopped { stage }
            | Event::StagePulled { stage, .. },
        ) = (&self.bars, event)
        {
            bars.remove(stage);
        }
        match event {
            Event::RunStarted { .. } | Event::RunFinished { .. } | Event::Metric { .. } => {}
            Event::StageFresh { stage, .. } => self.line(DIM, "fresh", stage),
            Event::StagePulled { stage, bytes, .. } => {
                self.line(GREEN, "pulled", &format!("{stage}, {}", unit::bytes(*bytes)));
            }
            Event::StageWaiting { stage, holder } => self.line(YELLOW, "waits", &format!("{stage}: {holder} is computing it")),
            Event::StageStarted { stage, kind, why, .. } => self.line(CYAN, "runs", &format!("{stage} ({kind}): {why}")),
            Event::Progress { stage, done, total, unit, text } => {
                if let Some(bars) = &self.bars {
                    bars.show(stage, (*done, *total), unit, text.as_deref());
                    return;
                }
                // Plain lines, and not many of them.
                let mut last = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
                let due = last.is_none_or(|last| last.elapsed() >= Duration::from_secs(15));
                if done < total && due && last.replace(Stopwatch::start()).is_some() {
                    self.line(DIM, "", &format!("{stage}: {done} of {total} {unit}"));
                }
            }
            Event::Note { stage, text } => self.line(DIM, "note", &format!("{stage}: {text}")),
            Event::Warning { stage, text } => self.line(YELLOW, "warning", &format!("{stage}: {text}")),
            Event::StageFinished { stage, seconds, adopted, .. } => {
                let time = unit::duration(Duration::from_secs_f64(*seconds));
                let text = if *adopted { format!("{stage}, by the other run") } else { format!("{stage} in {time}") };
                self.line(GREEN, "done", &text);
            }
            Event::StageFailed { stage, error, hint } => {
                self.line(RED, "failed", &format!("{stage}: {error}"));
                if let Some(hint) = hint {
                    self.line(DIM, "hint", hint);
                }
            }
            Event::Job { unit, job, tasks, attached } => {
                let word = if *attached { "attached" } else { "submitted" };
                self.line(DIM, word, &format!("{unit}: job {job}, {}", unit::counted(*tasks as u64, "task")));
            }
            Event::StageBlocked { stage, by } => self.line(YELLOW, "blocked", &format!("{stage}: `{by}` has no result")),
            Event::StageStopped { stage } => self.line(YELLOW, "stopped", &format!("{stage}: its progress is kept")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_tell_before_something_is_done() {
        assert_eq!(left(true, 0.0, Duration::ZERO), "");
        assert_eq!(left(false, 3.0, Duration::ZERO), "", "of an unknown total");
        assert_eq!(left(true, 3.0, Duration::from_secs(90)), " · 2m left");
        assert_eq!(left(true, 3.0, Duration::from_millis(400)), "", "0 s would say that it is done");
    }
}
