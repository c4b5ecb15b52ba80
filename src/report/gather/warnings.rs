//! Warnings that a reader should not overlook: plain rules with plain thresholds, none of which needs a label but where it says so.

use super::page::{Board, Calibration, Clusters, Neighborhoods, Standing, Warning};
use kinset_base::id::is_twin;
use kinset_base::unit;

/// A cluster with less than this share of its due is as good as empty.
const EMPTY: f64 = 0.1;
/// A cluster with more than this share of all images has swallowed others.
const SWALLOWED: f64 = 0.5;
/// So many times larger than the smallest is out of balance.
const IMBALANCE: f64 = 10.0;
/// Below this median confidence the classifier hardly knows.
const UNSURE: f64 = 0.5;
/// An expected calibration error above this makes confidences misleading.
const MISCALIBRATED: f64 = 0.15;
/// A share of repeated images above this is worth knowing.
const REPEATED: f64 = 0.01;
/// Mean similarity to the last of the neighbors above this: the features tell images hardly apart.
const ALIKE: f64 = 0.99;

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Warnings about clusters: collapse, imbalance, low confidence.
pub(super) fn of_clusters(clusters: &Clusters) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let (k, n) = (clusters.each.len(), clusters.count.saturating_sub(clusters.unassigned));
    if k == 0 || n == 0 {
        return warnings;
    }
    let due = n as f64 / k as f64;
    let weak: Vec<usize> =
        clusters.each.iter().filter(|cluster| (cluster.size as f64) < EMPTY * due).map(|cluster| cluster.number).collect();
    if !weak.is_empty() {
        let first: Vec<String> = weak.iter().take(8).map(ToString::to_string).collect();
        let more = if weak.len() > 8 { " …" } else { "" };
        let text = format!(
            "{} of {k} clusters are empty or nearly so (less than {} where {:.0} would be even): {}{more}. Fewer clusters, \
             or a larger weight on the entropy of the clusters, keep them apart.",
            weak.len(),
            unit::counted((EMPTY * due).ceil() as u64, "image"),
            due,
            first.join(", "),
        );
        warnings.push(Warning { about: "collapse", text });
    }
    let sizes = || clusters.each.iter().map(|cluster| cluster.size);
    let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
    if k > 2 && most as f64 > SWALLOWED * n as f64 {
        let text = format!("One cluster contains {} of all images.", percent(most as f64 / n as f64));
        warnings.push(Warning { about: "collapse", text });
    } else if weak.is_empty() && most as f64 > IMBALANCE * least as f64 {
        let text = format!(
            "The largest cluster ({} images) is more than {IMBALANCE:.0} times as large as the smallest ({}).",
            unit::count(most as u64),
            unit::count(least as u64),
        );
        warnings.push(Warning { about: "imbalance", text });
    }
    if clusters.median_confidence < UNSURE {
        let text = format!("Half of the images are sorted with a confidence below {}.", percent(clusters.median_confidence));
        warnings.push(Warning { about: "confidence", text });
    }
    warnings
}

/// A warning about confidences that mislead; this one is measured with labels.
pub(super) fn of_calibration(calibration: &Calibration) -> Option<Warning> {
    let Calibration { ece, confidence, accuracy, .. } = *calibration;
    let (much, word) = (ece > MISCALIBRATED, if confidence > accuracy { "overconfident" } else { "underconfident" });
    much.then(|| Warning {
        about: "calibration",
        text: format!(
            "The classifier is {word}: mean confidence {}, accuracy {} (expected calibration error {}).",
            percent(confidence),
            percent(accuracy),
            percent(ece),
        ),
    })
}

/// A warning for each learned result that does not beat k-means on the same images; measured with labels.
pub(super) fn of_scores(boards: &[Board]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for board in boards {
        let acc = |row: &super::page::BoardRow| row.measures.iter().find(|measure| measure.name == "acc").map(|acc| acc.mean);
        let best = board.rows.iter().filter(|row| row.baseline).filter_map(|row| Some((acc(row)?, &row.stage)));
        let Some((best, baseline)) = best.max_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
        let beaten: Vec<String> = board
            .rows
            .iter()
            .filter(|row| !row.baseline && acc(row).is_some_and(|acc| acc <= best))
            .map(|row| row.stage.clone())
            .collect();
        if !beaten.is_empty() {
            let text = format!(
                "On {} k-means (`{baseline}`, ACC {}) is as good as {} or better.",
                board.images,
                percent(best),
                beaten.join(", "),
            );
            warnings.push(Warning { about: "baseline", text });
        }
    }
    warnings
}

