//! The matching of clusters to classes, and measures of how well the two partitions agree.
//!
//! Everything starts from one [`Contingency`] table of clusters by classes. A [`Matching`] names clusters after classes, one to
//! one ([`Contingency::match_one_to_one`], Kuhn 1955) or many to one ([`Contingency::match_by_majority`], for more clusters than
//! classes); accuracies, top-k and the confusion matrix need one. NMI, ARI and AMI do not care for names and follow
//! scikit-learn's definitions to the limits.
//!
//! Clusters and classes are numbers of different kinds, and here of different types: none of these functions can be handed the
//! prediction as the truth.

use std::collections::BTreeMap;

use super::entropy::entropy_of_counts;
use super::hungarian::assign;
use super::stats;
use super::topk::top_k;

/// The number of a cluster: what a model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub usize);

/// The number of a class: what a person has labeled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub usize);

/// The cluster of each row, and how many clusters there are, empty ones included.
#[derive(Clone, Copy, Debug)]
pub struct Clusters<'a> {
    /// `[N]`, each below `count`; negative: not assigned.
    pub of_row: &'a [i32],
    /// K.
    pub count: usize,
}

/// The class of each row, and how many classes there are, absent ones included.
#[derive(Clone, Copy, Debug)]
pub struct Classes<'a> {
    /// `[N]`, each below `count`; negative: not labeled.
    pub of_row: &'a [i32],
    /// G.
    pub count: usize,
}

impl<'a> Clusters<'a> {
    /// Clusters numbered up to the highest that occurs.
    pub fn up_to_highest(of_row: &'a [i32]) -> Self {
        Self { of_row, count: above(of_row) }
    }
}

impl<'a> Classes<'a> {
    /// Classes numbered up to the highest that occurs.
    pub fn up_to_highest(of_row: &'a [i32]) -> Self {
        Self { of_row, count: above(of_row) }
    }
}

fn above(of_row: &[i32]) -> usize {
    of_row.iter().copied().max().map_or(0, |highest| (i64::from(highest) + 1).max(0) as usize)
}

/// The mean adjusted Rand index of all pairs among clusterings of the same rows into so many clusters; nothing for less than two.
pub fn agreement(of_rows: &[Vec<i32>], count: usize) -> Option<f64> {
    let pairs = (0..of_rows.len()).flat_map(|a| (a + 1..of_rows.len()).map(move |b| (a, b)));
    let each: Vec<f64> = pairs.map(|(a, b)| Contingency::between(&of_rows[a], &of_rows[b], count).ari()).collect();
    (!each.is_empty()).then(|| stats::mean(&each))
}

/// How many rows are in cluster k and class g, for the rows that have both. Only cells that are not empty are kept, so that
/// thousands of clusters against thousands of classes cost no more than the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contingency {
    cells: Vec<(ClusterId, ClassId, u64)>,
    clusters: Vec<u64>,
    classes: Vec<u64>,
    total: u64,
}

impl Contingency {
    /// Counts what two clusterings of the same rows into so many clusters share; the second stands in the place of the classes.
    ///
    /// # Panics
    /// As [`Contingency::new`].
    pub fn between(one: &[i32], other: &[i32], count: usize) -> Self {
        Self::new(Clusters { of_row: one, count }, Classes { of_row: other, count })
    }

    /// Counts.
    ///
    /// # Panics
    /// If the two speak of a different number of rows, or an entry is not below its count.
    pub fn new(clusters: Clusters, classes: Classes) -> Self {
        assert_eq!(clusters.of_row.len(), classes.of_row.len(), "clusters and classes of the same rows");
        let mut cells = BTreeMap::new();
        let (mut cluster_sizes, mut class_sizes, mut total) = (vec![0; clusters.count], vec![0; classes.count], 0);
        for (&cluster, &class) in clusters.of_row.iter().zip(classes.of_row) {
            let (Ok(cluster), Ok(class)) = (usize::try_from(cluster), usize::try_from(class)) else { continue };
            assert!(cluster < clusters.count && class < classes.count, "cluster {cluster} or class {class} is out of range");
            *cells.entry((ClusterId(cluster), ClassId(class))).or_insert(0) += 1;
            cluster_sizes[cluster] += 1;
            class_sizes[class] += 1;
            total += 1;
        }
        let cells = cells.into_iter().map(|((cluster, class), count)| (cluster, class, count)).collect();
        Self { cells, clusters: cluster_sizes, classes: class_sizes, total }
    }

