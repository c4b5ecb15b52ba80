//! Clusters of a pool's candidates for cluster sampling: found by k-means, or given, with what each cluster and each vote weighs.
//!
//! The objects that the fork counts in an image, class by class, are votes here: the target images that chose it, by their part of the
//! target. No annotation is read.

use super::report::CLUSTERED;
use super::shards::Shards;
use kinset_artifact::Stored;
use kinset_artifact::assignments::{AssignmentTable, Assignments};
use kinset_base::seed::Seed;
use kinset_kernel::gemm::Gemm;
use kinset_math::curate::blind;
use kinset_math::curate::choose::{Edge, Edges};
use kinset_math::curate::sampling::{self, Weights};
use kinset_math::kmeans::{KMeans, assign};
use kinset_stage::{StageError, Stop};

/// Which candidates are in which cluster, and what that is worth.
#[derive(Debug)]
pub struct Clusters {
    /// Rows of the pool, ascending.
    rows: Vec<u32>,
    /// The cluster of each; none if it does not count there.
    cluster: Vec<Option<u32>>,
    weights: Weights,
    /// The part of each target row.
    part: Vec<u32>,
}

impl Clusters {
    /// Of the images that the first k of the target chose, into `count` clusters by k-means. `part` has the part of each target row.
    ///
    /// # Errors
    /// If features cannot be read, or it is asked to stop.
    pub fn find(edges: &Edges, part: &[u32], pool: &Shards, count: usize, seed: Seed, stop: &Stop) -> Result<Self, StageError> {
        let rows = candidates(edges);
        if rows.is_empty() {
            return Ok(Self::new(edges, part, rows, Vec::new(), 1));
        }
        let dim = pool.dim();
        let sample = blind::random(rows.len(), CLUSTERED, seed.branch("sample"));
        let values = pool.rows(&sample.into_iter().map(|place| rows[place as usize]).collect::<Vec<_>>())?;
        let clusters = count.min(values.len() / dim);
        let method = KMeans { restarts: 3, ..KMeans::new(clusters) };
        let fit = method.fit(&values, dim, &Gemm, seed.branch("clusters"), stop)?;
        let mut cluster = Vec::with_capacity(rows.len());
        pool.stream(&rows, |_, values| {
            cluster.extend(assign(values, &fit.centers, dim, &Gemm, stop)?.into_iter().map(Some));
            Ok(())
        })?;
        Ok(Self::new(edges, part, rows, cluster, clusters))
    }

    /// The same in clusters of the whole pool that are known, shard by shard. Of each only the more confident images count, as
    /// [`sampling::confident`] says.
    ///
    /// # Errors
    /// If they cannot be read, or are not of the pool's images.
    pub fn given(edges: &Edges, part: &[u32], pool: &Shards, stored: &[Stored<Assignments>]) -> Result<Self, StageError> {
        let mismatch = |what: String| StageError::Mismatch {
            what,
            hint: "wire the assignments of every shard, in the order of the shards, all of one classifier".into(),
        };
        let mut clusters = None;
        let mut all: Vec<(u32, f32, u32)> = Vec::new();
        let mut row = 0_u32;
        for stored in stored {
            let table = AssignmentTable::load(stored)?;
            if clusters.is_some_and(|clusters| clusters != table.clusters) {
                return Err(mismatch(format!(
                    "`{}` has {} clusters, those before have others",
                    stored.origin(),
                    table.clusters
                )));
            }
            clusters = Some(table.clusters);
            for ((id, cluster), confidence) in table.ids.iter().zip(&table.cluster).zip(&table.confidence) {
                if row as usize >= pool.len() || pool.id(row) != id.as_str() {
                    return Err(mismatch(format!("`{id}` of `{}` is not image {row} of the pool", stored.origin())));
                }
                all.extend(u32::try_from(*cluster).ok().map(|cluster| (cluster, *confidence, row)));
                row += 1;
            }
        }
        if row as usize != pool.len() {
            return Err(mismatch(format!("there are {row} assignments, and the pool has {} images", pool.len())));
        }
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
        let mut sure: Vec<(u32, u32)> = Vec::new();
        for one in all.chunk_by(|a, b| a.0 == b.0) {
            let probabilities: Vec<f32> = one.iter().map(|(_, confidence, _)| *confidence).collect();
            sure.extend(one[..sampling::confident(&probabilities)].iter().map(|&(cluster, _, row)| (row, cluster)));
        }
        sure.sort_unstable();
        let rows = candidates(edges);
        let of = |row: &u32| sure.binary_search_by_key(row, |(row, _)| *row).ok().map(|place| sure[place].1);
        let cluster = rows.iter().map(of).collect();
        Ok(Self::new(edges, part, rows, cluster, clusters.unwrap_or(1)))
    }

