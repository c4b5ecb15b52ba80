//! Spectral embedding of a neighbor graph: connected images get similar directions.
//!
//! The eigenvectors of the normalized Laplacian I − D^(−1/2) W D^(−1/2) with the smallest eigenvalues, rows brought to unit length
//! (Ng, Jordan and Weiss 2001, "On Spectral Clustering"; von Luxburg 2007, "A Tutorial on Spectral Clustering"). They are the
//! vectors of D^(−1/2) W D^(−1/2) with the largest, found by subspace iteration with a Chebyshev filter (Zhou, Saad, Tiago and
//! Chelikowsky 2006): only products of the sparse graph with a few vectors. The vector that all graphs have, D^(1/2) 1, tells
//! nothing and is left out.
//!
//! The start is drawn from a fixed seed, sums run over fixed pieces in double precision: the same numbers for any number of threads.

use rayon::prelude::*;

use super::eigen::eigen;
use kinset_base::seed::Seed;
use kinset_base::stop::{Stop, Stopped};

/// Rows of a parallel piece; fixed, so that no result depends on the number of threads.
const ROWS: usize = 1024;
/// Most rounds of filter and Rayleigh–Ritz step.
const ROUNDS: usize = 100;
/// Largest |S x − θ x| of a vector that counts as found; k-means sees nothing finer.
const TOLERANCE: f64 = 1e-5;
/// Most products with the graph in one filter.
const DEGREE: usize = 40;
/// How much a filter may raise the largest direction above the smallest that is kept: more, and rounding loses the small ones.
const GROWTH: f64 = 1e6;

/// A symmetric graph with weights, by rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Where each row begins in `ends`, N + 1.
    starts: Vec<usize>,
    ends: Vec<u32>,
    weights: Vec<f32>,
}

impl Graph {
    /// The graph of the first `used` of each image's neighbors: two that name each other are joined with weight 1, two of which
    /// only one names the other with ½.
    ///
    /// # Shapes
    /// `index`: `[N, k]`, the nearest first.
    ///
    /// # Panics
    /// If `index` is not `[N, k]`, names a row that is not there, or `used` is not within 1 and k.
    pub fn of_neighbors(index: &[u32], k: usize, used: usize) -> Self {
        assert!(k > 0 && (1..=k).contains(&used) && index.len().is_multiple_of(k), "neighbors must be [N, k]");
        let n = index.len() / k;
        let mut edges: Vec<(u32, u32)> = Vec::with_capacity(2 * n * used);
        for (row, neighbors) in index.chunks_exact(k).enumerate() {
            for &other in &neighbors[..used] {
                assert!((other as usize) < n, "a neighbor must be a row");
                edges.push((row as u32, other));
                edges.push((other, row as u32));
            }
        }
        edges.par_sort_unstable();
        let (mut starts, mut ends, mut weights) = (vec![0; n + 1], Vec::new(), Vec::new());
        for same in edges.chunk_by(|a, b| a == b) {
            let (row, end) = same[0];
            starts[row as usize + 1] += 1;
            ends.push(end);
            weights.push(0.5 * same.len() as f32);
        }
        for row in 0..n {
            starts[row + 1] += starts[row];
        }
        Self { starts, ends, weights }
    }

    /// The same graph with each weight times the share of the two neighborhoods that is common, each image its own neighbor too. An
    /// edge whose ends share little is a bridge between groups more often than a part of one.
    ///
    /// # Source
    /// Jarvis and Patrick 1973, "Clustering using a similarity measure based on shared near neighbors"; the share (Jaccard index) is
    /// that of PhenoGraph, Levine et al. 2015.
    ///
    /// # Panics
    /// As [`Graph::of_neighbors`].
    pub fn of_shared_neighbors(index: &[u32], k: usize, used: usize) -> Self {
        let mut graph = Self::of_neighbors(index, k, used);
        let around = |(row, neighbors): (usize, &[u32])| {
            let mut all = [&[row as u32], &neighbors[..used]].concat();
            all.sort_unstable();
            all
        };
        let around: Vec<Vec<u32>> = index.par_chunks_exact(k).enumerate().map(around).collect();
        let shared = |row: usize| {
            let (around, range) = (&around, graph.starts[row]..graph.starts[row + 1]);
            graph.ends[range.clone()].iter().zip(&graph.weights[range]).map(move |(&end, weight)| {
                let common = in_both(&around[row], &around[end as usize]) as f32;
                weight * common / ((2 * used + 2) as f32 - common)
            })
        };
        graph.weights = (0..graph.len()).into_par_iter().flat_map_iter(shared).collect();
        graph
    }

