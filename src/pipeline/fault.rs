//! Faults of a pipeline file: where each is, what was found, what would be valid.
//!
//! Checking collects and never stops at the first fault, so a file is mended in one go. A [`SpecFault`] says what is wrong in
//! data and words; a [`Finding`] adds the place; [`Faults`] holds all findings with the texts they point into, and draws them
//! with line and caret or as JSON.

use std::fmt::Write as _;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use kinset_base::fault::{Diagnosis, Exit, Fault, nearest};
use kinset_base::fs::FileError;
use kinset_base::shown::acts;

/// Findings drawn in full; a file with more is broken in a way that more text does not explain.
const DRAWN: usize = 50;
/// Names listed in one line.
const LISTED: usize = 12;
/// Characters of a user's own text in a message.
const QUOTED: usize = 60;
/// Names longer than this are compared with nothing.
const COMPARED: usize = 60;
/// Pairs of characters compared for one suggestion.
const EFFORT: usize = 500_000;

/// Findings collected; also bounds the time spent on a file that is none of ours.
pub const COLLECTED: usize = 500;

/// A stretch of one of the texts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which text: 0 is the file, then each option of the command line that overlays it.
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// A text that places point into.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name: the path of the file, or the option.
    pub name: String,
    pub text: String,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecFault {
    #[error("there is no pipeline file {}", quote(path))]
    NoFile {
        path: String,
        /// A file that may have been meant.
        near: Option<String>,
    },
    #[error("there is no cluster file {}", quote(path))]
    NoCluster { path: String },
    #[error("{} is a folder, not a pipeline file", quote(path))]
    Folder { path: String, files: Vec<String> },
    #[error("{source}: {}", .source.source)]
    Unreadable { source: FileError },
    #[error("{} is larger than {}; a pipeline file must be smaller", quote(path), kinset_base::unit::bytes(*limit))]
    TooLarge {
        path: String,
        /// The limit in bytes.
        limit: u64,
    },
    #[error("{} is not text in UTF-8: see line {line}, byte {byte} of it", quote(path))]
    NotText {
        path: String,
        /// The line of the first bad byte, from 1.
        line: usize,
        /// Its position in the line in bytes, from 1.
        byte: usize,
        /// True if the file begins like UTF-16.
        utf16: bool,
    },
    #[error("there is nothing to do: the file has no `[data.…]` and no `[stage.…]`")]
    Nothing,
    /// Not TOML.
    #[error("{message}")]
    Syntax { message: String, hint: Option<String> },
    #[error("unknown key {} in {owner}", quote(key))]
    UnknownKey {
        /// Whose table: ``stage `pretext` (simclr)``.
        owner: String,
        key: String,
        known: Vec<String>,
    },
    #[error("{what} expects {want}, found {found}")]
    Value {
        /// Whose value: `` `seed` ``.
        what: String,
        want: String,
        found: String,
        hint: Option<String>,
    },
    /// A setting that the stage itself refuses.
    #[error("{owner}: {message}")]
    Setting { owner: String, message: String, hint: Option<String> },
    #[error("{owner} needs a value for {}", quote(setting))]
    MissingSetting { owner: String, setting: String },
    #[error("{} cannot be the name of a {what}", quote(name))]
    Name {
        /// `stage`, `source`, `pipeline`.
        what: &'static str,
        name: String,
        rule: &'static str,
    },
    #[error("stage {} has no `kind`", quote(stage))]
    NoKind { stage: String, known: Vec<String> },
    #[error("unknown kind {} of stage {}", quote(kind), quote(stage))]
    UnknownKind { stage: String, kind: String, known: Vec<String> },
    #[error("stage {} is a source, and sources are written as `[data.{stage}]`", quote(stage))]
    SourceAsStage { stage: String },
    /// An overlay for something that the file does not have.
    #[error("the file has no {what} {}", quote(name))]
    NothingBelow {
        /// `stage` or `source`.
        what: &'static str,
        name: String,
        known: Vec<String>,
    },
    #[error("there is no {what} {}", quote(written))]
    UnknownName {
        /// `profile`, `stage`.
        what: &'static str,
        written: String,
        known: Vec<String>,
    },
    #[error("{owner} needs {artifact} at its port {}", quote(port))]
    MissingPort { owner: String, port: String, artifact: String, fits: Vec<String> },
    #[error("{owner} reads one of {}, and {} are connected", list(ports), if *given == 0 { "none" } else { "several" })]
    OneOf {
        owner: String,
        ports: Vec<String>,
        /// How many are bound.
        given: usize,
    },
    #[error("{owner} has {} and {}, and the second is in place of the first", quote(setting), quote(port))]
    Both { owner: String, setting: String, port: String },
    #[error("port {} of {owner}: there is no source, stage or output {}", quote(port), quote(written))]
    UnknownReference {
        owner: String,
        port: String,
        written: String,
        artifact: String,
        meant: Option<String>,
        fits: Vec<String>,
    },
    #[error("{} has no output {}", quote(node), quote(output))]
    UnknownOutput {
        node: String,
        output: String,
        /// What it gives, as it is written.
        outputs: Vec<String>,
        meant: Option<String>,
    },
    #[error("{} gives {gives}, but port {} of {owner} expects {wants}", quote(written), quote(port))]
    WrongArtifact { owner: String, port: String, written: String, gives: String, wants: String, fits: Vec<String> },
    #[error("port {} of {owner} names {} twice", quote(port), quote(written))]
    Twice { owner: String, port: String, written: String },
    #[error("port {} of {owner} reads the stage's own result", quote(port))]
    Itself { owner: String, port: String },
    #[error("these stages wait for each other: {} (each reads the next)", path(names))]
    Cycle {
        /// The path, each stage reads from the next; the first stands again at the end.
        names: Vec<String>,
    },
    #[error("{count} {what}, and {limit} is the limit")]
    TooMany { what: &'static str, count: usize, limit: usize },
    #[error("no stage is selected: {why}")]
    NothingSelected { why: String },
}

impl SpecFault {
    /// A few words to stand beside the caret.
    pub fn label(&self) -> Option<String> {
        match self {
            Self::UnknownKey { key, known, .. } => did_you_mean(key, known),
            Self::UnknownKind { kind, known, .. } => did_you_mean(kind, known),
            Self::NothingBelow { name, known, .. } => did_you_mean(name, known),
            Self::UnknownName { written, known, .. } => did_you_mean(written, known),
            Self::UnknownReference { meant, .. } | Self::UnknownOutput { meant, .. } => {
                meant.as_ref().map(|meant| format!("did you mean {}?", quote(meant)))
            }
            Self::WrongArtifact { gives, .. } => Some(format!("this is {gives}")),
            Self::NoKind { .. } => Some("of which kind?".into()),
            _ => None,
        }
    }
}

impl Fault for SpecFault {
    fn diagnosis(&self) -> Diagnosis {
        let code = |code| Exit::Pipeline.code(code);
        let makers = |artifact: &str, fits: &[String]| match fits {
            [] => format!("nothing here gives {artifact} yet; a stage that does is missing"),
            fits => format!("these give {artifact}: {}", list(fits)),
        };
        match self {
            Self::NoFile { near: Some(near), .. } => code("pipeline::no-file").hint(format!("did you mean {}?", quote(near))),
            Self::NoFile { near: None, .. } => {
                code("pipeline::no-file").hint("`kinset init DIR > FILE` writes one for a folder of images")
            }
            Self::NoCluster { .. } => code("pipeline::no-cluster")
                .hint("name one with `--cluster FILE`, or leave it out: the guide's page \"On a cluster\" shows one"),
            Self::Folder { files, .. } if files.is_empty() => code("pipeline::folder"),
            Self::Folder { files, .. } => {
                code("pipeline::folder").hint(format!("it contains these pipeline files: {}", list(files)))
            }
            Self::Unreadable { source } => code("pipeline::unreadable").hint_if(source.hint()),
            Self::TooLarge { .. } => code("pipeline::too-large"),
            Self::NotText { utf16: true, .. } => code("pipeline::not-text").hint("it looks like UTF-16; save it as UTF-8"),
            Self::NotText { utf16: false, .. } => code("pipeline::not-text").hint("save it as UTF-8"),
            Self::Nothing => code("pipeline::nothing"),
            Self::Syntax { hint, .. } => code("pipeline::syntax").hint_if(hint.clone()),
            Self::UnknownKey { known, .. } if known.is_empty() => code("pipeline::unknown-key").hint("it takes no keys"),
            Self::UnknownKey { known, .. } => code("pipeline::unknown-key").hint(format!("known keys: {}", list(known))),
            Self::Value { hint, .. } => code("pipeline::value").hint_if(hint.clone()),
            Self::Setting { hint, .. } => code("pipeline::setting").hint_if(hint.clone()),
            Self::MissingSetting { .. } => code("pipeline::missing-setting"),
            Self::Name { rule, .. } => code("pipeline::name").hint(*rule),
            Self::NoKind { known, .. } => code("pipeline::no-kind").hint(format!("kinds: {}", list(known))),
            Self::UnknownKind { known, .. } => code("pipeline::unknown-kind").hint(format!("kinds: {}", list(known))),
            Self::SourceAsStage { .. } => code("pipeline::source-as-stage"),
            Self::NothingBelow { what, known, .. } if known.is_empty() => {
                code("pipeline::nothing-below").hint(format!("it has no {what} at all"))
            }
            Self::NothingBelow { known, .. } => code("pipeline::nothing-below").hint(format!("it has {}", list(known))),
            Self::UnknownName { what, known, .. } if known.is_empty() => {
                code("pipeline::unknown-name").hint(format!("there is no {what} at all"))
            }
            Self::UnknownName { known, .. } => code("pipeline::unknown-name").hint(format!("there is {}", list(known))),
            Self::MissingPort { port, artifact, fits, .. } => code("pipeline::missing-port").hint(match fits.as_slice() {
                [only] => format!("write `{port} = \"{only}\"`, the only {artifact} here"),
                fits => makers(artifact, fits),
            }),
            Self::OneOf { .. } => code("pipeline::one-of").hint("connect exactly one of them"),
            Self::Both { setting, port, .. } => code("pipeline::both").hint(format!(
                "leave {} out, or take {} out of the file to say the number yourself",
                quote(setting),
                quote(port)
            )),
            Self::UnknownReference { artifact, fits, .. } => code("pipeline::unknown-reference").hint(makers(artifact, fits)),
            Self::UnknownOutput { outputs, .. } => code("pipeline::unknown-output").hint(format!("it gives {}", list(outputs))),
            Self::WrongArtifact { wants, fits, .. } => code("pipeline::wrong-artifact").hint(makers(wants, fits)),
            Self::Twice { .. } => code("pipeline::twice"),
            Self::Itself { .. } => code("pipeline::itself"),
            Self::Cycle { .. } => code("pipeline::cycle"),
            Self::TooMany { .. } => code("pipeline::too-many"),
            Self::NothingSelected { .. } => code("pipeline::nothing-selected"),
        }
    }
}

/// A fault and its place.
#[derive(Debug)]
pub struct Finding {
    pub fault: SpecFault,
    pub place: Option<Place>,
    /// Other places that have to do with it.
    pub notes: Vec<(Place, String)>,
}

impl Finding {
    pub fn at(place: Place, fault: SpecFault) -> Self {
        Self { fault, place: Some(place), notes: Vec::new() }
    }

    pub fn nowhere(fault: SpecFault) -> Self {
        Self { fault, place: None, notes: Vec::new() }
    }
}

/// Where something stands, for people and editors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The name of the text.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// All faults of a pipeline file, in the order of the text.
#[derive(Debug)]
pub struct Faults {
    sources: Vec<Source>,
    findings: Vec<Finding>,
}

impl Faults {
    /// Puts the findings into order and drops repetitions.
    pub fn new(sources: Vec<Source>, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.place);
        let mut seen: Vec<(Option<Place>, String)> = Vec::new();
        findings.retain(|finding| {
            // Sorted by place, so an equal one can only be among the last few.
            let entry = (finding.place, finding.fault.to_string());
            let new = !seen.iter().rev().take_while(|earlier| earlier.0 == entry.0).any(|earlier| *earlier == entry);
            if new {
                seen.push(entry);
            }
            new
        });
        findings.truncate(COLLECTED);
        Self { sources, findings }
    }

    pub fn nowhere(fault: SpecFault) -> Self {
        Self { sources: Vec::new(), findings: vec![Finding::nowhere(fault)] }
    }

    /// The findings, in the order of the text.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Line and column of a place.
    pub fn position(&self, place: Place) -> Option<Position> {
        let source = self.sources.get(place.source as usize)?;
        let before = source.text.get(..place.start as usize)?;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        Some(Position {
            file: source.name.clone(),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
        })
    }

    /// Draws all findings with line and caret. `colour` is for terminals; `width` is how many columns it has.
    pub fn render(&self, colour: bool, width: usize) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.term_width(width.max(40));
        let mut out = String::new();
        for finding in self.findings.iter().take(DRAWN) {
            let _ = writeln!(out, "{}\n", self.draw(&renderer, finding));
        }
        let count = self.findings.len();
        let _ = match count {
            0 | 1 => Ok(()),
            _ if count > DRAWN => writeln!(out, "{count} faults, the first {DRAWN} of them above"),
            _ => writeln!(out, "{count} faults"),
        };
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }

    fn draw(&self, renderer: &Renderer, finding: &Finding) -> String {
        let title = Level::ERROR.primary_title(finding.fault.to_string()).id(finding.fault.code());
        let mut group = Group::with_title(title);
        let source = finding.place.and_then(|place| Some((place, self.sources.get(place.source as usize)?)));
        if let Some((place, source)) = source {
            let window = Window::around(&source.text, place);
            let mut primary = AnnotationKind::Primary.span(window.span(place));
            primary = primary.label(finding.fault.label());
            let mut snippet =
                Snippet::source(window.text).path(source.name.as_str()).line_start(window.line).annotation(primary);
            for (at, label) in &finding.notes {
                if at.source == place.source && window.holds(*at) {
                    snippet = snippet.annotation(AnnotationKind::Context.span(window.span(*at)).label(label.as_str()));
                }
            }
            group = group.element(snippet);
        }
        // Without a line to point at, the label has no place but here.
        if let (None, Some(label)) = (finding.place, finding.fault.label()) {
            group = group.element(Level::NOTE.message(label));
        }
        if let Some(hint) = finding.fault.hint() {
            group = group.element(Level::HELP.message(hint));
        }
        renderer.render(&[group])
    }

    /// All findings for programs: an array of `{code, message, hint, file, line, column}`, `null` where nothing is known.
    pub fn to_json(&self) -> serde_json::Value {
        let entry = |finding: &Finding| {
            let position = finding.place.and_then(|place| self.position(place));
            serde_json::json!({
                "code": finding.fault.code(),
                "message": finding.fault.to_string(),
                "label": finding.fault.label(),
                "hint": finding.fault.hint(),
                "file": position.as_ref().map(|p| p.file.as_str()),
                "line": position.as_ref().map(|p| p.line),
                "column": position.as_ref().map(|p| p.column),
            })
        };
        self.findings.iter().map(entry).collect()
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.findings.as_slice() {
            [one] => one.fault.fmt(f),
            all => write!(f, "the pipeline file has {} faults", all.len()),
        }
    }
}

