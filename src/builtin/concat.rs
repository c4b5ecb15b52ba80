//! Features of several sets of images as one table, one set after the other: the parts of a source that `[shard]` cuts, or shards that
//! were read each by itself.
//!
//! Images keep their names. Equal images of one set are told apart by a number behind the name they share; those of several sets are,
//! too, and get the numbers that they would have got in one set.

use std::collections::{BTreeMap, BTreeSet};

use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::{Draft, Stored};
use kinset_base::id::is_twin;
use kinset_stage::{Context, NoSettings, Parts, Stage, StageError};

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// `[N, D]` each, of different images by the same encoder.
        features: Parts<Vec<Stored<Features>>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// `[ΣN, D]`.
        features: Draft<Features>,
    }
}

/// Putting features of several sets one after the other.
#[derive(Debug)]
pub struct Concat;

impl Stage for Concat {
    const KIND: &'static str = "concat";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "put the features of several sets of images one after the other, such as the parts of `[shard]`";

    type Config = NoSettings;
    type In = In;
    type Out = Out;

    fn run(_: &NoSettings, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let mut tables = input.features.iter();
        let Some(first) = tables.next() else { unreachable!("the port takes one or more") };
        let bar = cx.bar(input.features.len() as u64, "sets");
        cx.check()?;
        let mut all = FeatureTable::load(first)?;
        let mut names = Names::default();
        all.ids.iter_mut().for_each(|id| names.tell_apart(id));
        bar.advance(1);
        for stored in tables {
            cx.check()?;
            let FeatureTable { ids, dim, values, normalized, encoder, layer } = FeatureTable::load(stored)?;
            let same = [
                ("dimension", dim == all.dim),
                ("encoder", encoder == all.encoder),
                ("layer", layer == all.layer),
                ("length", normalized == all.normalized),
            ];
            if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
                return Err(StageError::Mismatch {
                    what: format!("the features of `{}` and `{}` are of another {what}", first.origin(), stored.origin()),
                    hint: "make them with one `embed`, of one encoder: where `[shard]` cuts a source, the encoder must not learn from it"
                        .into(),
                });
            }
            all.ids.extend(ids.into_iter().map(|mut id| {
                names.tell_apart(&mut id);
                id
            }));
            all.values.extend(values);
            bar.advance(1);
        }
        Ok(Out { features: all.save(&cx.out("features")?)? })
    }
}

/// Names that were given.
#[derive(Default)]
struct Names {
    taken: BTreeSet<String>,
    /// How often a name came, without the number behind it.
    seen: BTreeMap<String, u64>,
}

impl Names {
    /// Puts the next free number behind a name that is taken.
    fn tell_apart(&mut self, id: &mut String) {
        if self.taken.contains(id.as_str()) {
            let first = if is_twin(id) { id.split('-').next().unwrap_or_default() } else { id.as_str() }.to_owned();
            let number = self.seen.entry(first.clone()).or_insert(0);
            while self.taken.contains(id.as_str()) {
                *number += 1;
                *id = format!("{first}-{number}");
            }
        }
        self.taken.insert(id.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::testing::stored;
    use kinset_base::fs;
    use kinset_base::id::Ids;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;

    fn table(ids: &[String], first: f32) -> FeatureTable {
        FeatureTable {
            ids: ids.to_vec(),
            dim: 2,
            values: (0..2 * ids.len()).map(|at| first + at as f32).collect(),
            normalized: false,
            encoder: "e".into(),
            layer: "backbone".into(),
        }
    }

    fn run(dir: &Path, tables: &[FeatureTable]) -> Result<FeatureTable, String> {
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let features = tables.iter().enumerate().map(|(place, table)| {
            let to = dir.join(place.to_string());
            fs::create_folders(&to).unwrap();
            stored(&table.save(&to).unwrap())
        });
        let input = In { features: Parts(features.collect()) };
        let out = dir.join("out");
        let cx = Context::new("all", Device::Cpu, Seed::new(1), &places, Stop::default(), dir.to_owned(), out, &heard);
        let out = Concat::run(&NoSettings {}, input, &cx).map_err(|error| error.to_string())?;
        Ok(FeatureTable::load(&stored(&out.features)).unwrap())
    }

    #[test]
    fn rows_follow_each_other_and_equal_images_are_named_as_in_one_set() {
        let dir = tempfile::tempdir().unwrap();
        let images: [&[&[u8]]; 3] = [&[b"a", b"b", b"a"], &[b"c", b"a"], &[b"b", b"a", b"d", b"a"]];
        let names = |images: &[&[u8]]| {
            let mut ids = Ids::default();
            images.iter().map(|image| ids.next(image)).collect::<Vec<String>>()
        };
        let parts: Vec<FeatureTable> =
            images.iter().zip([0.0, 6.0, 10.0]).map(|(images, first)| table(&names(images), first)).collect();
        assert_eq!(run(dir.path(), &parts).unwrap(), table(&names(&images.concat()), 0.0));
        let own = |ids: &[&str]| table(&ids.iter().map(ToString::to_string).collect::<Vec<_>>(), 0.0);
        let found = run(dir.path(), &[own(&["cat-1", "x"]), own(&["x", "cat-1"]), own(&["x"])]).unwrap();
        assert_eq!(found.ids, ["cat-1", "x", "x-1", "cat-1-1", "x-2"]);
    }

    #[test]
    fn features_of_another_encoder_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let one = table(&["a".into()], 0.0);
        let other = FeatureTable { encoder: "f".into(), ids: vec!["b".into()], ..one.clone() };
        assert!(run(dir.path(), &[one, other]).unwrap_err().contains("another encoder"));
    }
}