    fn new(edges: &Edges, part: &[u32], rows: Vec<u32>, cluster: Vec<Option<u32>>, clusters: usize) -> Self {
        let parts = part.iter().max().map_or(1, |most| *most as usize + 1);
        let mut found =
            Self { rows, cluster, weights: Weights { classes: Vec::new(), clusters: Vec::new() }, part: part.to_vec() };
        let mut counts = vec![0_u64; clusters * parts];
        for (edge, _) in edges.edges.iter().zip(&edges.reasons).filter(|(_, reason)| reason.counts()) {
            if let Some(cluster) = found.cluster(edge) {
                counts[cluster as usize * parts + part[edge.target as usize] as usize] += 1;
            }
        }
        found.weights = Weights::of(&counts, parts);
        found
    }

    /// The cluster that the image of an edge counts in.
    pub fn cluster(&self, edge: &Edge) -> Option<u32> {
        self.rows.binary_search(&edge.pool).ok().and_then(|place| self.cluster[place])
    }

    /// What the vote of each target row weighs.
    pub fn votes(&self) -> Vec<f64> {
        self.part.iter().map(|part| self.weights.classes[*part as usize]).collect()
    }

    /// Images that each cluster gets of a budget.
    pub fn quotas(&self, budget: usize) -> Vec<usize> {
        self.weights.quotas(budget)
    }
}

