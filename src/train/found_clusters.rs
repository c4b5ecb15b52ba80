//! The number of clusters that a stage looks for: that of its settings, or the one that another stage found.

use kinset_artifact::Stored;
use kinset_artifact::k_table::{KSweep, KTable};
use kinset_stage::{Context, StageError};

/// As many as `found` recommends where that is connected, else as many as `asked`; the first is said, and `stage.json` keeps it.
///
/// # Errors
/// A table that cannot be read, or that recommends fewer than two.
pub fn found_clusters(asked: usize, found: Option<&Stored<KTable>>, cx: &Context<'_>) -> Result<usize, StageError> {
    let Some(found) = found else { return Ok(asked) };
    let clusters = KSweep::load(found)?.chosen;
    if clusters < 2 {
        return Err(StageError::Mismatch {
            what: format!("`{}` finds {clusters} cluster, and clustering needs two at least", found.origin()),
            hint: "leave `clusters_from` out, and say in `clusters` how many there are".into(),
        });
    }
    cx.chose(format!("`clusters` is {clusters}, the number that was found"));
    Ok(clusters)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::k_table::KPoint;
    use kinset_artifact::testing::stored;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;

    #[test]
    fn the_number_that_was_found_goes_before_the_setting_and_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let none = PathBuf::new();
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), none.clone(), none, &heard);
        let found = |chosen: usize| {
            let points = vec![KPoint { k: 2, seed: 0, criterion: "silhouette".into(), value: 0.5 }];
            let table = KSweep { points, chosen, rule: "a test".into(), votes: BTreeMap::new() };
            stored(&table.save(dir.path()).unwrap())
        };
        assert_eq!(found_clusters(10, None, &cx).unwrap(), 10);
        assert!(cx.kept().is_empty());
        assert_eq!(found_clusters(10, Some(&found(7)), &cx).unwrap(), 7);
        assert_eq!(cx.kept()["chosen"], ["`clusters` is 7, the number that was found"]);
        let one = found_clusters(10, Some(&found(1)), &cx).unwrap_err().to_string();
        assert!(one.contains("finds 1 cluster"), "{one}");
    }
}
