//! The score table of a pipeline.
//!
//! Scores are stored without names of stages, because names are no part of a key; here each row gets the name it has in the
//! pipeline file.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::lines;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use kinset_artifact::scores::{MEASURES, Measure, ScoreRow, Scores};
use kinset_base::fs;
use kinset_math::stats;
use kinset_pipeline::error::RunError;
use kinset_pipeline::event::Planned;
use kinset_pipeline::spec::Spec;
use kinset_pipeline::state::{self, Known};
use kinset_pipeline::vary::Varied;
use kinset_stage::StageError;
use kinset_store::Store;
use kinset_store::record::Record;

/// A row of scores with the names of its pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct Scored {
    /// The stage that measured it.
    pub judge: String,
    /// The stage that measured it, by its name in the file.
    pub measured_by: String,
    /// What was measured, by its name in the file: a stage, or one of its outputs (`scan.last`).
    pub measured: String,
    /// The same with the settings that vary, without the mark of a repetition: `scan@lr=0.1.last`.
    pub stage: String,
    /// The stage that made it, without the mark of a repetition; none for the k-means that is fitted on the way.
    pub made_by: Option<String>,
    /// The images it was measured on, as the pipeline names them.
    pub images: String,
    /// The varied settings that what was measured depends on.
    pub varied: Vec<Varied>,
    /// The seed of the measured repetition.
    pub seed: u64,
    pub row: ScoreRow,
}

/// All rows of scores of a pipeline, in the order of its file.
pub fn collect(spec: &Spec, store: &Store, records: &Known) -> Result<Vec<Scored>, RunError> {
    of_plan(&Planned::of(spec), store, |place| records.get(&place))
}

/// All rows of scores of a plan, in its order; `record` gives the result of a stage by its place in the plan.
pub fn of_plan<'r>(
    plan: &[Planned],
    store: &Store,
    record: impl Fn(usize) -> Option<&'r Record>,
) -> Result<Vec<Scored>, RunError> {
    let mut all = Vec::new();
    for (place, planned) in plan.iter().enumerate() {
        let Some(record) = record(place) else { continue };
        for (name, output) in record.outputs.iter().filter(|(_, output)| output.kind == "scores") {
            let stored = state::stored::<Scores>(store, &planned.stage, name, output)?;
            for row in Scores::load(&stored).map_err(StageError::from)?.rows {
                let wired = |port: &str, place: usize| wired(plan, planned, port, place);
                let measured = measured(&row.name, wired);
                let images = ["images", "queries", "features"].into_iter().find_map(|port| wired(port, 0));
                // What a judge makes itself depends on what it reads, and on its own settings.
                let own = planned.varied.iter().filter(|varied| {
                    let of_images = images.as_ref().is_some_and(|images| images.planned.varied.contains(varied));
                    of_images || varied.is_of(&planned.family)
                });
                let varied = measured.as_ref().map_or_else(|| own.cloned().collect(), |made| made.planned.varied.clone());
                all.push(Scored {
                    judge: planned.stage.clone(),
                    measured_by: planned.family.clone(),
                    measured: measured.as_ref().map_or_else(|| row.name.clone(), |made| made.reference(&made.planned.family)),
                    stage: measured
                        .as_ref()
                        .map_or_else(|| marked(&row.name, &varied), |made| made.reference(made.planned.variant())),
                    made_by: measured.map(|made| made.planned.variant().to_owned()),
                    images: images.as_ref().map(|images| images.reference(images.planned.variant())).unwrap_or_default(),
                    varied,
                    seed: planned.seed,
                    row,
                });
            }
        }
    }
    Ok(all)
}

/// The name of what a judge makes itself, with what varies of it.
fn marked(name: &str, varied: &[Varied]) -> String {
    varied.iter().fold(name.to_owned(), |name, varied| format!("{name}@{}={}", varied.name, varied.word()))
}

/// The rows that say something else than those before: what does not vary is measured by each judge of what does.
pub fn distinct(rows: &[Scored]) -> Vec<&Scored> {
    let mut found: Vec<&Scored> = Vec::with_capacity(rows.len());
    for row in rows {
        let same = |known: &&Scored| {
            (&known.stage, &known.measured_by, &known.images) == (&row.stage, &row.measured_by, &row.images)
                && known.seed == row.seed
                && known.row == row.row
        };
        if !found.iter().any(same) {
            found.push(row);
        }
    }
    found
}

/// What is wired to a port.
struct Wired<'p> {
    planned: &'p Planned,
    /// The output with a dot before it; empty if it is the main one.
    output: &'p str,
}

impl Wired<'_> {
    fn reference(&self, stage: &str) -> String {
        format!("{stage}{}", self.output)
    }
}

