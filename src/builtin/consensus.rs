//! Consensus clustering of many heads: their clusters are brought into one order, and the mean of their probabilities decides.
//!
//! Heads of one classifier, or of several with equal encoders and heads of one form: seeds, trials, temperatures. The head that agrees
//! most with all others gives the order; each other's clusters are matched with its clusters so that most images fall together. No
//! label is read, and no loss: heads of different runs have losses that do not compare.
//!
//! Source: voting with matched memberships, Dimitriadou, Weingessel & Hornik 2002, "A combination scheme for fuzzy clustering"; the
//! matching to one reference as in BagClust1, Dudoit & Fridlyand 2003, "Bagging to improve the accuracy of a clustering procedure".

use kinset_artifact::encoder::{Classifier, ClassifierCard, HeadKind, Tensors, Weights};
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::{Draft, Stored};
use kinset_base::stop::Stopped;
use kinset_math::partition::{Classes, ClusterId, Clusters, Contingency};
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
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "match the clusters of many heads and average their predictions";
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
        let mut voters = Vec::new();
        for (classifier, stored) in classifiers.iter().zip(&input.classifiers) {
            let net = heads_for(classifier, stored.origin(), &table, &cx.device)?;
            for head in chosen(&classifier.card, config.heads) {
                cx.check()?;
                voters.push(Voter { classifier, head, labels: labels(&net, head, &table, cx)? });
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
        let mut tensors = Tensors::default();
        for (name, Weights { shape, values }) in first.tensors.iter().filter(|(name, _)| !name.starts_with("cluster_head.")) {
            tensors.insert(name, shape.clone(), values.clone());
        }
        for (place, voter) in voters.iter().enumerate() {
            cx.check()?;
            let order = matched(&voter.labels, &voters[reference].labels, clusters);
            ordered(voter, place, &order, &mut tensors);
        }
        let card = ClassifierCard {
            heads: voters.len(),
            head: reference,
            chosen_by: format!("mean of {} heads, matched with the one that agrees most with all others", voters.len()),
            head_losses: Vec::new(),
            committee: true,
            ..first.card.clone()
        };
        Ok(Out { classifier: Classifier { card, tensors }.save(&cx.out("classifier")?)? })
    }
}

/// One head.
struct Voter<'a> {
    classifier: &'a Classifier,
    head: usize,
    /// The cluster of every image.
    labels: Vec<i32>,
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

fn labels(net: &ClassifierNet, head: usize, table: &FeatureTable, cx: &Context<'_>) -> Result<Vec<i32>, StageError> {
    let net = if net.is_committee() { net.apart()? } else { net.clone() };
    let said: Vec<f32> = infer::of_features(&net, head, &table.values, &cx.device, |_| cx.check())?;
    Ok(argmax_rows(&said, net.clusters()).into_iter().map(|cluster| cluster as i32).collect())
}

fn table_of(one: &[i32], other: &[i32], clusters: usize) -> Contingency {
    Contingency::new(Clusters { of_row: one, count: clusters }, Classes { of_row: other, count: clusters })
}

/// The voter that agrees most with all others, by the mean adjusted Rand index; the first of equals.
fn reference(voters: &[Voter<'_>], clusters: usize, stop: &Stop) -> Result<(usize, f64), Stopped> {
    use rayon::prelude::*;
    let count = voters.len();
    let pairs: Vec<(usize, usize)> = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect();
    let agreement = |&(a, b): &(usize, usize)| {
        stop.check()?;
        Ok(table_of(&voters[a].labels, &voters[b].labels, clusters).ari())
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
    let matching = table_of(labels, reference, clusters).match_one_to_one();
    let mut order: Vec<usize> = (0..clusters).collect();
    for cluster in 0..clusters {
        if let Some(class) = matching.class(ClusterId(cluster)) {
            order[class.0] = cluster;
        }
    }
    order
}

/// Puts a voter's tensors in their new place, clusters in the reference's order.
fn ordered(voter: &Voter<'_>, place: usize, order: &[usize], tensors: &mut Tensors) {
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
            order.iter().flat_map(|&cluster| values[cluster * width..(cluster + 1) * width].iter().copied()).collect()
        } else {
            values.clone()
        };
        tensors.insert(format!("cluster_head.{place}.{own}"), shape.clone(), values);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use kinset_artifact::encoder::Normalization;
    use kinset_base::seed::Seed;
    use kinset_model::{EncoderNet, HeadChoice, HeadsShape, features_alone};

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
            let voter = Voter { classifier: &first, head: 1, labels: vec![] };
            ordered(&voter, 0, &[2, 0, 3, 1], &mut renamed);
            let order = matched(&[0, 1, 2, 3, 3], &[2, 0, 3, 1, 1], 4);
            assert_eq!(order, [1, 3, 0, 2]);
            let other = Classifier { tensors: renamed, ..first.clone() };
            let mut back = Tensors::default();
            ordered(&Voter { classifier: &other, head: 0, labels: vec![] }, 1, &order, &mut back);
            for (name, weights) in back.iter() {
                assert_eq!(Some(weights), first.tensors.get(name), "{name}");
            }
        }
    }

    #[test]
    fn the_voter_in_the_middle_is_the_reference() {
        let first = classifier(HeadsShape::linear(2, 1, None), 1, vec![]);
        let voter = |labels: &[i32]| Voter { classifier: &first, head: 0, labels: labels.to_vec() };
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
}
