//! `kinset doctor --peers`: what several machines over one store see of each other.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::common::Failure;
use super::doctor::{Check, Level};
use super::run::stop_on_signals;
use super::terminal;
use super::version::Facts;
use crate::base::fault::{Exit, Fault, chain};
use crate::base::unit;
use crate::store::Store;
use crate::store::peers::{Found, Terms, Tried};
use crate::store::place::Reach;

/// Who was expected has this long to come: a person starts it by hand.
const COME: Duration = Duration::from_mins(2);
/// Longer than a file system may remember what was not there.
const STEP: Duration = Duration::from_secs(75);
/// What `settle` in `[limits]` of the cluster file is, if nobody says so.
const SETTLE: f64 = 60.0;
/// Clocks that are less apart are set by the same hand.
const APART: f64 = 2.0;

/// What this machine and others find who do this at the same time.
pub(super) fn peers(artifacts: &Path, facts: &Facts, count: usize) -> Result<Check, Failure> {
    let stop = stop_on_signals()?;
    let own = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("instruction set", facts.used.to_string())];
    let own: BTreeMap<String, String> = own.map(|(name, value)| (name.to_owned(), value)).into();
    let others = unit::counted(count as u64 - 1, "other machine");
    let check = Check::ok("peers", format!("{others} expected"));
    let store = match Store::open(artifacts) {
        Ok(store) => store,
        Err(error) => return Ok(fault_of(check, &error)),
    };
    terminal::say(&format!("waiting for {others} with the same command, two minutes at most"));
    let terms = Terms { count, come: COME, step: STEP };
    Ok(match store.meet(own.clone(), terms, || !stop.requested()) {
        Ok(found) => judged(&found, store.reach(), &own),
        Err(error) => fault_of(check, &error),
    })
}

fn fault_of(check: Check, error: &dyn Fault) -> Check {
    check.with(Level::Fault(error.exit()), &chain(error), error.hint().unwrap_or_default())
}

/// What a meeting means for a store whose locks are taken to reach so far.
fn judged(found: &Found, reach: Reach, own: &BTreeMap<String, String>) -> Check {
    let met: Vec<String> = found.others.iter().map(|card| format!("process {} on {}", card.pid(), card.host())).collect();
    let all = |tried: &[Tried], wanted: Tried| tried.iter().all(|tried| *tried == wanted);
    let (holds, says_so) = (all(&found.held, Tried::Held), matches!(reach, Reach::Machine | Reach::Cluster));
    let locks = match (holds, says_so) {
        (true, false) if !found.one_machine => "locks hold between them (`KINSET_LOCKS=cluster` makes use of that)",
        (true, _) => "locks hold between them",
        (false, false) => "locks do not hold between them, as expected, so leases keep runs apart",
        (false, true) => "locks do not hold between them",
    };
    let after =
        |seconds: Option<f64>| seconds.map_or_else(|| "not in time".to_owned(), |seconds| format!("after {seconds:.1} s"));
    let mut check = Check::ok(
        "peers",
        format!(
            "met {}; {locks}; a new file is seen {} in a folder's list and {} by a name that was looked for before; clocks are {:.1} s apart",
            met.join(", "),
            after(found.listed),
            after(found.named),
            found.apart
        ),
    );
    if found.one_machine {
        let hint = "start it on two machines: here nothing was learned of what lies between them";
        check = check.with(Level::Warning, "all ran on one machine", hint);
    }
    if !holds && says_so {
        let what = format!("the file system is taken for one {}", reach.words());
        let hint = "set `KINSET_LOCKS=node` on all machines, so that leases keep runs apart";
        check = check.with(Level::Fault(Exit::Store), &what, hint);
    }
    if found.held.contains(&Tried::Silent) || found.freed.contains(&Tried::Silent) {
        let hint = "set `KINSET_LOCKS=none` on all machines, so that no lock is asked for";
        check = check.with(Level::Warning, "a lock was not answered", hint);
    } else if holds && !all(&found.freed, Tried::Free) {
        let hint = "set `KINSET_LOCKS=none` on all machines, so that leases alone keep runs apart";
        check = check.with(Level::Warning, "a lock still holds that was given back", hint);
    }
    let unshared = "do not share a store over this file system";
    if found.winners != 1 {
        let what = format!("a name that one alone may have was given to {}", found.winners);
        check = check.with(Level::Fault(Exit::Store), &what, unshared);
    }
    if found.named.is_some() && !found.same {
        check = check.with(Level::Fault(Exit::Store), "a file was read other than it was written", unshared);
    }
    check = check.warn_if(
        found.named.is_none_or(|named| named > SETTLE),
        "that is late",
        "raise `settle` of `[limits]` in the cluster file, or lower the time for which the mount remembers (NFS: `acdirmax`, `lookupcache`)",
    );
    check = check.warn_if(
        found.apart > APART,
        "the clocks differ",
        "results do not depend on it, but runs are listed in the order of their clocks: have them set over the network",
    );
    for card in &found.others {
        let differs = |name: &str| card.facts.get(name) != own.get(name);
        let of = |name: &str| format!("{} has {name} {}", card.host(), card.facts.get(name).map_or("unknown", String::as_str));
        if differs("version") {
            let hint = "install one version of kinset on all machines, or name it as `kinset` in the cluster file";
            check = check.with(Level::Fault(Exit::Machine), &of("version"), hint);
        }
        if differs("instruction set") {
            let hint = "other processors may round differently: keep jobs to one kind (`extra = [\"--constraint=…\"]`), or cap all by KINSET_ISA";
            check = check.with(Level::Warning, &of("instruction set"), hint);
        }
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(held: Tried) -> Found {
        Found {
            others: Vec::new(),
            one_machine: false,
            held: vec![held],
            freed: vec![Tried::Free],
            winners: 1,
            listed: Some(0.1),
            named: Some(3.0),
            same: true,
            apart: 0.2,
        }
    }

    fn level(found: &Found, reach: Reach) -> Level {
        judged(found, reach, &BTreeMap::new()).level
    }

    #[test]
    fn locks_are_judged_by_what_the_store_takes_them_for() {
        for reach in [Reach::Machine, Reach::Cluster] {
            assert_eq!(level(&found(Tried::Held), reach), Level::Ok);
            for lost in [Tried::Free, Tried::None] {
                assert_eq!(level(&found(lost), reach), Level::Fault(Exit::Store));
            }
        }
        for reach in [Reach::Node, Reach::Nowhere] {
            assert_eq!([Tried::Held, Tried::Free, Tried::None].map(|tried| level(&found(tried), reach)), [Level::Ok; 3]);
            assert_eq!(level(&found(Tried::Silent), reach), Level::Warning);
        }
        assert_eq!(level(&Found { freed: vec![Tried::Held], ..found(Tried::Held) }, Reach::Cluster), Level::Warning);
    }

    #[test]
    fn what_leases_rest_on_is_a_fault_and_what_is_slow_a_warning() {
        let good = || found(Tried::Held);
        let all = [
            (Found { winners: 2, ..good() }, Level::Fault(Exit::Store)),
            (Found { winners: 0, ..good() }, Level::Fault(Exit::Store)),
            (Found { same: false, ..good() }, Level::Fault(Exit::Store)),
            (Found { named: None, same: false, ..good() }, Level::Warning),
            (Found { named: Some(70.0), ..good() }, Level::Warning),
            (Found { apart: 5.0, ..good() }, Level::Warning),
            (Found { one_machine: true, ..good() }, Level::Warning),
        ];
        for (found, wanted) in all {
            assert_eq!(level(&found, Reach::Cluster), wanted, "{found:?}");
        }
    }
}
