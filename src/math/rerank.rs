//! k-reciprocal re-ranking by how alike neighborhoods are (Zhong, Zheng, Cao, Li 2017, "Re-ranking person re-identification with
//! k-reciprocal encoding", CVPR, sections 3.2–3.4).
//!
//! A neighbor is accepted if it is mutual. Each row is described by its *reciprocal* neighbors, weighted by nearness; rows
//! are compared by the Jaccard distance of these descriptions, which are sparse. As in the file that comes with NNM, the distance
//! is not blended with the original one (the paper weighs that with λ = 0.3).

use rayon::prelude::*;

use super::cosine::dot;
use kinset_base::stop::{Stop, Stopped};

/// How far the search for reciprocal neighbors goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Rows in a list, the row itself among them: 20.
    pub k1: usize,
    /// Rows whose descriptions are averaged into one's own, the row itself among them: 6.
    pub k2: usize,
}

/// A description of every row by its reciprocal neighbors.
#[derive(Clone, Debug, PartialEq)]
pub struct Reciprocal {
    /// For each row, the rows it is described by and their weights, rising by row; weights sum to 1.
    weights: Vec<Vec<(u32, f64)>>,
    /// For each row, the rows it describes, and with which weight; rising by row.
    described: Vec<Vec<(u32, f64)>>,
}

impl Reciprocal {
    /// Describes the rows of a table.
    ///
    /// # Shapes
    /// `rows` [N, D], of unit length; `lists` [N, k1 − 1], each row's nearest others, best first.
    ///
    /// # Errors
    /// If it is asked to stop.
    ///
    /// # Panics
    /// If shapes disagree, `k1` is 0, or `k2` is not from 1 to `k1`.
    pub fn new(rows: &[f32], dim: usize, lists: &[u32], reach: Reach, stop: &Stop) -> Result<Self, Stopped> {
        let Reach { k1, k2 } = reach;
        assert!(k1 >= 1 && (1..=k1).contains(&k2), "k2 must be from 1 to k1");
        assert!(dim > 0 && rows.len().is_multiple_of(dim), "rows must be [N, D] with D > 0");
        let n = rows.len() / dim;
        assert_eq!(lists.len(), n * (k1 - 1), "lists must be [N, k1 − 1]");
        // The first `upto` rows of a list, itself first.
        let list = |row: u32, upto: usize| {
            let others = &lists[row as usize * (k1 - 1)..(row as usize + 1) * (k1 - 1)];
            std::iter::once(row).chain(others.iter().copied()).take(upto)
        };
        let reciprocal = |row: u32, upto: usize| -> Vec<u32> {
            list(row, upto).filter(|&other| list(other, upto).any(|back| back == row)).collect()
        };
        let half = half_even(k1) + 1;
        let halves: Vec<Vec<u32>> = (0..n as u32).into_par_iter().map(|row| reciprocal(row, half)).collect();
        let own: Vec<Vec<(u32, f64)>> = (0..n as u32)
            .into_par_iter()
            .map(|row| {
                stop.check()?;
                let near = reciprocal(row, k1);
                let mut all = near.clone();
                for &other in &near {
                    let half = &halves[other as usize];
                    let shared = half.iter().filter(|&member| near.contains(member)).count();
                    if 3 * shared > 2 * half.len() {
                        all.extend_from_slice(half);
                    }
                }
                all.sort_unstable();
                all.dedup();
                let at = |r: u32| &rows[r as usize * dim..(r as usize + 1) * dim];
                // exp(−|x − y|²) of unit rows; relative to the row itself, whose distance is 0.
                let raw: Vec<f64> = all.iter().map(|&other| (2.0 * dot(at(row), at(other)) - 2.0).exp()).collect();
                let sum: f64 = raw.iter().sum();
                Ok(all.into_iter().zip(raw).map(|(other, weight)| (other, weight / sum)).collect())
            })
            .collect::<Result<_, Stopped>>()?;
        let weights: Vec<Vec<(u32, f64)>> = (0..n as u32)
            .into_par_iter()
            .map(|row| {
                stop.check()?;
                let mut all: Vec<(u32, f64)> = list(row, k2).flat_map(|other| own[other as usize].iter().copied()).collect();
                // A stable sort keeps the order of the list among equals, so the sums have one order.
                all.sort_by_key(|&(other, _)| other);
                let mut merged: Vec<(u32, f64)> = Vec::with_capacity(all.len());
                for (other, weight) in all {
                    match merged.last_mut() {
                        Some((last, sum)) if *last == other => *sum += weight / k2 as f64,
                        _ => merged.push((other, weight / k2 as f64)),
                    }
                }
                Ok(merged)
            })
            .collect::<Result<_, Stopped>>()?;
        let mut described = vec![Vec::new(); n];
        for (row, weights) in weights.iter().enumerate() {
            for &(other, weight) in weights {
                described[other as usize].push((row as u32, weight));
            }
        }
        Ok(Self { weights, described })
    }

