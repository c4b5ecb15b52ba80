//! The initial weights of a network, drawn from the seed.
//!
//! Each tensor draws from the branch of the seed that carries its *name*, so a layer more or less moves no other layer's
//! weights, and a network of two heads starts with the head that a network of one starts with. candle's own initializers
//! draw from a generator that cannot be seeded on a CPU, hence these.

use kinset_base::seed::Seed;

/// How a tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and variance 2 / (outputs × kernel area): keeps the variance of gradients through ReLU layers.
    ///
    /// # Paper
    /// He et al. 2015, "Delving deep into rectifiers", section 2.2, backward case; the ResNet code's choice.
    KaimingNormal,
    /// Uniform in ±1/√`inputs`, for weight and bias of a linear layer alike: PyTorch's default.
    Linear {
        inputs: usize,
    },
    /// Normal with mean 0.
    Normal {
        deviation: f64,
    },
    Zeros,
    Ones,
}

impl Init {
    /// Draws the values of a tensor of this shape, in its own branch of the seed.
    ///
    /// # Shapes
    /// A convolution is `[outputs, inputs, height, width]`.
    pub fn draw(self, shape: &[usize], seed: Seed, name: &str) -> Vec<f32> {
        let count = shape.iter().product();
        match self {
            Self::Zeros => vec![0.0; count],
            Self::Ones => vec![1.0; count],
            Self::KaimingNormal => {
                let fan_out = shape.first().copied().unwrap_or(1) * shape.iter().skip(2).product::<usize>();
                let scale = (2.0 / fan_out.max(1) as f64).sqrt();
                let mut rng = seed.branch(name).rng();
                (0..count).map(|_| (scale * rng.normal()) as f32).collect()
            }
            Self::Normal { deviation } => {
                let mut rng = seed.branch(name).rng();
                (0..count).map(|_| (deviation * rng.normal()) as f32).collect()
            }
            Self::Linear { inputs } => {
                let bound = 1.0 / (inputs.max(1) as f64).sqrt();
                let mut rng = seed.branch(name).rng();
                (0..count).map(|_| rng.between(-bound, bound) as f32).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        (mean, values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n)
    }

    #[test]
    fn convolutions_start_with_variance_two_over_fan_out() {
        let values = Init::KaimingNormal.draw(&[64, 32, 3, 3], Seed::new(1), "conv");
        let (mean, variance) = moments(&values);
        let wanted = 2.0 / (64.0 * 9.0);
        assert!(mean.abs() < 4.0 * (wanted / values.len() as f64).sqrt(), "{mean}");
        assert!((variance / wanted - 1.0).abs() < 0.04, "{variance}");
    }

    #[test]
    fn linear_layers_start_uniform_in_one_over_root_of_inputs() {
        let values = Init::Linear { inputs: 100 }.draw(&[50, 100], Seed::new(1), "fc");
        let (mean, variance) = moments(&values);
        assert!(values.iter().all(|v| v.abs() <= 0.1));
        assert!(mean.abs() < 0.004 && (variance / (0.01 / 3.0) - 1.0).abs() < 0.04, "{mean} {variance}");
    }

    #[test]
    fn names_and_seeds_decide_and_nothing_else() {
        let draw = |seed, name| Init::KaimingNormal.draw(&[4, 1, 3, 3], Seed::new(seed), name);
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
    }
}
