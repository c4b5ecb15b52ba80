//! How often each class occurs in a pool and in selections from it: an evaluation, with labels that no selection has seen.

use std::collections::BTreeMap;

use kinset_artifact::distribution::{Counted, Distribution};
use kinset_artifact::labels::{LabelTable, Labels};
use kinset_artifact::selection::{Selection, SelectionTable};
use kinset_artifact::{Draft, Stored};
use kinset_stage::{Context, NoSettings, Stage, StageError};

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// What was taken, in the order of the rows.
        selections: Vec<Stored<Selection>>,
        /// The ground truth of the pool, in its shards.
        labels: Vec<Stored<Labels>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// Images of each class, and the effective number of classes, before and after.
        distribution: Draft<Distribution>,
    }
}

/// The count.
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
        if let Some((table, stored)) = shards.iter().zip(&input.labels).find(|(table, _)| table.names != *named) {
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
