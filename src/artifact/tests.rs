//! One artifact of each kind, for this crate and for `tests/interop.py`.

use std::path::PathBuf;

use super::assignments::{AssignmentTable, Assignments};
use super::curve::Curve;
use super::distribution::Distribution;
use super::duplicates::Duplicates;
use super::encoder::{Classifier, Encoder};
use super::error::Result;
use super::features::{FeatureTable, Features};
use super::groups::{GroupTable, Groups};
use super::images::{ImageSet, Images, ImagesInfo, ImagesWriter, Picture};
use super::k_table::KTable;
use super::labels::{LabelTable, Labels};
use super::levels::{LevelTable, Levels};
use super::matches::Matches;
use super::meta::Meta;
use super::near_duplicates::NearDuplicates;
use super::neighbors::{NeighborTable, Neighbors};
use super::outliers::Outliers;
use super::parquet::{Column, TableWriter};
use super::pixels::Pixels;
use super::probe::Probe;
use super::scores::Scores;
use super::selection::{Selection, SelectionTable};
use super::testing::stored;
use super::{Artifact, Stored, image_codec};
use kinset_base::fs;
use kinset_store::digest::Digest;

/// The message with which a table of any content is refused.
pub(super) fn refused<A: Artifact, T>(
    load: impl Fn(&Stored<A>) -> Result<T>,
    meta: Meta,
    columns: Vec<(&str, Column)>,
) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(A::FILES[0]);
    let schema: Vec<_> = columns.iter().map(|(name, column)| (*name, column.kind())).collect();
    let mut writer = TableWriter::create(&path, &schema, meta).unwrap();
    writer.write(columns.into_iter().map(|(_, column)| column).collect()).unwrap();
    writer.finish().unwrap();
    match load(&Stored::new(vec![path], Digest::of(b"test"), "test")) {
        Ok(_) => panic!("the table was accepted"),
        Err(e) => e.to_string(),
    }
}

const N: usize = 300;
const D: usize = 8;
const K: usize = 5;

