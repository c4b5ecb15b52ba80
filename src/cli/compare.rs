//! `kinset compare`: every method that clusters features, on the features of one pipeline, with several seeds.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::args::{CacheArgs, ClusterArgs, MachineArgs, PipelineArgs, SelectArgs};
use super::cluster::Where;
use super::common::{Answer, Failure, pipeline, pipeline_with, selection};
use super::run::{Patience, perform, score_tables};
use super::terminal;
use crate::artifact::assignments::{AssignmentTable, Assignments};
use crate::artifact::neighbors::{NeighborTable, Neighbors};
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::unit;
use crate::math::partition::agreement;
use crate::math::stats;
use crate::pipeline::run::Summary;
use crate::pipeline::spec::{Node, OutputRef, Spec};
use crate::pipeline::state;
use crate::report::scores::{Scored, spread};
use crate::store::Store;
use crate::store::record::Record;

/// Compare clustering methods on a pipeline's features, with several seeds
#[derive(Debug, Args)]
#[command(after_help = "\
Runs what the features need, then each method on them. `information` is what an image's cluster
tells of its neighbor's cluster, in nats, and `agreement` is that of the seeds (mean adjusted Rand
index): both need no labels, and more is better. ACC, NMI and ARI are those of the pipeline's last
`evaluate` stage, if it has one.

Examples:
  kinset compare photos.toml
  kinset compare photos.toml --methods kmeans,default --seeds 10
  kinset compare pipelines/fashion-mini.toml --features backbone --clusters 12")]
pub struct CompareArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage whose features are clustered [default: those that the pipeline clusters]
    #[arg(long, value_name = "STAGE")]
    features: Option<String>,
    /// How many clusters [default: as many as the pipeline looks for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    clusters: Option<u32>,
    /// How many seeds, from the pipeline's on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    seeds: u16,
    /// Only these methods (comma-separated)
    #[arg(long, value_name = "METHODS", value_delimiter = ',', value_parser = METHODS.map(|method| method.name))]
    methods: Vec<String>,
    #[command(flatten)]
    pub(super) machine: MachineArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A way to cluster features, as a stage.
struct Method {
    name: &'static str,
    kind: &'static str,
    /// Other methods that it starts from.
    needs: &'static [&'static str],
    /// Whether it reads neighbors.
    neighbors: bool,
    settings: &'static str,
}

/// In the order of the table. `default` is what `init` writes and what the shipped pipelines use.
const METHODS: [Method; 6] = [
    Method { name: "kmeans", kind: "kmeans", needs: &[], neighbors: false, settings: "" },
    Method { name: "spectral", kind: "spectral", needs: &[], neighbors: true, settings: "" },
    Method { name: "scan", kind: "scan_heads", needs: &[], neighbors: true, settings: "" },
    Method { name: "default", kind: "consensus", needs: &["kmeans", "spectral", HEADS.name], neighbors: true, settings: "" },
    Method { name: "turtle", kind: "turtle", needs: &[], neighbors: false, settings: "" },
    // The paper's 50 heads are for a GPU.
    Method { name: "temi", kind: "temi", needs: &[], neighbors: true, settings: "heads = 8\n" },
];

/// What the consensus reads.
const HEADS: Method = Method {
    name: "heads",
    kind: "scan_heads",
    needs: &["kmeans", "spectral"],
    neighbors: true,
    settings: "start = [\"compare-spectral\", \"compare-kmeans\"]\nheads = 12\nentropy_weight = 2.0\n",
};

/// What the names of all added stages begin with.
const PREFIX: &str = "compare-";

/// What a pipeline lacks for a comparison.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("no stage of `{pipeline}` writes features that could be clustered")]
    NoFeatures { pipeline: String },
    #[error("`{stage}` writes no features")]
    Other { stage: String, known: Vec<String> },
    #[error("`[vary]` makes several features of `{stage}`")]
    Several { stage: String, varied: String },
    #[error("no stage of `{pipeline}` says how many clusters there are")]
    NoClusters { pipeline: String },
}

impl Fault for Unfit {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NoFeatures { .. } => {
                Exit::Usage.code("compare::no-features").hint("add a stage of the kind `embed` or `import_features`")
            }
            Self::Other { known, .. } => {
                Exit::Usage.code("compare::features").hint(format!("stages with features: {}", known.join(", ")))
            }
            Self::Several { varied, .. } => {
                Exit::Usage.code("compare::several").hint(format!("choose one value: `--set vary.{varied}=[…]`"))
            }
            Self::NoClusters { .. } => Exit::Usage.code("compare::no-clusters").hint("name a number: `--clusters 10`"),
        }
    }
}