    /// The cells that are not empty, by cluster, then class.
    pub fn cells(&self) -> &[(ClusterId, ClassId, u64)] {
        &self.cells
    }

    /// Labelled rows in each cluster, K numbers.
    pub fn cluster_sizes(&self) -> &[u64] {
        &self.clusters
    }

    /// Assigned rows of each class, G numbers.
    pub fn class_sizes(&self) -> &[u64] {
        &self.classes
    }

    /// Rows that have a cluster and a class.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Names clusters after classes one to one so that the most rows come out right. With more clusters than classes some
    /// clusters stay without a name and all their rows count as wrong: prefer [`Self::match_by_majority`] then.
    ///
    /// The table is laid out in full for this: K × G numbers.
    pub fn match_one_to_one(&self) -> Matching {
        let (k, g) = (self.clusters.len(), self.classes.len());
        let mut cost = vec![self.total as f64; k * g];
        for &(ClusterId(cluster), ClassId(class), count) in &self.cells {
            cost[cluster * g + class] -= count as f64;
        }
        Matching { class_of: assign(&cost, k, g).into_iter().map(|class| class.map(ClassId)).collect(), classes: g }
    }

    /// Names each cluster after its most frequent class (ties: lower class); several clusters may share a name, empty ones get
    /// none. The accuracy under it grows with the number of clusters: report the number with it.
    pub fn match_by_majority(&self) -> Matching {
        let mut best = vec![0; self.clusters.len()];
        let mut class_of = vec![None; self.clusters.len()];
        for &(ClusterId(cluster), class, count) in &self.cells {
            if count > best[cluster] {
                best[cluster] = count;
                class_of[cluster] = Some(class);
            }
        }
        Matching { class_of, classes: self.classes.len() }
    }

    /// Share of rows whose cluster bears the name of their class, 0 to 1 (ACC); NaN if no row is labeled.
    pub fn accuracy(&self, matching: &Matching) -> f64 {
        self.right(matching).map(|(_, count)| count).sum::<u64>() as f64 / self.total as f64
    }

    /// The same for each class; `None` for a class without rows.
    pub fn class_accuracies(&self, matching: &Matching) -> Vec<Option<f64>> {
        let mut right = vec![0; self.classes.len()];
        self.right(matching).for_each(|(ClassId(class), count)| right[class] += count);
        right.iter().zip(&self.classes).map(|(&right, &size)| (size > 0).then(|| right as f64 / size as f64)).collect()
    }

    fn right(&self, matching: &Matching) -> impl Iterator<Item = (ClassId, u64)> {
        self.cells.iter().filter(|cell| matching.class(cell.0) == Some(cell.1)).map(|cell| (cell.1, cell.2))
    }

    /// Rows by true class and by the name of their cluster.
    pub fn confusion(&self, matching: &Matching) -> Confusion {
        let g = self.classes.len();
        let (mut counts, mut unnamed) = (vec![0; g * g], vec![0; g]);
        for &(cluster, ClassId(class), count) in &self.cells {
            match matching.class(cluster) {
                Some(ClassId(named)) => counts[class * g + named] += count,
                None => unnamed[class] += count,
            }
        }
        Confusion { classes: g, counts, unnamed }
    }

    /// Mutual information of the two partitions, nats.
    pub fn mutual_information(&self) -> f64 {
        let n = self.total as f64;
        let terms = self.cells.iter().map(|&(ClusterId(k), ClassId(g), count)| {
            let count = count as f64;
            // Logarithms of integers, added: the quotients would round first.
            let log_ratio = count.ln() + n.ln() - (self.clusters[k] as f64).ln() - (self.classes[g] as f64).ln();
            let term = count / n * log_ratio;
            if term.abs() < f64::EPSILON { 0.0 } else { term }
        });
        terms.sum::<f64>().max(0.0)
    }

