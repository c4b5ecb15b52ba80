//! Consensus clustering of many heads: their clusters are brought into one order, and the mean of their probabilities decides.
//!
//! Heads of one classifier, or of several with equal encoders and heads of one form: seeds, trials, temperatures. The head that agrees
//! most with all others gives the order; each other's clusters are matched with its clusters so that most images fall together. No
//! label is read, and no loss: heads of different runs have losses that do not compare.
//!
//! Heads that were trained to agree are more confident than they are right. Their temperature is set by what was not trained: spectral clusterings
//! of the neighbors in random halves of the features. The mean confidence becomes the share of images that these sort as the heads do
//! (the upper quartile), times the share of nearest neighbors that the heads put together: a border that runs through crowds is
//! doubtful however often it is found again. It is an estimate, and no label is read for it; random halves are those of Ho 1998, "The
//! random subspace method for constructing decision forests".
//!
//! With `neighbors`, an image's neighbors have a say: what the heads say on average spreads over the neighbor graph (label propagation),
//! and one linear head learns the clusters that come out. Heads decide about each image alone, and those between clusters by chance;
//! their neighborhoods are less so.
//!
//! Source: voting with matched memberships, Dimitriadou, Weingessel & Hornik 2002, "A combination scheme for fuzzy clustering"; the
//! matching to one reference as in BagClust1, Dudoit & Fridlyand 2003, "Bagging to improve the accuracy of a clustering procedure".

use kinset_artifact::encoder::{Classifier, ClassifierCard, HeadKind, Tensors, Weights};
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_artifact::{Draft, Stored};
use kinset_base::seed::Seed;
use kinset_base::stop::Stopped;
use kinset_kernel::gemm::Gemm;
use kinset_kernel::neighbors::all_pairs;
use kinset_math::cosine::normalize_rows;
use kinset_math::kmeans::KMeans;
use kinset_math::partition::{ClusterId, Contingency};
use kinset_math::propagation::propagate;
use kinset_math::spectral::{Graph, embed};
use kinset_math::temperature;
use kinset_math::topk::argmax_rows;
use kinset_model::ClassifierNet;
use kinset_stage::{Context, Stage, StageError, Stop};
use kinset_train::feature_space::{Centering, heads_for, side_by_side};
use kinset_train::infer;
use kinset_train::neighbor_pairs::check_same_images;
use kinset_train::start::FIT;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// How many heads of each classifier vote, those of the lowest loss; unset: all.
        heads: Option<usize> = None, min 1;
        /// Whether the mean confidence is set by how well spectral clusterings and nearest neighbors agree with the result; if not,
        /// confidences are those of the heads.
        calibrate: bool = true;
        /// With `neighbors`: the share of an image's vote that its neighbors have; the rest is what the heads say of the image itself.
        share: f64 = 0.8, within 0.0..=0.99;
        /// With `neighbors`: how many of the mined ones join images in the graph; fewer, if fewer were mined.
        num_neighbors: usize = 20, min 1;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// Whose heads vote.
        classifiers: Vec<Stored<Classifier>>,
        /// `[N, D]`, as the heads read them: on these they are compared.
        features: Vec<Stored<Features>>,
        /// `[N, M]`, of the same images: neighbors decide with; without them, each image is decided about alone.
        neighbors: Option<Stored<Neighbors>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// All voters, their clusters in one order; they decide together. With neighbors: one linear head.
        classifier: Draft<Classifier>,
    }
}

#[derive(Debug)]
pub struct Consensus;