/// Rows of the pool with an edge that counts among the first k, ascending.
fn candidates(edges: &Edges) -> Vec<u32> {
    let picks = edges.picks();
    let mut rows: Vec<u32> =
        picks.iter().map(|pick| &pick.best).filter(|edge| !edges.refills(edge)).map(|edge| edge.pool).collect();
    rows.sort_unstable();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_artifact::features::{Features, FeaturesWriter};
    use kinset_base::fs;
    use kinset_math::curate::choose::{Order, Shares};
    use kinset_store::digest::Digest;
    use std::path::Path;

    /// A pool around two directions, six images each.
    fn pool(dir: &Path) -> Shards {
        fs::create_folders(dir).unwrap();
        let mut writer = FeaturesWriter::create(dir, 2, true, "test", "test").unwrap();
        let angle = |row: usize| (row % 6) as f64 * 0.01 + if row < 6 { 0.0 } else { 1.5 };
        let values: Vec<f32> = (0..12).flat_map(|row| [angle(row).cos() as f32, angle(row).sin() as f32]).collect();
        let ids: Vec<String> = (0..12).map(|row| format!("p{row}")).collect();
        writer.push(&ids, &values).unwrap();
        let draft = writer.finish().unwrap();
        let stored: Stored<Features> = Stored::new(vec![draft.files[0].path.clone()], Digest::of(b"p"), "p");
        Shards::open(&[stored], Some(2)).unwrap()
    }

    /// Target rows 0 and 1, of part 0, chose images 0 to 3, row 2, of part 1, images 5 and 6.
    fn edges() -> Edges {
        let edge = |target, pool, rank| Edge { target, pool, rank, cosine: 0.5 };
        let first = (0..4).flat_map(|pool| [edge(0, pool, pool + 1), edge(1, pool, pool + 1)]);
        let mut all: Vec<Edge> = first.chain([edge(2, 5, 1), edge(2, 6, 2)]).collect();
        all.sort_by_key(|edge| (edge.target, edge.rank));
        Edges::new(all, 4).in_order_of(Order::Clusters)
    }

    const PART: [u32; 3] = [0, 0, 1];

    fn assigned(dir: &Path, cluster: &[i32], confidence: &[f32]) -> Stored<Assignments> {
        fs::create_folders(dir).unwrap();
        let n = cluster.len();
        let table = AssignmentTable {
            ids: (0..n).map(|row| format!("p{row}")).collect(),
            clusters: 3,
            cluster: cluster.to_vec(),
            confidence: confidence.to_vec(),
            entropy: vec![0.0; n],
            second_cluster: vec![-1; n],
        };
        let draft = table.save(dir).unwrap();
        Stored::new(vec![draft.files[0].path.clone()], Digest::of(b"a"), "a")
    }

    #[test]
    fn rarely_chosen_parts_of_the_target_weigh_more_in_clusters_found_here() {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool(&dir.path().join("p"));
        let found = Clusters::find(&edges(), &PART, &pool, 2, Seed::new(1), &Stop::default()).unwrap();
        // Votes: 8 of part 0 and 1 of part 1 for images around the first direction, 1 of part 1 for one around the other. Weights 0.2, 0.8.
        for (found, wanted) in found.votes().into_iter().zip([0.2, 0.2, 0.8]) {
            assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        }
        let at = |pool: u32| found.cluster(&Edge { target: 0, pool, rank: 1, cosine: 0.0 });
        assert!(at(0) == at(5) && at(0) != at(6) && at(4).is_none(), "nobody chose image 4");
        // 0.2 + 0.8 / 2 and 0.8 / 2 of 1.
        let quotas = found.quotas(1000);
        assert_eq!((quotas[at(0).unwrap() as usize], quotas[at(6).unwrap() as usize]), (600, 399));
        let mut edges = edges().weighing(found.votes());
        edges.spend(3, Some(Shares { quotas: &found.quotas(3), of: &|edge| found.cluster(edge) }));
        let taken: Vec<u32> = edges.picks().iter().map(|pick| pick.best.pool).collect();
        // One each by quota, cut down from 1.8 and 1.2, and the next of all; images of one vote of 0.8 come before those of two of 0.2.
        assert_eq!(taken, [5, 6, 0]);
    }

    #[test]
    fn of_given_clusters_the_surer_images_count() {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool(&dir.path().join("p"));
        let confidence = [0.9, 0.8, 0.55, 0.2, 0.9, 0.9, 0.3, 0.9, 0.9, 0.9, 0.9, 0.9];
        let stored = assigned(&dir.path().join("a"), &[0, 0, 0, 0, 0, 2, 2, -1, 2, 2, 2, 2], &confidence);
        let found = Clusters::given(&edges(), &PART, &pool, &[stored]).unwrap();
        let at = |pool: u32| found.cluster(&Edge { target: 0, pool, rank: 1, cosine: 0.0 });
        assert_eq!([0, 1, 2, 3, 5, 6, 7].map(at), [Some(0), Some(0), Some(0), None, Some(2), Some(2), None]);
        let few = assigned(&dir.path().join("b"), &[0; 5], &[1.0; 5]);
        let refused = Clusters::given(&edges(), &PART, &pool, &[few]).unwrap_err().to_string();
        assert!(refused.contains("5 assignments, and the pool has 12"), "{refused}");
        let twice = [(); 2].map(|()| assigned(&dir.path().join("c"), &[0; 12], &[1.0; 12]));
        let refused = Clusters::given(&edges(), &PART, &pool, &twice).unwrap_err().to_string();
        assert!(refused.contains("is not image 12 of the pool"), "{refused}");
    }
}