pub(super) fn run(args: &CompareArgs) -> Answer {
    let given = pipeline(&args.pipeline)?;
    let chosen: Vec<&Method> = METHODS
        .iter()
        .filter(|method| args.methods.is_empty() || args.methods.iter().any(|name| name == method.name))
        .collect();
    let plan = Plan::of(&given, args).map_err(Failure::own)?;
    let spec = pipeline_with(&args.pipeline, Some(plan.stages(&chosen, args.seeds)))?;
    let select = SelectArgs { until: plan.ends(&chosen), ..Default::default() };
    let selected = selection(&spec, &select)?;
    let rules = Where::of(&ClusterArgs::default(), &args.pipeline.pipeline)?.rules;
    let done = perform(&spec, selected, &args.pipeline, Patience::default(), (&CacheArgs::default(), &rules.cache))?;
    let exit = done.summary.exit();
    let scored = score_tables(&spec, &done.store, &done.summary.records)?;
    let rows =
        Results { spec: &spec, store: &done.store, summary: &done.summary, plan: &plan, scored: &scored }.rows(&chosen)?;
    // Rows are of equal numbers: of the one that was named, or the one that was found.
    let clusters = rows.first().map(|row| row.clusters);
    let about = format!(
        "features of `{}`, {} clusters, {}",
        plan.features,
        unit::count(clusters.unwrap_or_default() as u64),
        unit::counted(u64::from(args.seeds), "seed")
    );
    if args.json {
        terminal::print_json(&json!({
            "features": plan.features, "clusters": clusters, "seeds": args.seeds, "exit": exit as u8, "methods": rows,
        }))?;
    } else if !rows.is_empty() {
        terminal::print(&format!("\n{about}\n{}\n", render(&rows)))?;
    }
    if exit == Exit::Done {
        terminal::say(&format!(
            "the same command with more seeds keeps these: kinset compare {} --seeds {}",
            args.pipeline.pipeline.display(),
            args.seeds + 2
        ));
    }
    Ok(exit)
}

/// How many clusters the methods look for.
enum Clusters {
    Number(u32),
    /// As many as this stage of the pipeline finds.
    Found(String),
}

impl Clusters {
    /// Those that a stage looks for.
    fn of(spec: &Spec, node: &Node) -> Option<Self> {
        if let Some(found) = node.ports.get("clusters_from") {
            return Some(Self::Found(family(spec, &found[0])));
        }
        Some(Self::Number(u32::try_from(node.settings.get("clusters")?.as_u64()?).ok()?))
    }

    /// As a setting of a stage.
    fn setting(&self) -> String {
        match self {
            Self::Number(number) => format!("clusters = {number}"),
            Self::Found(stage) => format!("clusters_from = {}", json!(stage)),
        }
    }
}

/// What is compared on what.
struct Plan {
    /// The name of the comparison's results.
    name: String,
    features: String,
    /// The encoder of the features, if images can be sorted with it.
    encoder: Option<String>,
    /// The stage of the pipeline that mined neighbors on these features, if there is one.
    neighbors: Option<String>,
    clusters: Clusters,
    /// The stage that scores, as settings of one: what it reads.
    scores: Option<String>,
}

