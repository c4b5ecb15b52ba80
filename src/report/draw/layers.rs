//! The layered layout of a graph: every box below all it reads, with few crossings (Sugiyama, Tagawa and Toda 1981,
//! "Methods for visual understanding of hierarchical system structures").
//!
//! A wire over several layers passes through a narrow place in each of them, so that it runs between boxes and not behind them.

/// Sweeps that look for an order with fewer crossings, and then for straighter wires.
const SWEEPS: usize = 12;

/// A graph in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Middle of each box, across.
    pub across: Vec<f64>,
    /// Layer of each box, from 0.
    pub layer: Vec<usize>,
    /// For each wire the places it runs through: across and layer, the boxes at both ends included.
    pub ways: Vec<Vec<(f64, usize)>>,
    pub layers: usize,
    /// The right end.
    pub width: f64,
}

/// Lays out `boxes` boxes of a width, with wires from a box to a box that comes after it; a wire that leads back is left out.
pub fn layout(boxes: usize, wires: &[(usize, usize)], width: f64, gap: f64) -> Layout {
    let wires: Vec<(usize, usize)> =
        wires.iter().copied().filter(|&(from, to)| from < boxes && to < boxes && from != to).collect();
    let layer = layers(boxes, &wires);
    let count = layer.iter().max().map_or(0, |last| last + 1);
    // Places: the boxes first, then the narrow ones.
    let (mut layer_of, mut wide) = (layer.clone(), vec![width; boxes]);
    let (mut up, mut down): (Vec<Vec<usize>>, Vec<Vec<usize>>) = (vec![Vec::new(); boxes], vec![Vec::new(); boxes]);
    let mut chains = Vec::new();
    for &(from, to) in &wires {
        let mut chain = vec![from];
        for between in layer[from] + 1..layer[to] {
            layer_of.push(between);
            wide.push(gap);
            up.push(Vec::new());
            down.push(Vec::new());
            chain.push(layer_of.len() - 1);
        }
        chain.push(to);
        for pair in chain.windows(2) {
            down[pair[0]].push(pair[1]);
            up[pair[1]].push(pair[0]);
        }
        chains.push(chain);
    }
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (place, &layer) in layer_of.iter().enumerate() {
        rows[layer].push(place);
    }
    let mut rank = vec![0.0; layer_of.len()];
    let number = |rows: &[Vec<usize>], rank: &mut Vec<f64>| {
        for row in rows {
            row.iter().enumerate().for_each(|(at, &place)| rank[place] = at as f64);
        }
    };
    number(&rows, &mut rank);
    let mut best = (crossings(&rows, &down, &rank), rows.clone());
    for sweep in 0..SWEEPS {
        let downward = sweep % 2 == 0;
        let order: Vec<usize> = if downward { (1..count).collect() } else { (0..count.saturating_sub(1)).rev().collect() };
        for layer in order {
            let near = if downward { &up } else { &down };
            let middle = |place: usize| -> f64 {
                let others = &near[place];
                if others.is_empty() { rank[place] } else { others.iter().map(|&o| rank[o]).sum::<f64>() / others.len() as f64 }
            };
            let mut row: Vec<(f64, usize)> = rows[layer].iter().map(|&place| (middle(place), place)).collect();
            row.sort_by(|a, b| a.0.total_cmp(&b.0));
            rows[layer] = row.into_iter().map(|(_, place)| place).collect();
            rows[layer].iter().enumerate().for_each(|(at, &place)| rank[place] = at as f64);
        }
        let found = crossings(&rows, &down, &rank);
        if found < best.0 {
            best = (found, rows.clone());
        }
    }
    let rows = best.1;
    let across = straighten(&rows, &wide, &up, &down, gap);
    // A wire may pass to the left of all boxes.
    let left = across.iter().zip(&wide).map(|(x, wide)| x - wide / 2.0).fold(f64::INFINITY, f64::min);
    let left = if left.is_finite() { left } else { 0.0 };
    let across: Vec<f64> = across.iter().map(|x| x - left).collect();
    let right = across.iter().zip(&wide).map(|(x, wide)| x + wide / 2.0).fold(0.0, f64::max);
    let ways = chains.iter().map(|chain| chain.iter().map(|&place| (across[place], layer_of[place])).collect()).collect();
    Layout { across: across[..boxes].to_vec(), layer, ways, layers: count, width: right }
}

