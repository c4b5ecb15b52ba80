//! Tests of a store that several machines share, as a file system shows it whose locks reach nobody: the machines are names that
//! processes give themselves, or that stores within this one do.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::digest::Digest;
use super::digest_cache::tests::digest;
use super::error::StoreError;
use super::gc::Policy;
use super::layout::Store;
use super::place::Reach;
use super::process::Process;
use super::record::Lookup;
use super::record::tests::{begun, manifest, publish, whole};
use kinset_base::clock::Stopwatch;
use kinset_base::fault::{Exit, Fault};
use kinset_base::fs as base;

const PLACE: &str = "KINSET_TEST_HOSTS_PLACE";

/// The store in a folder as a process of this machine sees it.
fn seen_from(host: &str, dir: &Path) -> Store {
    let mut store = Store::open(dir).unwrap();
    store.me = Process::on(host);
    store.reach = Reach::Nowhere.into();
    store.lease_lasts = Duration::from_secs(1);
    store
}

fn two_hosts(dir: &Path) -> [Store; 2] {
    ["a", "b"].map(|host| seen_from(host, dir))
}

fn wait_for(path: &Path) {
    let waited = Stopwatch::start();
    while !path.exists() {
        assert!(waited.seconds() < 60.0, "no {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "the other machine of the tests below"]
fn hold_and_save_when_told() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let place = Path::new(&place);
    let store = Store::open(place).unwrap();
    let _run = store.lock_shared(|| true).unwrap().unwrap();
    let lock = store.try_lock_stage(&manifest(1).key(), "digits/cluster").unwrap().unwrap();
    let work = store.scratch(&manifest(1), &lock).unwrap();
    base::write_atomic(&work.join("epoch-1"), b"one").unwrap();
    lock.check().unwrap();
    fs::write(place.join("ready"), "").unwrap();
    wait_for(&place.join("go"));
    // As one that was suspended after it had asked, just before it writes.
    let late = base::write_atomic(&work.join("epoch-1"), b"late").is_ok();
    let said = lock.check().map_err(|error| (error.to_string(), error.exit() as u8));
    base::write_atomic(&place.join("said"), format!("{late} {said:?}").as_bytes()).unwrap();
}

struct Other(Child);

impl Other {
    /// A process of the machine `a` that holds a key, and keeps progress again when a file `go` is there.
    fn holding(dir: &Path, lease: &str) -> Self {
        let path = module_path!().split_once("::").unwrap().1;
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{path}::hold_and_save_when_told"), "--ignored"])
            .env(PLACE, dir)
            .envs([("KINSET_HOST", "a"), ("KINSET_LOCKS", "none"), ("KINSET_LEASE", lease)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let other = Self(child);
        wait_for(&dir.join("ready"));
        other
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn what_another_machine_is_writing_is_not_swept_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let [a, mut b] = two_hosts(dir.path());
    let run = a.lock_shared(|| true).unwrap().unwrap();
    let (draft, work) = (a.draft().unwrap(), begun(&a, &manifest(1)));
    let half = work.join(format!("{}x", base::HALF_WRITTEN));
    let building = dir.path().join(format!("digits/{}x", a.temporary(super::view::BUILDING)));
    fs::write(&half, "half").unwrap();
    fs::create_dir_all(&building).unwrap();
    let all = [draft.path(), &half, &building];
    drop(b.lock_shared(|| true).unwrap().unwrap());
    assert!(all.iter().all(|path| path.exists()), "{all:?}");
    b.forgets = Duration::ZERO;
    drop(b.lock_shared(|| true).unwrap().unwrap());
    assert!(!all.iter().any(|path| path.exists()), "{all:?}");
    drop(run);
}

#[test]
fn of_two_machines_one_holds_a_key_and_the_other_hears_who() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = two_hosts(dir.path());
    let key = manifest(1).key();
    let lock = a.try_lock_stage(&key, "digits/cluster").unwrap().unwrap();
    let mut heard = String::new();
    let given_up = b.lock_stage(&key, "digits/cluster", |holder| {
        heard = holder.unwrap().to_string();
        false
    });
    assert!(given_up.unwrap().is_none());
    assert_eq!(heard, format!("process {} on a, for `digits/cluster`", std::process::id()));
    // Longer than a lease lasts that nobody renews.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(b.try_lock_stage(&key, "digits/cluster").unwrap().is_none());
    lock.check().unwrap();
    drop(lock);
    let lock = b.try_lock_stage(&key, "digits/cluster").unwrap().unwrap();
    assert!(!lock.holder_may_still_write() && a.try_lock_stage(&key, "digits/cluster").unwrap().is_none());
}

#[test]
fn many_on_machines_of_their_own_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let inside = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for host in ["a", "b", "c", "d"] {
            let (store, inside) = (seen_from(host, dir.path()), &inside);
            scope.spawn(move || {
                for _ in 0..10 {
                    let lock = store.lock_stage(&manifest(1).key(), "p/s", |_| true).unwrap().unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    std::thread::sleep(Duration::from_millis(2));
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    drop(lock);
                }
            });
        }
    });
    assert_eq!(base::list(&seen_from("a", dir.path()).leases()).unwrap(), Vec::<std::path::PathBuf>::new());
}

#[test]
#[cfg(unix)]
fn who_is_suspended_for_longer_than_a_lease_loses_the_key_and_spoils_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let other = Other::holding(dir.path(), "1");
    let b = seen_from("b", dir.path());
    let key = manifest(1).key();
    assert!(b.try_lock_stage(&key, "digits/cluster").unwrap().is_none());
    other.signal("STOP");
    let lock = b.lock_stage(&key, "digits/cluster", |_| true).unwrap().unwrap();
    assert!(lock.holder_may_still_write());
    let work = b.scratch(&manifest(1), &lock).unwrap();
    assert_eq!(fs::read(work.join("epoch-1")).unwrap(), b"one", "the heir goes on from what was kept");
    base::write_atomic(&work.join("epoch-2"), b"two").unwrap();
    other.signal("CONT");
    fs::write(dir.path().join("go"), "").unwrap();
    wait_for(&dir.path().join("said"));
    let said = fs::read_to_string(dir.path().join("said")).unwrap();
    let told = format!("another process has taken over this stage: process {} on b, for `digits/cluster`", std::process::id());
    assert!(said.contains(&told) && said.contains(&(Exit::Stopped as u8).to_string()), "{said}");
    assert_eq!(fs::read(work.join("epoch-1")).unwrap(), b"one");
    lock.check().unwrap();
    publish(&b, &manifest(1), "one", 1.0).unwrap();
    assert!(!b.scratch_path(&key).exists());
}

