//! Consensus clustering of many heads: their clusters are brought into one order, and the mean of their probabilities decides.
//!
//! Heads of one classifier, or of several with equal encoders and heads of one form: seeds, trials, temperatures. The head that agrees
//! most with all others gives the order; each other's clusters are matched with its clusters so that most images fall together. No
//! label is read, and no loss: heads of different runs have losses that do not compare.
//!
//! Heads that were trained to agree are surer than they are right. Their temperature is set by clusterings that were not: k-means, one
//! start each, on random halves of the features. The share of images that these sort as a head does is the confidence the heads are
//! given on average. It is an estimate, and no label is read for it; random halves are those of Ho 1998, "The random subspace method
//! for constructing decision forests".
//!
//! Source: voting with matched memberships, Dimitriadou, Weingessel & Hornik 2002, "A combination scheme for fuzzy clustering"; the
//! matching to one reference as in BagClust1, Dudoit & Fridlyand 2003, "Bagging to improve the accuracy of a clustering procedure".

use kinset_artifact::encoder::{Classifier, ClassifierCard, HeadKind, Tensors, Weights};
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::{Draft, Stored};
use kinset_base::seed::Seed;
use kinset_base::stop::Stopped;
use kinset_kernel::gemm::Gemm;
use kinset_math::kmeans::KMeans;
use kinset_math::partition::{ClusterId, Contingency};
use kinset_math::temperature;
use kinset_math::topk::argmax_rows;
use kinset_model::ClassifierNet;
use kinset_stage::{Context, Stage, StageError, Stop};
use kinset_train::feature_space::{heads_for, side_by_side};
use kinset_train::infer;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// How many heads of each classifier vote, those of the lowest loss; none: all.
        heads: Option<usize> = None, min 1;
        /// Whether confidences are made as high as plain clusterings agree with heads; if not, they are the mean of the heads'.
        calibrate: bool = true;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// Whose heads vote.
        classifiers: Vec<Stored<Classifier>>,
        /// `[N, D]`, as the heads read them: on these they are compared.
        features: Vec<Stored<Features>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// All voters, their clusters in one order; they decide together.
        classifier: Draft<Classifier>,
    }
}

/// Consensus.
#[derive(Debug)]
pub struct Consensus;

impl Stage for Consensus {
    const KIND: &'static str = "consensus";
    const VERSION: u32 = 2;
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
        let temperature =
            if config.calibrate { Some(temperature(&voters, &orders, &table, &sample, clusters, cx)?) } else { None };
        let mut tensors = Tensors::default();
        for (name, Weights { shape, values }) in first.tensors.iter().filter(|(name, _)| !name.starts_with("cluster_head.")) {
            tensors.insert(name, shape.clone(), values.clone());
        }
        for (place, (voter, order)) in voters.iter().zip(&orders).enumerate() {
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
        Ok(Out { classifier: Classifier { card, tensors }.save(&cx.out("classifier")?)? })
    }
}

const MATCHED: &str = "matched with the one that agrees most with all others";

/// One head.
struct Voter<'a> {
    classifier: &'a Classifier,
    head: usize,
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
        Ok(Self { classifier, head, labels, said: rows(&all, clusters, sample) })
    }
}

/// Images that confidences are set by, at most; fewer, where what all heads say of them would be more than [`MOST_SAID`] numbers.
const SAMPLE: usize = 20_000;
const MOST_SAID: usize = 1 << 26;
/// Clusterings that the heads are compared with.
const CLUSTERINGS: u64 = 10;

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

