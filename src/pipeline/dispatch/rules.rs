//! `cluster.toml`: where stages run, and with what. Nothing of it is in a key but the class of device.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, Registry};
use crate::document::{self, Entry, Item, Table, Value};
use crate::fault::{Faults, Finding, SpecFault, one_of, quote};
use crate::spec::{self, Node, Spec};
use crate::state::Devices;
use kinset_stage::AnyStage;

/// The name of the file.
pub const FILE: &str = "cluster.toml";

/// Slurm rounds the time of its warning by up to a minute, and a job needs some time to be worth its start.
const SHORTEST: Duration = Duration::from_mins(5);

/// The most jobs that compute a stage together.
pub(super) const MOST_SHARES: u32 = 1000;

/// What runs the stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Executor {
    /// This process.
    #[default]
    Here,
    /// So many processes on this machine.
    Local(usize),
    Slurm,
    /// Written down, not submitted.
    Kubernetes,
}

/// How an executor is written.
pub const EXECUTORS: &str = "`here`, `local:N`, `slurm` or `kubernetes`";

impl std::str::FromStr for Executor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let local = |text: &str| text.parse().ok().filter(|count| (1..=1024).contains(count)).map(Self::Local);
        match text {
            "here" => Ok(Self::Here),
            "slurm" => Ok(Self::Slurm),
            "kubernetes" => Ok(Self::Kubernetes),
            _ => text.strip_prefix("local:").and_then(local).ok_or_else(|| format!("{EXECUTORS} is expected")),
        }
    }
}

/// What a job asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    pub cpus: Option<u32>,
    /// Bytes.
    pub memory: Option<u64>,
    pub time: Option<Duration>,
    pub partition: Option<String>,
    pub account: Option<String>,
    pub qos: Option<String>,
    pub gpus: Option<u32>,
    pub gpu_type: Option<String>,
    pub gres: Option<String>,
    /// What `device = "auto"` means there.
    pub device: Option<String>,
    /// Whether the process that watches runs it itself.
    pub here: Option<bool>,
    /// Whether a chain of such stages is one job.
    pub fuse: Option<bool>,
    /// Tasks that compute a stage together, where it can be cut.
    pub split: Option<u32>,
    /// Lines for the scheduler, as they are.
    pub extra: Option<Vec<String>>,
    /// Lines that are left out.
    pub without: Option<Vec<String>>,
}

impl Needs {
    /// These, and of another what is not said here.
    fn over(self, below: &Self) -> Self {
        let below = below.clone();
        // Gpus of one kind of request replace those of the other.
        let gpus = self.gpus.is_some() || self.gres.is_some();
        Self {
            cpus: self.cpus.or(below.cpus),
            memory: self.memory.or(below.memory),
            time: self.time.or(below.time),
            partition: self.partition.or(below.partition),
            account: self.account.or(below.account),
            qos: self.qos.or(below.qos),
            gpus: if gpus { self.gpus } else { below.gpus },
            gpu_type: self.gpu_type.or(below.gpu_type),
            gres: if gpus { self.gres } else { below.gres },
            device: self.device.or(below.device),
            here: self.here.or(below.here),
            fuse: self.fuse.or(below.fuse),
            split: self.split.or(below.split),
            extra: self.extra.or(below.extra),
            without: self.without.or(below.without),
        }
    }

    /// The class of device that `auto` is there.
    fn class(&self) -> &str {
        match self.device.as_deref() {
            Some(device) => device.split(':').next().unwrap_or(device),
            None if self.gpus.is_some_and(|gpus| gpus > 0) || self.gres.is_some() => "cuda",
            None => "cpu",
        }
    }
}

/// A `[[rule]]`.
#[derive(Clone, Debug)]
struct Rule {
    kinds: Option<Vec<String>>,
    stages: Option<Vec<String>>,
    needs: Needs,
}

impl Rule {
    fn fits(&self, node: &Node) -> bool {
        let has = |names: &Option<Vec<String>>, own: &[&str]| {
            names.as_ref().is_none_or(|names| names.iter().any(|name| own.contains(&name.as_str())))
        };
        has(&self.kinds, &[&node.kind]) && has(&self.stages, &[&node.name, node.variant(), &node.family])
    }
}