impl Stage for Consensus {
    const KIND: &'static str = "consensus";
    const VERSION: u32 = 4;
    const SUMMARY: &'static str = "match the clusters of many heads and average their predictions";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let table = side_by_side(&input.features)?;
        let classifiers = input.classifiers.iter().map(Classifier::load).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = classifiers.first() else { unreachable!("the port takes one or more") };
        for (classifier, stored) in classifiers.iter().zip(&input.classifiers) {
            alike(first, classifier, stored.origin())?;
        }
        let voting: Vec<Vec<usize>> = classifiers.iter().map(|classifier| chosen(&classifier.card, config.heads)).collect();
        let sample = sample(table.len(), voting.iter().map(Vec::len).sum::<usize>() * first.card.clusters, cx.seed);
        let mut voters = Vec::new();
        for ((classifier, stored), heads) in classifiers.iter().zip(&input.classifiers).zip(voting) {
            let net = heads_for(classifier, stored.origin(), &table, &cx.device)?;
            for head in heads {
                cx.check()?;
                voters.push(Voter::new(&net, &table, &sample, (classifier, head), cx)?);
            }
        }
        if voters.len() < 2 {
            return Err(StageError::Mismatch {
                what: "one head alone agrees with itself".into(),
                hint: "connect several classifiers, or one of several heads".into(),
            });
        }
        let clusters = first.card.clusters;
        let (reference, agreement) = reference(&voters, clusters, &cx.stop)?;
        cx.note(format!(
            "{} heads vote; the one in the middle agrees with the others by {agreement:.3} (mean ARI)",
            voters.len()
        ));
        let orders: Vec<Vec<usize>> =
            voters.iter().map(|voter| matched(&voter.labels, &voters[reference].labels, clusters)).collect();
        let calibration = config.calibrate.then_some(Calibration { table: &table, sample: &sample, clusters });
        let classifier = match &input.neighbors {
            Some(stored) => {
                let neighbors = NeighborTable::load(stored)?;
                check_same_images(&neighbors, &table.ids, "neighbors")?;
                let graph = Graph::of_shared_neighbors(&neighbors.index, neighbors.k, config.num_neighbors.min(neighbors.k));
                let spread = spread(&voters, &orders, &table, (&graph, config.share), cx)?;
                learned(first, &table, &spread, calibration, cx)?
            }
            None => committee(first, &voters, &orders, reference, calibration, cx)?,
        };
        Ok(Out { classifier: classifier.save(&cx.out("classifier")?)? })
    }
}