/// Warnings about images that repeat each other, and features that do not tell images apart.
pub(super) fn of_images(ids: &[String], neighbors: Option<&Neighborhoods>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    // Equal images get the same name with a number behind it.
    let repeated = ids.iter().filter(|id| is_twin(id)).count();
    if repeated as f64 > REPEATED * ids.len() as f64 {
        let text = format!(
            "{} of {} images are exact copies of others ({}).",
            unit::count(repeated as u64),
            unit::count(ids.len() as u64),
            percent(repeated as f64 / ids.len() as f64),
        );
        warnings.push(Warning { about: "duplicates", text });
    }
    if let Some(neighbors) = neighbors.filter(|neighbors| neighbors.metric == "cosine" && neighbors.similarity.1 > ALIKE) {
        let text = format!(
            "Even the last of {} neighbors has a mean similarity of {:.3}: the features hardly tell images apart, or most images nearly \
             repeat others.",
            neighbors.k, neighbors.similarity.1,
        );
        warnings.push(Warning { about: "duplicates", text });
    }
    warnings
}

/// How the pipeline stands, if that is worth a warning.
pub(super) fn of_standing(standing: &Standing) -> Option<Warning> {
    let list = |stages: &[String]| stages.iter().map(|stage| format!("`{stage}`")).collect::<Vec<_>>().join(", ");
    let text = match standing {
        Standing::Complete => return None,
        Standing::Never => "This pipeline has not run yet.".to_owned(),
        Standing::Failed { stages } => {
            format!("The last run failed in {}. The results shown were finished before or in parallel.", list(stages))
        }
        Standing::Interrupted { stages, asked: true } => {
            format!("The last run was stopped in {}. The same command resumes from there.", list(stages))
        }
        Standing::Interrupted { stages, asked: false } => format!(
            "The last run ended without a message in {}, or is still running. The same command resumes from the last checkpoint.",
            list(stages),
        ),
        Standing::Partial { stages } => {
            format!("{stages} stages have no cached result: the file has changed, or only some stages were selected.")
        }
    };
    Some(Warning { about: "stage", text })
}

#[cfg(test)]
mod tests {
    use super::super::page::{BoardRow, Cluster, Measured};
    use super::*;

    fn clusters(sizes: &[usize], median_confidence: f64) -> Clusters {
        let each = sizes.iter().enumerate().map(|(number, &size)| Cluster {
            number,
            size,
            confidence: None,
            name: None,
            class: None,
            classes: Vec::new(),
            purity: None,
            prototype: None,
            most: Vec::new(),
            least: Vec::new(),
            random: Vec::new(),
        });
        Clusters {
            stage: "a".into(),
            classifier: None,
            images: "i".into(),
            count: sizes.iter().sum(),
            unassigned: 0,
            prototypes_by: String::new(),
            matching: None,
            accuracy: None,
            groups: None,
            confidence: Vec::new(),
            median_confidence,
            each: each.collect(),
        }
    }

    fn about(warnings: &[Warning]) -> Vec<&str> {
        warnings.iter().map(|warning| warning.about).collect()
    }

    #[test]
    fn collapse_imbalance_and_low_confidence_are_told_apart() {
        assert_eq!(about(&of_clusters(&clusters(&[100, 90, 110], 0.9))), [""; 0]);
        assert_eq!(about(&of_clusters(&clusters(&[100, 100, 2], 0.9))), ["collapse"]);
        assert_eq!(about(&of_clusters(&clusters(&[300, 15, 15, 15], 0.9))), ["collapse"], "one holds nearly all");
        assert_eq!(about(&of_clusters(&clusters(&[60, 5, 30, 26], 0.9))), ["imbalance"]);
        assert_eq!(about(&of_clusters(&clusters(&[100, 100], 0.4))), ["confidence"]);
    }

    #[test]
    fn what_does_not_beat_k_means_is_named() {
        let row = |stage: &str, baseline, acc: f64| BoardRow {
            stage: stage.into(),
            kind: String::new(),
            baseline,
            seen: None,
            seeds: vec![1],
            measures: vec![Measured { name: "acc", values: vec![acc], mean: acc, std: None }],
            clusters: 3,
            sizes: None,
            notes: Vec::new(),
        };
        let board = |rows| Board {
            stage: "scores".into(),
            images: "data.test".into(),
            count: 9,
            classes: 3,
            matching: String::new(),
            rows,
        };
        let found = of_scores(&[board(vec![row("km", true, 0.6), row("scan", false, 0.59), row("nnm", false, 0.7)])]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].text.contains("`km`, ACC 60.0 %") && found[0].text.contains("as good as scan or better"),
            "{}",
            found[0].text
        );
        assert!(of_scores(&[board(vec![row("scan", false, 0.1)])]).is_empty(), "without k-means there is nothing to say");
    }

    #[test]
    fn copies_are_counted_by_their_names() {
        let ids = |n: usize| {
            (0..n).map(|i| if i < 5 { format!("00112233aabbccdd-{i}") } else { format!("b{i}") }).collect::<Vec<_>>()
        };
        assert_eq!(about(&of_images(&ids(100), None)), ["duplicates"]);
        assert!(of_images(&ids(1000), None).is_empty());
        let dated: Vec<String> = (0..9).map(|i| format!("2024-11-{i}")).collect();
        assert!(of_images(&dated, None).is_empty(), "names that others gave");
    }
}
