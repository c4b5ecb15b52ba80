//! Confusion matrices: a row is a class and its shades sum to 1. Too large to be read as numbers, one becomes a picture.

use maud::html;

use super::figure::{Figure, num, short};
use crate::gather::page::Confusion;
use kinset_artifact::pixels::Pixels;

/// Up to so many rows and columns cells are drawn one by one.
pub const CELLS: usize = 60;
/// Up to so many they have numbers.
const NUMBERS: usize = 22;
/// A picture of a matrix is at most about so many times as long as it is high.
const LONGEST: usize = 4;

/// The matrix with its names; nothing if it has more than [`CELLS`] rows or columns.
pub fn matrix(confusion: &Confusion) -> Option<Figure> {
    let (rows, columns) = (confusion.classes.len(), confusion.columns.len());
    if rows == 0 || columns == 0 || rows.max(columns) > CELLS {
        return None;
    }
    let side = match rows.max(columns) {
        0..=12 => 40.0,
        13..=22 => 30.0,
        _ => 13.0,
    };
    let letters = confusion.classes.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(18);
    let (left, top) = (24.0 + letters as f64 * 6.2, 44.0);
    let numbered = rows.max(columns) <= NUMBERS;
    let every = if side < 20.0 { 5 } else { 1 };
    let body = html! {
        text.soft.small x=(num(left)) y="10" { "cluster, in the order of the classes they are matched with" }
        @for (place, cluster) in confusion.columns.iter().enumerate().filter(|(place, _)| place % every == 0) {
            text.mid x=(num(left + (place as f64 + 0.5) * side)) y=(num(top - 8.0)) { (cluster) }
        }
        @for (class, name) in confusion.classes.iter().enumerate().filter(|(class, _)| side > 12.0 || class % every == 0) {
            text.end x=(num(left - 8.0)) y=(num(top + (class as f64 + 0.5) * side + 3.8)) { (short(name, 18)) title { (name) } }
        }
        @for (class, (counts, shares)) in confusion.counts.iter().zip(&confusion.shares).enumerate() {
            @for (column, (&count, &share)) in counts.iter().zip(shares).enumerate() {
                @let (x, y) = (left + column as f64 * side, top + class as f64 * side);
                @if count > 0 {
                    rect.cell x=(num(x + 0.5)) y=(num(y + 0.5)) width=(num(side - 1.0)) height=(num(side - 1.0)) rx="2"
                        fill-opacity=(format!("{:.3}", 0.04 + 0.96 * share)) {
                        title {
                            (confusion.classes[class]) " in cluster " (confusion.columns[column]) ": " (count) " images, "
                            (format!("{:.1}", share * 100.0)) " % of the class"
                        }
                    }
                    @if numbered && share >= 0.005 {
                        text.mid.small.on[share > 0.5] x=(num(x + side / 2.0)) y=(num(y + side / 2.0 + 3.4)) {
                            (format!("{:.0}", share * 100.0))
                        }
                    }
                }
                @if confusion.matched[column] == Some(class) {
                    rect.hit x=(num(x + 0.5)) y=(num(y + 0.5)) width=(num(side - 1.0)) height=(num(side - 1.0)) rx="2" {}
                }
            }
        }
        rect.frame x=(num(left)) y=(num(top)) width=(num(side * columns as f64)) height=(num(side * rows as f64)) rx="3" {}
    };
    let label = format!(
        "Confusion matrix of {} on {}: {rows} classes by {columns} clusters; each row sums to 1.",
        confusion.stage, confusion.images,
    );
    Some(Figure { width: left + side * columns as f64 + 6.0, height: top + side * rows as f64 + 6.0, label, body })
}

/// The matrix as a picture, dark where a class lies: a pixel wide for each cluster, and as high as makes it a band rather than a line
/// where clusters are many more than classes.
pub fn picture(confusion: &Confusion) -> Option<Pixels> {
    let (rows, columns) = (confusion.classes.len(), confusion.columns.len());
    if rows == 0 || columns == 0 {
        return None;
    }
    let most = confusion.shares.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
    let shade = |share: f64| {
        // Small shares must be seen beside none at all.
        let depth = (share / most).sqrt();
        [(255.0, 11.0), (255.0, 70.0), (255.0, 140.0)].map(|(none, all)| (none + (all - none) * depth).round() as u8)
    };
    let tall = (columns / (LONGEST * rows)).max(1);
    let line = |shares: &Vec<f64>| shares.iter().flat_map(|&share| shade(share)).collect::<Vec<u8>>().repeat(tall);
    Some(Pixels::new(columns, rows * tall, 3, confusion.shares.iter().flat_map(line).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::page::Confusion;

    fn confusion(counts: Vec<Vec<u64>>) -> Confusion {
        let (rows, columns) = (counts.len(), counts[0].len());
        let sum = |row: &Vec<u64>| row.iter().sum::<u64>().max(1) as f64;
        let shares = counts.iter().map(|row| row.iter().map(|&count| count as f64 / sum(row)).collect()).collect();
        Confusion {
            measured_by: "scores".into(),
            stage: "scan".into(),
            images: "data.test".into(),
            main: true,
            classes: (0..rows).map(|class| format!("<class {class}>")).collect(),
            columns: (0..columns).collect(),
            matched: (0..columns).map(|column| (column < rows).then_some(column)).collect(),
            counts,
            shares,
            top: Vec::new(),
        }
    }

    #[test]
    fn a_small_matrix_has_a_cell_for_every_count_and_its_number() {
        let svg = matrix(&confusion(vec![vec![9, 1], vec![0, 5]])).unwrap().inline().into_string();
        assert_eq!(svg.matches("class=\"cell\"").count(), 3);
        assert_eq!(svg.matches("class=\"hit\"").count(), 2, "the diagonal is framed");
        for number in [">90<", ">10<", ">100<"] {
            assert!(svg.contains(number), "{number}: {svg}");
        }
        assert!(svg.contains("&lt;class 1&gt; in cluster 1: 5 images, 100.0 % of the class"), "{svg}");
    }

    #[test]
    fn a_large_matrix_is_a_picture_of_its_shares() {
        let mut counts = vec![vec![0; 100]; 100];
        (0..100).for_each(|i| counts[i][i] = 3);
        let large = confusion(counts);
        assert!(matrix(&large).is_none());
        let picture = picture(&large).unwrap();
        assert_eq!((picture.width, picture.height, &picture.data[..6]), (100, 100, &[11, 70, 140, 255, 255, 255][..]));
        let mut counts = vec![vec![0; 80]; 2];
        (0..80).for_each(|i| counts[i % 2][i] = 1);
        let band = super::picture(&confusion(counts)).unwrap();
        assert_eq!((band.width, band.height), (80, 20), "ten lines of pixels for each of two classes");
        let at = |x: usize, y: usize| &band.data[(y * 80 + x) * 3..][..3];
        assert_eq!([at(0, 0), at(1, 9), at(0, 10), at(1, 19)], [&[11, 70, 140], &[255; 3], &[255; 3], &[11, 70, 140]]);
    }
}