/// `[limits]`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of ours in the queue at once, tasks of arrays counted.
    pub jobs: usize,
    /// Tasks of an array.
    pub array: usize,
    /// Tasks of an array that run at once.
    pub at_once: Option<usize>,
    /// How often the queue is asked for; it grows while nothing changes.
    pub poll: Duration,
    pub submit_every: Duration,
    /// How long a job may be gone before its record is seen.
    pub settle: Duration,
}

/// `[requeue]`.
#[derive(Clone, Debug)]
pub struct Requeue {
    /// Restarts of a job.
    pub times: u32,
    pub signal: String,
    /// How long before its end it is warned.
    pub lead: Duration,
    /// Restarts in a row that may move nothing.
    pub without_progress: u32,
}

/// Whether a run asks a cache of results, and fills it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheMode {
    #[default]
    Read,
    ReadWrite,
    Off,
}

impl CacheMode {
    pub const NAMES: [(&'static str, Self); 3] = [("read", Self::Read), ("read-write", Self::ReadWrite), ("off", Self::Off)];
}

/// How a mode is written.
pub const CACHE_MODES: &str = "`read`, `read-write` or `off`";

impl std::str::FromStr for CacheMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::NAMES.into_iter().find(|(name, _)| *name == text);
        known.map(|(_, mode)| mode).ok_or_else(|| format!("{CACHE_MODES} is expected"))
    }
}

/// `[cache]`.
#[derive(Clone, Debug, Default)]
pub struct CacheRules {
    pub url: Option<String>,
    pub mode: Option<CacheMode>,
    /// How long a server may be silent.
    pub timeout: Option<Duration>,
}

/// `[kubernetes]`: the pods of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// It has kinset, and a shell.
    pub image: Option<String>,
    pub namespace: Option<String>,
    /// Claims of volumes, each with the place where pods have it.
    pub claims: Vec<(String, PathBuf)>,
    /// Secrets whose entries are variables of the environment.
    pub secrets: Vec<String>,
    pub service_account: Option<String>,
    /// As whom pods write into volumes, if not as the image says.
    pub user: Option<u32>,
    pub group: Option<u32>,
}

/// A checked `cluster.toml`, or what holds without one.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Where the file lies, if there is one.
    pub path: Option<PathBuf>,
    pub executor: Executor,
    /// The program on the nodes, if it is another.
    pub kinset: Option<PathBuf>,
    /// `--data` of the workers.
    pub data: Option<PathBuf>,
    /// Lines of the script before kinset.
    pub setup: Vec<String>,
    default: Needs,
    rules: Vec<Rule>,
    pub limits: Limits,
    pub requeue: Requeue,
    pub cache: CacheRules,
    pub pods: Pods,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            path: None,
            executor: Executor::Here,
            kinset: None,
            data: None,
            setup: Vec::new(),
            default: Needs::default(),
            rules: Vec::new(),
            limits: Limits {
                jobs: 200,
                array: 1000,
                at_once: None,
                poll: Duration::from_secs(30),
                submit_every: Duration::from_millis(500),
                settle: Duration::from_mins(1),
            },
            requeue: Requeue { times: 20, signal: "USR2".into(), lead: Duration::from_mins(3), without_progress: 2 },
            cache: CacheRules::default(),
            pods: Pods::default(),
        }
    }
}

impl Rules {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// All its faults.
    pub fn load(path: &Path, catalog: &dyn Catalog) -> Result<Self, Faults> {
        let text = spec::read(path).map_err(|fault| match *fault {
            SpecFault::NoFile { path, .. } => Faults::nowhere(SpecFault::NoCluster { path }),
            fault => Faults::nowhere(fault),
        })?;
        Self::check(path, &text, catalog)
    }

