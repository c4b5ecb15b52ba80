//! Soft targets for images of which nobody knows what they show: distributions over K clusters, made of labels that may be wrong
//! and of what networks say.
//!
//! The steps are those of MixMatch (Berthelot et al. 2019) and DivideMix (Li et al. 2020), which RUC builds on.

/// Raises each probability to the power of 1/T and normalises: below 1 the temperature makes the likely more likely.
///
/// # Paper
/// MixMatch, eq. 7.
///
/// # Panics
/// If the temperature is not positive.
pub fn sharpen(p: &mut [f64], temperature: f64) {
    assert!(temperature > 0.0, "a temperature is positive");
    let most = p.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return;
    }
    // Relative to the largest, so that no power of all of them vanishes.
    for p in p.iter_mut() {
        *p = (*p / most).max(0.0).powf(1.0 / temperature);
    }
    let sum: f64 = p.iter().sum();
    for p in p.iter_mut() {
        *p /= sum;
    }
}

/// A label that is trusted as far as 1 − `weight`, the rest of the trust being in a network: (1 − w)·onehot + w·p.
///
/// # Paper
/// DivideMix, eq. 3 ("co-refinement"), with the weight on the other side.
///
/// # Panics
/// If the label is not below K.
pub fn refine(label: usize, peer: &[f32], weight: f64) -> Vec<f64> {
    let mut target: Vec<f64> = peer.iter().map(|&p| weight * f64::from(p)).collect();
    target[label] += 1.0 - weight;
    target
}

/// The mean of what was said of several views.
///
/// # Paper
/// MixMatch, eq. 6; DivideMix, section 3.2 ("co-guessing").
///
/// # Panics
/// If there is no view.
pub fn guess(views: &[&[f32]]) -> Vec<f64> {
    let clusters = views[0].len();
    (0..clusters).map(|k| views.iter().map(|p| f64::from(p[k])).sum::<f64>() / views.len() as f64).collect()
}

/// A label of which ε is spread evenly over the other clusters: 1 − ε on it, ε / (K − 1) elsewhere.
///
/// # Panics
/// If the label is not below K, or K is 1.
pub fn smooth(label: usize, clusters: usize, epsilon: f64) -> Vec<f64> {
    assert!(clusters > 1, "a single cluster has no others");
    let mut target = vec![epsilon / (clusters - 1) as f64; clusters];
    target[label] = 1.0 - epsilon;
    target
}

/// Scales values to 0–1, the smallest to 0. Values below zero mean "not known" and become 0; so do all if they are equal, since
/// then none is more certain than another.
pub fn min_max(values: &[f32]) -> Vec<f32> {
    let known = || values.iter().copied().filter(|&v| v >= 0.0);
    let (low, high) = (known().fold(f32::INFINITY, f32::min), known().fold(f32::NEG_INFINITY, f32::max));
    let spread = f64::from(high) - f64::from(low);
    values
        .iter()
        .map(|&v| if v >= 0.0 && spread > 0.0 { ((f64::from(v) - f64::from(low)) / spread) as f32 } else { 0.0 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assert_near(found: &[f64], wanted: &[f64], tolerance: f64) {
        assert_eq!(found.len(), wanted.len());
        assert!(found.iter().zip(wanted).all(|(f, w)| (f - w).abs() <= tolerance), "{found:?} is not {wanted:?}");
    }

    // methods/ruc.md section 14, six decimals.

    #[test]
    fn sharpening_squares_and_normalises() {
        let mut p = [0.5, 0.3, 0.2];
        sharpen(&mut p, 0.5);
        assert_near(&p, &[0.657895, 0.236842, 0.105263], 5e-7);
    }

    #[test]
    fn a_refined_label_is_that_of_the_reference() {
        let mut target = refine(0, &[0.2, 0.5, 0.3], 0.3);
        assert_near(&target, &[0.76, 0.15, 0.09], 1e-7);
        sharpen(&mut target, 0.5);
        assert_near(&target, &[0.949688, 0.036994, 0.013318], 5e-7);
    }

    #[test]
    fn nobody_is_certain_or_all_are() {
        assert_near(&refine(1, &[0.9, 0.1], 0.0), &[0.0, 1.0], 0.0);
        assert_near(&refine(1, &[0.75, 0.25], 1.0), &[0.75, 0.25], 0.0);
        assert_near(&guess(&[&[1.0, 0.0], &[0.5, 0.5], &[0.0, 1.0], &[0.5, 0.5]]), &[0.5, 0.5], 0.0);
        assert_near(&smooth(2, 3, 0.5), &[0.25, 0.25, 0.5], 1e-15);
        let mut none = [0.0, 0.0];
        sharpen(&mut none, 0.5);
        assert_near(&none, &[0.0, 0.0], 0.0);
    }

    #[test]
    fn a_high_temperature_levels_and_a_tiny_one_decides_without_vanishing() {
        let mut level = [0.7, 0.3];
        sharpen(&mut level, 1e9);
        assert_near(&level, &[0.5, 0.5], 1e-6);
        let mut sharp = vec![1.0 / 999.0; 1000];
        sharp[7] = 1.5 / 999.0;
        sharpen(&mut sharp, 1e-3);
        assert!((sharp[7] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn equal_and_unknown_confidences_weigh_nothing() {
        assert_eq!(min_max(&[0.5, 0.75, -1.0, 1.0]), [0.0, 0.5, 0.0, 1.0]);
        assert_eq!(min_max(&[0.5, 0.5]), [0.0, 0.0]);
        assert_eq!(min_max(&[-1.0, -1.0]), [0.0, 0.0]);
        assert!(min_max(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn targets_stay_distributions(raw in prop::collection::vec(0.0_f32..1.0, 2..9), label in 0_usize..9, w in 0.0..=1.0_f64, t in 0.05..2.0_f64) {
            let sum: f32 = raw.iter().sum::<f32>() + 1e-3;
            let p: Vec<f32> = raw.iter().map(|v| (v + 1e-3 / raw.len() as f32) / sum).collect();
            let mut refined = refine(label % p.len(), &p, w);
            sharpen(&mut refined, t);
            let mut guessed = guess(&[&p, &p]);
            sharpen(&mut guessed, t);
            for target in [refined, guessed, smooth(label % p.len(), p.len(), w)] {
                prop_assert!((target.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                prop_assert!(target.iter().all(|p| (0.0..=1.0 + 1e-9).contains(p)));
            }
        }
    }
}