impl Plan {
    fn of(spec: &Spec, args: &CompareArgs) -> Result<Self, Unfit> {
        let shown = || args.pipeline.pipeline.display().to_string();
        let gives = |node: &&Node| node.gives("features");
        // Whoever reads neighbors beside features clusters what the pipeline is about.
        let read = |with: &str| {
            let reader = spec.nodes.iter().find(|node| node.ports.contains_key(with) && node.ports.contains_key("features"));
            reader.map(|node| &spec.nodes[node.ports["features"][0].node])
        };
        let features = match &args.features {
            Some(name) => spec.nodes.iter().filter(gives).find(|node| node.is_called(name)).ok_or_else(|| {
                let mut known: Vec<String> = spec.nodes.iter().filter(gives).map(|node| node.family.clone()).collect();
                known.dedup();
                if known.is_empty() {
                    Unfit::NoFeatures { pipeline: shown() }
                } else {
                    Unfit::Other { stage: name.clone(), known }
                }
            })?,
            None => read("neighbors")
                .or_else(|| read("encoder"))
                .or_else(|| spec.nodes.iter().find(gives))
                .ok_or_else(|| Unfit::NoFeatures { pipeline: shown() })?,
        };
        // Of a list with one value there is one of everything.
        if let Some(varied) = features.varied.first().filter(|_| {
            spec.nodes.iter().filter(|node| node.family == features.family).any(|node| node.varied != features.varied)
        }) {
            return Err(Unfit::Several { stage: features.family.clone(), varied: varied.path.clone() });
        }
        let reads = |node: &Node, port: &str| node.ports.get(port).map(|read| family(spec, &read[0]));
        let mut said = spec.nodes.iter().filter(|node| node.gives("classifier")).filter_map(|node| Clusters::of(spec, node));
        let clusters = args.clusters.map(Clusters::Number).or_else(|| said.next());
        let clusters = clusters.ok_or_else(|| Unfit::NoClusters { pipeline: shown() })?;
        let mined = |node: &&Node| {
            node.gives("neighbors")
                && reads(node, "features").is_some_and(|read| read == features.family)
                && !node.ports.contains_key("bank")
        };
        let judge = spec.nodes.iter().rfind(|node| node.kind == "evaluate");
        let ports = judge.map(|judge| {
            judge.ports.iter().filter(|(port, _)| *port != "classifiers").fold(String::new(), |text, (port, read)| {
                let read: Vec<String> = read.iter().map(|read| family(spec, read)).collect();
                text + &format!("{port} = {}\n", if read.len() == 1 { json!(read[0]) } else { json!(read) })
            })
        });
        Ok(Self {
            name: format!("{}-compare", spec.name),
            features: features.family.clone(),
            encoder: reads(features, "encoder"),
            neighbors: spec.nodes.iter().find(mined).map(|node| node.family.clone()),
            clusters,
            scores: ports,
        })
    }

    /// The stages that are added to the pipeline.
    fn stages(&self, methods: &[&Method], seeds: u16) -> String {
        let mut text = format!("name = {}\n", json!(self.name));
        if self.neighbors.is_none() {
            let _ =
                write!(text, "[stage.{PREFIX}neighbors]\nkind = \"neighbors\"\nfeatures = {}\nk = 20\n", json!(self.features));
        }
        let all = with_needs(methods);
        for method in &all {
            let _ = write!(
                text,
                "[stage.{}]\nkind = \"{}\"\nfeatures = {}\n{}",
                stage(method),
                method.kind,
                json!(self.features),
                method.settings
            );
            if method.neighbors {
                let _ = writeln!(text, "neighbors = {}", json!(self.neighbors()));
            }
            if method.kind == "consensus" {
                let _ = writeln!(text, "classifiers = \"{}.last\"", stage(&HEADS));
                continue;
            }
            let _ = writeln!(text, "{}", self.clusters.setting());
            if let Some(encoder) = &self.encoder {
                let _ = writeln!(text, "encoder = {}", json!(encoder));
            }
        }
        for method in methods {
            let (classifier, features) = (json!(stage(method)), json!(self.features));
            let _ = write!(
                text,
                "[stage.{}]\nkind = \"predict\"\nfeatures = {features}\nclassifier = {classifier}\n",
                assigned(method)
            );
            // One for each, so that a method that fails takes no other's scores with it.
            if let Some(ports) = &self.scores {
                let _ = write!(text, "[stage.{}]\nkind = \"evaluate\"\nclassifiers = {classifier}\n{ports}", scored(method));
            }
        }
        let from: Vec<String> = all.iter().map(|method| stage(method)).collect();
        let _ = write!(text, "[repeat]\nfrom = {}\nseeds = {seeds}\n", json!(from));
        text
    }

    fn neighbors(&self) -> String {
        self.neighbors.clone().unwrap_or_else(|| format!("{PREFIX}neighbors"))
    }

    /// The stages that nothing reads.
    fn ends(&self, methods: &[&Method]) -> Vec<String> {
        let scored = methods.iter().filter(|_| self.scores.is_some()).map(|method| scored(method));
        methods.iter().map(|method| assigned(method)).chain(scored).chain([self.neighbors()]).collect()
    }
}

/// The stage that a method is.
fn stage(method: &Method) -> String {
    format!("{PREFIX}{}", method.name)
}

/// The stage that scores it.
fn scored(method: &Method) -> String {
    format!("{}-scores", stage(method))
}

/// The stage that says which image is in which cluster.
fn assigned(method: &Method) -> String {
    format!("{}-assigned", stage(method))
}

/// The methods and what they start from, that first.
fn with_needs<'m>(methods: &[&'m Method]) -> Vec<&'m Method> {
    let needed = |name: &str| methods.iter().any(|method| method.name == name || method.needs.contains(&name));
    let mut all: Vec<&Method> = METHODS.iter().filter(|method| needed(method.name)).collect();
    let place = all.iter().position(|method| method.kind == "consensus");
    if let Some(place) = place {
        all.insert(place, &HEADS);
    }
    all
}