    /// Checks a text. `path` is for messages, and what paths in it are relative to.
    ///
    /// # Errors
    /// All its faults.
    pub fn check(path: &Path, text: &str, catalog: &dyn Catalog) -> Result<Self, Faults> {
        let (mut sources, mut findings) = (Vec::new(), Vec::new());
        let root = document::read(&mut sources, &path.display().to_string(), text, &mut findings);
        let mut reader = Reader { findings };
        let mut rules = reader.rules(&root, catalog);
        if !reader.findings.is_empty() {
            return Err(Faults::new(sources, reader.findings));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        for place in [&mut rules.kinset, &mut rules.data].into_iter().flatten() {
            *place = folder.join(&*place);
        }
        rules.path = Some(path.to_owned());
        Ok(rules)
    }

    /// What a stage's job asks for.
    pub fn needs(&self, node: &Node) -> Needs {
        let fitting = self.rules.iter().filter(|rule| rule.fits(node));
        fitting.fold(self.default.clone(), |below, rule| rule.needs.clone().over(&below))
    }

    /// The partitions that they name, sorted.
    pub fn partitions(&self) -> BTreeSet<&str> {
        let needs = std::iter::once(&self.default).chain(self.rules.iter().map(|rule| &rule.needs));
        needs.filter_map(|needs| needs.partition.as_deref()).flat_map(|names| names.split(',')).collect()
    }

    /// What of them holds for several processes of one machine, whatever nodes elsewhere have: how stages are cut.
    #[must_use]
    pub fn on_this_machine(&self) -> Self {
        let only = |needs: &Needs| Needs { split: needs.split, ..Needs::default() };
        let rules = self.rules.iter().map(|rule| Rule { needs: only(&rule.needs), ..rule.clone() });
        Self { default: only(&self.default), rules: rules.collect(), ..Self::default() }
    }

    /// How many tasks compute a stage together: one, but for kinds that can be cut where a rule says so.
    pub fn shares(&self, node: &Node, registry: Registry) -> usize {
        let Needs { split, here, .. } = self.needs(node);
        let cut = here != Some(true) && registry.find(&node.kind).is_some_and(AnyStage::shared);
        split.filter(|_| cut).map_or(1, |split| split as usize)
    }

    /// The class of device of each stage, where jobs run elsewhere. `here` is this machine's, for what the watching process runs; a
    /// pipeline that names its device means the same everywhere.
    pub fn devices(&self, spec: &Spec, here: &str) -> Devices {
        let mut devices = Devices::from(here);
        if spec.device == "auto" {
            for node in &spec.nodes {
                let needs = self.needs(node);
                if needs.here != Some(true) {
                    devices.put(&node.name, needs.class());
                }
            }
        }
        devices
    }
}

/// Reads tables, and collects what is wrong with them.
struct Reader {
    findings: Vec<Finding>,
}

/// Keys of `[default]` and `[[rule]]`.
pub(super) const NEEDS: [&str; 15] = [
    "cpus",
    "memory",
    "time",
    "partition",
    "account",
    "qos",
    "gpus",
    "gpu_type",
    "gres",
    "device",
    "where",
    "fuse",
    "split",
    "extra",
    "without",
];

/// Keys of `[kubernetes]`.
pub(super) const PODS: [&str; 7] = ["image", "namespace", "claims", "secrets", "service_account", "user", "group"];

/// Signals that may warn a job.
pub(super) const SIGNALS: [&str; 5] = ["USR1", "USR2", "TERM", "INT", "HUP"];

/// Lines of a job's script that `without` names.
pub const LINES: [&str; 14] = [
    "comment",
    "kill-on-invalid-dep",
    "requeue",
    "open-mode",
    "export",
    "signal",
    "cpus-per-task",
    "mem",
    "time",
    "partition",
    "account",
    "qos",
    "gpus-per-node",
    "output",
];

impl Reader {
    fn rules(&mut self, root: &Table, catalog: &dyn Catalog) -> Rules {
        let mut rules = Rules::default();
        self.only(
            root,
            "the cluster file",
            &["executor", "kinset", "data", "setup", "default", "rule", "limits", "requeue", "cache", "kubernetes"],
        );
        if let Some(executor) = self.get(root, "", "executor", EXECUTORS, |item| item.text()?.parse().ok()) {
            rules.executor = executor;
        }
        rules.kinset = self.line(root, "", "kinset").map(PathBuf::from);
        rules.data = self.line(root, "", "data").map(PathBuf::from);
        rules.setup = self.lines(root, "", "setup").unwrap_or_default();
        let none = Table::default();
        let limits = self.table(root, "limits").unwrap_or(&none);
        self.only(limits, "`limits`", &["jobs", "array", "at_once", "poll", "submit_every", "settle"]);
        self.count(limits, "limits.", "jobs", 1).into_iter().for_each(|jobs| rules.limits.jobs = jobs as usize);
        self.count(limits, "limits.", "array", 1).into_iter().for_each(|array| rules.limits.array = array as usize);
        rules.limits.at_once = self.count(limits, "limits.", "at_once", 1).map(|count| count as usize);
        self.time(limits, "limits.", "poll").into_iter().for_each(|time| rules.limits.poll = time);
        self.time(limits, "limits.", "submit_every").into_iter().for_each(|time| rules.limits.submit_every = time);
        self.time(limits, "limits.", "settle").into_iter().for_each(|time| rules.limits.settle = time);
        let requeue = self.table(root, "requeue").unwrap_or(&none);
        self.only(requeue, "`requeue`", &["times", "signal", "lead", "without_progress"]);
        self.count(requeue, "requeue.", "times", 0).into_iter().for_each(|times| rules.requeue.times = times);
        let signal = |item: &Item| item.text().filter(|text| SIGNALS.contains(text)).map(str::to_owned);
        self.get(requeue, "requeue.", "signal", &one_of(&SIGNALS), signal)
            .into_iter()
            .for_each(|signal| rules.requeue.signal = signal);
        self.time(requeue, "requeue.", "lead").into_iter().for_each(|lead| rules.requeue.lead = lead);
        self.count(requeue, "requeue.", "without_progress", 1)
            .into_iter()
            .for_each(|times| rules.requeue.without_progress = times);
        if let Some(table) = self.table(root, "cache") {
            self.only(table, "`cache`", &["url", "mode", "timeout"]);
            rules.cache = CacheRules {
                url: self.line(table, "cache.", "url"),
                mode: self.get(table, "cache.", "mode", CACHE_MODES, |item| item.text()?.parse().ok()),
                timeout: self.time(table, "cache.", "timeout"),
            };
        }
        if let Some(table) = self.table(root, "kubernetes") {
            rules.pods = self.pods(table);
        }
        if let Some(table) = self.table(root, "default") {
            self.only(table, "`default`", &NEEDS);
            rules.default = self.needs(table, "default.", &rules.requeue);
        }
        for table in self.tables(root, "rule") {
            let known: Vec<&str> = ["kind", "stage"].into_iter().chain(NEEDS).collect();
            self.only(table, "`rule`", &known);
            let kinds = self.names(table, "kind");
            let strangers = kinds.iter().flatten().filter(|(_, kind)| catalog.stage(kind).is_none());
            for (item, kind) in strangers {
                let known = catalog.kinds().into_iter().map(str::to_owned).collect();
                let fault = SpecFault::UnknownName { what: "kind of stage", written: kind.clone(), known };
                self.findings.push(Finding::at(item.place, fault));
            }
            let words =
                |names: Option<Vec<(&Item, String)>>| names.map(|names| names.into_iter().map(|(_, name)| name).collect());
            let (kinds, stages) = (words(kinds), words(self.names(table, "stage")));
            rules.rules.push(Rule { kinds, stages, needs: self.needs(table, "rule.", &rules.requeue) });
        }
        rules
    }

