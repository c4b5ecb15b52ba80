//! Faults of what people hand in: raw files of every data set, features in every form, weights, pipeline files, names.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use kinset::base::seed::{Rng, Seed};
use kinset::dataset::registry::entries;

use super::super::harness::{Bench, CHEAP, ROOT, WHOLE, files_below};
use super::kit::{Damage, Series, attempt, count};
use super::samples::{data_set, features, forms_of_features, png, write_photos};

/// Damages these files, one after the other, in some of the ways; after each, `command` must end with a documented code, and with the
/// whole file back it must answer as before.
fn disturbed(
    series: &mut Series,
    bench: &Bench,
    files: &[PathBuf],
    args: &[&str],
    (ways, first): (usize, usize),
    rng: &mut Rng,
) {
    let answer = || {
        let said = attempt(&mut bench.command(args));
        (said.exit, if said.json["stages"].is_array() { said.digests() } else { [("said".to_owned(), said.out)].into() })
    };
    let wanted = answer();
    assert_eq!(wanted.0, 0, "{args:?}: the sample itself is refused: {:?}", attempt(&mut bench.command(args)));
    for (number, file) in files.iter().enumerate() {
        for way in 0..ways {
            let damage = Damage::ALL[(first + number + way * 3) % Damage::ALL.len()];
            let how = format!("{} {damage:?}: {}", file.strip_prefix(bench.path("")).unwrap_or(file).display(), args.join(" "));
            let damaged = damage.to(file, rng);
            series.ended(&how, &attempt(&mut bench.command(args)));
            damaged.undo();
            series.same(&format!("{how}, whole again"), &answer(), &wanted);
        }
    }
}

#[test]
fn damaged_raw_files_of_every_data_set_are_refused_or_read() {
    let mut series = Series::new("damaged raw files of every data set");
    let mut rng = Seed::new(31).branch("raw").rng();
    let ways = count(2, Damage::ALL.len());
    for (number, entry) in entries().enumerate() {
        let bench = Bench::new();
        let Some((root, split)) = data_set(entry.name, &bench) else { continue };
        let mut files = files_below(&root);
        files.retain(|file| file.file_name().is_some_and(|name| name != "LICENSE"));
        // Some of many.
        while files.len() > count(3, 12) {
            files.swap_remove(rng.below(files.len()));
        }
        let root = root.to_str().unwrap();
        let check = ["data", "check", entry.name, "--root", root, "--split", split, "--json"];
        disturbed(&mut series, &bench, &files, &check, (ways, number), &mut rng);
    }
    series.finish();
}

#[test]
fn damaged_raw_files_stop_a_run_and_whole_ones_give_the_same_digests() {
    let mut series = Series::new("runs over damaged raw files");
    let mut rng = Seed::new(32).branch("run").rng();
    for (number, name) in entries().filter(|entry| entry.needs_root()).map(|entry| entry.name).enumerate() {
        let drawn = "dataset = \"synthetic\"\nsplit = \"train\"\nimages = 30\nclasses = 3\nsize = 8\n";
        assert!(CHEAP.contains(drawn));
        let bench = Bench::with(&CHEAP.replace(drawn, &format!("dataset = \"{name}\"\nroot = \"data/{name}\"\n")));
        let Some((root, _)) = data_set(name, &bench) else { continue };
        let mut files = files_below(&root);
        files.truncate(count(1, 4));
        let run = ["run", "p.toml", "--json", "--no-report", "--until", "data.train"];
        disturbed(&mut series, &bench, &files, &run, (count(2, Damage::ALL.len()), number), &mut rng);
    }
    series.finish();
}

#[test]
fn damaged_features_of_every_form_are_refused_or_read() {
    let mut series = Series::new("damaged features of every form");
    let mut rng = Seed::new(33).branch("features").rng();
    for (number, form) in forms_of_features().into_iter().enumerate() {
        let bench = Bench::with(&format!(
            "name = \"f\"\n[stage.features]\nkind = \"import_features\"\nfile = \"raw.{form}\"\n\
             [stage.neighbors]\nkind = \"neighbors\"\nfeatures = \"features\"\nk = 3\n"
        ));
        let file = bench.write(format!("raw.{form}"), features(&form));
        let run = ["run", "p.toml", "--json", "--no-report"];
        for round in 0..count(1, 3) {
            disturbed(&mut series, &bench, std::slice::from_ref(&file), &run, (Damage::ALL.len(), number + round), &mut rng);
        }
    }
    series.finish();
}

#[test]
fn damaged_weights_are_refused_or_read() {
    let mut series = Series::new("damaged weights");
    let mut rng = Seed::new(34).branch("weights").rng();
    // The stages that read weights, as the whole pipeline has them, and whatever files they name.
    let golden = format!("{ROOT}/tests/golden/");
    let mut text =
        "name = \"w\"\ndevice = \"cpu\"\n[data.train]\ndataset = \"synthetic\"\nimages = 12\nclasses = 3\nsize = 12\n"
            .to_owned();
    let mut named = Vec::new();
    for table in WHOLE.split("\n[").filter(|table| table.contains(&golden)) {
        text.push_str(&format!("\n[{}\n", table.replace(&golden, "")));
        named.extend(table.split('"').filter_map(|word| word.strip_prefix(&golden)).map(str::to_owned));
    }
    assert!(named.len() >= 2, "{named:?}");
    let bench = Bench::with(&text);
    let files: Vec<PathBuf> =
        named.iter().map(|name| bench.write(name, fs::read(format!("{golden}{name}")).unwrap())).collect();
    let run = ["run", "p.toml", "--json", "--no-report"];
    for round in 0..count(1, 6) {
        disturbed(&mut series, &bench, &files, &run, (count(3, Damage::ALL.len()), round), &mut rng);
    }
    series.finish();
}

