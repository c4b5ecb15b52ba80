//! Several features of the same images as one: what an encoder, its projection and the pixels each see, side by side.
//!
//! Every space counts alike: its vectors are brought to unit length before they stand beside the others, so the cosine of two images is
//! the mean of their cosines. With `components`, each space is whitened first: its principal components, each of variance 1. Directions
//! that vary most are often what classes share (lightness, how much of the picture is filled), and they count no more than others then.
//!
//! New images have no joined features, since the principal axes are those of the given images: cluster the joined features, and let
//! `distill` teach the clusters to a head on one encoder.

use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::{Draft, Stored};
use kinset_math::cosine::normalize_rows;
use kinset_math::pca::whitened;
use kinset_stage::{Context, Stage, StageError};
use kinset_train::feature_space::check_alike;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Principal components of each space, whitened, fewer where it has fewer; unset: the features as they are.
        components: Option<usize> = None, min 1;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// `[N, D]` each, of the same images in the same order.
        features: Vec<Stored<Features>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// `[N, ΣD]`, of unit length.
        features: Draft<Features>,
    }
}

/// Joining features.
#[derive(Debug)]
pub struct Join;

impl Stage for Join {
    const KIND: &'static str = "join";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "put several features of the same images side by side, each space counting alike";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let mut spaces = Vec::new();
        let mut ids: Vec<String> = Vec::new();
        for (place, stored) in input.features.iter().enumerate() {
            cx.check()?;
            let table = FeatureTable::load(stored)?;
            if place > 0 {
                check_alike((&input.features[0], &ids), (stored, &table.ids))?;
            }
            let (mut values, dim) = match config.components {
                Some(components) => whitened(&table.values, table.dim, components, &cx.stop)?,
                None => (table.values, table.dim),
            };
            let without = normalize_rows(&mut values, dim);
            if !without.is_empty() {
                cx.warn(format!(
                    "{} images have features of `{}` without a direction: they count as zeros",
                    without.len(),
                    stored.origin()
                ));
            }
            for row in without {
                values[row * dim..(row + 1) * dim].fill(0.0);
            }
            ids = table.ids;
            spaces.push((values, dim));
        }
        let dim = spaces.iter().map(|(_, dim)| dim).sum();
        let mut values = Vec::with_capacity(ids.len() * dim);
        for row in 0..ids.len() {
            for (space, dim) in &spaces {
                values.extend_from_slice(&space[row * dim..(row + 1) * dim]);
            }
        }
        // A row of zeros has been told of.
        let _ = normalize_rows(&mut values, dim);
        let table = FeatureTable { ids, dim, values, normalized: true, encoder: "joined".into(), layer: "joined".into() };
        Ok(Out { features: table.save(&cx.out("features")?)? })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::testing::stored;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;

    fn table(ids: &[&str], dim: usize, values: &[f32]) -> FeatureTable {
        FeatureTable {
            ids: ids.iter().map(ToString::to_string).collect(),
            dim,
            values: values.to_vec(),
            normalized: false,
            encoder: "imported".into(),
            layer: "imported".into(),
        }
    }

    /// What comes out, or the error; and the warnings.
    fn joined(dir: &Path, tables: &[FeatureTable], components: Option<usize>) -> (Result<FeatureTable, String>, Vec<String>) {
        let folder = |name: String| {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let of = |(place, table): (usize, &FeatureTable)| stored(&table.save(&folder(format!("{place}"))).unwrap());
        let features = tables.iter().enumerate().map(of).collect();
        let (heard, places) = (Heard::default(), DataPaths::new(dir, None, None));
        let (work, out) = (folder("work".into()), folder("out".into()));
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), work, out, &heard);
        let ran = Join::run(&Config { components }, In { features }, &cx);
        (
            ran.map(|out| FeatureTable::load(&stored(&out.features)).unwrap()).map_err(|error| error.to_string()),
            heard.warnings(),
        )
    }

    #[test]
    fn the_cosine_of_joined_vectors_is_the_mean_of_the_cosines_whatever_their_lengths() {
        let dir = tempfile::tempdir().unwrap();
        let tables = [table(&["a", "b"], 2, &[3.0, 0.0, 0.0, 0.1]), table(&["a", "b"], 1, &[500.0, 20.0])];
        let (found, warnings) = joined(dir.path(), &tables, None);
        let found = found.unwrap();
        assert!(found.normalized && found.dim == 3 && warnings.is_empty());
        let cosine: f32 = found.row(0).iter().zip(found.row(1)).map(|(a, b)| a * b).sum();
        assert!((cosine - 0.5).abs() < 1e-6, "{cosine}");
    }

    #[test]
    fn whitened_spaces_have_the_components_that_were_asked_for_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let values: Vec<f32> = (0..12).map(|at| (at * at % 7) as f32).collect();
        let tables = [table(&["a", "b", "c", "d"], 3, &values), table(&["a", "b", "c", "d"], 1, &[1.0, 2.0, 4.0, 8.0])];
        assert_eq!(joined(dir.path(), &tables, Some(2)).0.unwrap().dim, 3);
    }

    #[test]
    fn features_of_other_images_are_refused_and_zeros_are_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let one = table(&["a", "b"], 1, &[1.0, 2.0]);
        let (refused, _) = joined(dir.path(), &[one.clone(), table(&["b", "a"], 1, &[1.0, 2.0])], None);
        assert!(refused.unwrap_err().contains("of other images"));
        let (found, warnings) = joined(dir.path(), &[one, table(&["a", "b"], 2, &[0.0, 0.0, 0.0, 2.0])], None);
        assert_eq!(found.unwrap().row(0), [1.0, 0.0, 0.0]);
        assert!(warnings.len() == 1 && warnings[0].contains("1 images have features"), "{warnings:?}");
    }
}