fn wired<'p>(plan: &'p [Planned], planned: &'p Planned, port: &str, place: usize) -> Option<Wired<'p>> {
    let name = planned.reads.get(port)?.get(place)?;
    let output_of = |stage: &str| name.strip_prefix(stage).filter(|output| output.is_empty() || output.starts_with('.'));
    // Of `data.test` and `data` the longer one is meant.
    let fits = plan.iter().filter_map(|other| Some((other, output_of(&other.stage)?)));
    fits.min_by_key(|(_, output)| output.len()).map(|(planned, output)| Wired { planned, output })
}

/// `classifiers[1]` by what it is in the pipeline.
fn measured<'p>(name: &str, wired: impl Fn(&str, usize) -> Option<Wired<'p>>) -> Option<Wired<'p>> {
    let place = name.strip_prefix("classifiers[").and_then(|rest| rest.strip_suffix(']')).and_then(|n| n.parse().ok());
    match (place, name) {
        (Some(place), _) => wired("classifiers", place),
        (None, "queries") => wired("queries", 0),
        (None, _) => None,
    }
}

/// The rows as one table for the terminal: percent, mean ± standard deviation where there are repeats.
pub fn render(rows: &[Scored]) -> String {
    let mut text = String::new();
    let mut groups: Vec<&str> = Vec::new();
    let rows = distinct(rows);
    for row in &rows {
        if !groups.contains(&row.measured_by.as_str()) {
            groups.push(&row.measured_by);
        }
    }
    for (position, group) in groups.iter().enumerate() {
        let of_group: Vec<&Scored> = rows.iter().copied().filter(|row| row.measured_by == **group).collect();
        if position > 0 {
            text.push('\n');
        }
        // Features that were brought along are not of images that the pipeline names.
        let images = of_group.first().map_or("", |row| row.images.as_str());
        let of = if images.is_empty() { String::new() } else { format!(" of {images}") };
        let first = &of_group[0].row;
        let _ =
            writeln!(text, "{group}: {} images{of}, {} classes", kinset_base::unit::count(first.images as u64), first.classes);
        text.push_str(&table(&of_group));
        text.push('\n');
    }
    text
}

/// Where the scores of a stage lie under the names of its pipeline, in the stage's view.
pub const TABLE: &str = "scores.csv";

/// The names of all settings that vary of some rows, in the order of the file.
pub(super) fn names<'r>(rows: impl IntoIterator<Item = &'r [Varied]>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in rows.into_iter().flatten().map(|varied| &varied.name) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The value of a setting as a field of CSV, empty where there is none.
pub(super) fn cell(varied: &[Varied], name: &str) -> String {
    varied.iter().find(|varied| varied.name == name).map(|found| lines::field(&found.word())).unwrap_or_default()
}

/// The rows that a stage measured as CSV (RFC 4180, with a header), under the names of the pipeline. Scores are shares. Each setting
/// that varies in the pipeline has a column, empty where a row does not depend on it.
pub fn csv(rows: &[Scored], judge: &str) -> String {
    let settings = names(rows.iter().map(|row| row.varied.as_slice()));
    let mut text = String::from("measured,images,seed");
    let columns = settings.iter().map(|name| lines::field(name)).chain(["count", "clusters", "classes"].map(str::to_owned));
    for column in columns.chain(MEASURES.map(|measure| measure.name.to_owned())) {
        text.push_str(&format!(",{column}"));
    }
    text.push('\n');
    for scored in rows.iter().filter(|scored| scored.judge == judge) {
        let Scored { measured, images, seed, row, .. } = scored;
        text.push_str(&format!("{},{},{seed}", lines::field(measured), lines::field(images)));
        for name in &settings {
            text.push_str(&format!(",{}", cell(&scored.varied, name)));
        }
        text.push_str(&format!(",{},{},{}", row.images, row.clusters, row.classes));
        row.numbers().iter().for_each(|(_, score)| text.push_str(&score.map_or_else(|| ",".to_owned(), |s| format!(",{s}"))));
        text.push('\n');
    }
    text
}

/// Writes the tables of all stages that measured something into their views, where they are not there already.
///
/// # Errors
/// If one cannot be written.
pub fn write_tables(rows: &[Scored], store: &Store, pipeline: &str) -> Result<(), RunError> {
    let judges: BTreeSet<&str> = rows.iter().map(|scored| scored.judge.as_str()).collect();
    for judge in judges {
        let path = store.view_path(pipeline, judge)?.join(TABLE);
        let text = csv(rows, judge);
        if !fs::read_text(&path).is_ok_and(|there| there == text) {
            fs::write_atomic(&path, text.as_bytes())?;
        }
    }
    Ok(())
}

/// Measurements of one thing in so many digits: mean ± standard deviation of several, a dash for none.
pub fn spread(values: &[f64], digits: usize) -> String {
    match values {
        [] => "–".into(),
        [one] => format!("{one:.digits$}"),
        many => format!("{:.digits$} ± {:.digits$}", stats::mean(many), stats::std(many)),
    }
}

