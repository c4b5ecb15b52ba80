//! Sources that are read in parts: the same bytes as read as a whole or by hand, a further file, kills, jobs of a cluster.

use std::fs;
use std::io::Cursor;

use super::harness::{Bench, Said};

/// Pictures in a shard.
const PICTURES: usize = 40;

/// A tar shard of small pictures; every eighth is the same in all shards.
fn shard(number: usize) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for place in 0..PICTURES {
        let shade = |x: u32, y: u32| {
            let seed = if place % 8 == 0 { place } else { 1 + number * PICTURES + place };
            ((seed as u32 * 37 + x * 11 + y * y * (seed as u32 % 5)) % 251) as u8
        };
        let picture = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([shade(x, y)]));
        let mut png = Vec::new();
        picture.write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(png.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("{place:03}.png"), &png[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// A folder with so many shards and a pipeline.
fn bench(shards: usize, pipeline: &str) -> Bench {
    let bench = Bench::with(pipeline);
    (0..shards).for_each(|number| drop(bench.write(format!("raw/{number:03}.tar"), shard(number))));
    bench
}

/// Features of a source of shards by an encoder that does not learn from it, and what is made of them.
fn plain(features: &str) -> String {
    format!(
        "name = 'pool'\ndevice = 'cpu'\n\
         [data.pool]\ndataset = 'tar'\nroot = 'raw'\nlabels = false\n\
         [data.other]\ndataset = 'synthetic'\nimages = 12\nclasses = 3\nsize = 8\nchannels = 1\n\
         [stage.pixels]\nkind = 'pixels'\nimages = 'data.other'\n\
         [stage.features]\nkind = 'embed'\nimages = 'data.pool'\nencoder = 'pixels'\n\
         [stage.kmeans]\nkind = 'kmeans'\nfeatures = '{features}'\nencoder = 'pixels'\nclusters = 3\n"
    )
}

const CONCAT: &str = "[stage.all]\nkind = 'concat'\nfeatures = 'features'\n";

fn cut(parts: usize) -> String {
    format!("{}{CONCAT}[shard]\nfrom = 'data.pool'\nparts = {parts}\n", plain("all"))
}

fn of<'s>(said: &'s Said, family: &str) -> Vec<&'s str> {
    said.ran().into_iter().filter(|name| name.split('#').next() == Some(family)).collect()
}

#[test]
fn parts_are_what_was_written_by_hand_and_together_the_whole() {
    let whole = bench(3, &plain("features")).run(&["--no-report"]).done().digests();
    let cut = bench(3, &cut(3));
    let said = cut.run(&[]).done();
    let digests = said.digests();
    assert_eq!(of(&said, "data.pool"), ["data.pool#00", "data.pool#01", "data.pool#02"]);
    assert_eq!(digests["all.features"], whole["features.features"], "equal images of several parts are named as in one");
    assert_eq!(digests["kmeans.classifier"], whole["kmeans.classifier"]);
    let mut hand = plain("all").replace("[data.pool]\ndataset = 'tar'\nroot = 'raw'\nlabels = false\n", "");
    hand = hand.replace("[stage.features]\nkind = 'embed'\nimages = 'data.pool'\nencoder = 'pixels'\n", "");
    for part in 0..3 {
        hand += &format!("[data.p{part}]\ndataset = 'tar'\nroot = 'raw/00{part}.tar'\nlabels = false\n");
        hand += &format!("[stage.f{part}]\nkind = 'embed'\nimages = 'data.p{part}'\nencoder = 'pixels'\n");
    }
    let hand = bench(3, &(hand + "[stage.all]\nkind = 'concat'\nfeatures = ['f0', 'f1', 'f2']\n")).run(&["--no-report"]).done();
    for part in 0..3 {
        assert_eq!(digests[&format!("data.pool#0{part}.images")], hand.digests()[&format!("data.p{part}.images")]);
        assert_eq!(digests[&format!("features#0{part}.features")], hand.digests()[&format!("f{part}.features")]);
    }
    assert_eq!(digests["all.features"], hand.digests()["all.features"]);
    cut.assert_sound("after parts");
    let html = fs::read_to_string(cut.path("artifacts/pool/report.html")).unwrap();
    assert!(html.contains("features#02"));
    assert_eq!(cut.run(&[]).done().ran().len(), 0);
}