/// An output by the name that it has in the file.
fn family(spec: &Spec, output: &OutputRef) -> String {
    let node = &spec.nodes[output.node];
    if output.main { node.family.clone() } else { format!("{}.{}", node.family, output.output) }
}

/// A line of the table.
#[derive(Serialize)]
struct Row {
    method: &'static str,
    clusters: usize,
    /// Nats, one for each seed.
    information: Vec<f64>,
    /// Mean adjusted Rand index of all pairs of seeds.
    agreement: Option<f64>,
    /// Shares, one for each seed.
    acc: Vec<f64>,
    nmi: Vec<f64>,
    ari: Vec<f64>,
    /// Of one seed, with what it starts from.
    seconds: f64,
}

struct Results<'a> {
    spec: &'a Spec,
    store: &'a Store,
    summary: &'a Summary,
    plan: &'a Plan,
    scored: &'a [Scored],
}

impl Results<'_> {
    /// Of the methods that have a result.
    fn rows(&self, methods: &[&Method]) -> Result<Vec<Row>, Failure> {
        let Some(neighbors) = self.neighbors()? else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        for method in methods {
            let (mut labels, mut clusters): (Vec<Vec<i32>>, usize) = (Vec::new(), 0);
            for (node, record) in self.of(&assigned(method)) {
                if let Some(output) = record.outputs.get("assignments") {
                    let stored = state::stored::<Assignments>(self.store, &node.name, "assignments", output)?;
                    let table = AssignmentTable::load(&stored)?;
                    clusters = table.clusters;
                    labels.push(table.cluster);
                }
            }
            if labels.is_empty() {
                continue;
            }
            let known = |labels: &Vec<i32>| neighbors.information(labels, clusters, neighbors.k);
            let name = stage(method);
            let scores: Vec<&Scored> = self.scored.iter().filter(|scored| scored.measured == name).collect();
            rows.push(Row {
                method: method.name,
                clusters,
                information: labels.iter().map(known).collect(),
                agreement: agreement(&labels, clusters),
                acc: scores.iter().filter_map(|scored| scored.row.acc).collect(),
                nmi: scores.iter().filter_map(|scored| scored.row.nmi).collect(),
                ari: scores.iter().filter_map(|scored| scored.row.ari).collect(),
                seconds: with_needs(&[method]).iter().map(|method| self.seconds(&stage(method))).sum(),
            });
        }
        Ok(rows)
    }

    /// The repetitions of a stage that have a result.
    fn of<'s>(&'s self, family: &'s str) -> impl Iterator<Item = (&'s Node, &'s Record)> + 's {
        let nodes = self.spec.nodes.iter().enumerate().filter(move |(_, node)| node.family == family);
        nodes.filter_map(|(place, node)| Some((node, self.summary.records.get(&place)?)))
    }

    fn neighbors(&self) -> Result<Option<NeighborTable>, Failure> {
        let family = self.plan.neighbors();
        let Some((node, record)) = self.of(&family).next() else { return Ok(None) };
        let Some(output) = record.outputs.get("neighbors") else { return Ok(None) };
        Ok(Some(NeighborTable::load(&state::stored::<Neighbors>(self.store, &node.name, "neighbors", output)?)?))
    }

    /// Of one repetition, in the mean.
    fn seconds(&self, family: &str) -> f64 {
        let each: Vec<f64> = self.of(family).map(|(_, record)| record.seconds).collect();
        if each.is_empty() { 0.0 } else { stats::mean(&each) }
    }
}

fn render(rows: &[Row]) -> String {
    let percent = |shares: &Vec<f64>| spread(&shares.iter().map(|share| 100.0 * share).collect::<Vec<_>>(), 1);
    let labeled = rows.iter().any(|row| !row.acc.is_empty());
    let mut columns = vec!["  method", "information", "agreement", "time"];
    if labeled {
        columns.splice(3..3, ["ACC %", "NMI %", "ARI %"]);
    }
    let right: Vec<usize> = (1..columns.len()).collect();
    let mut table = terminal::table(&columns, &right);
    for row in rows {
        let mut cells = vec![format!("  {}", row.method), spread(&row.information, 3), spread(row.agreement.as_slice(), 2)];
        if labeled {
            cells.extend([&row.acc, &row.nmi, &row.ari].map(percent));
        }
        cells.push(unit::duration(Duration::from_secs_f64(row.seconds)));
        table.add_row(cells);
    }
    terminal::text(&table)
}
