//! Counts of classes in a pool and in selections from it: an evaluation, with labels that no selection has seen.

use std::collections::BTreeMap;

use kinset_artifact::distribution::{Counted, Distribution};
use kinset_artifact::labels::{LabelTable, Labels};
use kinset_artifact::selection::{Selection, SelectionTable};
use kinset_artifact::{Draft, Stored};
use kinset_stage::{Context, NoSettings, Parts, Stage, StageError};

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// What was taken, in the order of the rows.
        selections: Vec<Stored<Selection>>,
        /// The ground truth of the pool, in its shards.
        labels: Parts<Vec<Stored<Labels>>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// Images of each class, and the effective number of classes, before and after.
        distribution: Draft<Distribution>,
    }
}

#[derive(Debug)]
pub struct Count;

impl Stage for Count {
    const KIND: &'static str = "distribution";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "count classes in a pool and in selections from it, and their effective number";

    type Config = NoSettings;
    type In = In;
    type Out = Out;

    fn run(_: &NoSettings, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let shards = input.labels.iter().map(LabelTable::load).collect::<Result<Vec<_>, _>>()?;
        let named = &shards[0].names;
        if let Some((table, stored)) = shards.iter().zip(input.labels.iter()).find(|(table, _)| table.names != *named) {
            return Err(StageError::Mismatch {
                what: format!(
                    "the classes of `{}` are {:?}, those of `{}` {named:?}",
                    stored.origin(),
                    table.names,
                    input.labels[0].origin()
                ),
                hint: "the shards of a pool must have the same classes in the same order".into(),
            });
        }
        let count = shards.iter().map(LabelTable::classes).max().unwrap_or(0);
        let mut classes = named.clone();
        classes.extend((classes.len()..count).map(|class| class.to_string()));
        let known: BTreeMap<&str, i32> =
            shards.iter().flat_map(|table| table.ids.iter().map(String::as_str).zip(table.labels.iter().copied())).collect();
        let all = shards.iter().flat_map(|table| table.labels.iter().copied());
        let mut sets = vec![Counted::new("pool".into(), None, count, all)];
        for (place, stored) in input.selections.iter().enumerate() {
            cx.check()?;
            let rows = SelectionTable::rows(stored)?;
            if let Some((id, _)) = rows.iter().find(|(id, _)| !known.contains_key(id.as_str())) {
                return Err(StageError::Mismatch {
                    what: format!("the image `{id}` of `{}` is not in the labels", stored.origin()),
                    hint: "connect the labels of all shards of the pool that it was selected from".into(),
                });
            }
            let labels = rows.iter().map(|(id, _)| known[id.as_str()]);
            sets.push(Counted::new(format!("selections[{place}]"), Some(stored.digest()), count, labels));
        }
        for set in &sets {
            cx.note(format!("{}: effective number of classes {:.2} of {count}", set.name, set.effective));
        }
        let labels = input.labels.iter().map(Stored::digest).collect();
        Ok(Out { distribution: Distribution { labels, classes, sets }.save(&cx.out("distribution")?)? })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::Artifact;
    use kinset_artifact::selection::{Chosen, Report};
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_math::curate::choose::Edge;
    use kinset_math::curate::repeats::Repeats;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;
    use kinset_store::digest::Digest;

    fn labels(folder: &Path, ids: &[&str], labels: &[i32], names: &[&str]) -> Stored<Labels> {
        fs::create_folders(folder).unwrap();
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let table = LabelTable { ids: owned(ids), labels: labels.to_vec(), names: owned(names) };
        let draft = table.save(folder).unwrap();
        Stored::new(vec![draft.files[0].path.clone()], Digest::of(b"labels"), "labels")
    }

    fn selection(folder: &Path, ids: &[&str]) -> Stored<Selection> {
        fs::create_folders(folder).unwrap();
        let chosen = (0..).zip(ids).map(|(row, id)| Chosen {
            id: (*id).to_owned(),
            order: row,
            best: Edge { target: 0, pool: row, rank: row + 1, cosine: 1.0 },
            targets: 0,
            copies: 0,
            cluster: -1,
        });
        let table = SelectionTable {
            pick: "random".into(),
            k: 1,
            chosen: chosen.collect(),
            edges: Vec::new(),
            targets: vec!["a".into()],
            repeats: Repeats { kept: vec![true], representative: vec![0], similarity: vec![1.0] },
            selected: vec![0],
            report: Report::default(),
        };
        let files = table.save(folder).unwrap().files.into_iter().map(|file| file.path).collect();
        Stored::new(files, Digest::of(b"selection"), "selection")
    }

    fn run(dir: &Path, selections: Vec<Stored<Selection>>, labels: Vec<Stored<Labels>>) -> Result<Distribution, StageError> {
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let out = dir.join("counted");
        let cx = Context::new("counted", Device::Cpu, Seed::new(1), &places, Stop::default(), dir.to_owned(), out, &heard);
        let out = Count::run(&NoSettings {}, In { selections, labels: Parts(labels) }, &cx)?;
        let files = out.distribution.files.into_iter().map(|file| file.path).collect();
        assert_eq!(Distribution::FILES.len(), 1);
        Ok(Distribution::load(&Stored::new(files, Digest::of(b"d"), "d")).unwrap())
    }

    #[test]
    fn classes_are_counted_over_all_shards_before_and_after() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let shards = vec![
            labels(&path("l1"), &["a", "b", "c"], &[0, 0, -1], &["cat", "dog"]),
            labels(&path("l2"), &["d", "e"], &[0, 1], &["cat", "dog"]),
        ];
        let found = run(dir.path(), vec![selection(&path("s"), &["e", "a"])], shards.clone()).unwrap();
        assert_eq!(found.classes, ["cat", "dog"]);
        let numbers: Vec<(&str, &[u64], u64)> =
            found.sets.iter().map(|set| (set.name.as_str(), &set.images[..], set.unknown)).collect();
        assert_eq!(numbers, [("pool", &[3, 1][..], 1), ("selections[0]", &[1, 1][..], 0)]);
        assert!((found.sets[1].effective - 2.0).abs() < 1e-12);
        let stranger = run(dir.path(), vec![selection(&path("x"), &["z"])], shards.clone()).unwrap_err();
        assert!(stranger.to_string().contains("the image `z` of `selection` is not in the labels"), "{stranger}");
        let other = labels(&path("l3"), &["f"], &[0], &["bird"]);
        let refused = run(dir.path(), vec![selection(&path("y"), &["a"])], vec![shards[0].clone(), other]).unwrap_err();
        assert!(refused.to_string().contains("bird"), "{refused}");
    }
}