#[test]
fn a_further_file_costs_what_it_costs_alone() {
    let bench = bench(3, &cut(3));
    bench.run(&["--no-report"]).done();
    // Not the last by name: the parts after it get other numbers, and are the same.
    bench.write("raw/000b.tar", shard(7));
    bench.write("p.toml", cut(4));
    let plan = bench.kinset(&["plan", "p.toml", "--json"]);
    assert_eq!((plan.exit, plan.those("runs")), (10, vec!["data.pool#01"]), "{}", plan.out);
    let said = bench.run(&["--no-report"]).done();
    assert_eq!(said.ran(), ["data.pool#01", "features#01", "kmeans", "all"], "{}", said.err);
    let whole = self::bench(3, &plain("features"));
    whole.write("raw/000b.tar", shard(7));
    assert_eq!(said.digests()["all.features"], whole.run(&["--no-report"]).done().digests()["features.features"]);
    // Files of a part, too: what is added to the last part leaves the others.
    let few = self::bench(5, &(cut(3) + "files = 2\n"));
    few.run(&["--no-report"]).done();
    few.write("raw/005.tar", shard(5));
    assert_eq!(few.run(&["--no-report"]).done().ran(), ["data.pool#02", "features#02", "kmeans", "all"]);
    few.write("raw/006.tar", shard(6));
    let said = few.run(&["--no-report"]);
    assert!(said.exit == 3 && said.err.contains("set `parts` of `[shard]` to 4"), "{} {}", said.exit, said.err);
}

#[test]
fn a_killed_run_goes_on_and_every_command_knows_the_parts() {
    let expected = bench(6, &cut(6)).run(&["--no-report"]).done().digests();
    let bench = bench(6, &cut(6));
    let mut running = bench.start("first", &["run", "p.toml", "--json", "--no-report", "--threads", "1"]);
    assert!(running.wait_for("done  data.pool#02"), "{}", running.said());
    assert!(running.kill());
    let said = bench.run(&["--no-report", "--until", "features#01"]).done();
    assert!(of(&said, "data.pool").is_empty() && of(&said, "features").len() <= 1, "{:?}", said.ran());
    let said = bench.run(&["--no-report", "--until", "features"]).done();
    assert!((1..=3).contains(&of(&said, "data.pool").len()), "{:?}", said.ran());
    let said = bench.run(&["--no-report"]).done();
    assert_eq!(said.digests(), expected);
    bench.assert_sound("after a kill");
    let why = bench.kinset(&["explain", "p.toml", "features#04"]).done().out;
    assert!(why.contains("features#04"), "{why}");
    let status = bench.kinset(&["status", "p.toml", "--json"]).done();
    assert_eq!(status.those("fresh").len(), 6 + 6 + 4);
    let inspect = bench.kinset(&["inspect", "p.toml", "data.pool#05", "--json"]).done();
    assert!(inspect.out.contains("40"), "{}", inspect.out);
}

#[test]
fn a_pool_in_parts_is_searched_part_by_part() {
    let rest = "[stage.target]\nkind = 'embed'\nimages = 'data.other'\nencoder = 'pixels'\n\
                [stage.matches]\nkind = 'retrieve'\ntarget = 'target'\npool = 'features'\nk = 3\n\
                [stage.selection]\nkind = 'similar'\ntarget = 'target'\npool = 'features'\nmatches = 'matches'\nk = 3\nbudget = 9\n\
                [stage.chosen]\nkind = 'subset'\nimages = 'data.pool'\nselection = 'selection'\n";
    let bench = bench(3, &(cut(3) + rest));
    let said = bench.run(&["--no-report"]).done();
    assert_eq!(of(&said, "matches").len(), 3);
    assert_eq!([of(&said, "selection").len(), of(&said, "chosen").len()], [1, 1]);
    bench.assert_sound("after a selection");
}

#[test]
fn a_folder_is_cut_where_its_subfolders_are_no_classes() {
    let bench = Bench::new();
    for number in 0..9_u32 {
        let mut png = Vec::new();
        let picture = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(number * 20 + x * y) as u8]));
        picture.write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
        bench.write(format!("raw/{}/{number}.png", number / 4), png);
    }
    let text = cut(3).replace("'tar'", "'folder'");
    bench.write("p.toml", text.replace("labels = false\n", ""));
    let said = bench.run(&["--no-report"]);
    assert!(said.exit == 3 && said.err.contains("set `labels = false`"), "{} {}", said.exit, said.err);
    bench.write("p.toml", text);
    bench.run(&["--no-report"]).done();
    bench.write("p.toml", cut(3).replace("'tar'", "'digits'"));
    let said = bench.run(&["--no-report"]);
    assert!(said.exit == 3 && said.err.contains("applies to `folder`, `parquet`, `tar` only"), "{} {}", said.exit, said.err);
}
