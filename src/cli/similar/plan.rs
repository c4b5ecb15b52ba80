//! The pipeline behind the command: import the features of target and pool, or make them; search every shard; choose once for every
//! number of neighbors.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::args::{Dedup, LinkArg, OrderArg, PickArg, SetArgs, SimilarArgs};
use super::inputs::{Input, Inputs};
use crate::base::fs;
use crate::cli::common::Failure;
use crate::cli::init_encoder::{Encoder, quoted};

/// The command, and the name of its pipeline.
pub const COMMAND: &str = "similar";

/// The file of a command's pipeline in the folder of results.
pub(in crate::cli) fn file(command: &str) -> String {
    format!("{command}.toml")
}

/// How the file of a command begins.
pub(in crate::cli) fn mark(command: &str) -> String {
    format!("# Written by `kinset {command}`;")
}

/// The stage of the target's features.
pub const TARGET: &str = "target";

/// The stage of a shard's features, from 1.
pub fn pool(shard: usize) -> String {
    format!("pool_{shard}")
}

/// The source of images behind a stage of features.
pub fn source(features: &str) -> String {
    format!("data.{features}")
}

/// The stage of a shard's matches, from 1.
pub fn matches(shard: usize) -> String {
    format!("matches_{shard}")
}

/// The stage of the features of images that must not be selected, from 1.
pub fn held_out(number: usize) -> String {
    format!("held_out_{number}")
}

/// The stage that looks for what the pool shares with the target and with images that must not be selected.
pub const NEAR: &str = "near_copies";

/// The stage of a selection.
pub fn selection(k: usize) -> String {
    format!("nn{k}")
}

/// The numbers of neighbors that were asked for, each once, rising.
pub fn factors(args: &SimilarArgs) -> Vec<usize> {
    let mut factors = args.nn_factor.clone();
    factors.sort_unstable();
    factors.dedup();
    factors
}

/// Neighbors of each target image that are looked for at first: one more than asked for, as the fork's table of neighbors has it.
pub fn depth(args: &SimilarArgs) -> usize {
    let most = factors(args).last().map_or(1, |most| most + 1);
    if args.refill { REFILL * most } else { most }
}

/// How much farther a refill looks each time, with the budget not met.
pub const REFILL: usize = 4;

/// The stage of the encoder that makes features of images.
const ENCODER: &str = "encoder";

/// Where its settings are left out: small images and a small network, as in `pipelines/similar.toml`. Its epochs go by their number.
const LEARNED: &str =
    "kind = \"simclr\"\nsize = 32\nnetwork = { backbone = \"resnet18\", width = 16 }\noptimizer = { lr = 0.2 }\n";

/// The pipeline as TOML; `depth` neighbors of each target image are looked for. Paths are written in full, so that it may be moved.
///
/// # Errors
/// If the working directory is gone, or a path is no text.
pub(super) fn write(args: &SimilarArgs, inputs: &Inputs, depth: usize) -> Result<String, Failure> {
    let set = &args.set;
    let mut text = begin(COMMAND, set, inputs);
    if let Some(target) = &inputs.target {
        features(&mut text, set, TARGET, target)?;
    }
    let dedup = match args.dedup {
        Dedup::Greedy => "greedy",
        Dedup::Fork => "fork",
        Dedup::None => "none",
    };
    let (mut pools, mut found, mut unwanted) = (Vec::new(), Vec::new(), Vec::new());
    for (shard, path) in (1..).zip(&inputs.pool) {
        let pool = pool(shard);
        features(&mut text, set, &pool, path)?;
        let _ = write!(
            text,
            "\n[stage.{}]\nkind = \"retrieve\"\ntarget = \"{TARGET}\"\npool = \"{pool}\"\nk = {depth}\ndedup = \"{dedup}\"\ndedup_sim = {:?}\n",
            matches(shard),
            args.dist_thr
        );
        pools.push(format!("\"{pool}\""));
        found.push(format!("\"{}\"", matches(shard)));
    }
    for (number, path) in (1..).zip(&inputs.held_out) {
        let name = held_out(number);
        features(&mut text, set, &name, path)?;
        unwanted.push(format!("\"{name}\""));
    }
    let _ = write!(
        text,
        "\n[stage.{NEAR}]\nkind = \"near_duplicates\"\npool = [{}]\ntarget = \"{TARGET}\"\nsimilarity = {:?}\nwithin = {}\n",
        pools.join(", "),
        args.near_sim,
        args.duplicates
    );
    if !unwanted.is_empty() {
        let _ = writeln!(text, "held_out = [{}]", unwanted.join(", "));
    }
    for k in factors(args) {
        let _ = write!(
            text,
            "\n[stage.{}]\nkind = \"similar\"\ntarget = \"{TARGET}\"\npool = [{}]\nmatches = [{}]\n",
            selection(k),
            pools.join(", "),
            found.join(", ")
        );
        if !unwanted.is_empty() {
            let _ = writeln!(text, "held_out = [{}]", unwanted.join(", "));
        }
        choose(&mut text, args, k, depth)?;
    }
    Ok(text)
}

