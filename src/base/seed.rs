//! All randomness of kinset: counter-based, so it needs no saved state and no order.
//!
//! A [`Seed`] is a place in a tree. Branch it by name (`seed.branch("augment")`) and by number (`seed.at(epoch).at(sample)`),
//! and draw from the leaf with [`Seed::rng`]. Two leaves never share a stream, and what one thread draws never depends on what
//! another has drawn: the same sample in the same epoch sees the same numbers for any thread count, and a resumed run needs
//! nothing but the epoch number to go on bit for bit.
//!
//! The mapping from stream to floats, integers and normals is our own, so that an upgrade of a random-number crate cannot move
//! a result.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

/// A place in the tree of randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The root of a tree.
    pub fn new(seed: u64) -> Self {
        Self(*blake3::Hasher::new_derive_key("kinset 2026-11 seed root").update(&seed.to_le_bytes()).finalize().as_bytes())
    }

    #[must_use]
    pub fn branch(self, name: &str) -> Self {
        Self(*blake3::Hasher::new_keyed(&self.0).update(b"name").update(name.as_bytes()).finalize().as_bytes())
    }

    /// The branch with this number: an epoch, a sample, a head.
    #[must_use]
    pub fn at(self, number: u64) -> Self {
        Self(*blake3::Hasher::new_keyed(&self.0).update(b"number").update(&number.to_le_bytes()).finalize().as_bytes())
    }

    /// The stream that starts here.
    pub fn rng(self) -> Rng {
        Rng { stream: ChaCha8Rng::from_seed(self.0) }
    }

    /// A short fingerprint for keys and records: the first 16 bytes, hexadecimal.
    pub fn fingerprint(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
        self.0[..16].iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }
}

#[derive(Clone, Debug)]
pub struct Rng {
    stream: ChaCha8Rng,
}

impl Rng {
    pub fn bits32(&mut self) -> u32 {
        self.stream.next_u32()
    }

    pub fn bits64(&mut self) -> u64 {
        self.stream.next_u64()
    }

    /// Uniform in `[0, 1)`, 24 bits of it.
    pub fn unit32(&mut self) -> f32 {
        (self.bits32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[0, 1)`, 53 bits of it.
    pub fn unit(&mut self) -> f64 {
        (self.bits64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Uniform in `[low, high)`; `low` if the two are equal.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with this probability, 0–1.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform in `0..bound`, without bias (Lemire 2019, "Fast random integer generation in an interval").
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "an empty range has no numbers to draw");
        let bound = bound as u64;
        let mut product = u128::from(self.bits64()) * u128::from(bound);
        if (product as u64) < bound {
            let unfair = bound.wrapping_neg() % bound;
            while (product as u64) < unfair {
                product = u128::from(self.bits64()) * u128::from(bound);
            }
        }
        (product >> 64) as usize
    }

    /// Standard normal (Box–Muller, one of the pair).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Puts the items into a uniformly random order (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_are_pinned() {
        // Moving any of these retrains every user's pipeline: raise the VERSION of every seeded stage with it.
        let mut rng = Seed::new(1).branch("augment").at(3).rng();
        assert_eq!(rng.bits32(), PINNED.0);
        assert_eq!(rng.below(1000), PINNED.1);
        assert!((rng.normal() - PINNED.2).abs() < 1e-12);
    }

    /// As blake3's Python package and a ChaCha8 written from its specification give them.
    const PINNED: (u32, usize, f64) = (555_007_428, 441, 2.174_337_652_027_396_5);

    #[test]
    fn a_fingerprint_is_the_head_of_the_seed_in_hexadecimal() {
        assert_eq!(Seed::new(1).fingerprint(), "3a8ad174d73907007db3fb1f6ee3a191");
    }

    #[test]
    fn branches_differ_from_numbers_and_from_each_other() {
        let root = Seed::new(7);
        let leaves =
            [root, root.branch("a"), root.branch("b"), root.at(0), root.at(1), root.branch("a").at(0), root.at(0).branch("a")];
        for (i, a) in leaves.iter().enumerate() {
            for b in &leaves[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn uniform_normal_and_bounded_draws_have_the_right_moments() {
        let mut rng = Seed::new(2).rng();
        let n = 100_000;
        let (mut sum, mut normal, mut square, mut counts) = (0.0, 0.0, 0.0, [0_usize; 7]);
        for _ in 0..n {
            sum += rng.unit();
            let z = rng.normal();
            normal += z;
            square += z * z;
            counts[rng.below(7)] += 1;
        }
        let n = f64::from(n);
        assert!((sum / n - 0.5).abs() < 0.005);
        assert!((normal / n).abs() < 0.015);
        assert!((square / n - 1.0).abs() < 0.02);
        assert!(counts.iter().all(|&c| (c as f64 - n / 7.0).abs() < 500.0), "{counts:?}");
    }

    #[test]
    fn a_permutation_holds_every_number_once() {
        let mut order = Seed::new(3).rng().permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