    fn pods(&mut self, table: &Table) -> Pods {
        const OF: &str = "kubernetes.";
        self.only(table, "`kubernetes`", &PODS);
        let name = |item: &Item| item.text().filter(|text| is_name(text)).map(str::to_owned);
        let claims = |item: &Item| match &item.value {
            Value::List(items) => items.iter().map(|item| claim(item.text()?)).collect(),
            _ => None,
        };
        let secrets = |item: &Item| match &item.value {
            Value::List(items) => items.iter().map(name).collect(),
            _ => None,
        };
        Pods {
            image: self.line(table, OF, "image"),
            namespace: self.get(table, OF, "namespace", NAME, name),
            claims: self.get(table, OF, "claims", "a list of texts such as `team:/shared`", claims).unwrap_or_default(),
            secrets: self.get(table, OF, "secrets", "a list of names of secrets", secrets).unwrap_or_default(),
            service_account: self.get(table, OF, "service_account", NAME, name),
            user: self.count(table, OF, "user", 0),
            group: self.count(table, OF, "group", 0),
        }
    }

    fn needs(&mut self, table: &Table, of: &str, requeue: &Requeue) -> Needs {
        let place = |item: &Item| match item.text()? {
            "here" => Some(true),
            "job" => Some(false),
            _ => None,
        };
        let device = |item: &Item| {
            let device = item.text()?;
            ["cpu", "cuda", "metal"].contains(&device.split(':').next()?).then(|| device.to_owned())
        };
        let flag = |item: &Item| if let Value::Flag(flag) = item.value { Some(flag) } else { None };
        let needs = Needs {
            cpus: self.count(table, of, "cpus", 1),
            memory: self.get(table, of, "memory", "bytes or a text such as `16 GiB`", |item| match &item.value {
                Value::Whole(bytes) => u64::try_from(*bytes).ok().filter(|bytes| *bytes > 0),
                Value::Text(text) => spec::size(text),
                _ => None,
            }),
            time: self.time(table, of, "time"),
            partition: self.line(table, of, "partition"),
            account: self.line(table, of, "account"),
            qos: self.line(table, of, "qos"),
            gpus: self.count(table, of, "gpus", 0),
            gpu_type: self.line(table, of, "gpu_type"),
            gres: self.line(table, of, "gres"),
            device: self.get(table, of, "device", "`cpu`, `cuda` or `metal`", device),
            here: self.get(table, of, "where", &one_of(&["here", "job"]), place),
            fuse: self.get(table, of, "fuse", "true or false", flag),
            split: self.get(table, of, "split", &format!("a number of jobs, 1 to {MOST_SHARES}"), |item| match item.value {
                Value::Whole(count) => u32::try_from(count).ok().filter(|count| (1..=MOST_SHARES).contains(count)),
                _ => None,
            }),
            extra: self.lines(table, of, "extra"),
            without: self.lines(table, of, "without"),
        };
        let mut refuse = |key: &str, message: &str, hint: &str| {
            if let Some(entry) = table.get(key) {
                let fault = SpecFault::Setting {
                    owner: quote(&format!("{of}{key}")),
                    message: message.into(),
                    hint: Some(hint.into()),
                };
                self.findings.push(Finding::at(entry.item.place, fault));
            }
        };
        if needs.time.is_some_and(|time| time < SHORTEST.max(requeue.lead * 2)) && requeue.times > 0 {
            refuse(
                "time",
                "a job so short is warned almost as soon as it begins, and makes no progress",
                "allow 5 minutes and twice `requeue.lead` or more, or set `requeue.times = 0`",
            );
        }
        if needs.gres.is_some() && needs.gpus.is_some() {
            refuse("gres", "it says the same as `gpus`", "leave one of them out");
        }
        if let Some(line) = needs.without.iter().flatten().find(|line| !LINES.contains(&line.as_str())) {
            refuse("without", &format!("no job has a line {}", quote(line)), &format!("lines: {}", LINES.join(", ")));
        }
        if let Some(line) = needs.extra.iter().flatten().find(|line| !line.starts_with('-')) {
            refuse("extra", &format!("{} is no option of the scheduler", quote(line)), "write it as `--constraint=a100`");
        }
        needs
    }