    /// Normalized mutual information, 0 to 1, over the arithmetic mean of the two entropies (scikit-learn's default since 0.22).
    /// 1 if both partitions have at most one part.
    pub fn nmi(&self) -> f64 {
        if self.trivial() {
            return 1.0;
        }
        let information = self.mutual_information();
        if information <= 0.0 { 0.0 } else { information / self.mean_entropy() }
    }

    /// Adjusted Rand index (Hubert and Arabie 1985): 0 is chance, 1 is agreement, −0.5 the least.
    pub fn ari(&self) -> f64 {
        // Ordered pairs as in scikit-learn's pair confusion matrix; u128 holds the square of any row count, f64 the products.
        let squares = |sizes: &mut dyn Iterator<Item = u64>| -> u128 { sizes.map(|s| u128::from(s).pow(2)).sum() };
        let n = u128::from(self.total);
        let cells = squares(&mut self.cells.iter().map(|cell| cell.2));
        let (clusters, classes) = (squares(&mut self.clusters.iter().copied()), squares(&mut self.classes.iter().copied()));
        let (together, only_cluster, only_class) = (cells - n, clusters - cells, classes - cells);
        let apart = (n * n + cells) - clusters - classes;
        if only_cluster == 0 && only_class == 0 {
            return 1.0;
        }
        let (tp, fp, fn_, tn) = (together as f64, only_cluster as f64, only_class as f64, apart as f64);
        2.0 * (tp * tn - fn_ * fp) / ((tp + fn_) * (fn_ + tn) + (tp + fp) * (fp + tn))
    }

    /// Adjusted mutual information (Vinh, Epps and Bailey 2010), arithmetic mean of entropies: 0 is chance, 1 is agreement.
    pub fn ami(&self) -> f64 {
        if self.trivial() {
            return 1.0;
        }
        let used = |sizes: &[u64]| sizes.iter().filter(|&&s| s > 0).count();
        if used(&self.clusters) == 1 || used(&self.classes) == 1 {
            return 0.0;
        }
        let expected = self.expected_information();
        // A perfect match has 0/0 here; push both away from zero on their own side.
        let away = |x: f64| if x < 0.0 { x.min(-f64::EPSILON) } else { x.max(f64::EPSILON) };
        away(self.mutual_information() - expected) / away(self.mean_entropy() - expected)
    }

    /// Mutual information that two random partitions with these sizes share on average (Vinh et al. 2010, eq. 24a).
    fn expected_information(&self) -> f64 {
        let n = self.total;
        let logs = log_factorials(n as usize);
        let log_factorial = |x: u64| logs[x as usize];
        let mut expected = 0.0;
        // Parts of equal size contribute equally: work per pair of sizes, not per pair of parts.
        let (rows, columns) = (multiplicities(&self.clusters), multiplicities(&self.classes));
        for (&a, &a_times) in &rows {
            for (&b, &b_times) in &columns {
                let fixed =
                    log_factorial(a) + log_factorial(b) + log_factorial(n - a) + log_factorial(n - b) - log_factorial(n);
                let mut sum = 0.0;
                for both in (a + b).saturating_sub(n).max(1)..=a.min(b) {
                    let log_chance = fixed
                        - log_factorial(both)
                        - log_factorial(a - both)
                        - log_factorial(b - both)
                        - log_factorial(n + both - a - b);
                    let gain = (n as f64).ln() + (both as f64).ln() - (a as f64).ln() - (b as f64).ln();
                    sum += both as f64 / n as f64 * gain * log_chance.exp();
                }
                expected += sum * (a_times * b_times) as f64;
            }
        }
        expected
    }

    fn mean_entropy(&self) -> f64 {
        f64::midpoint(entropy_of_counts(&self.clusters), entropy_of_counts(&self.classes))
    }