fn table(rows: &[&Scored]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.stage.as_str()) {
            names.push(&row.stage);
        }
    }
    let used: Vec<Measure> =
        MEASURES.into_iter().filter(|measure| rows.iter().any(|row| measure.told(&row.row).is_some())).collect();
    let sized = rows.iter().any(|row| !row.row.cluster_sizes.is_empty());
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut header: Vec<String> = vec!["  stage".into()];
    header.extend(used.iter().map(|measure| format!("{} %", measure.title)));
    if sized {
        header.extend(["clusters".into(), "sizes".into()]);
    }
    table.set_header(header);
    for name in names {
        let of_name: Vec<&&Scored> = rows.iter().filter(|row| row.stage == name).collect();
        let mut cells = vec![format!("  {name}")];
        for measure in &used {
            let values: Vec<f64> = of_name.iter().filter_map(|row| measure.told(&row.row)).map(|v| v * 100.0).collect();
            cells.push(spread(&values, 1));
        }
        if sized {
            let sizes = &of_name[0].row.cluster_sizes;
            cells.push(of_name[0].row.clusters.to_string());
            cells.push(match (sizes.iter().min(), sizes.iter().max()) {
                (Some(least), Some(most)) => format!("{least}–{most}"),
                _ => String::new(),
            });
        }
        table.add_row(cells);
    }
    let columns = table.column_count();
    for column in 1..columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_row_is_called_by_what_is_wired_and_repetitions_share_their_name() {
        let planned = |stage: &str, reads: &[&str]| Planned {
            stage: stage.into(),
            family: stage.split('@').next().unwrap().into(),
            kind: "any".into(),
            seed: stage.split('@').nth(1).map_or(1, |seed| seed.parse().unwrap()),
            varied: Vec::new(),
            reads: BTreeMap::from([("classifiers".to_owned(), reads.iter().map(|&name| name.to_owned()).collect())]),
        };
        let plan = [
            planned("data", &[]),
            planned("data.test", &[]),
            planned("scan@2", &[]),
            planned("scores@2", &["scan@2", "scan@2.last", "data.test", "data.test.labels", "scan@21"]),
        ];
        let called = |name: &str| {
            let found = measured(name, |port, place| wired(&plan, &plan[3], port, place));
            found.map(|found| (found.reference(&found.planned.family), found.planned.family.clone()))
        };
        let pair = |reference: &str, family: &str| Some((reference.to_owned(), family.to_owned()));
        assert_eq!(called("classifiers[0]"), pair("scan", "scan"));
        assert_eq!(called("classifiers[1]"), pair("scan.last", "scan"));
        assert_eq!(called("classifiers[2]"), pair("data.test", "data.test"));
        assert_eq!(called("classifiers[3]"), pair("data.test.labels", "data.test"));
        assert_eq!(called("classifiers[4]"), None, "nothing of that name");
        assert_eq!(called("kmeans"), None, "a row of the judge's own");
    }

    #[test]
    fn a_table_has_the_names_of_the_pipeline_and_a_cell_for_each_score() {
        let scored = |judge: &str, stage: &str, acc| Scored {
            judge: judge.into(),
            measured_by: "scores".into(),
            measured: stage.into(),
            varied: Vec::new(),
            stage: stage.into(),
            made_by: None,
            images: "data.test".into(),
            seed: 7,
            row: ScoreRow { images: 20, clusters: 3, classes: 2, acc, knn: Some(0.1 + 0.2), ..ScoreRow::default() },
        };
        let rows =
            [scored("scores@1", "scan.last", Some(0.75)), scored("scores@2", "scan", None), scored("scores@1", "k,m", None)];
        assert_eq!(
            csv(&rows, "scores@1"),
            "measured,images,seed,count,clusters,classes,acc,nmi,ari,top5,ece,majority,knn,linear\n\
             scan.last,data.test,7,20,3,2,0.75,,,,,,0.30000000000000004,\n\
             \"k,m\",data.test,7,20,3,2,,,,,,,0.30000000000000004,\n"
        );
    }

    #[test]
    fn images_without_a_name_are_counted_without_one() {
        let row = ScoreRow { name: "kmeans".into(), images: 1020, classes: 12, ..ScoreRow::default() };
        let head = |images: &str| {
            let scored = Scored {
                judge: "scores".into(),
                measured_by: "scores".into(),
                measured: "kmeans".into(),
                varied: Vec::new(),
                stage: "kmeans".into(),
                made_by: None,
                images: images.into(),
                seed: 1,
                row: row.clone(),
            };
            render(&[scored]).lines().next().unwrap().to_owned()
        };
        assert_eq!(head("data.test"), "scores: 1,020 images of data.test, 12 classes");
        assert_eq!(head(""), "scores: 1,020 images, 12 classes");
    }
}