#[test]
#[cfg(unix)]
fn what_one_that_lost_its_key_publishes_leaves_the_work_of_the_heir_alone() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = two_hosts(dir.path());
    let lock = b.try_lock_stage(&manifest(1).key(), "digits/cluster").unwrap().unwrap();
    let work = b.scratch(&manifest(1), &lock).unwrap();
    fs::write(work.join("epoch-1"), "x").unwrap();
    let first = publish(&a, &manifest(1), "one", 1.0).unwrap();
    assert!(work.join("epoch-1").exists());
    let second = publish(&b, &manifest(1), "one", 1.0).unwrap();
    assert!(second.adopted && second.record == first.record && !work.exists());
}

#[test]
#[cfg(target_os = "linux")]
fn the_dead_of_the_same_machine_hold_nothing_even_without_locks() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = Other::holding(dir.path(), "600");
    other.kill();
    let key = manifest(1).key();
    let elsewhere = seen_from("b", dir.path());
    assert!(elsewhere.try_lock_stage(&key, "digits/cluster").unwrap().is_none(), "another machine cannot know");
    let same = seen_from("a", dir.path());
    assert!(same.lock_exclusive().is_ok());
    assert_eq!(same.holder(&key), None);
    let lock = same.try_lock_stage(&key, "digits/cluster").unwrap().unwrap();
    assert_eq!(fs::read(same.scratch(&manifest(1), &lock).unwrap().join("epoch-1")).unwrap(), b"one");
}

#[test]
fn where_locks_reach_all_machines_they_say_who_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, mut b] = two_hosts(dir.path());
    let key = manifest(1).key();
    for (reach, other, lives) in
        [(Reach::Cluster, Reach::Cluster, false), (Reach::Cluster, Reach::Node, true), (Reach::Machine, Reach::Cluster, true)]
    {
        a.reach = reach.into();
        b.reach = other.into();
        let lock = a.try_lock_stage(&key, "p/s").unwrap().unwrap();
        // As if the machine had died: the kernel's lock is gone, and the lease is there.
        let lease = a.leases().join(format!("{key}.json"));
        let text = fs::read(&lease).unwrap();
        drop(lock);
        fs::write(&lease, text).unwrap();
        assert_eq!(b.try_lock_stage(&key, "p/s").unwrap().is_none(), lives, "{reach:?} {other:?}");
        let _ = fs::remove_file(&lease);
    }
}