/// All voters as heads of one classifier, which decide together.
fn committee(
    first: &Classifier,
    voters: &[Voter<'_>],
    orders: &[Vec<usize>],
    reference: usize,
    calibration: Option<Calibration<'_>>,
    cx: &Context<'_>,
) -> Result<Classifier, StageError> {
    let clusters = first.card.clusters;
    let in_order = |(voter, order): (&Voter<'_>, &Vec<usize>)| {
        voter.said.chunks_exact(clusters).flat_map(|row| order.iter().map(|&cluster| row[cluster])).collect()
    };
    let said: Vec<Vec<f32>> = voters.iter().zip(orders).map(in_order).collect();
    let temperature = calibration.map(|calibration| calibration.temperature(&said, cx)).transpose()?;
    let mut tensors = body(first);
    for (place, (voter, order)) in voters.iter().zip(orders).enumerate() {
        cx.check()?;
        ordered(voter, place, order, temperature.unwrap_or(1.0), &mut tensors);
    }
    let card = ClassifierCard {
        heads: voters.len(),
        head: reference,
        chosen_by: match temperature {
            Some(temperature) => format!("mean of {} heads at temperature {temperature:.3}, {MATCHED}", voters.len()),
            None => format!("mean of {} heads, {MATCHED}", voters.len()),
        },
        head_losses: Vec::new(),
        committee: true,
        ..first.card.clone()
    };
    Ok(Classifier { card, tensors })
}

/// What the voters say together of every image and, by the graph, of its neighbors: `[N, K]`, clusters in the reference's order.
fn spread(
    voters: &[Voter<'_>],
    orders: &[Vec<usize>],
    table: &FeatureTable,
    (graph, share): (&Graph, f64),
    cx: &Context<'_>,
) -> Result<Vec<f32>, StageError> {
    let clusters = orders[0].len();
    let mut mean = vec![0.0; table.len() * clusters];
    for (voter, order) in voters.iter().zip(orders) {
        let said = infer::of_features(&voter.net, voter.head, &table.values, &cx.device, |_| cx.check())?;
        for (mean, said) in mean.chunks_exact_mut(clusters).zip(said.chunks_exact(clusters)) {
            mean.iter_mut().zip(order).for_each(|(mean, &cluster)| *mean += f64::from(said[cluster]) / voters.len() as f64);
        }
    }
    let spread = propagate(graph, &mean, clusters, share, &cx.stop)?;
    Ok(spread.into_iter().map(|x| x as f32).collect())
}

/// One linear head that gives images their most probable clusters.
fn learned(
    first: &Classifier,
    table: &FeatureTable,
    spread: &[f32],
    calibration: Option<Calibration<'_>>,
    cx: &Context<'_>,
) -> Result<Classifier, StageError> {
    let (clusters, dim) = (first.card.clusters, table.dim);
    let Some(centering) = Centering::of(&table.values, dim) else {
        return Err(StageError::Mismatch {
            what: "all feature vectors are identical".into(),
            hint: "check the encoder".into(),
        });
    };
    let labels: Vec<u32> = argmax_rows(spread, clusters).into_iter().map(|cluster| cluster as u32).collect();
    let mut values = table.values.clone();
    centering.apply(&mut values);
    let head = FIT.fit(&values, dim, &labels, clusters, &Gemm, &cx.stop)?;
    let share = 100.0 * head.agreement(&values, dim, &labels, &Gemm);
    cx.note(format!("one head learns the clusters that neighbors settle on: {share:.1} % of the images get the same from it"));
    let (weight, bias) = centering.plain_layer(&head.weight, &head.bias);
    let at = |temperature: Option<f64>| {
        let scaled =
            |values: &[f32]| values.iter().map(|&value| (f64::from(value) / temperature.unwrap_or(1.0)) as f32).collect();
        let mut tensors = body(first);
        tensors.insert("cluster_head.0.weight", vec![clusters, dim], scaled(&weight));
        tensors.insert("cluster_head.0.bias", vec![clusters], scaled(&bias));
        let card = ClassifierCard {
            heads: 1,
            head: 0,
            chosen_by: match temperature {
                Some(temperature) => {
                    format!("one head for what heads and neighbors say, at temperature {temperature:.3}, {MATCHED}")
                }
                None => format!("one head for what heads and neighbors say, {MATCHED}"),
            },
            head_losses: Vec::new(),
            kind: HeadKind::Linear,
            hidden: None,
            bottleneck: None,
            committee: false,
            ..first.card.clone()
        };
        Classifier { card, tensors }
    };
    let made = at(None);
    let Some(calibration) = calibration else { return Ok(made) };
    let net = heads_for(&made, "consensus", table, &cx.device)?;
    let said: Vec<f32> =
        infer::of_features(&net, 0, &rows(&table.values, dim, calibration.sample), &cx.device, |_| cx.check())?;
    Ok(at(Some(calibration.temperature(&[said], cx)?)))
}

/// What lies below the heads.
fn body(classifier: &Classifier) -> Tensors {
    let mut tensors = Tensors::default();
    for (name, Weights { shape, values }) in classifier.tensors.iter().filter(|(name, _)| !name.starts_with("cluster_head.")) {
        tensors.insert(name, shape.clone(), values.clone());
    }
    tensors
}

const MATCHED: &str = "matched with the one that agrees most with all others";

/// One head.
struct Voter<'a> {
    classifier: &'a Classifier,
    head: usize,
    net: ClassifierNet,
    /// The cluster of every image.
    labels: Vec<i32>,
    /// `[S, K]`: what it says of the images that confidences are set by.
    said: Vec<f32>,
}

impl<'a> Voter<'a> {
    fn new(
        net: &ClassifierNet,
        table: &FeatureTable,
        sample: &[usize],
        (classifier, head): (&'a Classifier, usize),
        cx: &Context<'_>,
    ) -> Result<Self, StageError> {
        let net = if net.is_committee() { net.apart()? } else { net.clone() };
        let all: Vec<f32> = infer::of_features(&net, head, &table.values, &cx.device, |_| cx.check())?;
        let clusters = net.clusters();
        let labels = argmax_rows(&all, clusters).into_iter().map(|cluster| cluster as i32).collect();
        Ok(Self { classifier, head, net, labels, said: rows(&all, clusters, sample) })
    }
}

/// Images that confidences are set by, at most; fewer, where what all heads say of them would be more than [`MOST_SAID`] numbers.
const SAMPLE: usize = 6_000;
const MOST_SAID: usize = 1 << 26;
/// Clusterings that the result is compared with.
const CLUSTERINGS: u64 = 9;
/// By how many of them at least the result is borne out as well as is said: the upper quartile. A half that lacks what tells two classes
/// apart joins them, which says nothing about the result.
const AT_LEAST: usize = 3;
/// Neighbors of an image in such a clustering.
const NEIGHBORS: usize = 20;
/// Vectors of the spectrum that it looks at, at most: more take minutes.
const VECTORS: usize = 64;

/// The rows of the images that confidences are set by, rising.
fn sample(images: usize, numbers: usize, seed: Seed) -> Vec<usize> {
    let most = SAMPLE.min((MOST_SAID / numbers.max(1)).max(1));
    if images <= most {
        return (0..images).collect();
    }
    let mut rows = seed.branch("sample").rng().permutation(images);
    rows.truncate(most);
    rows.sort_unstable();
    rows
}

/// Some rows of a table.
fn rows(values: &[f32], width: usize, rows: &[usize]) -> Vec<f32> {
    rows.iter().flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect()
}

/// By what confidences are set.
#[derive(Clone, Copy)]
struct Calibration<'a> {
    table: &'a FeatureTable,
    /// The images that are looked at.
    sample: &'a [usize],
    clusters: usize,
}

impl Calibration<'_> {
    /// What logits are divided by. `said`: of each head `[S, K]` probabilities of the sample.
    fn temperature(&self, said: &[Vec<f32>], cx: &Context<'_>) -> Result<f64, StageError> {
        let mut mean = vec![0.0; said[0].len()];
        for head in said {
            mean.iter_mut().zip(head).for_each(|(mean, p)| *mean += p);
        }
        let labels: Vec<i32> = argmax_rows(&mean, self.clusters).into_iter().map(|cluster| cluster as i32).collect();
        let (values, dim) = (rows(&self.table.values, self.table.dim, self.sample), self.table.dim);
        let (index, k) = nearest(values.clone(), dim, cx)?;
        let pairs = index.chunks_exact(k).zip(&labels).flat_map(|(near, own)| near.iter().map(move |&other| (other, own)));
        let together = pairs.filter(|&(other, own)| labels[other as usize] == *own).count() as f64 / index.len() as f64;
        let mut again = Vec::new();
        for number in 0..CLUSTERINGS {
            let found = self.halved(&values, cx.seed.branch("halves").at(number), cx)?;
            let table = Contingency::between(&found, &labels, self.clusters);
            again.push(table.accuracy(&table.match_one_to_one()));
        }
        again.sort_by(|a, b| b.total_cmp(a));
        let again = again[AT_LEAST - 1];
        let before = temperature::mean_confidence(said, self.clusters, 1.0);
        let temperature = temperature::of_confidence(said, self.clusters, together * again);
        cx.note(format!(
            "spectral clusterings of random halves of the features sort {:.1} % of the images the same way, and {:.1} % of the nearest \
             neighbors are together: the mean confidence, {:.1} %, is brought to the product, {:.1} %, by the temperature {temperature:.2}",
            100.0 * again,
            100.0 * together,
            100.0 * before,
            100.0 * together * again
        ));
        Ok(temperature)
    }

    /// A clustering by the neighbors in a random half of the features.
    fn halved(&self, values: &[f32], seed: Seed, cx: &Context<'_>) -> Result<Vec<i32>, StageError> {
        let dim = self.table.dim;
        let mut columns = seed.rng().permutation(dim);
        columns.truncate(dim.div_ceil(2));
        let half: Vec<f32> = values.chunks_exact(dim).flat_map(|row| columns.iter().map(|&column| row[column])).collect();
        let (index, k) = nearest(half, columns.len(), cx)?;
        let embedding = embed(&Graph::of_shared_neighbors(&index, k, k), self.clusters.min(VECTORS), &cx.stop)?;
        let method = KMeans::new(self.clusters.min(self.sample.len()));
        let fit = method.fit(&embedding.rows, embedding.dim, &Gemm, seed.branch("k-means"), &cx.stop)?;
        Ok(fit.labels.into_iter().map(|cluster| cluster as i32).collect())
    }
}

