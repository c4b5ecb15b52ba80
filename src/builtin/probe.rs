//! A linear probe: logistic regression of labels on features, for labels that a person has corrected. It is supervised, and its type
//! keeps what it gives from label-free methods.
//!
//! How well features tell classes apart linearly is how encoders have been measured since Alain and Bengio 2016 ("Understanding
//! intermediate layers using linear classifier probes", arXiv 1610.01644); here the probe itself is wanted, to sort new images into
//! the groups that a person made.

use std::collections::BTreeMap;

use kinset_artifact::encoder::{Encoder, Tensors};
use kinset_artifact::features::Features;
use kinset_artifact::labels::{LabelTable, Labels};
use kinset_artifact::probe::Probe;
use kinset_artifact::{Draft, Stored};
use kinset_base::unit;
use kinset_kernel::gemm::Gemm;
use kinset_math::logistic::{Linear, Logistic};
use kinset_model::params::values;
use kinset_model::{HeadChoice, HeadsShape};
use kinset_stage::{Context, Stage, StageError};
use kinset_train::feature_space::CenteredFeatures;

/// Parts of the images, each of which is held out once.
const FOLDS: usize = 5;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Weight of the squared weights. Features are centered and of mean square 1.
        penalty: f64 = 1e-2, not_negative;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, D]`.
        features: Stored<Features>,
        /// The classes of these images, of all or some: a person's, from `named`, or those of the data.
        labels: Stored<Labels>,
        /// The encoder the features come from, so that new images can be sorted; without it, new features can.
        encoder: Option<Stored<Encoder>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The encoder with a linear head that has seen labels.
        probe: Draft<Probe>,
    }
}

/// Fitting a linear probe.
#[derive(Debug)]
pub struct Fit;

impl Stage for Fit {
    const KIND: &'static str = "probe";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "fit a linear classifier to labels, such as a person's names: supervised";
    const SEEDED: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let space = CenteredFeatures::of(&input.features, input.encoder.as_ref(), &cx.device)?;
        let labelled = Labelled::of(&space, &LabelTable::load(&input.labels)?, &input)?;
        let (method, dim, classes) = (Logistic::new(config.penalty), space.dim(), labelled.names.len());
        let fit = |rows: &[f32], labels: &[u32]| -> Result<Linear, StageError> {
            Ok(method.fit(rows, dim, labels, classes, &Gemm, &cx.stop)?)
        };
        let n = labelled.labels.len();
        if n >= FOLDS {
            let order = cx.seed.branch("folds").rng().permutation(n);
            let mut right = 0.0;
            for fold in 0..FOLDS {
                let held = |place: usize| place % FOLDS == fold;
                let part = |wanted: bool| -> Vec<usize> {
                    order.iter().enumerate().filter(|(place, _)| held(*place) == wanted).map(|(_, &at)| at).collect()
                };
                let (seen, unseen) = (labelled.part(&part(false), dim), labelled.part(&part(true), dim));
                right += fit(&seen.0, &seen.1)?.agreement(&unseen.0, dim, &unseen.1, &Gemm) * unseen.1.len() as f64;
            }
            let share = 100.0 * right / n as f64;
            cx.note(format!("{share:.1} % of {} are right when they are held out", unit::counted(n as u64, "image")));
        }
        let head = fit(&labelled.rows, &labelled.labels)?;
        if !head.converged {
            cx.warn("the probe did not converge; a larger `penalty` helps");
        }
        let (weight, bias) = space.plain_layer(&head.weight, &head.bias);
        let mut tensors = Tensors::default();
        tensors.insert("cluster_head.0.weight", vec![classes, dim], weight);
        tensors.insert("cluster_head.0.bias", vec![classes], bias);
        let choice = HeadChoice { head: 0, chosen_by: "fitted to labels".into(), losses: vec![head.loss] };
        let classifier = space.classifier(HeadsShape::linear(classes, 1, None), &tensors, choice)?;
        Ok(Out { probe: Probe { names: labelled.names, classifier }.save(&cx.out("probe")?)? })
    }
}

/// The images that have labels.
struct Labelled {
    /// `[M, D]`.
    rows: Vec<f32>,
    /// `[M]`, below the number of names.
    labels: Vec<u32>,
    /// Classes that have images.
    names: Vec<String>,
}

impl Labelled {
    fn of(space: &CenteredFeatures, table: &LabelTable, input: &In) -> Result<Self, StageError> {
        let of: BTreeMap<&str, i32> = table.ids.iter().map(String::as_str).zip(table.labels.iter().copied()).collect();
        let of_row: Vec<Option<usize>> =
            space.ids.iter().map(|id| usize::try_from(of.get(id.as_str()).copied().unwrap_or(-1)).ok()).collect();
        let mut counts = vec![0_usize; table.classes()];
        of_row.iter().flatten().for_each(|&class| counts[class] += 1);
        let used: Vec<usize> = (0..counts.len()).filter(|&class| counts[class] > 0).collect();
        if used.len() < 2 {
            let (features, labels) = (input.features.origin(), input.labels.origin());
            return Err(StageError::Mismatch {
                what: format!("the images of `{features}` have {} classes by `{labels}`, and two are needed", used.len()),
                hint: "name at least two groups: `kinset label` or `kinset view`".into(),
            });
        }
        let name = |&class: &usize| table.names.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
        let names = used.iter().map(name).collect();
        let (all, dim) = (values(&space.values)?, space.dim());
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for (row, class) in of_row.iter().enumerate() {
            if let Some(label) = class.and_then(|class| used.binary_search(&class).ok()) {
                rows.extend_from_slice(&all[row * dim..(row + 1) * dim]);
                labels.push(label as u32);
            }
        }
        Ok(Self { rows, labels, names })
    }

    /// Some of them: rows and labels.
    fn part(&self, places: &[usize], dim: usize) -> (Vec<f32>, Vec<u32>) {
        let rows = places.iter().flat_map(|&at| self.rows[at * dim..(at + 1) * dim].iter().copied()).collect();
        (rows, places.iter().map(|&at| self.labels[at]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use candle_core::Device;

    use kinset_artifact::features::FeatureTable;
    use kinset_artifact::testing::stored;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_math::topk::argmax_rows;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;

    use crate::classify;

    #[test]
    fn images_without_a_label_are_sorted_as_those_that_have_one() {
        let dir = tempfile::tempdir().unwrap();
        let n = 40;
        let value = |row: usize| [if row.is_multiple_of(2) { 1.0 } else { -1.0 }, ((row * 7) % 5) as f32 - 2.0];
        let table = FeatureTable {
            ids: (0..n).map(|row| row.to_string()).collect(),
            dim: 2,
            values: (0..n).flat_map(value).collect(),
            normalized: false,
            encoder: "imported".into(),
            layer: "imported".into(),
        };
        let folder = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        // In another order, of half of the images; nobody is in the middle class.
        let labels = |class: fn(usize) -> i32| LabelTable {
            ids: (0..n / 2).rev().map(|row| row.to_string()).collect(),
            labels: (0..n / 2).rev().map(class).collect(),
            names: ["even", "nobody", "odd"].map(String::from).to_vec(),
        };
        let (heard, places) = (Heard::default(), DataPaths::new(dir.path(), None, None));
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), folder("work"), folder("out"), &heard);
        let features = stored(&table.save(&folder("features")).unwrap());
        let run = |labels: LabelTable| {
            let labels = stored(&labels.save(&folder("labels")).unwrap());
            Fit::run(&Config::default(), In { features: features.clone(), labels, encoder: None }, &cx)
        };
        let probe = Probe::load(&stored(&run(labels(|row| 2 * (row % 2) as i32)).unwrap().probe)).unwrap();
        assert_eq!(probe.names, ["even", "odd"]);
        let said = classify::of_features(&probe.classifier, "probe", &table, &cx).unwrap();
        let found = argmax_rows(&said, 2);
        assert!(found.iter().enumerate().all(|(row, &class)| class == row % 2), "{found:?}");
        assert!(format!("{:?}", heard.signals()).contains("100.0 % of 20 images are right when they are held out"));
        let error = run(labels(|row| if row < 5 { 0 } else { -1 })).unwrap_err().to_string();
        assert!(error.contains("have 1 classes"), "{error}");
    }
}