    /// Rows, N.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The share of the edges that lie within clusters, less what it would be if edges joined rows at random, each with as many as it
    /// has. It rises while clusters come apart that the graph does not join, and falls when one is split that it does.
    ///
    /// # Source
    /// Newman 2004, "Analysis of weighted networks", equation 8.
    ///
    /// # Panics
    /// If there is no label for each row, or one is not below `clusters`.
    pub fn modularity(&self, labels: &[u32], clusters: usize) -> f64 {
        assert_eq!(labels.len(), self.len(), "a label for each row");
        let (mut within, mut degrees) = (0.0, vec![0.0; clusters]);
        for (row, &label) in labels.iter().enumerate() {
            for (end, weight) in self.row(row) {
                degrees[label as usize] += weight;
                within += if labels[end] == label { weight } else { 0.0 };
            }
        }
        let all: f64 = degrees.iter().sum();
        if all > 0.0 { within / all - degrees.iter().map(|degree| (degree / all).powi(2)).sum::<f64>() } else { 0.0 }
    }

    /// Whom a row is joined with, and how strongly.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let range = self.starts[row]..self.starts[row + 1];
        self.ends[range.clone()].iter().zip(&self.weights[range]).map(|(&end, &weight)| (end as usize, f64::from(weight)))
    }
}

/// How many numbers two rising lists share.
fn in_both(a: &[u32], b: &[u32]) -> usize {
    let (mut at, mut count) = (0, 0);
    for x in a {
        while at < b.len() && b[at] < *x {
            at += 1;
        }
        count += usize::from(b.get(at) == Some(x));
    }
    count
}

/// Where images lie by the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Numbers per image: as many as asked for, fewer for graphs with fewer rows.
    pub dim: usize,
    /// `[N, dim]`, rows of unit length.
    pub rows: Vec<f32>,
    /// `[dim]`: eigenvalues of the normalized Laplacian, 0 to 2, rising; the first, which is 0 for all graphs, is left out.
    pub eigenvalues: Vec<f64>,
    /// False if vectors still moved after the last round.
    pub converged: bool,
}

/// The first `dim` vectors of the normalized Laplacian after the trivial one. `stop` is looked at before each product with the
/// graph.
///
/// # Errors
/// [`Stopped`].
///
/// # Panics
/// If a row has no edge.
pub fn embed(graph: &Graph, dim: usize, stop: &Stop) -> Result<Embedding, Stopped> {
    let n = graph.len();
    let dim = dim.min(n.saturating_sub(1));
    let width = (dim + (dim / 2).max(8)).min(n.saturating_sub(1));
    let matrix = Normalized::of(graph);
    let mut rng = Seed::new(0).branch("spectral").rng();
    let mut block: Vec<f64> = (0..n * width).map(|_| rng.normal()).collect();
    let mut values = vec![0.0; width];
    let mut converged = false;
    // Nothing is known of the spectrum yet: raise its upper half.
    let mut cutoff = 0.0;
    for _ in 0..ROUNDS {
        block = matrix.filtered(block, width, cutoff, stop)?;
        matrix.without_trivial(&mut block, width);
        // Twice: the first leaves what rounding left of small directions.
        block = orthonormal(&block, width);
        block = orthonormal(&block, width);
        stop.check()?;
        let image = matrix.times(&block, width);
        let (found, rotation) = eigen(cross(&block, &image, width), width);
        block = turned(&block, &rotation, width);
        let image = turned(&image, &rotation, width);
        values = found;
        converged = residuals(&block, &image, &values, width)[..dim].iter().all(|r| *r <= TOLERANCE);
        if converged {
            break;
        }
        cutoff = values[width - 1].clamp(-0.9, 0.999);
    }
    let mut rows = vec![0.0; n * dim];
    if dim > 0 {
        let pieces = rows.par_chunks_mut(ROWS * dim).zip(block.par_chunks(ROWS * width));
        pieces.for_each(|(out, block)| {
            for (out, row) in out.chunks_exact_mut(dim).zip(block.chunks_exact(width)) {
                let length = row[..dim].iter().map(|x| x * x).sum::<f64>().sqrt();
                // A piece of the graph that none of the vectors sees stays in the middle.
                let scale = if length > f64::MIN_POSITIVE { 1.0 / length } else { 0.0 };
                out.iter_mut().zip(row).for_each(|(out, x)| *out = (x * scale) as f32);
            }
        });
    }
    let eigenvalues = values[..dim].iter().map(|value| (1.0 - value).clamp(0.0, 2.0)).collect();
    Ok(Embedding { dim, rows, eigenvalues, converged })
}