    /// Reports all keys but these.
    fn only(&mut self, table: &Table, owner: &str, known: &[&str]) {
        for entry in table.entries.iter().filter(|entry| !known.contains(&entry.name.as_str())) {
            let known = known.iter().map(|key| (*key).to_owned()).collect();
            let fault = SpecFault::UnknownKey { owner: owner.to_owned(), key: entry.name.clone(), known };
            self.findings.push(Finding::at(entry.key, fault));
        }
    }

    fn wrong(&mut self, item: &Item, what: &str, want: &str) {
        if !matches!(item.value, Value::Unfit) {
            let fault = SpecFault::Value { what: quote(what), want: want.into(), found: item.describe(), hint: None };
            self.findings.push(Finding::at(item.place, fault));
        }
    }

    fn get<T>(&mut self, table: &Table, of: &str, key: &str, want: &str, read: impl Fn(&Item) -> Option<T>) -> Option<T> {
        let Entry { item, .. } = table.get(key)?;
        let found = read(item);
        if found.is_none() {
            self.wrong(item, &format!("{of}{key}"), want);
        }
        found
    }

    fn count(&mut self, table: &Table, of: &str, key: &str, least: i128) -> Option<u32> {
        self.get(table, of, key, &format!("an integer, {least} or more"), |item| match item.value {
            Value::Whole(count) if count >= least => u32::try_from(count).ok(),
            _ => None,
        })
    }

    fn time(&mut self, table: &Table, of: &str, key: &str) -> Option<Duration> {
        self.get(table, of, key, "a time such as `90min`, `1h30m` or `2d`", |item| duration(item.text()?))
    }