impl std::error::Error for Faults {}

impl Fault for Faults {
    fn diagnosis(&self) -> Diagnosis {
        match self.findings.as_slice() {
            [one] => one.fault.diagnosis(),
            _ => Exit::Pipeline.code("pipeline::faults"),
        }
    }
}

/// The part of a text that the drawing gets to see. Drawing reads its whole source for every finding; a megabyte times fifty
/// would be felt.
struct Window<'a> {
    text: &'a str,
    offset: usize,
    line: usize,
}

impl<'a> Window<'a> {
    const REACH: usize = 1 << 14;

    fn around(text: &'a str, place: Place) -> Self {
        let whole = Self { text, offset: 0, line: 1 };
        if text.len() <= 2 * Self::REACH {
            return whole;
        }
        let near = |at: usize| (0..4).map(|back| at.saturating_sub(back)).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let start = near((place.start as usize).saturating_sub(Self::REACH));
        let start = text[start..place.start as usize].find('\n').map_or(start, |line_end| start + line_end + 1);
        let end = near((place.start as usize + Self::REACH).min(text.len()));
        Self { text: &text[start..end], offset: start, line: text[..start].matches('\n').count() + 1 }
    }

    fn holds(&self, place: Place) -> bool {
        place.start as usize >= self.offset && place.end as usize <= self.offset + self.text.len()
    }