/// Where other tools look for the files, or a folder that goes away.
fn folder() -> (Option<tempfile::TempDir>, PathBuf) {
    if let Some(place) = std::env::var_os("KINSET_INTEROP_DIR") {
        return (None, PathBuf::from(place));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    (Some(dir), path)
}

/// Points on a circle: unit length, and neighbors are known in advance.
fn features(ids: &[String]) -> FeatureTable {
    let angle = |i: usize| i as f32 / N as f32 * std::f32::consts::TAU;
    let values = (0..N).flat_map(|i| {
        let mut vector = [0.0; D];
        (vector[0], vector[1]) = (angle(i).cos(), angle(i).sin());
        vector
    });
    FeatureTable {
        ids: ids.to_vec(),
        dim: D,
        values: values.collect(),
        normalized: true,
        encoder: "pixels".into(),
        layer: "backbone".into(),
    }
}

fn neighbors(features: &FeatureTable) -> NeighborTable {
    let (mut index, mut similarity) = (Vec::new(), Vec::new());
    for i in 0..N {
        let dot = |j: usize| features.row(i).iter().zip(features.row(j)).map(|(a, b)| a * b).sum::<f32>();
        let mut others: Vec<(f32, usize)> = (0..N).filter(|j| *j != i).map(|j| (dot(j), j)).collect();
        others.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        index.extend(others[..K].iter().map(|(_, j)| *j as u32));
        similarity.extend(others[..K].iter().map(|(s, _)| *s));
    }
    NeighborTable { ids: features.ids.clone(), k: K, index, similarity, metric: "cosine".into(), exact: true, recall: None }
}

#[test]
fn one_of_each_kind_is_written_and_read() {
    let (_guard, dir) = folder();
    fs::create_folders(&dir).unwrap();
    let mut writer = ImagesWriter::create(&dir, &ImagesInfo::new("interop")).unwrap();
    for i in 0..N {
        let pixels = Pixels::new(6, 4, 3, (0..72).map(|j| (i * 3 + j) as u8).collect());
        let picture = if i % 2 == 0 {
            Picture::Raw(pixels)
        } else {
            Picture::file(image_codec::encode_png("x", &pixels).unwrap(), format!("class/{i}.png"))
        };
        writer.push(picture).unwrap();
    }
    let (images, ids) = writer.finish().unwrap();
    let set = ImageSet::open(&stored(&images)).unwrap();
    assert_eq!((set.len(), set.fixed_size(), set.channels()), (N, Some((6, 4)), 3));

    let features = features(&ids);
    assert_eq!(FeatureTable::load(&stored(&features.save(&dir).unwrap())).unwrap(), features);
    let neighbors = neighbors(&features);
    assert_eq!(NeighborTable::load(&stored(&neighbors.save(&dir).unwrap())).unwrap(), neighbors);
    let names = ["cat", "dog", "ship"].map(String::from).to_vec();
    let labels = LabelTable { ids: ids.clone(), labels: (0..N).map(|i| (i % 3) as i32).collect(), names };
    assert_eq!(LabelTable::load(&stored(&labels.save(&dir).unwrap())).unwrap(), labels);
    let assignments = AssignmentTable {
        ids,
        clusters: 3,
        cluster: (0..N).map(|i| (i % 3) as i32).collect(),
        confidence: vec![0.75; N],
        entropy: vec![0.5; N],
        second_cluster: (0..N).map(|i| ((i + 1) % 3) as i32).collect(),
    };
    assert_eq!(AssignmentTable::load(&stored(&assignments.save(&dir).unwrap())).unwrap(), assignments);
    let AssignmentTable { ids, cluster, confidence, .. } = assignments;
    let group = cluster.iter().map(|cluster| ["", "shirts", "shoes"][*cluster as usize].to_owned()).collect();
    let groups = GroupTable { ids, group, by_hand: cluster.iter().map(|cluster| *cluster == 0).collect(), cluster, confidence };
    assert_eq!(GroupTable::load(&stored(&groups.save(&dir).unwrap())).unwrap(), groups);
    let selection = super::selection::tests::table();
    assert_eq!(SelectionTable::load(&stored(&selection.save(&dir).unwrap())).unwrap(), selection);
    let levels = super::levels::tests::table();
    assert_eq!(LevelTable::load(&stored(&levels.save(&dir).unwrap())).unwrap(), levels);
    let mut curve = Curve::default();
    (0..10).for_each(|step| curve.push(step, "loss", 2.0 / f64::from(step + 1)));
    assert_eq!(Curve::load(&stored(&curve.save(&dir).unwrap())).unwrap(), curve);
}

#[test]
fn only_labels_and_what_is_made_of_them_are_not_label_free() {
    let kinds = [
        (Images::KIND, Images::LABEL_FREE),
        (Labels::KIND, Labels::LABEL_FREE),
        (Encoder::KIND, Encoder::LABEL_FREE),
        (Classifier::KIND, Classifier::LABEL_FREE),
        (Features::KIND, Features::LABEL_FREE),
        (Neighbors::KIND, Neighbors::LABEL_FREE),
        (Assignments::KIND, Assignments::LABEL_FREE),
        (Curve::KIND, Curve::LABEL_FREE),
        (KTable::KIND, KTable::LABEL_FREE),
        (Duplicates::KIND, Duplicates::LABEL_FREE),
        (Outliers::KIND, Outliers::LABEL_FREE),
        (NearDuplicates::KIND, NearDuplicates::LABEL_FREE),
        (Matches::KIND, Matches::LABEL_FREE),
        (Selection::KIND, Selection::LABEL_FREE),
        (Groups::KIND, Groups::LABEL_FREE),
        (Levels::KIND, Levels::LABEL_FREE),
        (Probe::KIND, Probe::LABEL_FREE),
        (Distribution::KIND, Distribution::LABEL_FREE),
        (Scores::KIND, Scores::LABEL_FREE),
    ];
    let bound: Vec<&str> = kinds.iter().filter(|(_, free)| !free).map(|(kind, _)| *kind).collect();
    assert_eq!(bound, ["labels", "groups", "probe", "distribution", "scores"]);
}