    pub fn len(&self) -> usize {
        self.weights.len()
    }

    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Jaccard distance of two descriptions, 0 (alike) to 1 (nothing in common).
    pub fn distance(&self, one: usize, other: usize) -> f64 {
        self.overlapping(one).iter().find(|(row, _)| *row as usize == other).map_or(1.0, |(_, distance)| *distance)
    }

    /// All rows whose description shares something with that of `row`, itself among them, and their distances; rising by row.
    pub fn overlapping(&self, row: usize) -> Vec<(u32, f64)> {
        let mut shares: Vec<(u32, f64)> = Vec::new();
        for &(through, own) in &self.weights[row] {
            shares.extend(self.described[through as usize].iter().map(|&(other, its)| (other, own.min(its))));
        }
        shares.sort_by_key(|&(other, _)| other);
        let mut merged: Vec<(u32, f64)> = Vec::new();
        for (other, share) in shares {
            match merged.last_mut() {
                Some((last, sum)) if *last == other => *sum += share,
                _ => merged.push((other, share)),
            }
        }
        // Weights sum to 1 on both sides: the union is 2 − the intersection. Rounding may leave an intersection above 1.
        merged.into_iter().map(|(other, shared)| (other, (1.0 - shared / (2.0 - shared)).max(0.0))).collect()
    }
}

/// The `k` rows of least Jaccard distance for each row, itself excluded, and 1 − distance. Equal distances go to the nearer row by
/// cosine, then to the lower one; rows that share nothing follow in the order of `lists`.
///
/// # Shapes
/// `rows` [N, D], of unit length; `lists` [N, width], each row's nearest others, best first, width at least `k` and k1 − 1.
/// Returns [N, k] rows and [N, k] similarities, 0 to 1, falling.
///
/// # Errors
/// If it is asked to stop.
///
/// # Panics
/// If shapes disagree, or as [`Reciprocal::new`].
pub fn nearest(
    rows: &[f32],
    dim: usize,
    lists: &[u32],
    width: usize,
    reach: Reach,
    k: usize,
    stop: &Stop,
) -> Result<(Vec<u32>, Vec<f32>), Stopped> {
    assert!(k <= width && reach.k1 <= width + 1, "lists must be as wide as k and k1 − 1");
    let short: Vec<u32> = lists.chunks(width.max(1)).flat_map(|list| list[..reach.k1 - 1].iter().copied()).collect();
    let descriptions = Reciprocal::new(rows, dim, &short, reach, stop)?;
    let at = |r: u32| &rows[r as usize * dim..(r as usize + 1) * dim];
    let found: Vec<Vec<(u32, f64)>> = (0..descriptions.len())
        .into_par_iter()
        .map(|row| {
            stop.check()?;
            let mut near: Vec<(u32, f64, f64)> = descriptions
                .overlapping(row)
                .into_iter()
                .filter(|&(other, _)| other as usize != row)
                .map(|(other, distance)| (other, distance, dot(at(row as u32), at(other))))
                .collect();
            near.sort_by(|a, b| a.1.total_cmp(&b.1).then(b.2.total_cmp(&a.2)).then(a.0.cmp(&b.0)));
            near.truncate(k);
            let mut best: Vec<(u32, f64)> = near.into_iter().map(|(other, distance, _)| (other, 1.0 - distance)).collect();
            for &other in &lists[row * width..(row + 1) * width] {
                if best.len() == k {
                    break;
                }
                if best.iter().all(|&(taken, _)| taken != other) {
                    best.push((other, 0.0));
                }
            }
            Ok(best)
        })
        .collect::<Result<_, Stopped>>()?;
    Ok(found.into_iter().flatten().map(|(row, similarity)| (row, similarity as f32)).unzip())
}