    /// A text that becomes part of a line of a script.
    fn line(&mut self, table: &Table, of: &str, key: &str) -> Option<String> {
        self.get(table, of, key, "a text of one line in quotes", |item| item.text().and_then(one_line))
    }

    fn lines(&mut self, table: &Table, of: &str, key: &str) -> Option<Vec<String>> {
        self.get(table, of, key, "a list of texts of one line each", |item| match &item.value {
            Value::List(items) => items.iter().map(|item| item.text().and_then(one_line)).collect(),
            _ => None,
        })
    }

    /// One name, or several.
    fn names<'t>(&mut self, table: &'t Table, key: &str) -> Option<Vec<(&'t Item, String)>> {
        let Entry { item, .. } = table.get(key)?;
        let items = match &item.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(item),
        };
        let names: Option<Vec<_>> = items.iter().map(|item| Some((item, item.text()?.to_owned()))).collect();
        if names.is_none() {
            self.wrong(item, &format!("rule.{key}"), "a name, or a list of names");
        }
        names
    }

    fn table<'t>(&mut self, root: &'t Table, key: &str) -> Option<&'t Table> {
        let Entry { item, .. } = root.get(key)?;
        if let Value::Table(table) = &item.value {
            return Some(table);
        }
        self.wrong(item, key, "a table");
        None
    }

    fn tables<'t>(&mut self, root: &'t Table, key: &str) -> Vec<&'t Table> {
        let Some(Entry { item, .. }) = root.get(key) else { return Vec::new() };
        let tables: Option<Vec<_>> = match &item.value {
            Value::List(items) => {
                items.iter().map(|item| if let Value::Table(table) = &item.value { Some(table) } else { None }).collect()
            }
            _ => None,
        };
        if tables.is_none() {
            self.wrong(item, key, "tables, each as `[[rule]]`");
        }
        tables.unwrap_or_default()
    }
}

/// What an object of Kubernetes may be called.
const NAME: &str = "a name of small letters, digits, `-` and `.`";

fn is_name(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inner = |c: char| ends(c) || "-.".contains(c);
    text.len() <= 253 && text.chars().all(inner) && text.starts_with(ends) && text.ends_with(ends)
}

/// `team:/shared`: a claim, and where pods have its volume.
fn claim(text: &str) -> Option<(String, PathBuf)> {
    let (claim, at) = text.split_once(':')?;
    (is_name(claim) && at.starts_with('/') && one_line(at).is_some()).then(|| (claim.to_owned(), at.into()))
}