/// Each row's nearest rows by cosine, and how many of them. Rows of zeros are alike.
fn nearest(mut rows: Vec<f32>, dim: usize, cx: &Context<'_>) -> Result<(Vec<u32>, usize), StageError> {
    for row in normalize_rows(&mut rows, dim) {
        rows[row * dim..(row + 1) * dim].fill(1.0 / (dim as f32).sqrt());
    }
    let k = NEIGHBORS.min((rows.len() / dim).saturating_sub(1));
    let found = all_pairs(&rows, dim, k, &cx.stop, &mut |_, _| ()).map_err(StageError::other)?;
    Ok((found.index, k))
}

/// The heads of a classifier that vote, by number.
fn chosen(card: &ClassifierCard, heads: Option<usize>) -> Vec<usize> {
    let mut all: Vec<usize> = (0..card.heads).collect();
    let Some(most) = heads.filter(|&most| most < card.heads) else { return all };
    match card.head_losses.as_slice() {
        // Nothing says which are good but the choice that was made.
        [] => all.sort_by_key(|&head| (head != card.head, head)),
        losses => all.sort_by(|&a, &b| losses[a].total_cmp(&losses[b]).then(a.cmp(&b))),
    }
    all.truncate(most);
    all.sort_unstable();
    all
}

/// Heads of one form on one encoder.
fn alike(first: &Classifier, other: &Classifier, origin: &str) -> Result<(), StageError> {
    let (one, two) = (&first.card, &other.card);
    let fits = one.kind != HeadKind::Centroids
        && (one.kind, one.clusters, one.hidden, one.bottleneck, one.normalize_features)
            == (two.kind, two.clusters, two.hidden, two.bottleneck, two.normalize_features)
        && one.encoder == two.encoder
        && body(first) == body(other);
    if fits {
        return Ok(());
    }
    Err(StageError::Mismatch {
        what: format!("the heads of `{origin}` cannot vote with those of the first classifier"),
        hint: "connect classifiers of as many clusters, with heads of one form (no centroids) on the same features".into(),
    })
}

