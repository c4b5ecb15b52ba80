//! Label propagation: what is said of each image, and what is said of its neighbors, on a graph.
//!
//! F ← α D⁻¹ W F + (1 − α) Y, begun with F = Y. The limit is the random-walk variant of Zhou, Bousquet, Lal, Weston and Schölkopf
//! 2004, "Learning with local and global consistency" (section 2, D⁻¹ W in place of D^(−1/2) W D^(−1/2)). Rows that are distributions
//! stay distributions.

use rayon::prelude::*;

use super::spectral::Graph;
use kinset_base::stop::{Stop, Stopped};

/// How far from the limit it ends: no number is farther, if those given are between 0 and 1.
const LEFT: f64 = 1e-3;

/// F after as many rounds as it takes. `stop` is looked at before each. The same bits for any number of threads.
///
/// # Shapes
/// `said`: Y, `[N, width]`; returns the same. `share`: α, 0 to below 1.
///
/// # Errors
/// [`Stopped`].
///
/// # Panics
/// If the shapes do not agree, a row has no edge or α is not below 1.
pub fn propagate(graph: &Graph, said: &[f64], width: usize, share: f64, stop: &Stop) -> Result<Vec<f64>, Stopped> {
    assert!(width > 0 && said.len() == graph.len() * width, "one row an image");
    assert!((0.0..1.0).contains(&share), "a share is from 0 to below 1");
    let rounds = if share > 0.0 { (LEFT.ln() / share.ln()).ceil() as usize } else { 0 };
    let mut now = said.to_vec();
    for _ in 0..rounds {
        stop.check()?;
        let mut next = vec![0.0; now.len()];
        next.par_chunks_mut(width).zip(said.par_chunks(width)).enumerate().for_each(|(row, (next, own))| {
            let mut degree = 0.0;
            for (other, weight) in graph.row(row) {
                degree += weight;
                next.iter_mut().zip(&now[other * width..]).for_each(|(sum, x)| *sum += weight * x);
            }
            assert!(degree > 0.0, "every row needs an edge");
            next.iter_mut().zip(own).for_each(|(sum, own)| *sum = share * *sum / degree + (1.0 - share) * own);
        });
        now = next;
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Three images that all name each other, and three more.
    const TWO_GROUPS: [u32; 12] = [1, 2, 0, 2, 0, 1, 4, 5, 3, 5, 3, 4];

    fn of(said: &[f64], share: f64) -> Vec<f64> {
        propagate(&Graph::of_shared_neighbors(&TWO_GROUPS, 2, 2), said, 1, share, &Stop::default()).unwrap()
    }

    #[test]
    fn the_limit_of_a_triangle_comes_out_and_nothing_crosses_to_another() {
        // By hand: of a triangle with Y = (1, 0, 0), F₀ = 1 − α + α F₁ and F₁ = α (F₀ + F₁) / 2.
        let found = of(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0.5);
        for (found, wanted) in found.iter().zip([0.6, 0.2, 0.2, 0.0, 0.0, 0.0]) {
            assert!((found - wanted).abs() < LEFT, "{found} is not {wanted}");
        }
    }

    #[test]
    fn without_a_share_all_stays() {
        let said = [0.1, 0.7, 0.2, 0.9, 0.4, 0.3];
        assert_eq!(of(&said, 0.0), said);
    }

    /// Each row names rows that follow it at steps of its own.
    fn graph(steps: &[usize]) -> Graph {
        let n = steps.len();
        let index: Vec<u32> = steps
            .iter()
            .enumerate()
            .flat_map(|(row, step)| [(row + 1) % n, (row + 1 + step) % n])
            .map(|row| row as u32)
            .collect();
        Graph::of_shared_neighbors(&index, 2, 2)
    }

    proptest! {
        #[test]
        fn distributions_stay_distributions(
            rows in proptest::collection::vec((1_usize..5, [0.01_f64..1.0, 0.01..1.0, 0.01..1.0]), 8..40),
            share in 0.0..0.95,
        ) {
            let steps: Vec<usize> = rows.iter().map(|(step, _)| *step).collect();
            let said: Vec<f64> = rows.iter().flat_map(|(_, row)| row.map(|x| x / row.iter().sum::<f64>())).collect();
            let found = propagate(&graph(&steps), &said, 3, share, &Stop::default()).unwrap();
            for row in found.chunks(3) {
                prop_assert!(row.iter().all(|x| *x > 0.0) && (row.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{row:?}");
            }
        }
    }

    #[test]
    fn who_is_told_to_stop_has_no_result() {
        let graph = Graph::of_shared_neighbors(&TWO_GROUPS, 2, 2);
        assert_eq!(propagate(&graph, &[0.0; 6], 1, 0.5, &Stop::after(2)), Err(Stopped));
    }

    #[test]
    fn one_thread_and_five_give_the_same_bits() {
        let graph = graph(&(0..3000).map(|row| 1 + row * row % 97).collect::<Vec<_>>());
        let said: Vec<f64> = (0..9000).map(|at| 1.0 / f64::from(at % 89 + 1)).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| propagate(&graph, &said, 3, 0.8, &Stop::default()))
        };
        assert_eq!(with(1), with(5));
    }
}