/// What logits are divided by, so that the mean confidence is the share of images that plain clusterings sort as the heads do.
fn temperature(
    voters: &[Voter<'_>],
    orders: &[Vec<usize>],
    table: &FeatureTable,
    sample: &[usize],
    clusters: usize,
    cx: &Context<'_>,
) -> Result<f64, StageError> {
    let said: Vec<Vec<f32>> = voters
        .iter()
        .zip(orders)
        .map(|(voter, order)| {
            voter.said.chunks_exact(clusters).flat_map(|row| order.iter().map(|&cluster| row[cluster])).collect()
        })
        .collect();
    let agreement = plain_agreement(&rows(&table.values, table.dim, sample), table.dim, voters, sample, clusters, cx)?;
    let before = temperature::mean_confidence(&said, clusters, 1.0);
    let found = temperature::of_confidence(&said, clusters, agreement);
    cx.note(format!(
        "k-means on random halves of the features sorts {:.1} % of the images as a head does: the mean confidence, {:.1} %, is \
         brought to that by the temperature {found:.2}",
        100.0 * agreement,
        100.0 * before
    ));
    Ok(found)
}

/// The share of images that k-means, one start each, on random halves of the features sorts as a head does; the mean over all heads
/// and [`CLUSTERINGS`].
fn plain_agreement(
    values: &[f32],
    dim: usize,
    voters: &[Voter<'_>],
    sample: &[usize],
    clusters: usize,
    cx: &Context<'_>,
) -> Result<f64, StageError> {
    let method = KMeans { restarts: 1, ..KMeans::new(clusters.min(sample.len())) };
    let heads: Vec<Vec<i32>> = voters.iter().map(|voter| sample.iter().map(|&row| voter.labels[row]).collect()).collect();
    let half = dim.div_ceil(2);
    let mut sum = 0.0;
    for number in 0..CLUSTERINGS {
        let seed = cx.seed.branch("halves").at(number);
        let mut columns = seed.rng().permutation(dim);
        columns.truncate(half);
        let part: Vec<f32> = values.chunks_exact(dim).flat_map(|row| columns.iter().map(|&column| row[column])).collect();
        let fit = method.fit(&part, half, &Gemm, seed.branch("k-means"), &cx.stop)?;
        let found: Vec<i32> = fit.labels.iter().map(|&cluster| cluster as i32).collect();
        for labels in &heads {
            let table = Contingency::between(&found, labels, clusters);
            sum += table.accuracy(&table.match_one_to_one());
        }
    }
    Ok(sum / (CLUSTERINGS as usize * heads.len()) as f64)
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
    let body = |classifier: &Classifier| -> Vec<(String, Weights)> {
        let all = classifier.tensors.iter().filter(|(name, _)| !name.starts_with("cluster_head."));
        all.map(|(name, weights)| (name.to_owned(), weights.clone())).collect()
    };
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

    #[test]
    fn a_head_whose_clusters_were_renamed_gets_its_names_back() {
        let bottleneck = HeadsShape { kind: HeadKind::Bottleneck, bottleneck: Some(3), ..HeadsShape::linear(4, 2, Some(5)) };
        for shape in [HeadsShape::linear(4, 2, None), HeadsShape::linear(4, 2, Some(5)), bottleneck] {
            let first = classifier(shape, 1, vec![]);
            let mut renamed = Tensors::default();
            let voter = Voter { classifier: &first, head: 1, labels: vec![], said: vec![] };
            ordered(&voter, 0, &[2, 0, 3, 1], 1.0, &mut renamed);
            let order = matched(&[0, 1, 2, 3, 3], &[2, 0, 3, 1, 1], 4);
            assert_eq!(order, [1, 3, 0, 2]);
            let other = Classifier { tensors: renamed, ..first.clone() };
            let mut back = Tensors::default();
            ordered(&Voter { classifier: &other, head: 0, labels: vec![], said: vec![] }, 1, &order, 1.0, &mut back);
            for (name, weights) in back.iter() {
                assert_eq!(Some(weights), first.tensors.get(name), "{name}");
            }
        }
    }

    #[test]
    fn the_voter_in_the_middle_is_the_reference() {
        let first = classifier(HeadsShape::linear(2, 1, None), 1, vec![]);
        let voter = |labels: &[i32]| Voter { classifier: &first, head: 0, labels: labels.to_vec(), said: vec![] };
        let voters =
            [voter(&[0, 1, 0, 1, 0, 1]), voter(&[1, 1, 1, 0, 0, 0]), voter(&[0, 0, 0, 1, 1, 1]), voter(&[0, 0, 1, 1, 1, 1])];
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

    /// Three groups of 40 images, apart in the first three of six numbers; heads that know them, sure of everything.
    fn input(dir: &Path) -> (In, FeatureTable) {
        let folder = |name: &str| {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let mut rng = Seed::new(3).rng();
        let values = (0..120 * 6).map(|at| 0.6 * rng.normal() as f32 + if at % 6 == at / 6 % 3 { 1.0 } else { 0.0 });
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
        (In { classifiers, features: vec![features] }, table)
    }

    #[test]
    fn confidences_are_as_high_as_plain_clusterings_agree_and_the_clusters_stay() {
        let dir = tempfile::tempdir().unwrap();
        let said = |calibrate| {
            let (input, table) = input(dir.path());
            let (heard, places) = (Heard::default(), DataPaths::new(dir.path(), None, None));
            let (work, out) = (dir.path().join("work"), dir.path().join("out"));
            std::fs::create_dir_all(&work).unwrap();
            std::fs::create_dir_all(&out).unwrap();
            let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), work, out, &heard);
            let out = Consensus::run(&Config { calibrate, ..Config::default() }, input, &cx).unwrap();
            let made = Classifier::load(&stored(&out.classifier)).unwrap();
            let net = ClassifierNet::from_tensors(&made.card, &made.tensors, &Device::Cpu).unwrap();
            let p = infer::of_features(&net, made.card.head, &table.values, &Device::Cpu, |_| Ok::<_, StageError>(())).unwrap();
            let notes: Vec<String> = heard.signals().iter().map(|signal| format!("{signal:?}")).collect();
            (p, notes.join("\n"))
        };
        let mean = |p: &[f32]| p.chunks(3).map(|row| f64::from(row.iter().copied().fold(0.0, f32::max))).sum::<f64>() / 120.0;
        let ((sure, without), (calibrated, notes)) = (said(false), said(true));
        assert!(mean(&sure) > 0.97 && !without.contains("k-means"), "{without}");
        let share: f64 = notes.split("sorts ").nth(1).unwrap().split(" %").next().unwrap().parse().unwrap();
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