/// The longest way from above to each box; what reads nothing lies right above its first reader.
fn layers(boxes: usize, wires: &[(usize, usize)]) -> Vec<usize> {
    let mut layer = vec![0; boxes];
    // As often as there are boxes at most; a circle, which a checked pipeline has not, ends there.
    for _ in 0..boxes {
        let mut moved = false;
        for &(from, to) in wires {
            if layer[to] < layer[from] + 1 && layer[from] + 1 < boxes {
                layer[to] = layer[from] + 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    for place in 0..boxes {
        if wires.iter().all(|wire| wire.1 != place) {
            let readers = wires.iter().filter(|wire| wire.0 == place).map(|wire| layer[wire.1]);
            layer[place] = readers.min().map_or(0, |first| first.saturating_sub(1));
        }
    }
    layer
}

/// Pairs of wires between neighboring layers that cross.
fn crossings(rows: &[Vec<usize>], down: &[Vec<usize>], rank: &[f64]) -> usize {
    rows.iter()
        .map(|row| {
            let ends: Vec<(f64, f64)> = row.iter().flat_map(|&a| down[a].iter().map(move |&b| (rank[a], rank[b]))).collect();
            let crossed =
                |(place, a): (usize, &(f64, f64))| ends[..place].iter().filter(|b| (a.0 - b.0) * (a.1 - b.1) < 0.0).count();
            ends.iter().enumerate().map(crossed).sum::<usize>()
        })
        .sum()
}

/// Moves every place toward the middle of those it is wired to, as far as its neighbors in the layer let it.
fn straighten(rows: &[Vec<usize>], wide: &[f64], up: &[Vec<usize>], down: &[Vec<usize>], gap: f64) -> Vec<f64> {
    let mut across = vec![0.0; wide.len()];
    for row in rows {
        let total: f64 = row.iter().map(|&place| wide[place] + gap).sum();
        let mut at = -total / 2.0;
        for &place in row {
            across[place] = at + wide[place] / 2.0;
            at += wide[place] + gap;
        }
    }
    for sweep in 0..2 * SWEEPS {
        let order: Vec<usize> = if sweep % 2 == 0 { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for layer in order {
            let row = &rows[layer];
            let wanted = |place: usize| -> f64 {
                let others = || up[place].iter().chain(&down[place]);
                let count = others().count();
                if count == 0 { across[place] } else { others().map(|&o| across[o]).sum::<f64>() / count as f64 }
            };
            let goal: Vec<f64> = row.iter().map(|&place| wanted(place)).collect();
            let apart = |a: usize, b: usize| wide[row[a]].midpoint(wide[row[b]]) + gap;
            // From the left and from the right; the middle of both keeps all distances.
            let mut from_left = goal.clone();
            for at in 1..row.len() {
                from_left[at] = from_left[at].max(from_left[at - 1] + apart(at - 1, at));
            }
            let mut from_right = goal;
            for at in (1..row.len()).rev() {
                from_right[at - 1] = from_right[at - 1].min(from_right[at] - apart(at - 1, at));
            }
            for (at, &place) in row.iter().enumerate() {
                across[place] = from_left[at].midpoint(from_right[at]);
            }
        }
    }
    across
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_lie_below_what_they_read_and_never_on_each_other() {
        let wires = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (3, 4), (0, 4), (2, 5)];
        let found = layout(6, &wires, 100.0, 20.0);
        for &(from, to) in &wires {
            assert!(found.layer[from] < found.layer[to], "{from} to {to}");
        }
        for a in 0..6 {
            for b in 0..a {
                if found.layer[a] == found.layer[b] {
                    assert!((found.across[a] - found.across[b]).abs() >= 120.0 - 1e-9, "{a} and {b}: {:?}", found.across);
                }
            }
        }
        assert!(found.across.iter().all(|x| *x >= 50.0 - 1e-9 && *x <= found.width - 50.0 + 1e-9));
        assert_eq!(found.ways[4].len(), 3, "over one layer there is one place in between");
        assert_eq!(found.ways.len(), wires.len());
    }

    #[test]
    fn a_crossing_that_can_be_avoided_is_avoided() {
        // Two chains whose ends are named the wrong way round.
        let found = layout(4, &[(0, 3), (1, 2)], 10.0, 5.0);
        assert_eq!((found.across[0] < found.across[1]), (found.across[3] < found.across[2]));
    }

    #[test]
    fn wires_that_pass_all_boxes_stay_in_the_drawing() {
        let mut passed = 0;
        // Every seventh of all graphs of six boxes.
        let pairs: Vec<(usize, usize)> = (0..6).flat_map(|from| (from + 1..6).map(move |to| (from, to))).collect();
        for graph in (0..1_usize << pairs.len()).step_by(7) {
            let wires: Vec<(usize, usize)> =
                pairs.iter().enumerate().filter(|(bit, _)| graph >> bit & 1 == 1).map(|(_, pair)| *pair).collect();
            let found = layout(6, &wires, 100.0, 20.0);
            let ways = || found.ways.iter().flatten().map(|(x, _)| *x);
            let (left, right) = (ways().fold(f64::INFINITY, f64::min), ways().fold(0.0, f64::max));
            assert!(
                wires.is_empty() || left >= 10.0 - 1e-9 && right <= found.width - 10.0 + 1e-9,
                "{wires:?}: {left} to {right}"
            );
            let first = found.across.iter().fold(f64::INFINITY, |first, x| first.min(x - 50.0));
            assert!(first >= -1e-9, "{wires:?}: a box begins at {first}");
            passed += usize::from(left < first);
        }
        assert!(passed > 0, "no wire runs left of the boxes: this tries nothing");
    }

    #[test]
    fn what_reads_nothing_lies_right_above_its_reader() {
        let found = layout(5, &[(0, 1), (1, 2), (2, 3), (4, 3)], 10.0, 5.0);
        assert_eq!(found.layer, [0, 1, 2, 3, 2]);
    }

    #[test]
    fn nothing_and_circles_end() {
        assert_eq!(layout(0, &[], 10.0, 5.0).layers, 0);
        let circle = layout(2, &[(0, 1), (1, 0)], 10.0, 5.0);
        assert!(circle.layers <= 2);
    }
}