/// The beginning of the pipeline behind a command, as far as the encoder.
pub(in crate::cli) fn begin(command: &str, set: &SetArgs, inputs: &Inputs) -> String {
    let device = if inputs.are_images() { "auto" } else { "cpu" };
    let mut text = format!(
        "{} `kinset plan` and `kinset explain` read it too.\n\nname = \"{command}\"\nseed = {}\ndevice = \"{device}\"\n",
        mark(command),
        set.seed
    );
    match &inputs.encoder {
        None => {}
        Some(Encoder::Loaded(settings)) => {
            let _ = write!(text, "\n[stage.{ENCODER}]\n{settings}");
        }
        Some(Encoder::Learned) => {
            let _ = write!(text, "\n[stage.{ENCODER}]\nimages = \"{}\"\n{LEARNED}", source(&pool(1)));
        }
    }
    text
}

/// A stage of features: read from a file, or made of images.
///
/// # Errors
/// If the working directory is gone, or a path is no text.
pub(in crate::cli) fn features(text: &mut String, set: &SetArgs, name: &str, input: &Input) -> Result<(), Failure> {
    let Some(format) = input.images else { return import(text, set, name, &input.path) };
    let (source, root) = (source(name), quoted(&absolute(&input.root())?)?);
    let _ = write!(text, "\n[{source}]\ndataset = \"{format}\"\nroot = {root}\nlabels = false\n");
    if set.skip_broken {
        text.push_str("skip_broken = true\n");
    }
    let _ = write!(text, "\n[stage.{name}]\nkind = \"embed\"\nimages = \"{source}\"\nencoder = \"{ENCODER}\"\n");
    Ok(())
}

/// The stage that reads a file of features.
fn import(text: &mut String, set: &SetArgs, name: &str, path: &Path) -> Result<(), Failure> {
    let _ = write!(text, "\n[stage.{name}]\nkind = \"import_features\"\nfile = {}\n", quoted(&absolute(path)?)?);
    let csv = path.extension().is_some_and(|ending| ["csv", "tsv", "txt"].iter().any(|text| ending.eq_ignore_ascii_case(text)));
    for (key, value) in [("id_column", &set.id_column), ("column", &set.column)] {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} = {}", quoted(Path::new(value))?);
        }
    }
    if let Some(dim) = set.feature_dim.filter(|_| csv) {
        let _ = writeln!(text, "dim = {dim}");
    }
    if let Some(header) = set.header.filter(|_| csv) {
        let _ = writeln!(text, "header = {header}");
    }
    if let Some(separator) = set.separator.as_ref().filter(|_| csv) {
        let _ = writeln!(text, "separator = {}", quoted(Path::new(separator))?);
    }
    Ok(())
}

