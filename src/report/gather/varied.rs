//! Results over the settings that vary: a line for each combination, with what needs no labels beside the scores.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::inputs::{Results, above, wired};
use super::page::{Sweep, SweepRow};
use super::score_tables::{note, sum_up};
use crate::lines;
use crate::scores::{self, Scored, distinct};
use kinset_artifact::assignments::{AssignmentTable, Assignments};
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_artifact::scores::{MEASURES, ScoreRow};
use kinset_math::partition::agreement;
use kinset_pipeline::spec::Node;
use kinset_pipeline::vary::Varied;

/// What an image's cluster tells of its neighbor's.
pub(crate) const INFORMATION: &str = "information";
/// How much repetitions agree.
pub(crate) const AGREEMENT: &str = "agreement";

/// What there is of one combination with one seed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Single {
    /// What was measured, by its name in the file.
    measured: String,
    /// The same with what varies, without the mark of a repetition.
    stage: String,
    measured_by: Option<String>,
    images: String,
    seed: u64,
    varied: Vec<Varied>,
    row: Option<ScoreRow>,
    /// Nats.
    information: Option<f64>,
    /// Of all seeds together.
    agreement: Option<f64>,
}

/// The assignments of one combination by all its seeds.
struct Seeds {
    clusters: usize,
    /// The nodes of the classifiers.
    makers: Vec<usize>,
    /// For each of them `[N]`.
    of_rows: Vec<Vec<i32>>,
}

/// What is known without labels of a classifier.
#[derive(Clone, Default)]
struct Free {
    information: Option<f64>,
    agreement: Option<f64>,
}

/// All of them, in the order of the file; nothing where nothing varies.
pub(super) fn singles(results: &Results<'_>, scored: &[Scored]) -> Vec<Single> {
    let nodes = &results.spec.nodes;
    let mut free = without_labels(results);
    let mut known = free.clone();
    let mut all: Vec<Single> = Vec::new();
    for score in distinct(scored).into_iter().filter(|score| !score.varied.is_empty()) {
        // Another output of the same stage is another classifier.
        let made = score.made_by.as_ref().filter(|maker| *maker == &score.stage);
        let is = |node: &Node| made.is_some_and(|maker| node.variant() == maker) && (!node.repeated || node.seed == score.seed);
        let maker = nodes.iter().position(is);
        let Free { information, agreement } = maker.and_then(|node| free.get(&node).cloned()).unwrap_or_default();
        maker.map(|node| known.remove(&node));
        all.push(Single {
            measured: score.measured.clone(),
            stage: score.stage.clone(),
            measured_by: Some(score.measured_by.clone()),
            images: score.images.clone(),
            seed: score.seed,
            varied: score.varied.clone(),
            row: Some(score.row.clone()),
            information,
            agreement,
        });
    }
    // Whose scores are not there, or whose images have no labels.
    for node in known.into_keys() {
        let Free { information, agreement } = free.remove(&node).unwrap_or_default();
        let node = &nodes[node];
        all.push(Single {
            measured: node.family.clone(),
            stage: node.variant().to_owned(),
            measured_by: None,
            images: String::new(),
            seed: node.seed,
            varied: node.varied.clone(),
            row: None,
            information,
            agreement,
        });
    }
    all
}

/// By node of a classifier that varies and whose assignments are there.
fn without_labels(results: &Results<'_>) -> BTreeMap<usize, Free> {
    let nodes = &results.spec.nodes;
    let varies = |node: &Node| !node.varied.is_empty();
    let mut found: BTreeMap<usize, Free> = BTreeMap::new();
    let mut of_seeds: BTreeMap<(&str, &str), Seeds> = BTreeMap::new();
    let mut last: Option<(usize, NeighborTable)> = None;
    for (sorter, node) in nodes.iter().enumerate().filter(|(_, node)| varies(node) && node.gives("assignments")) {
        let Some(maker) = node.ports.get("classifier").and_then(|read| read.first()).filter(|read| read.main) else { continue };
        let maker = maker.node;
        if found.contains_key(&maker) || !varies(&nodes[maker]) {
            continue;
        }
        let table = results.get::<Assignments>(sorter).and_then(|stored| AssignmentTable::load(&stored).ok());
        let Some(table) = table else { continue };
        let information = near(results, maker, &table.ids, &mut last)
            .map(|neighbors| neighbors.information(&table.cluster, table.clusters, neighbors.k));
        found.insert(maker, Free { information, agreement: None });
        let of = of_seeds.entry((nodes[maker].variant(), &node.family)).or_insert(Seeds {
            clusters: table.clusters,
            makers: Vec::new(),
            of_rows: Vec::new(),
        });
        // Assignments of other images, or into another number of clusters, are not compared.
        if of.clusters == table.clusters && of.of_rows.first().is_none_or(|first| first.len() == table.len()) {
            of.makers.push(maker);
            of.of_rows.push(table.cluster);
        }
    }
    for Seeds { clusters, makers, of_rows } in of_seeds.into_values() {
        let agreed = agreement(&of_rows, clusters);
        for maker in makers {
            found.entry(maker).or_default().agreement = agreed;
        }
    }
    found
}