#[test]
fn a_flipped_byte_anywhere_in_a_pipeline_is_refused_or_another_pipeline() {
    let mut series = Series::new("flipped bytes in pipeline files");
    let mut rng = Seed::new(35).branch("pipeline").rng();
    let bench = Bench::new();
    for _ in 0..count(30, 300) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        let at = rng.below(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
        bench.write("p.toml", &bytes);
        series.ended(&format!("byte {at}"), &attempt(&mut bench.command(&["plan", "p.toml"])));
    }
    series.finish();
}

/// Names that no sensible person chooses, and that are on disks all the same.
fn names() -> Vec<OsString> {
    [
        &b"cl\xe9 \xff"[..],
        b"e\x1b[31mvil\x07",
        b"new\nline",
        b"tab\tquote\"comma,",
        b"-dash",
        "\u{202e}gnp\u{feff}".as_bytes(),
        &[b'x'; 120],
    ]
    .iter()
    .map(|name| OsString::from_vec(name.to_vec()))
    .collect()
}

/// Control characters reach no terminal; lines and tabs are ours.
fn plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t')
}

#[test]
fn any_name_that_a_disk_can_hold_is_read_and_shown_escaped() {
    let mut series = Series::new("names that are no UTF-8 or hold control characters");
    for name in names() {
        for entry in entries() {
            let bench = Bench::new();
            let Some((root, split)) = data_set(entry.name, &bench) else { continue };
            // Published files have their names; everything else may be called anything, and so may the folder of all.
            if entry.needs_root() && entry.name != "idx" {
                for file in files_below(&root) {
                    let ending = file.extension().map(ToOwned::to_owned).unwrap_or_default();
                    let mut other = name.clone();
                    other.push(file.file_stem().unwrap());
                    other.push(".");
                    other.push(ending);
                    fs::rename(&file, file.with_file_name(other)).unwrap();
                }
            } else if entry.splits.len() > 1 && count(0, 1) == 0 {
                continue;
            }
            let place = bench.path(&name);
            fs::rename(&root, &place).unwrap();
            let mut command = bench.command(&["data", "check", entry.name, "--split", split, "--root"]);
            command.arg(&place);
            let how = format!("{} in {name:?}", entry.name);
            let said = attempt(&mut command);
            series.ended_with(&how, &said, &[0]);
            series.same(
                &format!("{how}: control characters in {:?} {:?}", said.out, said.err),
                &(plain(&said.out) && plain(&said.err)),
                &true,
            );
        }
    }
    series.finish();
}

#[test]
fn a_whole_run_in_a_place_and_over_pictures_of_any_name_says_the_same() {
    let mut series = Series::new("runs with names of any bytes");
    let drawn = "dataset = \"synthetic\"\nsplit = \"train\"\nimages = 30\nclasses = 3\nsize = 8\n";
    let text = CHEAP.replace(drawn, "dataset = \"folder\"\nroot = \"photos\"\n");
    let quiet = Bench::with(&text);
    write_photos(&quiet, "photos");
    let wanted = quiet.run(&["--no-report", "--until", "pixels"]).done().digests();
    for name in names() {
        let bench = Bench::new();
        let place = bench.path(&name);
        fs::create_dir(&place).unwrap();
        fs::write(place.join("p.toml"), &text).unwrap();
        for number in 0..24_u8 {
            // The order of the classes stays that of the names.
            let mut class = OsString::from(["ant", "bee", "cat"][usize::from(number) % 3]);
            class.push(&name);
            let mut file = OsString::from(format!("{number}"));
            file.push(&name);
            file.push(".png");
            fs::create_dir_all(place.join("photos").join(&class)).unwrap();
            fs::write(place.join("photos").join(&class).join(file), png(number)).unwrap();
        }
        let within = |args: &[&str], more: Option<&Path>| {
            let mut command = bench.command(args);
            command.current_dir(&place).args(more);
            attempt(&mut command)
        };
        let said = within(&["run", "p.toml", "--json"], None);
        series.ended_with(&format!("{name:?}: run"), &said, &[0]);
        if said.exit == 0 {
            let images = |digests: &super::kit::Digests| digests.get("pixels.encoder").cloned();
            series.same(&format!("{name:?}: another encoder of the same pixels"), &images(&said.digests()), &images(&wanted));
        }
        for args in [
            &["predict", "p.toml", "photos", "--output"][..],
            &["init", "photos", "--output"],
            &["inspect", "p.toml", "data.train", "--html"],
        ] {
            let said = within(args, Some(Path::new(&name)));
            series.ended_with(&format!("{name:?}: {}", args.join(" ")), &said, &[0, 2, 4]);
            series.same(
                &format!("{name:?}: control characters of {}: {:?}", args.join(" "), said.err),
                &plain(&said.err),
                &true,
            );
        }
    }
    series.finish();
}