/// The voter that agrees most with all others, by the mean adjusted Rand index; the first of equals.
fn reference(voters: &[Voter<'_>], clusters: usize, stop: &Stop) -> Result<(usize, f64), Stopped> {
    use rayon::prelude::*;
    let count = voters.len();
    let pairs: Vec<(usize, usize)> = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect();
    let agreement = |&(a, b): &(usize, usize)| {
        stop.check()?;
        Ok(Contingency::between(&voters[a].labels, &voters[b].labels, clusters).ari())
    };
    let each = pairs.par_iter().map(agreement).collect::<Result<Vec<f64>, Stopped>>()?;
    let mut sums = vec![0.0; count];
    for (&(a, b), agreement) in pairs.iter().zip(each) {
        sums[a] += agreement;
        sums[b] += agreement;
    }
    let best = (0..count).fold(0, |best, voter| if sums[voter] > sums[best] { voter } else { best });
    Ok((best, sums[best] / (count - 1) as f64))
}

/// For every cluster of the reference, the voter's cluster that is matched with it.
fn matched(labels: &[i32], reference: &[i32], clusters: usize) -> Vec<usize> {
    let matching = Contingency::between(labels, reference, clusters).match_one_to_one();
    let mut order: Vec<usize> = (0..clusters).collect();
    for cluster in 0..clusters {
        if let Some(class) = matching.class(ClusterId(cluster)) {
            order[class.0] = cluster;
        }
    }
    order
}

/// Puts a voter's tensors in their new place, clusters in the reference's order, logits divided by the temperature.
fn ordered(voter: &Voter<'_>, place: usize, order: &[usize], temperature: f64, tensors: &mut Tensors) {
    let prefix = format!("cluster_head.{}.", voter.head);
    let last: &[&str] = match (voter.classifier.card.kind, voter.classifier.card.hidden) {
        (HeadKind::Bottleneck, _) => &["last.weight"],
        (_, Some(_)) => &["2.weight", "2.bias"],
        (_, None) => &["weight", "bias"],
    };
    for (name, Weights { shape, values }) in voter.classifier.tensors.iter() {
        let Some(own) = name.strip_prefix(&prefix) else { continue };
        let values = if last.contains(&own) {
            let width = values.len() / order.len();
            let scaled = |&value: &f32| (f64::from(value) / temperature) as f32;
            order.iter().flat_map(|&cluster| values[cluster * width..(cluster + 1) * width].iter().map(scaled)).collect()
        } else {
            values.clone()
        };
        tensors.insert(format!("cluster_head.{place}.{own}"), shape.clone(), values);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::encoder::Normalization;
    use kinset_artifact::testing::stored;
    use kinset_base::search_path::DataPaths;
    use kinset_model::{EncoderNet, HeadChoice, HeadsShape, features_alone};
    use kinset_stage::testing::Heard;

    fn classifier(shape: HeadsShape, seed: u64, losses: Vec<f64>) -> Classifier {
        let body = EncoderNet::init(&features_alone(6).unwrap(), Seed::new(0), &Device::Cpu).unwrap();
        let net = ClassifierNet::over(&body, shape, Seed::new(seed), &Device::Cpu).unwrap();
        let choice = HeadChoice { head: 0, chosen_by: "a test".into(), losses };
        let card = net.card(Normalization::new(vec![0.0], vec![1.0]), choice).unwrap();
        Classifier { card, tensors: net.to_tensors().unwrap() }
    }

    fn voter<'a>(classifier: &'a Classifier, head: usize, labels: &[i32]) -> Voter<'a> {
        let body = EncoderNet::init(&features_alone(6).unwrap(), Seed::new(0), &Device::Cpu).unwrap();
        // It is not asked anything.
        let net = ClassifierNet::over(&body, HeadsShape::linear(2, 1, None), Seed::new(0), &Device::Cpu).unwrap();
        Voter { classifier, head, net, labels: labels.to_vec(), said: vec![] }
    }

    #[test]
    fn a_head_whose_clusters_were_renamed_gets_its_names_back() {
        let bottleneck = HeadsShape { kind: HeadKind::Bottleneck, bottleneck: Some(3), ..HeadsShape::linear(4, 2, Some(5)) };
        for shape in [HeadsShape::linear(4, 2, None), HeadsShape::linear(4, 2, Some(5)), bottleneck] {
            let first = classifier(shape, 1, vec![]);
            let mut renamed = Tensors::default();
            ordered(&voter(&first, 1, &[]), 0, &[2, 0, 3, 1], 1.0, &mut renamed);
            let order = matched(&[0, 1, 2, 3, 3], &[2, 0, 3, 1, 1], 4);
            assert_eq!(order, [1, 3, 0, 2]);
            let other = Classifier { tensors: renamed, ..first.clone() };
            let mut back = Tensors::default();
            ordered(&voter(&other, 0, &[]), 1, &order, 1.0, &mut back);
            for (name, weights) in back.iter() {
                assert_eq!(Some(weights), first.tensors.get(name), "{name}");
            }
        }
    }

    #[test]
    fn the_voter_in_the_middle_is_the_reference() {
        let first = classifier(HeadsShape::linear(2, 1, None), 1, vec![]);
        let said = [[0, 1, 0, 1, 0, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]];
        let voters = said.each_ref().map(|labels| voter(&first, 0, labels));
        let (best, agreement) = reference(&voters, 2, &Stop::default()).unwrap();
        assert_eq!(best, 1, "the second and the third are one partition under other names; the first of them");
        assert!((0.0..1.0).contains(&agreement));
    }

    #[test]
    fn the_heads_of_the_lowest_losses_vote() {
        let of = |losses: &[f64], most| chosen(&classifier(HeadsShape::linear(2, 3, None), 1, losses.to_vec()).card, most);
        assert_eq!(of(&[3.0, 1.0, 2.0], Some(2)), [1, 2]);
        assert_eq!(of(&[], Some(1)), [0]);
        assert_eq!(of(&[3.0, 1.0, 2.0], None), [0, 1, 2]);
    }

    #[test]
    fn heads_of_another_form_do_not_vote_together() {
        let one = classifier(HeadsShape::linear(4, 2, None), 1, vec![]);
        assert!(alike(&one, &classifier(HeadsShape::linear(4, 3, None), 2, vec![]), "x").is_ok());
        for other in [HeadsShape::linear(5, 2, None), HeadsShape::linear(4, 2, Some(3))] {
            assert!(alike(&one, &classifier(other, 2, vec![]), "x").is_err());
        }
    }

    /// Three groups of 40 images, apart in six numbers; heads that look at three of these, sure of everything.
    fn input(dir: &Path) -> (In, FeatureTable) {
        let folder = |name: &str| {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let mut rng = Seed::new(3).rng();
        let values = (0..120 * 6).map(|at| 0.6 * rng.normal() as f32 + if at % 3 == at / 6 % 3 { 1.0 } else { 0.0 });
        let table = FeatureTable {
            ids: (0..120).map(|row| format!("{row:03}")).collect(),
            dim: 6,
            values: values.collect(),
            normalized: false,
            encoder: "imported".into(),
            layer: "imported".into(),
        };
        let features = stored(&table.save(&folder("features")).unwrap());
        let mut classifier = classifier(HeadsShape::linear(3, 2, None), 1, vec![]);
        for head in 0..2 {
            let weight = (0..18).map(|at| if at % 6 == (at / 6 + head) % 3 { 20.0 } else { 0.0 }).collect();
            classifier.tensors.insert(format!("cluster_head.{head}.weight"), vec![3, 6], weight);
            classifier.tensors.insert(format!("cluster_head.{head}.bias"), vec![3], vec![0.0; 3]);
        }
        let classifiers = vec![stored(&classifier.save(&folder("classifier")).unwrap())];
        (In { classifiers, features: vec![features], neighbors: None }, table)
    }

    /// What is said of the images by what comes out, and the notes; every image may have the next five of its group as neighbors.
    fn said(dir: &Path, config: &Config, with_neighbors: bool) -> (Classifier, Vec<f32>, String) {
        let (mut input, table) = input(dir);
        if with_neighbors {
            let neighbors = NeighborTable {
                ids: table.ids.clone(),
                k: 5,
                index: (0..120).flat_map(|row| (1..=5).map(move |step| (row + 3 * step) % 120)).collect(),
                similarity: vec![0.5; 600],
                metric: "cosine".into(),
                exact: true,
                recall: None,
            };
            let folder = dir.join("neighbors");
            std::fs::create_dir_all(&folder).unwrap();
            input.neighbors = Some(stored(&neighbors.save(&folder).unwrap()));
        }
        let (heard, places) = (Heard::default(), DataPaths::new(dir, None, None));
        let (work, out) = (dir.join("work"), dir.join("out"));
        std::fs::create_dir_all(&work).unwrap();
        std::fs::create_dir_all(&out).unwrap();
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), work, out, &heard);
        let out = Consensus::run(config, input, &cx).unwrap();
        let made = Classifier::load(&stored(&out.classifier)).unwrap();
        let net = ClassifierNet::from_tensors(&made.card, &made.tensors, &Device::Cpu).unwrap();
        let p = infer::of_features(&net, made.card.head, &table.values, &Device::Cpu, |_| Ok::<_, StageError>(())).unwrap();
        let notes: Vec<String> = heard.signals().iter().map(|signal| format!("{signal:?}")).collect();
        (made, p, notes.join("\n"))
    }

    /// The mean confidence that a note tells of, in percent.
    fn brought_to(notes: &str) -> f64 {
        notes.split("the product, ").nth(1).unwrap().split(" %").next().unwrap().parse().unwrap()
    }

    /// Mean confidence in 120 images.
    fn mean(p: &[f32]) -> f64 {
        p.chunks(3).map(|row| f64::from(row.iter().copied().fold(0.0, f32::max))).sum::<f64>() / 120.0
    }

    /// Images whose cluster is that of most of their group.
    fn pure(p: &[f32]) -> usize {
        let labels = argmax_rows(p, 3);
        let count =
            |group: usize, cluster: usize| labels.iter().skip(group).step_by(3).filter(|label| **label == cluster).count();
        (0..3).map(|group| (0..3).map(|cluster| count(group, cluster)).max().unwrap()).sum()
    }

    #[test]
    fn neighbors_settle_what_heads_confuse_and_one_head_learns_it() {
        let dir = tempfile::tempdir().unwrap();
        let (_, alone, _) = said(dir.path(), &Config::default(), false);
        let (made, settled, notes) = said(dir.path(), &Config::default(), true);
        assert!(pure(&settled) > pure(&alone), "{} {}", pure(&settled), pure(&alone));
        assert_eq!((made.card.heads, made.card.kind, made.card.committee), (1, HeadKind::Linear, false));
        let share = brought_to(&notes);
        assert!((100.0 * mean(&settled) - share).abs() < 0.1, "{} {notes}", mean(&settled));
        // Without a say of the neighbors the head learns what the heads say.
        let (_, same, _) = said(dir.path(), &Config { share: 0.0, ..Config::default() }, true);
        assert!(pure(&same) <= pure(&settled));
        let kept = argmax_rows(&same, 3).iter().zip(argmax_rows(&alone, 3)).filter(|(a, b)| **a == *b).count();
        assert!(kept > 110, "{kept}");
        let (_, unsure, notes) = said(dir.path(), &Config { calibrate: false, ..Config::default() }, true);
        assert!(argmax_rows(&unsure, 3) == argmax_rows(&settled, 3) && !notes.contains("temperature"), "{notes}");
    }

    #[test]
    fn confidences_are_as_high_as_other_clusterings_and_neighbors_bear_out_and_the_clusters_stay() {
        let dir = tempfile::tempdir().unwrap();
        let said = |calibrate| said(dir.path(), &Config { calibrate, ..Config::default() }, false);
        let ((_, sure, without), (_, calibrated, notes)) = (said(false), said(true));
        assert!(mean(&sure) > 0.97 && !without.contains("temperature"), "{without}");
        let share = brought_to(&notes);
        assert!((40.0..95.0).contains(&share), "{notes}");
        assert!((100.0 * mean(&calibrated) - share).abs() < 0.1, "{} {notes}", mean(&calibrated));
        assert_eq!(argmax_rows(&sure, 3), argmax_rows(&calibrated, 3));
    }

    #[test]
    fn few_images_are_all_looked_at_and_many_are_drawn_in_bounded_memory() {
        assert_eq!(sample(5, 100, Seed::new(1)), [0, 1, 2, 3, 4]);
        let drawn = sample(SAMPLE + 1000, 10, Seed::new(1));
        assert!(drawn.len() == SAMPLE && drawn.is_sorted_by(|a, b| a < b) && drawn[SAMPLE - 1] < SAMPLE + 1000);
        assert_eq!(drawn, sample(SAMPLE + 1000, 10, Seed::new(1)));
        assert_eq!(sample(SAMPLE, MOST_SAID / 50, Seed::new(1)).len(), 50, "with 1,000 clusters and many heads");
    }
}
