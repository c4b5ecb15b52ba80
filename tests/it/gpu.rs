//! The feature `gpu`: kinset on the test double of a card, beside the processor.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::harness::{Bench, ROOT, Said, WHOLE, WHOLE_KINDS};

#[path = "../../src/gpu/test_double.rs"]
mod test_double;

/// A bench whose folder `lib` holds what kinset takes for libcuda and cuDNN; `None` without g++.
struct Double(Bench);

impl Double {
    fn with(pipeline: &str, definitions: &[&str]) -> Option<Self> {
        let library = test_double::library(&Path::new(ROOT).join("src/gpu"), definitions)?;
        let bench = Bench::with(pipeline);
        std::fs::create_dir(bench.path("lib")).unwrap();
        for name in ["libcuda.so.1", "libcudnn.so.9"] {
            symlink(&library, bench.path("lib").join(name)).unwrap();
        }
        Some(Self(bench))
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.0.command(args);
        command.env("LD_LIBRARY_PATH", self.0.path("lib"));
        command
    }

    fn kinset(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().unwrap())
    }

    fn run(&self, more: &[&str]) -> Said {
        self.kinset(&[&["run", "p.toml", "--json"], more].concat())
    }
}

/// All curves of a pipeline.
fn curves(bench: &Bench) -> BTreeMap<&'static str, Vec<(String, f64)>> {
    WHOLE_KINDS.iter().map(|(stage, _)| (*stage, bench.metrics("whole", stage))).collect()
}

#[test]
fn every_stage_on_the_double_has_the_curves_of_the_processor() {
    let Some(double) = Double::with(&WHOLE, &[]) else { return };
    let on_card = double.run(&["--device", "cuda:0"]).done();
    assert!(!on_card.err.contains("test double of libcuda"), "the double refused something: {}", on_card.err);
    let plain = Bench::with(&WHOLE);
    plain.run(&["--device", "cpu"]).done();
    let (found, wanted) = (curves(&double.0), curves(&plain));
    let mut most = (0.0, String::new());
    for (stage, wanted) in &wanted {
        let found = &found[stage];
        let names = |curve: &[(String, f64)]| curve.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(found), names(wanted), "{stage}");
        for (at, ((name, found), (_, wanted))) in found.iter().zip(wanted).enumerate() {
            let off = (found - wanted).abs() / wanted.abs().max(1.0);
            if off > most.0 {
                most = (off, format!("{stage}: {name}[{at}]: {found} and not {wanted}"));
            }
        }
    }
    println!("largest difference: {most:?}");
    assert!(wanted.values().filter(|curve| !curve.is_empty()).count() >= 10, "these are no curves: {wanted:?}");
    assert!(most.0 <= 1e-5, "{most:?}");
    // Results of the processor keep their keys, and those of a card have others where a network computes.
    let again = double.run(&["--device", "cuda:0"]).done();
    assert_eq!(again.ran().len(), 0, "{:?}", again.ran());
    let other = double.kinset(&["plan", "p.toml", "--json", "--device", "cpu"]);
    let fresh = other.those("fresh");
    assert!(fresh.contains(&"data.train") && !fresh.contains(&"pretext"), "{fresh:?}");
}

#[test]
fn a_run_on_the_double_that_is_killed_ends_with_the_same_bytes() {
    let text = format!(
        "name = \"short\"\n[data.train]\ndataset = \"synthetic\"\nimages = 64\nclasses = 3\nsize = 12\n\n[stage.pretext]\n\
         kind = \"simclr\"\nimages = \"data.train\"\nepochs = {}\nbatch = 16\nnetwork = {{ backbone = \"resnet_tiny\", width = 8 }}\n",
        12
    );
    let Some(quiet) = Double::with(&text, &[]) else { return };
    let expected = quiet.run(&["--device", "cuda:0"]).done().digests();
    let threads = Double::with(&text, &[]).unwrap();
    let said =
        Said::of(&threads.command(&["run", "p.toml", "--json", "--device", "cuda:0", "--threads", "3"]).output().unwrap());
    assert_eq!(said.done().digests(), expected, "another number of threads");
    let killed = Double::with(&text, &[]).unwrap();
    let running = killed.0.spawn("run", &mut killed.command(&["run", "p.toml", "--json", "--device", "cuda:0"]));
    killed.0.wait_for_an_epoch("short");
    running.kill();
    assert_eq!(killed.run(&["--device", "cuda:0"]).done().digests(), expected, "after a kill");
}

#[test]
fn without_a_card_auto_says_why_in_one_line_and_a_card_by_name_is_an_error() {
    let Some(none) = Double::with(super::harness::CHEAP, &["DOUBLE_CARDS=0"]) else { return };
    let said = none.run(&["--device", "auto"]).done();
    let lines: Vec<&str> = said.err.lines().filter(|line| line.contains("not a card")).collect();
    assert_eq!(lines, ["the processor computes, not a card: the driver finds no NVIDIA card"], "{}", said.err);
    let said = none.run(&["--device", "cuda:0"]);
    assert_eq!(said.exit, 7, "{}", said.err);
    assert!(said.err.contains("gpu::no-card") && said.err.contains("the driver finds no NVIDIA card"), "{}", said.err);
    let Some(one) = Double::with(super::harness::CHEAP, &[]) else { return };
    assert!(!one.run(&["--device", "auto"]).done().err.contains("not a card"));
    let said = one.run(&["--device", "cuda:7"]);
    assert!(said.exit == 7 && said.err.contains("there is no card 7: the driver finds 1"), "{}", said.err);
}

#[test]
fn doctor_compares_each_kernel() {
    let Some(double) = Double::with(super::harness::CHEAP, &[]) else { return };
    let said = double.kinset(&["doctor", "--device", "cuda:0", "--json"]).done();
    let checks = said.json["checks"].as_array().unwrap();
    let of = |name: &str| checks.iter().filter(|check| check["check"] == name).collect::<Vec<_>>();
    assert_eq!(of("card")[0]["text"], "test double, compute capability 8.0, driver for CUDA 12.2");
    assert!(of("kernel").len() >= 15, "{}", said.out);
    // A kernel that is wrong is a fault.
    let wrong = Double::with(super::harness::CHEAP, &["DOUBLE_WRONG_MEAN=1"]).unwrap();
    let said = wrong.kinset(&["doctor", "--device", "cuda:0"]);
    assert_eq!(said.exit, 7, "{}", said.out);
    assert!(said.out.lines().any(|line| line.starts_with("fault") && line.contains("kernel     mean: error ")), "{}", said.out);
}