/// D^(−1/2) W D^(−1/2), with eigenvalues from −1 to 1.
struct Normalized<'a> {
    graph: &'a Graph,
    /// D^(−1/2).
    scale: Vec<f64>,
    /// The vector of eigenvalue 1 that every graph has, of unit length.
    trivial: Vec<f64>,
}

impl<'a> Normalized<'a> {
    fn of(graph: &'a Graph) -> Self {
        let degrees: Vec<f64> = (0..graph.len()).map(|row| graph.row(row).map(|(_, weight)| weight).sum()).collect();
        assert!(degrees.iter().all(|degree| *degree > 0.0), "every row needs an edge");
        let length = degrees.iter().sum::<f64>().sqrt();
        Self {
            graph,
            scale: degrees.iter().map(|degree| 1.0 / degree.sqrt()).collect(),
            trivial: degrees.iter().map(|degree| degree.sqrt() / length).collect(),
        }
    }

    /// Products with a block `[N, width]`.
    fn times(&self, block: &[f64], width: usize) -> Vec<f64> {
        let mut out = vec![0.0; block.len()];
        out.par_chunks_mut(ROWS * width).enumerate().for_each(|(piece, out)| {
            for (at, out) in out.chunks_exact_mut(width).enumerate() {
                let row = piece * ROWS + at;
                for (other, weight) in self.graph.row(row) {
                    let weight = weight * self.scale[row] * self.scale[other];
                    out.iter_mut().zip(&block[other * width..]).for_each(|(sum, x)| *sum += weight * x);
                }
            }
        });
        out
    }

    /// A Chebyshev polynomial of the matrix times a block: directions with eigenvalues from −1 to `cutoff` stay, those above grow.
    fn filtered(&self, block: Vec<f64>, width: usize, cutoff: f64, stop: &Stop) -> Result<Vec<f64>, Stopped> {
        let (half, center) = (cutoff.midpoint(1.0), cutoff.midpoint(-1.0));
        let fastest = ((1.0 - center) / half).acosh();
        let degree = (GROWTH.ln() / fastest).clamp(2.0, DEGREE as f64) as usize;
        let step = |block: &[f64]| {
            let mut image = self.times(block, width);
            image.par_iter_mut().zip(block).for_each(|(y, x)| *y = (*y - center * x) / half);
            image
        };
        let (mut before, mut now) = (block, Vec::new());
        for round in 0..degree {
            stop.check()?;
            if round == 0 {
                now = step(&before);
                continue;
            }
            let mut next = step(&now);
            next.par_iter_mut().zip(&before).for_each(|(y, x)| *y = 2.0 * *y - x);
            before = now;
            now = next;
        }
        Ok(now)
    }

