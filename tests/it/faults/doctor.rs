//! `kinset doctor` on machines that are well, and on such that are not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::super::bad_input::Disk;
use super::super::harness::{Bench, CHEAP, ROOT, Said, sorted};
use super::kit::attempt;
use super::machine::limited;

const JSON: [&str; 2] = ["doctor", "--json"];

/// What it says of one thing: the level, the text, what to do.
fn of<'a>(said: &'a Said, name: &str) -> (&'a str, &'a str, &'a str) {
    let all = said.json["checks"].as_array().unwrap_or_else(|| panic!("{}\n{}", said.out, said.err));
    let check = all.iter().find(|check| check["check"] == name).unwrap();
    let text = |field: &str| check[field].as_str().unwrap_or_default();
    (text("level"), text("text"), text("hint"))
}

#[test]
fn a_machine_that_runs_pipelines_is_well_and_is_left_as_it_was() {
    let bench = Bench::new();
    let before = sorted(&bench.path(""));
    let said = bench.kinset(&JSON).done();
    assert_eq!(said.json["exit"], 0);
    assert_eq!(sorted(&bench.path("")), before);
    assert!(of(&said, "artifacts").1.contains("no store yet"), "{}", said.out);
    assert!(of(&said, "artifacts").1.contains("writes, flushes and renames"), "{}", said.out);
    let own = bench.kinset(&["doctor", "--json", "--data", &format!("{ROOT}/data")]).done();
    assert!(
        of(&own, "data sets").1.contains("fashion-mini") && !of(&said, "data sets").1.contains("fashion-mini"),
        "{}",
        own.out
    );

    bench.write("p.toml", CHEAP);
    bench.run(&["--until", "data.train"]).done();
    bench.write("data/weights/0123/net.pth", "");
    let said = bench.kinset(&JSON).done();
    assert!(of(&said, "artifacts").1.contains("holds a store"), "{}", said.out);
    assert!(of(&said, "weights").1.starts_with("1 file "), "{}", said.out);
    bench.assert_sound("after the doctor");
    // The same facts as those of the version.
    let version = bench.kinset(&["--version", "--verbose"]).done().out;
    let lines: Vec<&str> = version.lines().collect();
    assert_eq!(lines[1].strip_prefix("device: "), Some(of(&said, "device").1));
    assert!(of(&said, "processor").1.contains(&lines[2].replace("set: ", "set ")), "{}", said.out);
}

#[test]
fn what_is_pasted_elsewhere_does_not_say_who_it_was() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("ada/data")).unwrap();
    for args in [&["doctor", "--artifacts", "no-such-folder"][..], &["doctor", "--json", "--data", "ada"]] {
        let mut command = bench.command(args);
        command.env("HOME", bench.path("").canonicalize().unwrap()).env("USER", "ada");
        let said = attempt(&mut command);
        assert_eq!(said.exit, 0, "{}", said.err);
        for own in [bench.path("").canonicalize().unwrap().to_str().unwrap(), "/ada"] {
            assert!(!said.out.contains(own), "{own}: {}", said.out);
        }
        assert!(said.out.contains('~'), "{}", said.out);
    }
}

#[test]
fn a_folder_that_may_not_be_written_is_a_fault_for_results_and_none_for_data() {
    let bench = Bench::new();
    for folder in ["artifacts", "data"] {
        fs::create_dir(bench.path(folder)).unwrap();
        fs::set_permissions(bench.path(folder), fs::Permissions::from_mode(0o555)).unwrap();
    }
    let said = attempt(&mut bench.command_of_a_guest(&JSON));
    let (level, text, hint) = of(&said, "artifacts");
    assert_eq!((said.exit, level), (6, "fault"), "{}", said.out);
    assert!(text.contains("ermission denied") && hint.contains("--artifacts DIR"), "{}", said.out);
    let (level, text, _) = of(&said, "data");
    assert!(level != "fault" && text.contains("may be read but not written"), "{}", said.out);
    // In words the same.
    let said = attempt(&mut bench.command_of_a_guest(&["doctor"]));
    assert_eq!(said.exit, 6);
    assert!(said.out.contains("\nfault    artifacts ") && said.out.contains("hint: check the permissions"), "{}", said.out);
    assert!(said.out.contains("\n1 fault, "), "{}", said.out);
}

#[test]
fn a_full_disk_is_a_fault_of_the_machine() {
    let bench = Bench::new();
    let Some(_disk) = Disk::mount(bench.path("artifacts"), "16k") else { return };
    let roomy = bench.kinset(&JSON);
    assert_eq!(roomy.exit, 7, "16 KiB are less than a trial needs: {}", roomy.out);
    let (level, text, hint) = of(&roomy, "artifacts");
    assert!(level == "fault" && text.contains("No space left") && hint.contains("free some space"), "{}", roomy.out);
    assert!(text.contains("tmpfs, 16.0 KiB free"), "{text}");
    assert!(sorted(&bench.path("artifacts")).is_empty(), "the trial is removed");
}