#[test]
fn nothing_is_deleted_while_a_run_on_another_machine_goes_on_and_none_begins_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = two_hosts(dir.path());
    publish(&a, &manifest(1), "one", 1.0).unwrap();
    let run = a.lock_shared(|| true).unwrap().unwrap();
    for refused in [b.gc(&Policy::default()).map(drop), b.verify(true, None).map(drop)] {
        let error = refused.unwrap_err();
        assert_eq!((error.code(), error.exit()), ("store::busy", Exit::Store));
        assert!(error.to_string().ends_with(&format!("is in use: process {} on a", std::process::id())), "{error}");
    }
    whole(&a, &manifest(1));
    drop(run);
    let deleting = b.lock_exclusive().unwrap();
    assert!(a.lock_shared(|| false).unwrap().is_none());
    assert!(matches!(a.lock_exclusive(), Err(StoreError::Busy { .. })));
    drop(deleting);
    assert!(a.lock_shared(|| false).unwrap().is_some());
    b.gc(&Policy { now: f64::MAX, ..Policy::default() }).unwrap();
    assert_eq!(a.lookup(&manifest(1).key()).unwrap(), Lookup::Miss);
}

#[test]
fn a_record_that_is_not_found_at_first_is_looked_for_again_where_others_may_have_made_it() {
    let dir = tempfile::tempdir().unwrap();
    let [a, mut b] = two_hosts(dir.path());
    let key = manifest(1).key();
    publish(&a, &manifest(1), "one", 1.0).unwrap();
    let forgetful = |store: &Store| {
        let mut looks = 0;
        store.fail.set(move |point| {
            looks += usize::from(point == "record looked for");
            if looks == 1 { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(()) }
        });
    };
    forgetful(&b);
    assert!(matches!(b.lookup(&key).unwrap(), Lookup::Hit(_)));
    b.reach = Reach::Machine.into();
    forgetful(&b);
    assert_eq!(b.lookup(&key).unwrap(), Lookup::Miss, "one's own disk forgets nothing, and is asked once");
    b.reach = Reach::Node.into();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| b.lookup_after_waiting(&manifest(2).key()).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        publish(&a, &manifest(2), "two", 1.0).unwrap();
        assert!(matches!(waiting.join().unwrap(), Lookup::Hit(_)));
    });
}

#[test]
fn leases_that_are_damaged_are_over_at_once_on_ones_own_disk_and_in_time_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, b] = two_hosts(dir.path());
    a.reach = Reach::Machine.into();
    let key = manifest(1).key();
    a.writable().unwrap();
    let lease = a.leases().join(format!("{key}.json"));
    for text in ["", "{", "{\"beat\":\"00000000000.000\"}"] {
        fs::write(&lease, text).unwrap();
        assert!(b.try_lock_stage(&key, "p/s").unwrap().is_none(), "{text}");
        assert!(a.try_lock_stage(&key, "p/s").unwrap().is_some(), "{text}");
        fs::write(&lease, text).unwrap();
        std::thread::sleep(Duration::from_millis(1200));
        assert!(b.try_lock_stage(&key, "p/s").unwrap().is_some(), "{text}");
    }
    fs::create_dir_all(lease.join("mine")).unwrap();
    assert!(a.try_lock_stage(&key, "p/s").unwrap().is_some());
    assert!(a.root().join("aside").exists());
}

#[test]
#[cfg(unix)]
fn what_one_machine_has_read_is_known_to_all_that_share_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, mut b] = two_hosts(&dir.path().join("artifacts"));
    for store in [&mut a, &mut b] {
        store.quiet = 0.0;
    }
    let raw = dir.path().join("raw");
    fs::write(&raw, "raw").unwrap();
    assert_eq!(digest(&a, &raw), Digest::of(b"raw"));
    let written: Vec<_> = base::list(a.root()).unwrap().into_iter().filter(|path| path.extension().is_some()).collect();
    assert_eq!(written.len(), 1);
    assert!(written[0].file_name().unwrap().to_string_lossy().starts_with("digests-a-"), "{written:?}");
    let forged = fs::read_to_string(&written[0]).unwrap().replace(&Digest::of(b"raw").hex(), &Digest::of(b"z").hex());
    fs::write(&written[0], forged).unwrap();
    assert_eq!(digest(&b, &raw), Digest::of(b"z"), "what `a` says is what answers");
    fs::write(&raw, "else").unwrap();
    digest(&b, &raw);
    assert_eq!(base::list(a.root()).unwrap().iter().filter(|path| path.extension().is_some()).count(), 2);
}