    /// Takes the trivial vector's share out of every vector of a block.
    fn without_trivial(&self, block: &mut [f64], width: usize) {
        let shares = self.trivial.par_chunks(ROWS).zip(block.par_chunks(ROWS * width));
        let shares: Vec<Vec<f64>> = shares
            .map(|(trivial, rows)| {
                let mut sums = vec![0.0; width];
                for (t, row) in trivial.iter().zip(rows.chunks_exact(width)) {
                    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += t * x);
                }
                sums
            })
            .collect();
        let mut share = vec![0.0; width];
        for piece in shares {
            share.iter_mut().zip(piece).for_each(|(sum, x)| *sum += x);
        }
        block.par_chunks_mut(width).zip(&self.trivial).for_each(|(row, t)| {
            row.iter_mut().zip(&share).for_each(|(x, share)| *x -= t * share);
        });
    }
}

/// `[width, width]`: products of the columns of two blocks.
fn cross(a: &[f64], b: &[f64], width: usize) -> Vec<f64> {
    let pieces = a.par_chunks(ROWS * width).zip(b.par_chunks(ROWS * width));
    let pieces: Vec<Vec<f64>> = pieces
        .map(|(a, b)| {
            let mut sums = vec![0.0; width * width];
            for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
                for (sums, x) in sums.chunks_exact_mut(width).zip(a) {
                    sums.iter_mut().zip(b).for_each(|(sum, y)| *sum += x * y);
                }
            }
            sums
        })
        .collect();
    let mut sums = vec![0.0; width * width];
    for piece in pieces {
        sums.iter_mut().zip(piece).for_each(|(sum, x)| *sum += x);
    }
    // Rounding is not symmetric.
    for i in 0..width {
        for j in 0..i {
            let mean = sums[i * width + j].midpoint(sums[j * width + i]);
            sums[i * width + j] = mean;
            sums[j * width + i] = mean;
        }
    }
    sums
}

/// A block whose columns are the combinations that the rows of `rotation` name.
fn turned(block: &[f64], rotation: &[f64], width: usize) -> Vec<f64> {
    let mut out = vec![0.0; block.len()];
    out.par_chunks_mut(width).zip(block.par_chunks(width)).with_min_len(ROWS).for_each(|(out, row)| {
        for (out, weights) in out.iter_mut().zip(rotation.chunks_exact(width)) {
            *out = weights.iter().zip(row).map(|(weight, x)| weight * x).sum();
        }
    });
    out
}

/// The same space with orthonormal columns, by the eigenvectors of their products (Stathopoulos and Wu 2002, SVQB). A direction
/// that is not there becomes a column of zeros.
fn orthonormal(block: &[f64], width: usize) -> Vec<f64> {
    let (values, mut rotation) = eigen(cross(block, block, width), width);
    let least = values.first().copied().unwrap_or(0.0) * 1e-15;
    for (value, row) in values.iter().zip(rotation.chunks_exact_mut(width)) {
        let scale = if *value > least.max(f64::MIN_POSITIVE) { 1.0 / value.sqrt() } else { 0.0 };
        for x in row {
            *x *= scale;
        }
    }
    turned(block, &rotation, width)
}