    /// True if there is nothing to tell apart on either side.
    fn trivial(&self) -> bool {
        let parts = |sizes: &[u64]| sizes.iter().filter(|&&s| s > 0).count();
        parts(&self.clusters) <= 1 && parts(&self.classes) <= 1
    }
}

/// ln 0!, ln 1! … ln n!.
fn log_factorials(n: usize) -> Vec<f64> {
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    std::iter::once(0.0)
        .chain((1..=n).map(|i| {
            // Compensated (Kahan 1965): the differences of large neighbors matter.
            let term = (i as f64).ln() - lost;
            let next = sum + term;
            lost = (next - sum) - term;
            sum = next;
            sum
        }))
        .collect()
}

fn multiplicities(sizes: &[u64]) -> BTreeMap<u64, u64> {
    let mut times = BTreeMap::new();
    for &size in sizes.iter().filter(|&&s| s > 0) {
        *times.entry(size).or_insert(0) += 1;
    }
    times
}

/// The class that each cluster stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matching {
    class_of: Vec<Option<ClassId>>,
    classes: usize,
}

impl Matching {
    /// A matching made elsewhere, over this number of classes.
    pub fn from_classes(class_of: Vec<Option<ClassId>>, classes: usize) -> Self {
        Self { class_of, classes }
    }

    /// The class a cluster is named after, if it has one.
    pub fn class(&self, cluster: ClusterId) -> Option<ClassId> {
        self.class_of.get(cluster.0).copied().flatten()
    }

    /// Number of classes, G.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Pairs of cluster and class, by cluster.
    pub fn pairs(&self) -> impl Iterator<Item = (ClusterId, ClassId)> {
        self.class_of.iter().enumerate().filter_map(|(cluster, class)| class.map(|class| (ClusterId(cluster), class)))
    }

    /// Cluster numbers renamed to class numbers; −1 where the cluster is unknown or has no name.
    pub fn rename(&self, of_row: &[i32]) -> Vec<i32> {
        of_row
            .iter()
            .map(|&c| usize::try_from(c).ok().and_then(|c| self.class(ClusterId(c))).map_or(-1, |class| class.0 as i32))
            .collect()
    }

    /// Share of labeled rows whose class is among the names of the `k` most probable clusters; with fewer than `k` clusters,
    /// of all of them. NaN if no row is labeled.
    ///
    /// # Shapes
    /// `probabilities` [N, K], `truth` `[N]`.
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn top_k_accuracy(&self, probabilities: &[f32], truth: Classes, k: usize) -> f64 {
        let clusters = self.class_of.len();
        assert_eq!(probabilities.len(), truth.of_row.len() * clusters, "probabilities must be [N, K]");
        let (mut right, mut labelled) = (0_u64, 0_u64);
        for (row, &class) in probabilities.chunks(clusters.max(1)).zip(truth.of_row) {
            let Ok(class) = usize::try_from(class) else { continue };
            labelled += 1;
            right += u64::from(top_k(row, k).into_iter().any(|c| self.class(ClusterId(c)) == Some(ClassId(class))));
        }
        right as f64 / labelled as f64
    }
}

/// Rows by true class (down) and predicted class (across).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// G.
    pub classes: usize,
    /// [G, G] counts, true class first.
    pub counts: Vec<u64>,
    /// `[G]` rows of each class in clusters without a name.
    pub unnamed: Vec<u64>,
}

