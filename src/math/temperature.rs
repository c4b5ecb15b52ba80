//! The temperature at which the mean confidence of an ensemble has a given value.
//!
//! Temperature scaling (Guo et al. 2017, "On calibration of modern neural networks", section 4.2) fits one number to labels. Where
//! there are none, the number is found from a confidence that is known from elsewhere: the mean confidence of softmax(z / T) falls
//! as T rises, so halving an interval finds T.

use rayon::prelude::*;

/// T is looked for between 1 / this and this.
const WIDEST: f64 = 32.0;
/// Halvings of ln T's interval: to one part in a million.
const HALVINGS: usize = 22;
const ROWS: usize = 1024;

/// T for which the mean over images of max over clusters of the mean over heads of softmax(ln p / T) is `confidence`; the nearest
/// bound if no T between 1/32 and 32 has it.
///
/// # Shapes
/// `heads`: of each head `[N, K]` probabilities, row-major, N, K and heads at least 1.
///
/// # Panics
/// If tables are empty or differ in size.
pub fn of_confidence(heads: &[Vec<f32>], clusters: usize, confidence: f64) -> f64 {
    let (mut low, mut high) = (-WIDEST.ln(), WIDEST.ln());
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if mean_confidence(heads, clusters, middle.exp()) > confidence { low = middle } else { high = middle }
    }
    (0.5 * (low + high)).exp()
}

/// The mean over images of the highest mean probability at temperature T. The same for any number of threads.
pub fn mean_confidence(heads: &[Vec<f32>], clusters: usize, temperature: f64) -> f64 {
    let length = heads[0].len();
    assert!(clusters > 0 && length > 0 && heads.iter().all(|head| head.len() == length), "tables of [N, K], all alike");
    let images = length / clusters;
    let piece = |first: usize| {
        let mut mean = vec![0.0; clusters];
        (first..images.min(first + ROWS)).map(|image| highest(heads, image, &mut mean, temperature)).sum::<f64>()
    };
    let pieces: Vec<f64> = (0..images).step_by(ROWS).collect::<Vec<_>>().into_par_iter().map(piece).collect();
    pieces.into_iter().sum::<f64>() / images as f64
}

/// The highest of an image's mean probabilities.
fn highest(heads: &[Vec<f32>], image: usize, mean: &mut [f64], temperature: f64) -> f64 {
    let clusters = mean.len();
    mean.fill(0.0);
    for head in heads {
        let row = &head[image * clusters..(image + 1) * clusters];
        // p^(1/T) over its sum is softmax(ln p / T), and softmax(z / T) where p is softmax(z).
        let power = |p: f32| f64::from(p).powf(1.0 / temperature);
        let sum: f64 = row.iter().map(|&p| power(p)).sum();
        for (mean, &p) in mean.iter_mut().zip(row) {
            *mean += power(p) / sum;
        }
    }
    mean.iter().copied().fold(0.0, f64::max) / heads.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temperature_by_hand_comes_back() {
        // Two clusters at odds e^3 : 1 for every image. At T the confidence is 1 / (1 + e^(−3 / T)).
        let p = 1.0 / (1.0 + (-3.0_f32).exp());
        let heads = vec![[p, 1.0 - p, 1.0 - p, p].repeat(700)];
        for temperature in [0.5_f64, 1.0, 2.5, 20.0] {
            let confidence = 1.0 / (1.0 + (-3.0_f64 / temperature).exp());
            assert!((mean_confidence(&heads, 2, temperature) - confidence).abs() < 1e-6);
            assert!((of_confidence(&heads, 2, confidence) / temperature - 1.0).abs() < 1e-4);
        }
    }

    #[test]
    fn heads_that_contradict_each_other_cannot_be_made_sure_and_the_bound_comes_back() {
        let heads = vec![vec![0.9, 0.1], vec![0.1, 0.9]];
        assert!((mean_confidence(&heads, 2, 0.1) - 0.5).abs() < 1e-9);
        assert!((of_confidence(&heads, 2, 0.8) * WIDEST - 1.0).abs() < 1e-4);
    }

    #[test]
    fn a_probability_of_zero_stays_zero() {
        assert!((mean_confidence(&[vec![1.0, 0.0, 0.0]], 3, 8.0) - 1.0).abs() < 1e-12);
    }
}
