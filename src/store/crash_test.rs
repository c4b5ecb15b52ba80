//! Tests that a kill or an error at any point of publishing leaves a whole result or none.
//!
//! Another process publishes and exits at each failpoint in turn, without cleaning up; then running again must make everything
//! right.

use std::path::Path;
use std::process::{Command, Stdio};

use super::layout::Store;
use super::record::Lookup;
use super::record::tests::{manifest, new_store, publish, whole};

const PLACE: &str = "KINSET_TEST_CRASH_PLACE";
const POINT: &str = "KINSET_TEST_CRASH_POINT";
const KILLED: i32 = 99;

#[test]
#[ignore = "the other process of the test below"]
fn publish_until_the_point() {
    let (Some(place), Ok(point)) = (std::env::var_os(PLACE), std::env::var(POINT)) else { return };
    let mut left: usize = point.parse().unwrap();
    let store = Store::open(Path::new(&place)).unwrap();
    store.fail.set(move |_| {
        if left == 0 {
            // No destructor of ours runs: to the file system this is a kill.
            std::process::exit(KILLED);
        }
        left -= 1;
        Ok(())
    });
    let _run = store.lock_shared(|| true).unwrap().unwrap();
    let lock = store.try_lock_stage(&manifest(1).key(), "digits/cluster").unwrap().unwrap();
    std::fs::write(store.scratch(&manifest(1), &lock).unwrap().join("epoch-1"), "state").unwrap();
    let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
    store.update_view("digits", "cluster", &manifest(1), &record).unwrap();
}

fn killed_at(point: usize, place: &Path) -> bool {
    let path = module_path!().split_once("::").unwrap().1;
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{path}::publish_until_the_point"), "--ignored"])
        .envs([(PLACE, place.as_os_str()), (POINT, point.to_string().as_ref())])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    match status.code() {
        Some(KILLED) => true,
        Some(0) => false,
        other => panic!("the other process failed: {other:?}"),
    }
}

#[test]
fn a_kill_at_any_point_leaves_a_whole_result_or_none() {
    let (mut misses, mut hits) = (0, 0);
    for point in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let killed = killed_at(point, dir.path());
        let store = Store::open(dir.path()).unwrap();
        match store.lookup(&manifest(1).key()).unwrap() {
            Lookup::Miss => {
                misses += 1;
                // The first points are those of the store, and of the manifest beside the checkpoints.
                assert_eq!(store.has_scratch(&manifest(1).key()), point > 2, "checkpoints outlive a kill");
                assert!(store.view("digits", "cluster").unwrap().is_none());
            }
            Lookup::Hit(record) => {
                hits += 1;
                assert_eq!(record.bytes(), 3 + 15);
            }
            Lookup::Damaged(damage) => panic!("point {point}: {damage}"),
        }
        let report = store.verify(false, None).unwrap();
        assert!(report.is_clean(), "point {point}: {:?}", report.findings);

        // The next run: it enters, is not locked out, and finishes.
        let _run = store.lock_shared(|| true).unwrap().unwrap();
        assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), 0, "point {point}: drafts are removed");
        let lock = store.try_lock_stage(&manifest(1).key(), "digits/cluster").unwrap().expect("a killed holder lets go");
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        store.update_view("digits", "cluster", &manifest(1), &record).unwrap();
        drop(lock);
        assert_eq!(whole(&store, &manifest(1)), record);
        assert!(!store.has_scratch(&manifest(1).key()));
        let left: Vec<_> = std::fs::read_dir(dir.path().join("digits")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["cluster"], "point {point}: no half view is left");
        assert!(store.verify(false, None).unwrap().is_clean());
        if !killed {
            assert!(misses > 12 && hits > 4, "{misses} kills before the record, {hits} after it");
            return;
        }
    }
}

#[test]
fn an_error_at_any_point_leaves_a_whole_result_or_none() {
    for point in 0.. {
        let (_dir, store) = new_store();
        let mut left = point;
        store.fail.set(move |_| {
            left -= 1;
            if left == -1 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        let result = publish(&store, &manifest(1), "one", 1.0);
        store.fail.set(|_| Ok(()));
        assert!(!matches!(store.lookup(&manifest(1).key()).unwrap(), Lookup::Damaged(_)), "point {point}");
        assert!(store.verify(false, None).unwrap().is_clean());
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        whole(&store, &manifest(1));
        if let Err(error) = result {
            assert_eq!(kinset_base::fault::Fault::exit(&error), kinset_base::fault::Exit::Machine);
        } else {
            assert!(point > 12);
            return;
        }
    }
}
