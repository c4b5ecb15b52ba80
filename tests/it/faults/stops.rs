//! Kills and signals: when a stage begins, when it has ended, and at random.

use std::fs;
use std::time::Duration;

use kinset::base::clock::Stopwatch;
use kinset::base::seed::Seed;

use super::super::harness::{Bench, Running, Said, WHOLE, WHOLE_NODES};
use super::kit::{Digests, Series, attempt, count};
use super::store::record_of;

const RUN: [&str; 7] = ["run", "p.toml", "--no-report", "--json", "--checkpoint-every", "0", "--threads=2"];

/// How a process is asked to end, or made to.
const SIGNALS: [&str; 4] = ["KILL", "INT", "TERM", "HUP"];

/// Ends a run by a signal, which may come just before it ends by itself.
fn end(series: &mut Series, mut running: Running, signal: &str, how: &str) -> Said {
    if signal != "KILL" {
        running.wait_until_it_listens();
    }
    running.signal_while_alive(signal);
    let clock = Stopwatch::start();
    let said = running.end();
    let due: &[i32] = if signal == "KILL" { &[-1, 0] } else { &[75, 0] };
    series.ended_with(&format!("SIG{signal} {how}"), &said, due);
    // Two seconds are promised; beside other tests it may take longer.
    let most = Duration::from_secs(count(10, 2) as u64);
    series.same(&format!("SIG{signal} {how} was answered after {:.1} s", clock.seconds()), &(clock.elapsed() > most), &false);
    said
}

#[test]
fn every_stage_stopped_as_it_begins_and_as_it_ends_goes_on_to_the_same_digests() {
    let bench = Bench::with(&WHOLE);
    let wanted = bench.run(&["--no-report"]).done().digests();
    let mut series = Series::new("kill -9, INT, TERM, HUP at each stage's start and end");
    let (mut met, rounds) = (0, count(1, 2 * SIGNALS.len()));
    for round in 0..rounds {
        for (place, node) in WHOLE_NODES.iter().enumerate() {
            let moments = [format!("runs  {node} ("), format!("done  {node} in")];
            let moment = &moments[(place + round / SIGNALS.len()) % 2];
            let signal = SIGNALS[(place / 2 + round) % SIGNALS.len()];
            let only = [&RUN[..], &["--only", node]].concat();
            fs::remove_file(record_of(&bench, "whole", node)).unwrap();
            let mut running = bench.start("run", &only);
            if running.wait_for(moment) {
                met += 1;
                end(&mut series, running, signal, &format!("at `{moment}`"));
            } else {
                series.ended_with(&format!("a run without `{moment}`"), &running.end(), &[75]);
            }
            // What reads it finds it again.
            let said = attempt(&mut bench.command(&only));
            series.ended_with(&format!("after SIG{signal} at `{moment}`"), &said, &[0]);
        }
        series.recovers("after all of them", &bench, &RUN, &wanted);
    }
    assert_eq!(met, rounds * WHOLE_NODES.len(), "some stages were not met at work");
    series.finish();
}

/// Stops runs after a random while by these signals, so often, each pipeline until it gets through.
fn stopped_at_random(what: &'static str, signals: &[&str], times: usize) {
    let wanted: Digests = Bench::with(&WHOLE).run(&["--no-report"]).done().digests();
    let mut series = Series::new(what);
    let mut rng = Seed::new(21).branch(what).rng();
    let (mut stopped, mut bench) = (0, Bench::with(&WHOLE));
    let mut patience = 60.0;
    while stopped < times {
        let running = bench.start("run", &RUN);
        std::thread::sleep(Duration::from_secs_f64(rng.between(2.0, patience) / 1000.0));
        let signal = signals[rng.below(signals.len())];
        let said = end(&mut series, running, signal, &format!("as number {stopped}"));
        if said.exit == 0 {
            series.recovers(&format!("after {stopped} stops"), &bench, &RUN, &wanted);
            (bench, patience) = (Bench::with(&WHOLE), 60.0);
        } else {
            stopped += 1;
            // Grows, so that the slowest machine gets through.
            patience *= 1.06;
        }
    }
    series.recovers("after the last", &bench, &RUN, &wanted);
    series.finish();
}

#[test]
fn a_pipeline_killed_at_random_gives_the_same_digests() {
    stopped_at_random("kill -9 at random", &SIGNALS[..1], count(6, 100));
}

#[test]
fn a_pipeline_stopped_at_random_gives_the_same_digests() {
    stopped_at_random("INT, TERM, HUP at random", &SIGNALS[1..], count(6, 100));
}