/// Neighbors of these images: those that are the same for all settings, else those that the classifier itself goes back to.
fn near<'t>(
    results: &Results<'_>,
    maker: usize,
    ids: &[String],
    last: &'t mut Option<(usize, NeighborTable)>,
) -> Option<&'t NeighborTable> {
    let nodes = &results.spec.nodes;
    let chain = above(results.spec, maker);
    let mut candidates: Vec<usize> = (0..nodes.len())
        .filter(|&index| results.has(index, "neighbors") && wired(&nodes[index], "bank").is_none())
        .filter(|index| nodes[*index].varied.is_empty() || chain.contains(index))
        .collect();
    candidates.sort_by_key(|index| (!nodes[*index].varied.is_empty(), !chain.contains(index), *index));
    for index in candidates {
        if last.as_ref().is_none_or(|(known, _)| *known != index) {
            let stored = results.get::<Neighbors>(index);
            let Some(table) = stored.and_then(|stored| NeighborTable::load(&stored).ok()) else { continue };
            *last = Some((index, table));
        }
        if last.as_ref().is_some_and(|(_, table)| table.ids == ids) {
            return last.as_ref().map(|(_, table)| table);
        }
    }
    None
}

/// A table for each thing that was measured, repetitions put together.
pub(super) fn sweeps(singles: &[Single]) -> Vec<Sweep> {
    let mut sweeps: Vec<Sweep> = Vec::new();
    for single in singles {
        let is = |sweep: &Sweep| {
            (&sweep.stage, &sweep.measured_by, &sweep.images) == (&single.measured, &single.measured_by, &single.images)
        };
        let place = sweeps.iter().position(is).unwrap_or_else(|| {
            sweeps.push(Sweep {
                stage: single.measured.clone(),
                measured_by: single.measured_by.clone(),
                images: single.images.clone(),
                settings: Vec::new(),
                rows: Vec::new(),
            });
            sweeps.len() - 1
        });
        let Sweep { settings, rows, .. } = &mut sweeps[place];
        for Varied { name, .. } in &single.varied {
            if !settings.contains(name) {
                settings.push(name.clone());
            }
        }
        let place = rows.iter().position(|row| row.stage == single.stage).unwrap_or_else(|| {
            let values = single.varied.iter().map(|varied| (varied.name.clone(), varied.value.clone())).collect();
            rows.push(SweepRow { stage: single.stage.clone(), values, seeds: Vec::new(), measures: Vec::new(), most: false });
            rows.len() - 1
        });
        let row = &mut rows[place];
        row.seeds.push(single.seed);
        note(&mut row.measures, INFORMATION, single.information);
        // One for all seeds.
        if row.seeds.len() == 1 {
            note(&mut row.measures, AGREEMENT, single.agreement);
        }
        for measure in MEASURES {
            note(&mut row.measures, measure.name, single.row.as_ref().and_then(|row| measure.told(row)));
        }
    }
    for rows in sweeps.iter_mut().map(|sweep| &mut sweep.rows) {
        for row in rows.iter_mut() {
            sum_up(&mut row.measures);
        }
        let information =
            |row: &SweepRow| row.measures.iter().find(|measure| measure.name == INFORMATION).map(|found| found.mean);
        let most = rows.iter().filter_map(information).max_by(f64::total_cmp);
        for row in rows.iter_mut() {
            row.most = most.is_some() && information(row) == most;
        }
    }
    // One line says nothing about a setting.
    sweeps.retain(|sweep| sweep.rows.len() > 1);
    sweeps
}

impl Single {
    /// What was measured of it, by name.
    fn numbers(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> + '_ {
        let own = [(INFORMATION, self.information), (AGREEMENT, self.agreement)];
        own.into_iter().chain(MEASURES.iter().map(|measure| (measure.name, self.row.as_ref().and_then(|row| measure.of(row)))))
    }

