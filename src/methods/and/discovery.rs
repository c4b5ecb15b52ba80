//! The anchors of a round, images that form a class with their neighbors: those with the lowest entropy of the soft-max of their
//! similarities to all others. Each round lets in more of them; the last one all.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use kinset_base::stop::Stopped;
use kinset_kernel::gemm::product;
use kinset_kernel::neighbors;
use kinset_stage::{StageError, Stop};

/// What a round found in the bank; the bank moves on, this stays until the next round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The round, from 0.
    pub round: u64,
    /// Anchors in order of increasing entropy.
    pub anchors: Vec<u32>,
    /// k neighbors of each anchor, the most similar one first.
    pub neighbors: Vec<u32>,
    /// Mean entropy of all images, nats.
    pub entropy: f64,
    /// Mean entropy of the anchors, nats; that of all if there is none.
    pub anchor_entropy: f64,
    /// The share of the round before's anchors that are anchors still, 0–1; 1 if there was none.
    pub kept: f64,
}

/// Anchors of a round: `select_rate` · round of all images, truncated as in single precision; without a rate an equal share per
/// round, so that the last of `rounds` takes all.
pub fn anchor_count(images: usize, rounds: u64, select_rate: Option<f64>, round: u64) -> usize {
    let count = match select_rate {
        Some(rate) => (images as f32 * rate as f32 * round as f32) as usize,
        None if rounds == 0 => 0,
        None => (images as u128 * u128::from(round) / u128::from(rounds)) as usize,
    };
    count.min(images)
}

/// Numbers in a table of products per thread.
const TABLE: usize = 1 << 22;

/// Entropy of each row's soft-max over its similarities to all rows, itself included, divided by the temperature; 0 · ln 0 is 0.
///
/// # Shapes
/// `bank` [N, P]. Returns `[N]`, nats.
///
/// # Errors
/// If it is asked to stop.
pub fn entropies(bank: &[f32], dim: usize, temperature: f64, stop: &Stop) -> Result<Vec<f64>, Stopped> {
    let n = bank.len() / dim;
    // Fixed by N alone, so that no result depends on the number of threads.
    let piece = (TABLE / n.max(1)).clamp(1, 64);
    let pieces = bank
        .par_chunks(piece * dim)
        .map_init(Vec::new, |table: &mut Vec<f32>, rows| {
            stop.check()?;
            table.resize(rows.len() / dim * n, 0.0);
            product(rows, bank, dim, table);
            Ok(table.chunks(n).map(|similarities| entropy(similarities, temperature)).collect::<Vec<f64>>())
        })
        .collect::<Result<Vec<_>, Stopped>>()?;
    Ok(pieces.concat())
}

fn entropy(similarities: &[f32], temperature: f64) -> f64 {
    let highest = f64::from(similarities.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let (mut sum, mut weighted) = (0.0, 0.0);
    for &similarity in similarities {
        let logit = (f64::from(similarity) - highest) / temperature;
        let e = logit.exp();
        sum += e;
        weighted += e * logit;
    }
    // ln S − Σ e·z / S; a term that underflows is 0 and stays 0.
    (sum.ln() - weighted / sum).max(0.0)
}

/// Entropies this near to each other order nothing.
const FLAT: f64 = 1e-7;

/// Finds the neighborhoods of a round: the `count` images of lowest entropy (the lower row of equals) and `k` neighbors of each
/// among all images (the lower row of equals, itself left out).
///
/// # Errors
/// If all entropies are equal, so that nothing distinguishes the images; if the bank's rows have no direction; if `stop` says so.
pub fn discover(
    bank: &[f32],
    dim: usize,
    temperature: f64,
    (round, count, k): (u64, usize, usize),
    before: Option<&Found>,
    stop: &Stop,
) -> Result<Found, StageError> {
    let entropies = entropies(bank, dim, temperature, stop)?;
    let n = entropies.len();
    let (low, high) = entropies.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &h| (low.min(h), high.max(h)));
    if high - low <= FLAT {
        return Err(StageError::Degenerate {
            code: "and::flat-entropy",
            what: format!(
                "in round {round} the similarities of all {n} images have the same entropy, {low:.6} of at most {:.6} nats: no \
                 image is more certain of its neighbors than another",
                (n as f64).ln()
            ),
            hint:
                "the network does not distinguish the images: lower the learning rate, train more epochs per round, or bring \
                   images that differ"
                    .into(),
        });
    }
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.sort_unstable_by(|&a, &b| entropies[a as usize].total_cmp(&entropies[b as usize]).then(a.cmp(&b)));
    order.truncate(count);
    let near = neighbors::all_pairs(bank, dim, k, stop, &mut |_, _| {}).map_err(StageError::other)?;
    let near = order.iter().flat_map(|&anchor| near.index[anchor as usize * k..][..k].iter().copied()).collect();
    let kept = before.filter(|before| !before.anchors.is_empty()).map_or(1.0, |before| {
        let mut now = vec![false; n];
        for &anchor in &order {
            now[anchor as usize] = true;
        }
        before.anchors.iter().filter(|&&anchor| now[anchor as usize]).count() as f64 / before.anchors.len() as f64
    });
    let entropy = entropies.iter().sum::<f64>() / n as f64;
    let anchor_entropy = match order.len() {
        0 => entropy,
        anchors => order.iter().map(|&anchor| entropies[anchor as usize]).sum::<f64>() / anchors as f64,
    };
    Ok(Found { round, anchors: order, neighbors: near, entropy, anchor_entropy, kept })
}