/// Half of a number, rounded to the nearest, halves to the even one.
fn half_even(k: usize) -> usize {
    let half = k / 2;
    if k.is_multiple_of(2) { half } else { half + half % 2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosine::normalize_rows;
    use crate::topk::top_k;
    use proptest::prelude::*;

    /// Everybody's others, best first.
    fn lists(rows: &[f32], dim: usize, width: usize) -> Vec<u32> {
        let at = |r: usize| &rows[r * dim..(r + 1) * dim];
        let n = rows.len() / dim;
        (0..n)
            .flat_map(|row| {
                let mut cosines: Vec<f32> = (0..n).map(|other| dot(at(row), at(other)) as f32).collect();
                cosines[row] = f32::NEG_INFINITY;
                top_k(&cosines, width).into_iter().map(|other| other as u32)
            })
            .collect()
    }

    fn on_a_circle(degrees: &[f64]) -> Vec<f32> {
        degrees.iter().flat_map(|d| [d.to_radians().cos() as f32, d.to_radians().sin() as f32]).collect()
    }

    #[test]
    fn the_distances_of_the_reference_come_out() {
        // methods/nnm.md, section 6.1.
        let rows = on_a_circle(&[0.0, 8.0, 15.0, 40.0, 47.0, 90.0, 97.0, 200.0]);
        let found = Reciprocal::new(&rows, 2, &lists(&rows, 2, 3), Reach { k1: 4, k2: 2 }, &Stop::default()).unwrap();
        for (one, other, wanted) in
            [(0, 1, 0.199_165), (0, 3, 0.809_390), (1, 3, 0.725_478), (3, 4, 0.0), (5, 7, 0.666_667), (0, 5, 1.0)]
        {
            let distance = found.distance(one, other);
            assert!((distance - wanted).abs() < 1e-6, "{one} and {other}: {distance} is not {wanted}");
            assert!((found.distance(other, one) - distance).abs() < 1e-12);
        }
    }

    #[test]
    fn all_distances_equal_those_of_dense_matrices() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/nnm/golden.json")).unwrap();
        let numbers =
            |list: &serde_json::Value| -> Vec<f64> { list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
        let rows: Vec<f32> = numbers(&golden["rows"]).into_iter().map(|v| v as f32).collect();
        let n = rows.len() / 4;
        for case in golden["rerank"].as_array().unwrap() {
            let size = |name: &str| case[name].as_u64().unwrap() as usize;
            let reach = Reach { k1: size("k1"), k2: size("k2") };
            let found = Reciprocal::new(&rows, 4, &lists(&rows, 4, reach.k1 - 1), reach, &Stop::default()).unwrap();
            for (pair, wanted) in numbers(&case["distance"]).into_iter().enumerate() {
                let distance = found.distance(pair / n, pair % n);
                assert!((distance - wanted).abs() < 2e-6, "{reach:?} {pair}: {distance} is not {wanted}");
            }
        }
    }

    #[test]
    fn halves_round_to_the_even_number() {
        assert_eq!([2, 3, 4, 5, 6, 7, 20, 21].map(half_even), [1, 2, 2, 2, 3, 4, 10, 10]);
    }

    #[test]
    fn who_is_believed_back_comes_before_who_is_merely_near() {
        // The bridge at 30° is nearest to the crowd's edge at 10°, but the crowd keeps to itself.
        let rows = on_a_circle(&[0.0, 3.0, 6.0, 10.0, 26.0, 40.0, 43.0, 46.0, 49.0]);
        let lists = lists(&rows, 2, 8);
        assert_eq!(lists[4 * 8], 5, "by cosine: 14° to one side, 16° to the other");
        let (index, similarity) = nearest(&rows, 2, &lists, 8, Reach { k1: 4, k2: 2 }, 8, &Stop::default()).unwrap();
        for row in 0..4 {
            let mut first: Vec<u32> = index[row * 8..row * 8 + 3].to_vec();
            first.push(row as u32);
            first.sort_unstable();
            assert_eq!(first, [0, 1, 2, 3], "row {row}");
        }
        assert!(similarity.chunks(8).all(|row| row.windows(2).all(|pair| pair[0] >= pair[1])));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn distances_are_symmetric_from_0_to_1_and_lists_are_whole(
            v in prop::collection::vec(-1_f32..1.0, 24..120), k1 in 1_usize..8, k2 in 1_usize..8, k in 1_usize..7,
        ) {
            let mut rows = v[..v.len() / 3 * 3].to_vec();
            rows.chunks_mut(3).for_each(|row| row[0] += 2.0);
            let zero = normalize_rows(&mut rows, 3);
            prop_assert!(zero.is_empty());
            let (n, reach) = (rows.len() / 3, Reach { k1, k2: k2.min(k1) });
            let lists = lists(&rows, 3, 7);
            let short: Vec<u32> = lists.chunks(7).flat_map(|list| list[..k1 - 1].to_vec()).collect();
            let found = Reciprocal::new(&rows, 3, &short, reach, &Stop::default()).unwrap();
            prop_assert_eq!(found.len(), n);
            for row in 0..n {
                prop_assert!((found.weights[row].iter().map(|(_, w)| w).sum::<f64>() - 1.0).abs() < 1e-12);
                prop_assert!(found.distance(row, row) < 1e-12);
                for (other, distance) in found.overlapping(row) {
                    prop_assert!((0.0..=1.0).contains(&distance));
                    prop_assert!((found.distance(other as usize, row) - distance).abs() < 1e-12);
                }
            }
            let (index, similarity) = nearest(&rows, 3, &lists, 7, reach, k, &Stop::default()).unwrap();
            prop_assert_eq!((index.len(), similarity.len()), (n * k, n * k));
            for (row, list) in index.chunks(k).enumerate() {
                let mut sorted = list.to_vec();
                sorted.sort_unstable();
                sorted.dedup();
                prop_assert!(sorted.len() == k && !sorted.contains(&(row as u32)));
            }
            prop_assert!(similarity.chunks(k).all(|row| row.windows(2).all(|pair| pair[0] >= pair[1])));
        }
    }
}