impl Confusion {
    /// Share of each true class that went to each prediction, [G, G]: every row divided by the number of rows of its class,
    /// unnamed ones included. Rows of absent classes are zero.
    pub fn rates(&self) -> Vec<f64> {
        let g = self.classes.max(1);
        self.counts
            .chunks(g)
            .zip(&self.unnamed)
            .flat_map(|(row, unnamed)| {
                let size = (row.iter().sum::<u64>() + unnamed).max(1) as f64;
                row.iter().map(move |&count| count as f64 / size)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(clusters: &[i32], classes: &[i32]) -> Contingency {
        Contingency::new(Clusters::up_to_highest(clusters), Classes::up_to_highest(classes))
    }

    #[test]
    fn the_reference_matching_and_its_scores_come_out() {
        let labels: Vec<i32> = (0..15).map(|i| i / 3).collect();
        let t = table(&[2, 2, 1, 0, 0, 0, 1, 1, 1, 4, 4, 3, 3, 3, 4], &labels);
        let matching = t.match_one_to_one();
        let pairs: Vec<(usize, usize)> = matching.pairs().map(|(k, g)| (k.0, g.0)).collect();
        assert_eq!(pairs, [(0, 1), (1, 2), (2, 0), (3, 4), (4, 3)]);
        assert!((t.accuracy(&matching) - 0.8).abs() < 1e-12);
        assert!((t.ari() - 0.5081081).abs() < 1e-7);
        assert!((t.nmi() - 0.7539376).abs() < 1e-7);
    }

    #[test]
    fn seeds_agree_by_the_mean_of_their_pairs() {
        let (one, other) = (vec![0, 0, 1, 1], vec![0, 1, 1, 1]);
        let pair = Contingency::between(&one, &other, 2).ari();
        assert_eq!((agreement(&[], 2), agreement(std::slice::from_ref(&one), 2)), (None, None));
        let all = agreement(&[one.clone(), vec![1, 1, 0, 0], other], 2).unwrap();
        assert!((all - (1.0 + 2.0 * pair) / 3.0).abs() < 1e-12, "names of clusters do not matter: {all}");
    }

    #[test]
    fn scikit_learn_agrees() {
        let golden = include_str!("../../tests/golden/metrics/partitions.tsv");
        let mut cases = 0;
        for line in golden.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split('\t').collect();
            let list = |text: &str| -> Vec<i32> { text.split(' ').map(|x| x.parse().unwrap()).collect() };
            let (t, name) = (table(&list(fields[1]), &list(fields[2])), fields[0]);
            let one_to_one = t.accuracy(&t.match_one_to_one());
            let majority = t.accuracy(&t.match_by_majority());
            for (metric, got, want) in [
                ("nmi", t.nmi(), fields[3]),
                ("ari", t.ari(), fields[4]),
                ("ami", t.ami(), fields[5]),
                ("mi", t.mutual_information(), fields[6]),
                ("acc", one_to_one, fields[7]),
                ("majority", majority, fields[8]),
            ] {
                let want: f64 = want.parse().unwrap();
                assert!((got - want).abs() < 1e-10, "{name}: {metric} is {got}, scikit-learn has {want}");
            }
            cases += 1;
        }
        assert!(cases >= 12, "only {cases} cases were read");
    }

    #[test]
    fn limits_follow_scikit_learn() {
        let one = table(&[0, 0, 0], &[1, 1, 1]);
        let is = |score: f64, limit: f64| (score - limit).abs() < 1e-15;
        assert!(is(one.nmi(), 1.0) && is(one.ari(), 1.0) && is(one.ami(), 1.0));
        let split = table(&[0, 1, 2, 3], &[0, 0, 0, 0]);
        assert!(split.nmi() == 0.0 && split.ari() == 0.0 && split.ami() == 0.0);
        let unlike = table(&[0, 1, 0, 1], &[0, 0, 1, 1]);
        assert!((unlike.ari() + 0.5).abs() < 1e-12 && unlike.nmi() == 0.0);
        let nothing = table(&[0, -1], &[-1, 0]);
        assert_eq!(nothing.total(), 0);
        assert!(nothing.accuracy(&nothing.match_one_to_one()).is_nan());
        assert!(is(nothing.nmi(), 1.0) && is(nothing.ari(), 1.0));
    }

    #[test]
    fn rows_without_label_or_cluster_are_left_out() {
        let t = table(&[0, 1, -1, 1, 0], &[1, 0, 1, -1, 1]);
        assert_eq!((t.total(), t.cluster_sizes(), t.class_sizes()), (3, &[2, 1][..], &[1, 2][..]));
        assert!((t.accuracy(&t.match_one_to_one()) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn more_clusters_than_classes_leave_some_without_a_name_unless_the_majority_rules() {
        let t = table(&[0, 0, 1, 1, 2, 2, 2], &[0, 0, 0, 1, 1, 1, 1]);
        let strict = t.match_one_to_one();
        assert_eq!(strict.rename(&[0, 1, 2, -1, 9]), [0, -1, 1, -1, -1]);
        assert!((t.accuracy(&strict) - 5.0 / 7.0).abs() < 1e-12);
        assert_eq!(t.confusion(&strict), Confusion { classes: 2, counts: vec![2, 0, 0, 3], unnamed: vec![1, 1] });
        let majority = t.match_by_majority();
        assert_eq!(majority.rename(&[0, 1, 2]), [0, 0, 1], "a tie goes to the lower class");
        assert!((t.accuracy(&majority) - 6.0 / 7.0).abs() < 1e-12);
    }

    #[test]
    fn fewer_clusters_than_classes_leave_a_class_unclaimed() {
        let t = table(&[0, 0, 0, 1], &[0, 1, 1, 2]);
        let matching = t.match_one_to_one();
        assert_eq!(matching.rename(&[0, 1]), [1, 2]);
        assert_eq!(t.class_accuracies(&matching), [Some(0.0), Some(1.0), Some(1.0)]);
    }

    #[test]
    fn confusion_rows_are_shares_of_their_true_class() {
        // An unbalanced set: dividing columns instead of rows would give other numbers.
        let t =
            Contingency::new(Clusters { of_row: &[0, 0, 0, 1, 1], count: 2 }, Classes { of_row: &[0, 0, 0, 0, 1], count: 3 });
        let confusion = t.confusion(&t.match_one_to_one());
        assert_eq!(confusion.counts, [3, 1, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(confusion.rates(), [0.75, 0.25, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(t.class_accuracies(&t.match_one_to_one()), [Some(0.75), Some(1.0), None]);
    }

    #[test]
    fn top_five_of_three_clusters_are_all_three_and_unnamed_clusters_never_hit() {
        let matching = Matching::from_classes(vec![Some(ClassId(1)), None, Some(ClassId(0))], 3);
        let p = [0.5, 0.3, 0.2, 0.1, 0.8, 0.1, 0.2, 0.2, 0.6, 0.9, 0.1, 0.0];
        let truth = Classes { of_row: &[0, 1, 2, -1], count: 3 };
        assert!(matching.top_k_accuracy(&p, truth, 1) == 0.0);
        assert!((matching.top_k_accuracy(&p, truth, 2) - 1.0 / 3.0).abs() < 1e-12, "the tie goes to cluster 0");
        assert!((matching.top_k_accuracy(&p, truth, 5) - 2.0 / 3.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn no_score_cares_for_the_names_of_clusters(
            rows in prop::collection::vec((0_i32..5, 0_i32..4), 2..60),
            order in Just(vec![0, 1, 2, 3, 4]).prop_shuffle(),
        ) {
            let (clusters, classes): (Vec<i32>, Vec<i32>) = rows.into_iter().unzip();
            let renamed: Vec<i32> = clusters.iter().map(|&c| order[c as usize]).collect();
            let (a, b) = (table(&clusters, &classes), table(&renamed, &classes));
            prop_assert!((a.nmi() - b.nmi()).abs() < 1e-12);
            prop_assert!((a.ami() - b.ami()).abs() < 1e-9);
            prop_assert!((a.ari() - b.ari()).abs() < 1e-12);
            prop_assert!((a.accuracy(&a.match_one_to_one()) - b.accuracy(&b.match_one_to_one())).abs() < 1e-12);
            prop_assert!(a.accuracy(&a.match_by_majority()) >= a.accuracy(&a.match_one_to_one()));
        }

        #[test]
        fn a_partition_agrees_perfectly_with_itself(classes in prop::collection::vec(0_i32..6, 1..60)) {
            let t = table(&classes, &classes);
            prop_assert!((t.nmi() - 1.0).abs() < 1e-12 && (t.ari() - 1.0).abs() < 1e-12 && (t.ami() - 1.0).abs() < 1e-9);
            prop_assert!((t.accuracy(&t.match_one_to_one()) - 1.0).abs() < 1e-12);
        }
    }
}