    /// The place in the window, cut at the end of its first line.
    fn span(&self, place: Place) -> std::ops::Range<usize> {
        let start = (place.start as usize).saturating_sub(self.offset).min(self.text.len());
        let end = (place.end as usize).saturating_sub(self.offset).clamp(start, self.text.len());
        let line = self.text.get(start..end).and_then(|text| text.find(['\r', '\n'])).map_or(end, |at| start + at);
        start..line
    }
}

/// A user's own text in a message: in back-ticks, harmless, not endless.
pub fn quote(text: &str) -> String {
    let mut out = String::from("`");
    for (count, letter) in text.chars().enumerate() {
        if count == QUOTED {
            out.push('…');
            break;
        }
        if acts(letter) {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out.push('`');
    out
}

/// `` `a`, `b` and 3 more``.
pub fn list(names: &[impl AsRef<str>]) -> String {
    let shown = if names.len() == LISTED + 1 { names.len() } else { names.len().min(LISTED) };
    let mut out = names[..shown].iter().map(|name| quote(name.as_ref())).collect::<Vec<_>>().join(", ");
    if shown < names.len() {
        let _ = write!(out, " and {} more", names.len() - shown);
    }
    out
}

/// `` `a` -> `b` -> `a` ``, the middle left out if it is long.
fn path(names: &[String]) -> String {
    let quoted = |names: &[String]| names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(" -> ");
    match names.len().checked_sub(LISTED + 1) {
        None => quoted(names),
        Some(_) => format!("{} -> … -> {}", quoted(&names[..LISTED / 2]), quoted(&names[names.len() - LISTED / 2..])),
    }
}

/// `` `a` or `b` ``, `` one of `a`, `b`, `c` ``.
pub fn one_of(names: &[&str]) -> String {
    match names {
        [one] => quote(one),
        [one, two] => format!("{} or {}", quote(one), quote(two)),
        _ => format!("one of {}", list(names)),
    }
}

/// The known name that looks most like what was written. Too many or too long names are not compared: the effort is the
/// product of their lengths, and a suggestion is a courtesy.
pub fn near<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.into_iter().filter(|name| name.len() <= COMPARED).collect();
    let effort = written.len() * known.iter().map(|name| name.len()).sum::<usize>();
    (written.len() <= COMPARED && effort <= EFFORT).then(|| nearest(written, known)).flatten()
}

fn did_you_mean(written: &str, known: &[String]) -> Option<String> {
    near(written, known.iter().map(String::as_str)).map(|name| format!("did you mean {}?", quote(name)))
}