#[test]
fn folders_that_are_missing_or_are_none_are_named() {
    let bench = Bench::new();
    let said = bench.kinset(&["doctor", "--json", "--data", "no-such-folder", "--artifacts", "a/b/c"]);
    let (level, text, hint) = of(&said, "data");
    assert_eq!((said.exit, level), (4, "fault"), "{}", said.out);
    assert!(text.contains("no-such-folder") && hint.contains("--data DIR"), "{}", said.out);
    let (level, text, _) = of(&said, "artifacts");
    assert!(level != "fault" && text.contains("a run will make `a/b/c`"), "{}", said.out);
    bench.write("file", "mine");
    for place in ["file", "file/below"] {
        let said = bench.kinset(&["doctor", "--json", "--artifacts", place]);
        let (level, text, hint) = of(&said, "artifacts");
        assert_eq!((said.exit, level), (6, "fault"), "{}", said.out);
        assert!(text.contains("`file` is no folder") && hint.contains("move the file away"), "{}", said.out);
    }
}

#[test]
fn limits_of_the_shell_are_seen_and_what_to_do_is_said() {
    let bench = Bench::new();
    let said = attempt(&mut limited(&bench, "ulimit -n 100; ulimit -f 1000", &JSON));
    let (level, text, hint) = of(&said, "limits");
    assert_eq!((said.exit, level), (0, "warning"), "{}", said.out);
    assert!(text.contains("100 open files") && text.contains("files may not grow large"), "{text}");
    assert!(hint.contains("ulimit -n"), "{hint}");
    let mut command = bench.command(&JSON);
    let said = attempt(command.env("RAYON_NUM_THREADS", "1000").env("KINSET_ISA", "portable"));
    assert_eq!((said.exit, of(&said, "threads").0), (0, "warning"), "{}", said.out);
    assert!(of(&said, "variables").1.contains("RAYON_NUM_THREADS=1000"), "{}", said.out);
}

#[test]
fn a_folder_that_two_machines_share_is_said_to_be_one() {
    let bench = Bench::new();
    fs::create_dir(bench.path("inner")).unwrap();
    fs::create_dir(bench.path("artifacts")).unwrap();
    let [inner, artifacts] = ["inner", "artifacts"].map(|name| bench.path(name));
    if !Command::new("bindfs").args([&inner, &artifacts]).status().is_ok_and(|status| status.success()) {
        println!("skipped: `bindfs` is not here, or may not mount");
        return;
    }
    let said = bench.kinset(&JSON);
    assert!(Command::new("umount").arg("-l").arg(&artifacts).status().unwrap().success());
    let (level, text, hint) = of(&said, "artifacts");
    assert_eq!(said.exit, 0, "{}", said.out);
    assert!(text.contains("fuse") && text.contains("this machine only, so leases keep runs apart"), "{text}");
    // Whether its locks keep anybody out at all depends on its version.
    assert!(level == "ok" || hint.contains("KINSET_LOCKS=none"), "{}", said.out);
    assert!(sorted(&inner).is_empty());
}

#[test]
fn slurm_is_asked_and_the_partitions_of_the_cluster_file_are_looked_for() {
    let bench = Bench::new();
    let program = |name: &str, text: &str| {
        bench.write(format!("bin/{name}"), format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(bench.path(format!("bin/{name}")), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let ask = || attempt(bench.command(&JSON).env("PATH", bench.path("bin")));
    fs::create_dir(bench.path("bin")).unwrap();
    let said = ask();
    assert_eq!((said.exit, of(&said, "slurm").0), (0, "ok"), "{}", said.out);
    assert!(of(&said, "slurm").1.starts_with("not found"), "{}", said.out);
    bench.write("cluster.toml", "executor = \"slurm\"\n[default]\npartition = \"main\"\n");
    let said = ask();
    assert_eq!((said.exit, of(&said, "slurm").0), (7, "fault"), "{}", said.out);

    program("sbatch", "[ \"$1\" = --version ] && echo slurm 24.05.1");
    program("sinfo", "echo 'main*|up|4'; echo 'gpu|down|1'");
    let said = ask();
    let wanted = ("ok", "slurm 24.05.1; partitions: main (4 nodes, the default), gpu (1 node, down)", "");
    assert_eq!((said.exit, of(&said, "slurm")), (0, wanted), "{}", said.out);
    bench.write("cluster.toml", "executor = \"slurm\"\n[default]\npartition = \"main,big\"\n");
    let said = ask();
    let (level, text, hint) = of(&said, "slurm");
    assert!(level == "warning" && text.contains("names `big`, which") && hint.contains("sinfo"), "{}", said.out);
    program("sinfo", "echo 'slurm_load_partitions: Unable to contact slurm controller' >&2; exit 1");
    let said = ask();
    let (level, text, _) = of(&said, "slurm");
    assert!(said.exit == 7 && level == "fault" && text.contains("Unable to contact"), "{}", said.out);
    bench.write("cluster.toml", "");
    assert_eq!((ask().exit, of(&ask(), "slurm").0), (0, "warning"));
}