/// The settings of a selection.
fn choose(text: &mut String, args: &SimilarArgs, k: usize, depth: usize) -> Result<(), Failure> {
    let pick = match args.pick {
        PickArg::Nearest => "nearest",
        PickArg::Random => "random",
        PickArg::Diverse => "diverse",
        PickArg::Dissimilar => "dissimilar",
    };
    let link = match args.link {
        LinkArg::Star => "star",
        LinkArg::Chain => "chain",
    };
    let order = match args.order {
        OrderArg::Rank => "rank",
        OrderArg::Votes => "votes",
        OrderArg::Clusters => "clusters",
    };
    let _ = writeln!(text, "k = {k}\npick = \"{pick}\"\nlink = \"{link}\"\norder = \"{order}\"");
    let numbers = [
        ("max_dist", args.max_dist),
        ("min_dist", args.min_dist),
        ("target_sim", args.target_sim),
        ("pool_sim", args.pool_sim),
        ("held_out_sim", Some(args.held_out_sim)),
        ("dissimilar_below", Some(args.dissimilar_below)),
    ];
    for (key, value) in numbers {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} = {value:?}");
        }
    }
    let refill = args.refill.then_some(depth);
    for (key, value) in [
        ("budget", args.budget),
        ("refill", refill),
        ("pool_clusters", args.pool_clusters),
        ("per_image", args.per_image),
        ("per_target", args.per_target),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
    if let Some(clusters) = args.clusters {
        let _ = writeln!(text, "quotas = {{ clusters = {clusters}, power = {:?} }}", args.power);
    }
    if let Some(list) = &args.exclude {
        let _ = writeln!(text, "exclude = {}", quoted(&absolute(list)?)?);
    }
    Ok(())
}

