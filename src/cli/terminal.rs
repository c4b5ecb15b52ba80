//! The screen: lines, colours, bars, tables.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use tracing_indicatif::IndicatifLayer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::common::Failure;
use crate::base::hint::Fault;
use crate::base::unit;
use crate::pipeline::error::chain;
use crate::pipeline::event::{Event, Listener};

/// True if standard error takes colours.
pub(super) fn colored() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns of the terminal; 100 where there is none.
pub(super) fn width() -> usize {
    Table::new().set_content_arrangement(ContentArrangement::Dynamic).width().map_or(100, usize::from)
}

/// Says something on standard error. A reader that has gone is no reason to fail.
pub(super) fn say(text: &str) {
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "{}", text.trim_end_matches('\n'));
}

/// Says what went wrong, why, and what to do.
pub(super) fn error(fault: &dyn Fault) {
    let (red, bold, off) = if colored() { ("\x1b[31;1m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let mut text = format!("{red}error{off}[{}]: {bold}{}{off}", fault.code(), chain_of(fault));
    if let Some(hint) = fault.hint() {
        text.push_str(&format!("\n\nhint: {hint}"));
    }
    say(&text);
}

fn chain_of(fault: &dyn Fault) -> String {
    let mut text = fault.to_string();
    let mut cause = fault.source();
    while let Some(error) = cause {
        text.push_str("\n  because: ");
        text.push_str(&chain(error));
        cause = None;
    }
    text
}

/// Answers on standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    write!(out, "{text}{end}").and_then(|()| out.flush()).map_err(|_| Failure::Closed)
}

/// Answers with one of many parts.
pub(super) fn print_part(text: &str) -> Result<(), Failure> {
    io::stdout().lock().write_all(text.as_bytes()).map_err(|_| Failure::Closed)
}

/// A bar of this many units; unseen where there is no terminal.
pub(super) fn bar(total: u64, unit: &'static str) -> ProgressBar {
    let bar = if io::stderr().is_terminal() { ProgressBar::new(total) } else { ProgressBar::hidden() };
    bar.set_length(total);
    if let Ok(style) = ProgressStyle::with_template("{bar:24.cyan/blue} {human_pos}/{human_len} {msg} · {per_sec} · {eta} left")
    {
        bar.set_style(style);
    }
    bar.with_message(unit)
}

/// A bar of bytes, of which there may be an unknown number.
pub(super) fn bytes_bar(total: Option<u64>, name: &str) -> ProgressBar {
    let bar = if io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
    let template = match total {
        Some(total) => {
            bar.set_length(total);
            "{bar:24.cyan/blue} {binary_bytes}/{binary_total_bytes} {msg} · {binary_bytes_per_sec} · {eta} left"
        }
        None => "{spinner} {binary_bytes} {msg} · {binary_bytes_per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(name.to_owned())
}

/// Answers with JSON on standard output.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    // Our own types have text keys and finite numbers, so this cannot fail.
    print(&serde_json::to_string_pretty(value).unwrap_or_default())
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
    out: Mutex<Box<dyn Write + Send>>,
    colored: bool,
    bars: bool,
    quiet_progress: Mutex<Option<crate::base::clock::Stopwatch>>,
}

impl Screen {
    /// Takes over standard error: bars at the bottom, lines above them.
    pub(super) fn new() -> Self {
        let bars = io::stderr().is_terminal();
        let colored = colored();
        let out: Box<dyn Write + Send> = if bars {
            let style = ProgressStyle::with_template("{bar:24.cyan/blue} {pos}/{len} {msg} · {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let layer = IndicatifLayer::new().with_progress_style(style);
            let writer = layer.get_stderr_writer();
            let log = layer.get_stderr_writer();
            tracing_subscriber::registry()
                .with(tracing_subscriber::fmt::layer().with_writer(move || log.clone()).without_time().with_target(false))
                .with(layer)
                .with(tracing_subscriber::filter::LevelFilter::INFO)
                .init();
            Box::new(writer)
        } else {
            tracing_subscriber::registry()
                .with(
                    tracing_subscriber::fmt::layer().with_writer(io::stderr).without_time().with_target(false).with_ansi(false),
                )
                .with(tracing_subscriber::filter::LevelFilter::WARN)
                .init();
            Box::new(io::stderr())
        };
        Self { out: Mutex::new(out), colored, bars, quiet_progress: Mutex::new(None) }
    }

    fn line(&self, color: &str, word: &str, text: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = if self.colored {
            writeln!(out, "\x1b[{color}m{word:>9}\x1b[0m  {text}")
        } else {
            writeln!(out, "{word:>9}  {text}")
        };
    }
}

const GREEN: &str = "32;1";
const CYAN: &str = "36;1";
const YELLOW: &str = "33;1";
const RED: &str = "31;1";
const DIM: &str = "2";

impl Listener for Screen {
    fn hear(&self, event: &Event) {
        match event {
            Event::RunStarted { .. } | Event::RunFinished { .. } | Event::Metric { .. } => {}
            Event::StageFresh { stage, .. } => self.line(DIM, "fresh", stage),
            Event::StageWaiting { stage, holder } => self.line(YELLOW, "waits", &format!("{stage}: {holder} is computing it")),
            Event::StageStarted { stage, kind, why, .. } => self.line(CYAN, "runs", &format!("{stage} ({kind}): {why}")),
            Event::Progress { stage, done, total, unit } => {
                // Plain lines where there are no bars, and not many of them.
                let mut last = self.quiet_progress.lock().unwrap_or_else(PoisonError::into_inner);
                let due = last.is_none_or(|last| last.elapsed() >= Duration::from_secs(15));
                if !self.bars && due && done < total {
                    let had = last.replace(crate::base::clock::Stopwatch::start());
                    if had.is_some() {
                        self.line(DIM, "", &format!("{stage}: {done} of {total} {unit}"));
                    }
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
            Event::StageBlocked { stage, by } => self.line(YELLOW, "blocked", &format!("{stage}: `{by}` has no result")),
            Event::StageStopped { stage } => self.line(YELLOW, "stopped", &format!("{stage}: its progress is kept")),
        }
    }
}