    /// Images, clusters, classes.
    fn counts(&self) -> [(&'static str, Option<usize>); 3] {
        let row = self.row.as_ref();
        [
            ("count", row.map(|row| row.images)),
            ("clusters", row.map(|row| row.clusters)),
            ("classes", row.map(|row| row.classes)),
        ]
    }
}

/// As CSV (RFC 4180, with a header): a column for each setting that varies, one for each measure. Scores are shares, information is in
/// nats.
pub(super) fn csv(singles: &[Single]) -> String {
    let settings = scores::names(singles.iter().map(|single| single.varied.as_slice()));
    let Some(first) = singles.first() else { return String::new() };
    let mut header: Vec<String> = ["measured", "measured_by", "images", "seed"].map(str::to_owned).to_vec();
    header.extend(settings.iter().map(|name| lines::field(name)));
    header.extend(first.counts().into_iter().map(|(name, _)| name.to_owned()));
    header.extend(first.numbers().map(|(name, _)| name.to_owned()));
    let row = |single: &Single| {
        let judge = single.measured_by.as_deref().unwrap_or_default();
        let mut cells: Vec<String> = [&single.measured, judge, &single.images].map(lines::field).to_vec();
        cells.push(single.seed.to_string());
        cells.extend(settings.iter().map(|name| scores::cell(&single.varied, name)));
        cells.extend(single.counts().into_iter().map(|(_, count)| count.map(|count| count.to_string()).unwrap_or_default()));
        cells.extend(single.numbers().map(|(_, number)| number.map(|number| number.to_string()).unwrap_or_default()));
        cells.join(",")
    };
    std::iter::once(header.join(",")).chain(singles.iter().map(row)).fold(String::new(), |text, line| text + &line + "\n")
}

/// The same as a list of objects; what is not known is left out.
pub(super) fn json(singles: &[Single]) -> Json {
    let object = |single: &Single| {
        let settings: Map<String, Json> =
            single.varied.iter().map(|varied| (varied.name.clone(), varied.value.clone())).collect();
        let mut object = json!({
            "measured": single.measured, "measured_by": single.measured_by, "images": single.images, "stage": single.stage,
            "seed": single.seed, "settings": settings,
        });
        let counts = single.counts().into_iter().filter_map(|(name, count)| Some((name, json!(count?))));
        let numbers = single.numbers().filter_map(|(name, number)| Some((name, json!(number?))));
        for (name, value) in counts.chain(numbers) {
            object[name] = value;
        }
        object
    };
    singles.iter().map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(lr: f64, seed: u64, information: f64, acc: Option<f64>) -> Single {
        Single {
            measured: "scan".into(),
            stage: format!("scan@lr={lr}"),
            measured_by: acc.map(|_| "scores".into()),
            images: "data.test".into(),
            seed,
            varied: vec![Varied { path: "stage.scan.lr".into(), name: "lr".into(), value: json!(lr) }],
            row: acc.map(|acc| ScoreRow { images: 20, clusters: 3, classes: 3, acc: Some(acc), ..ScoreRow::default() }),
            information: Some(information),
            agreement: Some(0.5),
        }
    }

    #[test]
    fn seeds_are_put_together_and_the_most_information_is_pointed_out() {
        let all = [
            single(0.1, 1, 1.0, Some(0.5)),
            single(0.1, 2, 2.0, Some(0.75)),
            single(0.2, 1, 1.0, Some(0.5)),
            single(0.2, 2, 1.5, Some(1.0)),
        ];
        let [sweep] = sweeps(&all).try_into().unwrap();
        assert_eq!((sweep.stage.as_str(), sweep.settings.as_slice()), ("scan", &["lr".to_owned()][..]));
        let told: Vec<_> = sweep
            .rows
            .iter()
            .map(|row| (row.most, row.measures.iter().map(|m| (m.name, m.mean, m.values.len())).collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            told,
            [
                (true, vec![("information", 1.5, 2), ("agreement", 0.5, 1), ("acc", 0.625, 2)]),
                (false, vec![("information", 1.25, 2), ("agreement", 0.5, 1), ("acc", 0.75, 2)]),
            ],
            "by what needs no labels, whatever the scores say"
        );
        assert!(sweeps(&all[..2]).is_empty(), "one combination is no comparison");
    }

    #[test]
    fn tables_have_a_column_for_each_setting_and_each_measure() {
        let all = [single(0.1, 1, 1.5, Some(0.5)), single(0.2, 1, 1.0, None)];
        assert_eq!(
            csv(&all),
            "measured,measured_by,images,seed,lr,count,clusters,classes,information,agreement,acc,nmi,ari,top5,ece,majority,knn,linear\n\
             scan,scores,data.test,1,0.1,20,3,3,1.5,0.5,0.5,,,,,,,\n\
             scan,,data.test,1,0.2,,,,1,0.5,,,,,,,,\n"
        );
        assert_eq!(
            json(&all)[1],
            json!({
                "measured": "scan", "measured_by": null, "images": "data.test", "stage": "scan@lr=0.2", "seed": 1,
                "settings": {"lr": 0.2}, "information": 1.0, "agreement": 0.5,
            })
        );
    }
}
