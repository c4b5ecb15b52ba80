//! # kinset
//!
//! kinset sorts images without labels. A pipeline is a TOML file; its stages form a graph; every stage's result is an artifact
//! on disk, found by a key: the digest of its settings and inputs. Run a pipeline again and nothing happens. Change a setting and
//! exactly what depends on it runs. Kill it and it continues where it stopped, to the same bytes.
//!
//! This page is the architecture document. It is for people who change kinset; the README and the [`guide`] are for people who
//! use it. Measurements are in [`benchmarks`].
//!
//! # The crates
//!
//! Each folder under `src` but `cli` and `python` is a crate: `src/base` is `kinset-base`. This root crate re-exports them, and holds the
//! command line, the list of stages ([`registry`]) and `main`. `src/python` is the Python module, which starts the program.
//!
//! | crate | what it holds |
//! |---|---|
//! | [`base`] | Shared tools: seeds, ids, files, errors, units, the clock. |
//! | [`math`] | Formulas, without files or tensors: entropy, Hungarian matching, ACC, NMI, ARI, ECE, k-means, curation. |
//! | [`kernel`] | CPU loops: convolution, batch norm, pooling, neighbors (exact, or approximate by cells). `unsafe` is here and in `gpu`. |
//! | [`gpu`] | Residual networks on an NVIDIA card, whose libraries are opened at run time. |
//! | [`store`] | Results on disk: blobs, records, keys, locks, garbage, repair. |
//! | [`artifact`] | The files that stages exchange: images, labels, encoder, features, neighbors, duplicates, near-duplicates, outliers, matches, selection, levels, classifier, assignments, groups, probe, distribution, scores. |
//! | [`stage`] | The contract between the engine and everything it runs. |
//! | [`dataset`] | Raw files become pictures, with labels apart from them; `artifact::image_codec` decodes one. What a person calls clusters. |
//! | [`augment`] | Pixels become views. |
//! | [`model`] | Encoders, heads, and the names of their weights. |
//! | [`train`] | The training loop, optimizers, schedules, prefetching, checkpoints, devices. |
//! | [`builtin`] | Stages without a paper: ingest, published weights, frozen encoders, embed, features side by side, neighbors, duplicates and outliers, near-duplicates across sets, images like a target, a balanced part of a pool, k-means, spectral clustering, how many clusters, consensus, the better of several classifiers, a classifier taught to another encoder, predict, groups by a person's names, a probe of them, evaluate. |
//! | [`methods`] | Stages from papers: SimCLR, MoCo, BYOL, AND, SCAN, self-label, NNM, RUC, TEMI, TURTLE. |
//! | [`pipeline`] | Checks the file, compares keys, runs what is stale. |
//! | [`remote`] | A second store in object storage: pulled, pushed, checked. |
//! | [`report`] | A page with pictures, drawings, score tables. |
//! | [`cli`] | The command line: the only part that prints; a module of the root crate. |
//!
//! Each crate's own page says what is in it, what is not, and where that lives instead.
//!
//! Imports point one way, and Cargo sees to it: a crate can name only what its `Cargo.toml` lists. `a → b`
//! means that b may import a, and crates separated by a comma do not import each other. Whoever changes a method builds `methods` and
//! the root crate, nothing else:
//!
//! ```text
//! base → {math → kernel, store} → artifact → stage → {dataset, augment, model} → train → {builtin, methods} ┐
//!                                                └→ pipeline → report ─────────────────────────────────────┴→ registry, cli, main
//! kernel → gpu → {model, train}
//! ```
//!
//! `report` also imports `dataset` and `augment`. `remote` imports `base` and `store`, and `cli` alone imports it: the engine has a trait for it
//! ([`pipeline::cache`]).
//!
//! All crates carry one version and are internal to kinset: they make no promise of a stable interface. `cargo install --path .` and
//! `cargo run` build the program, `cargo test --release` at the root runs the tests of all crates.
//!
//! # How a run works
//!
//! 1. **Spec.** [`pipeline::spec`] reads the text, lays `--profile` and `--set` over it, and checks everything against the
//!    [`pipeline::catalog`] of stages: kinds, settings, ports, cycles. It reports all faults at once, each with line and caret.
//!    Nothing on disk but the file has been read. Then stages become nodes: one for each value of `[vary]`, part of `[shard]` and seed.
//! 2. **Plan.** [`pipeline::state`] goes through the nodes in order. For each it collects the settings, the digests of what
//!    its inputs *say*, and its seed into a [`store::Manifest`]; the digest of that is the [`store::Key`]. If a key has an
//!    undamaged record, the stage is *fresh*. For any other, [`store::manifest_diff`] finds the nearest earlier manifest and names
//!    the fields that differ.
//! 3. **Run.** [`pipeline::run`] takes the lock of each stale key and starts the stage. Stages that share nothing run side by
//!    side; only one at a time computes on the device. A failed stage stops what depends on it and nothing else. A training stage saves
//!    checkpoints in the work folder of its key ([`train::training`]), others their [`stage::Unfinished`] work, so a killed run finds
//!    them again. A request to stop is a flag ([`base::stop`]) that all long loops look at; whoever is too slow is not waited for.
//!    Where other processes compute the stages, [`pipeline::dispatch`] writes tickets, has a scheduler or this machine start workers on them,
//!    and watches the store; one attempt at a stage is the same code in a run and in a worker. Where
//!    several compute one together ([`stage::Stage::share`]), each leaves its pieces in the work folder of the key, and whoever runs the stage
//!    after them takes those.
//! 4. **Store.** Outputs are written to a private folder, synced, published as read-only blobs, and then named by one record.
//!    A record therefore never names what is not there. [`store::view`] shows the latest result of each stage under
//!    `artifacts/<pipeline>/<stage>/`.
//! 5. **Cache.** Where a cache is set ([`remote`]), a run asks it for what is not here before it computes, and sends what it computed
//!    beside its work. [`pipeline::cache`] is all that the engine knows of it.
//! 6. **Report.** [`report::gather`] reads what a person wants to see into plain data, and [`report::file`] writes it as one page,
//!    `artifacts/<pipeline>/report.html`, if anything is new. What cannot be read or written is said, and costs no result.
//!
//! Downstream keys hold the digest of what a result contains, not how it was made. So a stage that runs again with an equal result
//! ends the recomputation there (early cutoff).
//!
//! # What goes into a key
//!
//! | ingredient | in the key? | why |
//! |---|---|---|
//! | kind of stage, its `VERSION` | yes | another computation |
//! | settings, defaults filled in | yes | `clusters = 10` written or left to the default is the same computation; what is not set and has no default is not in the key |
//! | inputs by port: digest of their content | yes | rows and values count; encoding, compression and file names do not |
//! | raw files of a source: names inside their root, bytes | yes | the data are what they say |
//! | seed (a branch by kind), if the stage draws | yes | k-means with another seed is another result; `neighbors` has no seed |
//! | precision and class of device, if it computes there | yes | `cpu` and `cuda` round differently |
//! | form of the manifest ([`store::key::FORMAT`]) | yes | raising it computes every result anew, once |
//! | seconds, finish time, threads, host, kinset's version | only recorded | true of a run, not of a result |
//! | name of the pipeline, name of the stage | no | renaming is free; two pipelines share a result |
//! | paths, current folder, `root` of a source, user | no | a checkout may move |
//! | `--threads`, index of the device, order of keys in the file | no | results do not depend on them |
//! | times and inodes of raw files | no | they only save reading: the digest cache is keyed by them, the result is not |
//!
//! # Invariants, and what guards each
//!
//! | invariant | guard |
//! |---|---|
//! | Ground truth never reaches a method. | Types: [`stage::Method`] wants [`stage::LabelFreePorts`]; `compile_fail` tests there. |
//! | Imports point one way. | Cargo: crates know no circles. |
//! | Only `artifact` names arrow and parquet, only `pipeline` and `dataset::names` TOML, only the root crate clap and progress bars. | Each crate's `Cargo.toml`; `tests/it/tidy.rs` reads them. |
//! | `base`, `math`, `store` and `artifact` know no tensor library. | The same. |
//! | Only `base/fs.rs` and `store/` touch files. | `tests/it/tidy.rs`. |
//! | Only `remote` knows object storage and an asynchronous runtime, and only with the feature `remote`. | Its `Cargo.toml`; `tests/it/tidy.rs`. |
//! | Nothing from a cache is used unchecked. | Tests in [`remote`] change every byte of every object; `tests/remote.py`, against servers. |
//! | Only `cli` prints. | Clippy: `print_stdout`, `print_stderr`; `tests/it/tidy.rs`. |
//! | Only `base/command.rs` starts programs. | `tests/it/tidy.rs`. |
//! | One clock, one source of randomness. | Clippy: `disallowed_methods` names the others. [`base::seed`] pins its streams. |
//! | Nothing loops in hash order. | Clippy: `HashMap` and `HashSet` are disallowed types. |
//! | The same bytes for any number of threads. | Fixed chunks, fixed order of sums; tests in each crate that computes. |
//! | `unsafe` only in `kernel` and `gpu`, each block with its reason. | rustc: forbidden elsewhere. |
//! | A key holds no time, path, host or name. | [`store::Manifest`] has no place for them; tests beside it. |
//! | A published blob never changes. | Read-only files; `store/check.rs` compares what a stage reads with its digest; records carry their own; `kinset verify` re-hashes all. |
//! | Nothing in a file of weights is executed. | [`model::import`] builds tensors and plain containers only; tests with hostile files. |
//! | `kinset view` answers nobody but its own page, and writes names alone. | Tests in `cli/view/access.rs`; `tests/view.py`, in a browser. |
//! | Nothing that is fetched is trusted before its checksum, or leaves its folder. | Tests in [`dataset::fetch`], against a server that lies. |
//! | No panic on what a user gives us. | Clippy: `unwrap_used`, `expect_used`; tests with damaged files; `tests/it/fuzz.rs`; decoders run guarded. |
//! | Every error has a code, a hint and an exit code. | The trait [`base::fault::Fault`], one enum per crate. |
//! | A moved result with an unmoved `VERSION` fails. | `tests/it/version.rs`, a committed table of results on a tiny input. |
//! | A killed run ends with the same bytes; so does one after a full disk, a failed system call, a damaged file. | `tests/it/resume.rs`, `tests/it/faults`; `tests/smoke.py`. |
//! | Every stage stops when it is asked, and goes on to the same bytes. | `tests/it/conformance.rs`, over the registry. |
//! | No stage contradicts the catalog. | Tests in [`registry`] loop over all stages. |
//!
//! # Shapes
//!
//! One alphabet in all documents: B batch, N images, V views, C channels, S side in pixels, K clusters, D features,
//! M neighbors, H heads. Tables are row-major. Images are `[B, C, H, W]` in networks, where H and W are height and width.
//!
//! # Images like a target
//!
//! Curation is three stages. [`builtin::retrieve`] searches a pool, which streams by row group by row group, for the exact nearest
//! images of every target image, and keeps what it found after each; one such stage per shard, so that a new shard costs only
//! itself. [`builtin::similar`] takes the edges of all shards through filters, duplicates, caps and a budget, says of every edge why
//! it counts or not, and measures beside as many random images whether the selection looks like the target. [`builtin::subset`] takes
//! the pictures out for whoever trains on them. The rules are plain functions in [`math::curate`]; `kinset similar` is a pipeline
//! of these stages, written by [`cli::similar::plan`]. Without a target, [`builtin::curate`] clusters the pool level by level
//! ([`math::curate::hierarchy`]), takes images from the clusters in turn ([`math::curate::balanced`]), and writes the same kind of selection; [`cli::curate`] is its command.
//!
//! # A pipeline from code
//!
//! Checking needs no data and no store:
//!
//! ```
//! use std::path::Path;
//! use kinset::{pipeline::spec, registry};
//!
//! let text = r#"
//!     [data.train]
//!     dataset = "digits"
//!
//!     [stage.clusters]           # it may stand before what it reads
//!     kind = "kmeans"
//!     features = "features"
//!     encoder = "pixels"
//!     clusters = 10
//!
//!     [stage.features]
//!     kind = "embed"
//!     images = "data.train"
//!     encoder = "pixels"
//!
//!     [stage.pixels]
//!     kind = "pixels"
//!     images = "data.train"
//! "#;
//! let checked = spec::check(Path::new("digits.toml"), text, &spec::Request::default(), &registry::catalog());
//! let spec = checked.map_err(|faults| faults.render(false, 100))?;
//! let order: Vec<&str> = spec.order.iter().map(|&node| spec.nodes[node].name.as_str()).collect();
//! assert_eq!(order, ["data.train", "pixels", "features", "clusters"]);
//!
//! let wrong = text.replace("clusters = 10", "cluster = 10");
//! let faults = spec::check(Path::new("digits.toml"), &wrong, &spec::Request::default(), &registry::catalog()).unwrap_err();
//! assert!(faults.render(false, 100).contains("`clusters`"), "it says what was meant");
//! # Ok::<(), String>(())
//! ```
//!
//! # Adding a stage
//!
//! One new file, two lines. A stage without a paper goes to `builtin/`, a method, which has one, to `methods/`; the two lines are
//! `pub mod NAME;` and its entry in [`builtin::BUILTIN`] or [`methods::METHODS`]. The command line, the checks of pipeline files, `kinset methods`
//! and the tests over the registry find it there. A whole stage:
//!
//! ```
//! use kinset::artifact::features::{FeatureTable, Features};
//! use kinset::artifact::{Draft, Stored};
//! use kinset::stage::{Context, Stage, StageError};
//!
//! kinset::stage::ports! {
//!     /// What it reads.
//!     pub struct In { features: Stored<Features> }
//! }
//!
//! kinset::stage::outputs! {
//!     /// What it writes.
//!     pub struct Out { features: Draft<Features> }
//! }
//!
//! kinset::stage::settings! {
//!     /// Settings, each with default and limit; a stage without any has `stage::NoSettings`.
//!     pub struct Config {
//!         /// What smaller features become.
//!         least: f32 = 0.0, not_negative;
//!     }
//! }
//!
//! /// Makes every feature positive.
//! pub struct Absolute;
//!
//! impl Stage for Absolute {
//!     const KIND: &'static str = "absolute";
//!     const VERSION: u32 = 1; // raise it when equal inputs give another result
//!     const SUMMARY: &'static str = "make every feature positive";
//!     type Config = Config;
//!     type In = In;
//!     type Out = Out;
//!
//!     fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
//!         let mut table = FeatureTable::load(&input.features)?;
//!         table.values.iter_mut().for_each(|value| *value = value.abs().max(config.least));
//!         Ok(Out { features: table.save(&cx.out("features")?)? })
//!     }
//! }
//! ```
//!
//! A method also implements [`stage::Method`]: its ports are declared `label_free`, and it has a [`stage::contract::PaperCard`] that
//! names the paper, what is as there, and what is not. A stage that draws random numbers sets `SEEDED`, one that computes on
//! the device `ON_DEVICE`. A stage that trains states its loss as a [`train::Objective`], and [`train::Trainer`] gives it the order
//! of images, prefetching, checkpoints, resuming and stopping. The context lends everything else. The process holds one global table,
//! of the operations whose gradients the kernels compute (`kernel/autograd.rs`), one global bound, of the memory in which pictures
//! are decoded (`artifact/decode_memory.rs`), and the card that networks compute on, if any (`gpu/card.rs`).
//!
//! # Rules
//!
//! - `lib.rs` and `mod.rs` say what is here and what is not, and hold no logic; the first line of a file is a noun phrase
//!   that says what is in it.
//! - Comments say why. Words are those of the field. Messages are lower case, values stand in back-ticks, no full stop.
//! - Tests stand beside the code; their names are sentences. What needs the whole program is in `tests/it`, reference numbers
//!   and the scripts that made them in `tests/golden`.
//! - Formulas come from papers and specifications. No code is copied: the repositories of SCAN and NNM forbid commercial use.
//! - Before a commit: `just lint` and `just test`, or the commands in the `justfile`. `.ci/run` does all of it.
//!
//! # Limits
//!
//! - **No GPU was run.** The feature `gpu` ([`gpu`]) was checked on a stand-in driver, not yet on a card. The features `metal`, `mkl` and
//!   `accelerate` pass through to candle; nothing in this repository was ever built or measured with them. On Metal candle's own
//!   operations replace the kernels, and MoCo, BYOL and AND, which add in f64 on the device, cannot run there.
//! - The kernels' fast path wants AVX-512; other x86-64 and ARM machines take the portable one, which is correct and slower.
//! - Equal bytes are promised on one machine. Other processors have other vector units and may round differently.
//! - The exact search of neighbors takes time that grows with N²; the approximate one is for larger sets ([`builtin::neighbors`]). Decoded
//!   images are kept in memory up to 2 GiB (`--memory`), above that they are decoded on demand.
//! - On file systems whose locks do not reach other machines, leases keep runs apart ([`store::lease`]): one whose machine has died is
//!   waited for, ten minutes at most. Clocks of machines play no part, but the file server's has to run.
//! - Every stage computes in `f32`; the key has room for other precisions.

#![forbid(unsafe_code)]

#[doc = include_str!("guide.md")]
pub mod guide {}

#[doc = include_str!("benchmarks.md")]
pub mod benchmarks {}

#[doc(inline)]
pub use kinset_artifact as artifact;
#[doc(inline)]
pub use kinset_augment as augment;
#[doc(inline)]
pub use kinset_base as base;
#[doc(inline)]
pub use kinset_builtin as builtin;
#[doc(inline)]
pub use kinset_dataset as dataset;
#[doc(inline)]
pub use kinset_gpu as gpu;
#[doc(inline)]
pub use kinset_kernel as kernel;
#[doc(inline)]
pub use kinset_math as math;
#[doc(inline)]
pub use kinset_methods as methods;
#[doc(inline)]
pub use kinset_model as model;
#[doc(inline)]
pub use kinset_pipeline as pipeline;
#[doc(inline)]
pub use kinset_remote as remote;
#[doc(inline)]
pub use kinset_report as report;
#[doc(inline)]
pub use kinset_stage as stage;
#[doc(inline)]
pub use kinset_store as store;
#[doc(inline)]
pub use kinset_train as train;

pub mod cli;
pub mod registry;