fn absolute(path: &Path) -> fs::Result<PathBuf> {
    std::path::absolute(path).map_err(|error| fs::FileError::new("find", path, error))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::command::given;
    use super::*;
    use crate::base::search_path::DataPaths;
    use crate::cli::Command;
    use crate::cli::args::Cli;
    use crate::pipeline::spec::{self, Request};
    use crate::registry;

    fn args(words: &[&str]) -> Box<SimilarArgs> {
        match Cli::try_parse_from([&["kinset", "similar"], words].concat()).unwrap().command {
            Command::Similar(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn written(words: &[&str]) -> String {
        let args = args(words);
        let inputs = Inputs::of(&given(&args), &args.set, &DataPaths::new("", None, None))
            .unwrap_or_else(|failure| panic!("{}", failure.in_words()));
        write(&args, &inputs, depth(&args)).unwrap_or_else(|failure| panic!("{}", failure.in_words()))
    }

    #[test]
    fn every_flag_becomes_a_setting_that_the_stages_know() {
        let text = written(&[
            "--target_csv",
            "t a\"b.csv",
            "--near_csv",
            "p1.csv",
            "p2.npy",
            "--save_dir",
            "out",
            "--nn_factor",
            "20",
            "5",
            "--dist_thr",
            "0.9",
            "--dedup",
            "fork",
            "--max-dist",
            "0.5",
            "--min-dist",
            "1e-4",
            "--exclude",
            "no.txt",
            "--target-sim",
            "0.99",
            "--held-out",
            "h.parquet",
            "--pool-sim",
            "0.95",
            "--link",
            "chain",
            "--budget",
            "100",
            "--clusters",
            "4",
            "--power",
            "0.5",
            "--per-image",
            "3",
            "--per-target",
            "2",
            "--pick",
            "diverse",
            "--order",
            "votes",
            "--seed",
            "7",
            "--feature_dim",
            "64",
            "--id-column",
            "name",
            "--header",
            "true",
            "--separator",
            ";",
            "--target_db",
            "x/",
            "--near_db",
            "y/",
            "--near-sim",
            "0.97",
            "--duplicates",
        ]);
        let spec = spec::check(Path::new("similar.toml"), &text, &Request::default(), &registry::catalog());
        let spec = spec.unwrap_or_else(|faults| panic!("{}\n{text}", faults.render(false, 100)));
        let names: Vec<&str> = spec.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["target", "pool_1", "matches_1", "pool_2", "matches_2", "held_out_1", "near_copies", "nn5", "nn20"]);
        let settings = |name: &str| spec.node(name).unwrap().settings.clone();
        assert_eq!((settings("matches_2")["k"].as_u64(), settings("nn5")["k"].as_u64()), (Some(21), Some(5)));
        assert_eq!(settings("matches_1")["dedup"], "fork");
        assert_eq!((&settings("target")["header"], &settings("target")["separator"]), (&true.into(), &";".into()));
        assert_eq!((settings("target")["dim"].as_u64(), settings("pool_2")["dim"].as_u64()), (Some(64), None));
        assert_eq!((&settings("near_copies")["similarity"], &settings("near_copies")["within"]), (&0.97.into(), &true.into()));
        assert_eq!(settings("nn20")["quotas"]["clusters"].as_u64(), Some(4));
        assert_eq!(spec.seed, 7);
    }

    #[test]
    fn numbers_out_of_range_are_refused_where_they_are_typed() {
        let given = |flag: &str, value: &str| {
            let words =
                ["kinset", "similar", "--target", "t", "--pool", "p", "--save-dir", "out", "--budget", "5", flag, value];
            Cli::try_parse_from(words).map_err(|error| error.to_string())
        };
        for flag in ["--target-sim", "--held-out-sim", "--pool-sim", "--dissimilar-below"] {
            for value in ["nan", "inf", "1.01", "-2", "0,9", ""] {
                assert!(given(flag, value).unwrap_err().contains("a cosine similarity is expected, -1 to 1"), "{flag} {value}");
            }
            assert!(given(flag, "-0.5").is_ok(), "{flag}");
        }
        for flag in ["--max-dist", "--min-dist"] {
            for value in ["NaN", "-0.1", "2.2"] {
                assert!(
                    given(flag, value).unwrap_err().contains("a distance is expected: 1 - cosine, 0 to 2"),
                    "{flag} {value}"
                );
            }
        }
        assert!(given("--power", "-1").unwrap_err().contains("a number is expected, 0 to 4"));
        assert!(given("--checkpoint-every", "nan").unwrap_err().contains("a number of seconds"));
        for flag in ["--nn-factor", "--feature-dim", "--clusters", "--per-image", "--per-target"] {
            for value in ["0", "4294967296", "18446744073709551615", "1.5"] {
                assert!(
                    given(flag, value).unwrap_err().contains("a whole number is expected, 1 to 4294967295"),
                    "{flag} {value}"
                );
            }
        }
    }

    #[test]
    fn the_fork_s_own_call_is_enough() {
        let text = written(&["--target-csv", "t.csv", "--near-csv", "p.csv", "--save-dir", "out"]);
        assert!(text.contains("k = 21\ndedup = \"greedy\"\ndedup_sim = 0.98\n") && text.contains("[stage.nn20]"), "{text}");
        assert!(Cli::try_parse_from(["kinset", "similar", "--target-csv", "t.csv", "--save-dir", "out"]).is_err());
    }

    #[test]
    fn images_go_through_one_encoder_that_is_learned_from_the_pool_if_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            fs::create_folders(&dir.path().join(name)).unwrap();
            dir.path().join(name).display().to_string()
        };
        folder("voc/JPEGImages");
        let (target, a, b) = (folder("target"), folder("a"), folder("voc"));
        let text = written(&["--target", &target, "--pool", &a, &b, "--save-dir", "out", "--encoder", "none", "--skip-broken"]);
        let spec = spec::check(Path::new("similar.toml"), &text, &Request::default(), &registry::catalog());
        let spec = spec.unwrap_or_else(|faults| panic!("{}\n{text}", faults.render(false, 100)));
        let of = |name: &str| spec.node(name).unwrap();
        assert_eq!((of("encoder").kind.as_str(), of("pool_2").kind.as_str()), ("simclr", "embed"));
        assert!(of("data.pool_2").settings["root"].as_str().unwrap().ends_with("voc/JPEGImages"));
        assert_eq!(of("data.target").settings["skip_broken"], true);
        assert_eq!(spec.device, "auto");
    }
}