fn one_line(text: &str) -> Option<String> {
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// `90min`, `1h30m`, `2d`, `500ms`.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut whole) = (text.trim(), Duration::ZERO);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let millis: u64 = match unit.trim() {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        whole = whole.checked_add(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?))?;
        rest = behind;
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Request;
    use crate::testing::{SAMPLE, catalog};

    fn rules(text: &str) -> Result<Rules, Vec<String>> {
        Rules::check(Path::new("shared/cluster.toml"), text, &catalog()).map_err(|faults| {
            let at = |finding: &Finding| finding.place.and_then(|place| faults.position(place));
            let line = |finding: &Finding| {
                at(finding).map(|at| format!("{}:{} {}", at.line, at.column, finding.fault)).unwrap_or_default()
            };
            faults.findings().iter().map(line).collect()
        })
    }

    const WHOLE: &str = r#"
executor = "slurm"
data = "data"
setup = ["module load cuda/12.4"]

[default]
cpus = 4
memory = "16GiB"
time = "1h"

[[rule]]
kind = ["simclr"]
gpus = 1
time = "1d"
extra = ["--constraint=a100"]

[[rule]]
stage = ["scores", "cluster@2"]
where = "here"

[limits]
at_once = 8
poll = "1h30m"

[requeue]
times = 3

[cache]
url = "s3://bucket/team"
mode = "read-write"
timeout = "5s"

[kubernetes]
image = "registry/kinset:1"
claims = ["team:/shared", "scratch.fast:/fast disk"]
user = 1000
"#;

    #[test]
    fn rules_that_fit_are_laid_over_the_default_in_order() {
        let rules = rules(WHOLE).unwrap();
        let spec = spec::check(Path::new("p.toml"), SAMPLE, &Request::default(), &catalog()).unwrap();
        let needs = |name: &str| rules.needs(spec.node(name).unwrap());
        let pretext = needs("pretext");
        assert_eq!((pretext.cpus, pretext.gpus, pretext.time), (Some(4), Some(1), Some(Duration::from_hours(24))));
        assert_eq!(needs("features").time, Some(Duration::from_hours(1)));
        assert_eq!(["cluster@1", "cluster@2", "scores@1"].map(|name| needs(name).here), [None, Some(true), Some(true)]);
        assert_eq!(rules.data, Some(PathBuf::from("shared/data")), "relative to the file");
        assert_eq!((rules.limits.poll, rules.limits.at_once), (Duration::from_mins(90), Some(8)));
        let CacheRules { url, mode, timeout } = &rules.cache;
        assert_eq!(
            (url.as_deref(), *mode, *timeout),
            (Some("s3://bucket/team"), Some(CacheMode::ReadWrite), Some(Duration::from_secs(5)))
        );
        let claims = [("team", "/shared"), ("scratch.fast", "/fast disk")].map(|(claim, at)| (claim.to_owned(), at.into()));
        assert_eq!((&rules.pods.claims[..], rules.pods.user, rules.pods.group), (&claims[..], Some(1000), None));
        let devices = rules.devices(&spec, "cpu");
        assert_eq!(["pretext", "features", "scores@1"].map(|name| devices.class(name)), ["cuda", "cpu", "cpu"]);
    }

    #[test]
    fn a_device_that_the_pipeline_names_is_meant_everywhere() {
        let rules = rules(WHOLE).unwrap();
        let request = Request { device: Some("cpu".into()), ..Request::default() };
        let spec = spec::check(Path::new("p.toml"), SAMPLE, &request, &catalog()).unwrap();
        assert_eq!(rules.devices(&spec, "cpu").class("pretext"), "cpu");
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let wrong = "executor = \"pbs\"\nsetup = [\"a\\nb\"]\nstore = 1\n[default]\ntime = \"1min\"\nmemory = \"much\"\n[[rule]]\nkind = \
                     \"simclrr\"\nwhere = \"there\"\nextra = [\"rm\"]\n[limits]\njobs = 0\n\
                     [cache]\nmode = \"write\"\n[kubernetes]\nclaims = [\"Team:/x\"]\nsecrets = [\"a b\"]\nuser = -1\n";
        let found = rules(wrong).unwrap_err();
        assert_eq!(
            found,
            [
                "1:12 `executor` expects `here`, `local:N`, `slurm` or `kubernetes`, found the text `pbs`",
                "2:9 `setup` expects a list of texts of one line each, found a list of 1",
                "3:1 unknown key `store` in the cluster file",
                "5:8 `default.time`: a job so short is warned almost as soon as it begins, and makes no progress",
                "6:10 `default.memory` expects bytes or a text such as `16 GiB`, found the text `much`",
                "8:8 there is no kind of stage `simclrr`",
                "9:9 `rule.where` expects `here` or `job`, found the text `there`",
                "10:9 `rule.extra`: `rm` is no option of the scheduler",
                "12:8 `limits.jobs` expects an integer, 1 or more, found `0`",
                "14:8 `cache.mode` expects `read`, `read-write` or `off`, found the text `write`",
                "16:10 `kubernetes.claims` expects a list of texts such as `team:/shared`, found a list of 1",
                "17:11 `kubernetes.secrets` expects a list of names of secrets, found a list of 1",
                "18:8 `kubernetes.user` expects an integer, 0 or more, found `-1`",
            ]
        );
        assert!(rules("[requeue]\ntimes = 0\n[default]\ntime = \"1min\"\n").is_ok(), "what is not warned may be short");
    }

    #[test]
    fn times_have_units() {
        let seconds = |text: &str| duration(text).map(|time| time.as_secs_f64());
        assert_eq!(["90min", "1h30m", "2d", "500ms", "1h 5s"].map(seconds), [5400.0, 5400.0, 172_800.0, 0.5, 3605.0].map(Some));
        assert_eq!(["", "1", "h", "1 week", "-1h"].map(seconds), [None; 5]);
    }

    #[test]
    fn executors_are_read() {
        let executors = [Executor::Here, Executor::Local(3), Executor::Slurm, Executor::Kubernetes];
        assert_eq!(["here", "local:3", "slurm", "kubernetes"].map(str::parse), executors.map(Ok));
        assert!(["", "local", "local:0", "local:x", "Slurm"].iter().all(|text| text.parse::<Executor>().is_err()));
    }
}