#[cfg(test)]
mod tests {
    use super::super::bank::tests::{TOY, golden, wave};
    use super::*;
    use kinset_base::seed::Seed;
    use kinset_math::cosine::normalize_rows;
    use kinset_math::knn::purity;

    #[test]
    fn anchor_counts_are_those_of_the_specification() {
        for (images, counts) in [(50_000, [0, 12_500, 25_000, 37_500, 50_000]), (73_257, [0, 18_314, 36_628, 54_942, 73_257])] {
            for (round, &count) in counts.iter().enumerate() {
                assert_eq!(anchor_count(images, 4, None, round as u64), count);
                assert_eq!(anchor_count(images, 4, Some(0.25), round as u64), count);
            }
        }
        assert_eq!((anchor_count(10, 0, None, 0), anchor_count(10, 1, Some(1.0), 1)), (0, 10));
    }

    #[test]
    fn entropies_and_neighbors_of_the_toy_bank_are_those_of_the_specification() {
        for (found, expected) in
            entropies(&TOY, 2, 0.1, &Stop::default()).unwrap().iter().zip([0.365766, 0.441479, 0.441479, 0.365766])
        {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
        let all = discover(&TOY, 2, 0.1, (4, 4, 1), None, &Stop::default()).unwrap();
        let mut near = vec![0; 4];
        for (anchor, neighbor) in all.anchors.iter().zip(&all.neighbors) {
            near[*anchor as usize] = *neighbor;
        }
        assert_eq!(near, [1, 0, 3, 2]);
        let two = discover(&TOY, 2, 0.1, (2, 2, 1), None, &Stop::default()).unwrap();
        let mut anchors = two.anchors.clone();
        anchors.sort_unstable();
        assert_eq!((anchors.as_slice(), two.kept), (&[0, 3][..], 1.0), "the ends of the arc are the surest");
    }

    #[test]
    fn entropies_anchors_and_neighbors_are_those_of_torch() {
        let golden = golden();
        let bank: Vec<f32> = wave(40, 6, 0.3).iter().map(|&v| v as f32).collect();
        for (found, expected) in entropies(&bank, 6, 0.1, &Stop::default()).unwrap().iter().zip(&golden.entropy) {
            assert!((found - expected).abs() < 2e-6, "{found} instead of {expected}");
        }
        let found = discover(&bank, 6, 0.1, (1, 10, 3), None, &Stop::default()).unwrap();
        assert_eq!((found.anchors, found.neighbors), (golden.anchors.clone(), golden.neighbors.concat()));
    }

    #[test]
    fn the_limits_of_entropy_are_zero_and_ln_n() {
        assert!((entropy(&[0.3; 8], 0.1) - 8_f64.ln()).abs() < 1e-12);
        assert!(entropy(&[1.0, -1.0, -1.0], 1e-6).abs() < 1e-12, "what underflows counts as 0");
    }

    #[test]
    fn images_that_cannot_be_told_apart_are_an_error_with_the_numbers() {
        let bank = [0.6_f32, 0.8].repeat(9);
        let error = discover(&bank, 2, 0.1, (1, 3, 1), None, &Stop::default()).unwrap_err().to_string();
        assert!(error.contains("all 9 images") && error.contains("2.197225 of at most 2.197225"), "{error}");
        assert!(matches!(discover(&TOY, 2, 0.1, (1, 3, 1), None, &Stop::after(0)), Err(StageError::Stopped)));
    }

    #[test]
    fn round_by_round_less_sure_images_come_in_and_none_leaves_while_the_bank_stands_still() {
        // Ten classes around random directions; images of every noise from none to much.
        let (n, dim) = (2000, 16);
        let mut rng = Seed::new(4).rng();
        let directions: Vec<f64> = (0..10 * dim).map(|_| rng.normal()).collect();
        let mut bank = Vec::new();
        for i in 0..n {
            let noise = 1.5 * rng.unit();
            bank.extend((0..dim).map(|d| (directions[i % 10 * dim + d] + noise * rng.normal()) as f32));
        }
        assert!(normalize_rows(&mut bank, dim).is_empty());
        let labels: Vec<i32> = (0..n).map(|i| (i % 10) as i32).collect();
        let mut last: Option<Found> = None;
        for round in 1..=4 {
            let count = anchor_count(n, 4, None, round);
            let found = discover(&bank, dim, 0.1, (round, count, 1), last.as_ref(), &Stop::default()).unwrap();
            assert_eq!((found.anchors.len(), found.neighbors.len()), (count, count));
            assert!(found.anchor_entropy <= found.entropy + 1e-12 && (found.kept - 1.0).abs() < 1e-12);
            if let Some(smaller) = &last {
                assert!(found.anchor_entropy > smaller.anchor_entropy);
                assert_eq!(found.anchors[..smaller.anchors.len()], smaller.anchors, "the surest stay first");
            }
            last = Some(found);
        }
        let all = last.unwrap();
        let mut table = vec![0; n];
        for (&anchor, &neighbor) in all.anchors.iter().zip(&all.neighbors) {
            table[anchor as usize] = neighbor;
        }
        assert!(purity(&table, 1, 1, &labels) > 0.9, "neighbors share a class: {}", purity(&table, 1, 1, &labels));
        let moved =
            discover(&bank.iter().rev().copied().collect::<Vec<_>>(), dim, 0.1, (2, 500, 1), Some(&all), &Stop::default());
        assert!((moved.unwrap().kept - 0.25).abs() < 1e-12, "a quarter of all is kept");
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let bank: Vec<f32> = wave(700, 6, 0.3).iter().map(|&v| v as f32).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| entropies(&bank, 6, 0.1, &Stop::default()).unwrap())
                .into_iter()
                .map(f64::to_bits)
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(3));
    }
}