/// `[width]`: |S x − θ x| of each column.
fn residuals(block: &[f64], image: &[f64], values: &[f64], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for (row, image) in block.chunks_exact(width).zip(image.chunks_exact(width)) {
        for (((sum, x), y), value) in sums.iter_mut().zip(row).zip(image).zip(values) {
            *sum += (y - value * x).powi(2);
        }
    }
    sums.into_iter().map(f64::sqrt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rings of images, each joined to the next two; one edge joins each ring to the next ring.
    fn rings(count: usize, size: usize, joined: bool) -> (Vec<u32>, usize) {
        let mut index = Vec::new();
        for ring in 0..count {
            for at in 0..size {
                let first = ring * size;
                let other = if joined && at == 0 { (ring + 1) % count * size } else { first + (at + 2) % size };
                index.extend([(first + (at + 1) % size) as u32, other as u32]);
            }
        }
        (index, 2)
    }

    /// Eigenvalues of the dense Laplacian, by another method.
    fn dense(graph: &Graph, count: usize) -> Vec<f64> {
        let n = graph.len();
        let degree: Vec<f64> = (0..n).map(|row| graph.row(row).map(|(_, w)| w).sum()).collect();
        let mut matrix = vec![0.0; n * n];
        for row in 0..n {
            matrix[row * n + row] += 1.0;
            for (other, weight) in graph.row(row) {
                matrix[row * n + other] -= weight / (degree[row] * degree[other]).sqrt();
            }
        }
        crate::spectrum::smallest(&mut matrix, n, count, &Stop::default()).unwrap()
    }

    #[test]
    fn an_edge_that_both_name_counts_twice_one_that_one_names() {
        let graph = Graph::of_neighbors(&[1, 2, 0, 2, 0, 1, 0, 1], 2, 1);
        let rows: Vec<Vec<(usize, f64)>> = (0..4).map(|row| graph.row(row).collect()).collect();
        assert_eq!(rows[0], [(1, 1.0), (2, 0.5), (3, 0.5)], "0 and 1 name each other; 2 and 3 name 0");
        assert_eq!(rows[3], [(0, 0.5)], "the second neighbor is not used");
    }

    #[test]
    fn an_edge_weighs_what_its_ends_share() {
        let rows = |used| {
            let graph = Graph::of_shared_neighbors(&[1, 2, 0, 2, 0, 1, 0, 1], 2, used);
            (0..4).map(|row| graph.row(row).map(|(end, weight)| (end, (12.0 * weight).round() as u32)).collect()).collect()
        };
        let first: Vec<Vec<(usize, u32)>> = rows(1);
        assert_eq!(first[0], [(1, 12), (2, 2), (3, 2)], "0 and 1 share both; 0 and 2 one of three, and only 2 names 0");
        assert_eq!(first[3], [(0, 2)], "the second neighbor is not used");
        let both: Vec<Vec<(usize, u32)>> = rows(2);
        assert_eq!(both[0], [(1, 12), (2, 12), (3, 3)], "0 and 3 share two of four, and only 3 names 0");
    }

    #[test]
    fn eigenvalues_are_those_of_the_dense_matrix() {
        let (index, k) = rings(4, 30, true);
        let graph = Graph::of_neighbors(&index, k, k);
        let found = embed(&graph, 6, &Stop::default()).unwrap();
        assert!(found.converged);
        for (found, wanted) in found.eigenvalues.iter().zip(&dense(&graph, 7)[1..]) {
            assert!((found - wanted).abs() < 1e-8, "{found} is not {wanted}");
        }
    }

    #[test]
    fn pieces_that_nothing_joins_lie_in_directions_of_their_own() {
        let (index, k) = rings(3, 20, false);
        let found = embed(&Graph::of_neighbors(&index, k, k), 2, &Stop::default()).unwrap();
        assert!(found.converged && found.eigenvalues.iter().all(|value| *value < 1e-9), "{:?}", found.eigenvalues);
        let row = |at: usize| &found.rows[at * 2..at * 2 + 2];
        let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        for ring in 0..3 {
            for at in 1..20 {
                assert!(apart(row(ring * 20), row(ring * 20 + at)) < 1e-4, "ring {ring}, image {at}");
            }
            assert!(apart(row(ring * 20), row((ring + 1) % 3 * 20)) > 1.0);
        }
    }

    #[test]
    fn small_graphs_have_fewer_vectors() {
        let found = embed(&Graph::of_neighbors(&[1, 0], 1, 1), 5, &Stop::default()).unwrap();
        assert_eq!((found.dim, found.rows.len()), (1, 2));
        assert!((found.eigenvalues[0] - 2.0).abs() < 1e-9, "two images that are each other's neighbors");
    }

    #[test]
    fn who_is_told_to_stop_has_no_result() {
        let (index, k) = rings(3, 20, true);
        assert_eq!(embed(&Graph::of_neighbors(&index, k, k), 2, &Stop::after(3)), Err(Stopped));
    }

    #[test]
    fn one_thread_and_five_give_the_same_bits() {
        let (index, k) = rings(8, 500, true);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| embed(&Graph::of_shared_neighbors(&index, k, k), 8, &Stop::default()))
        };
        assert_eq!(with(1), with(5));
    }
}
