//! Optimizers: SGD and Adam.
//!
//! candle's SGD has no momentum and its Adam keeps its moments to itself and decays weights apart from the gradient, so these
//! are ours. Both follow PyTorch to the letter: decay is *coupled* (added to the gradient) and applies to every parameter, batch
//! norm and biases included; the first velocity is the gradient; a parameter without a gradient is left alone.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::error::{Result, TrainError};
use super::fused_update::{UpdateRule, update};
use kinset_artifact::encoder::{Tensors, Weights};
use kinset_model::{Mismatch, ModelError, Params, Role};

/// An optimizer and its settings, but for the rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent: v ← μv + g + λp; p ← p − ηv, or with Nesterov p ← p − η(g + λp + μv).
    ///
    /// # Paper
    /// Sutskever et al. 2013, "On the importance of initialization and momentum", in PyTorch's form (rate outside the velocity).
    Sgd {
        /// μ, 0 to 1.
        #[serde(default)]
        momentum: f64,
        /// Look ahead along the velocity.
        #[serde(default)]
        nesterov: bool,
        /// λ.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam with λp added to the gradient.
    ///
    /// # Paper
    /// Kingma & Ba 2015, algorithm 1.
    Adam {
        /// β₁ and β₂: how slowly mean and variance of the gradient are forgotten.
        #[serde(default = "betas")]
        betas: (f64, f64),
        /// Added to the root of the variance.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// λ.
        #[serde(default)]
        weight_decay: f64,
    },
}

fn betas() -> (f64, f64) {
    (0.9, 0.999)
}

fn epsilon() -> f64 {
    1e-8
}

impl Optimizer {
    pub fn sgd(momentum: f64, weight_decay: f64) -> Self {
        Self::Sgd { momentum, nesterov: false, weight_decay }
    }

    /// Adam with PyTorch's defaults.
    pub fn adam(weight_decay: f64) -> Self {
        Self::Adam { betas: betas(), epsilon: epsilon(), weight_decay }
    }

    /// Starts optimizing these parameters; buffers among them are left alone.
    ///
    /// # Errors
    /// [`TrainError::Setting`]; if the device has no room.
    pub fn over(&self, params: &Params) -> Result<Optimization> {
        self.check()?;
        let names: &[&str] = match self {
            Self::Sgd { momentum, .. } if *momentum == 0.0 => &[],
            Self::Sgd { .. } => &["velocity"],
            Self::Adam { .. } => &["mean", "square"],
        };
        let (mut slots, mut all) = (Vec::new(), Params::new());
        for (parameter, var) in params.parameters() {
            let mut moments = Vec::new();
            for name in names {
                let moment = Var::zeros(var.shape(), var.dtype(), var.device())?;
                all.push(format!("{name}/{parameter}"), Role::Buffer, moment.clone())?;
                moments.push(moment);
            }
            slots.push(Slot { var: var.clone(), moments });
        }
        Ok(Optimization { settings: self.clone(), slots, moments: all, steps: 0 })
    }

    fn check(&self) -> Result<()> {
        let within = |setting: &'static str, value: f64, fits: bool, wanted: &'static str| {
            if fits { Ok(()) } else { Err(TrainError::Setting { setting, found: value.to_string(), wanted }) }
        };
        let share = |setting, value: f64| within(setting, value, (0.0..1.0).contains(&value), "at least 0 and below 1");
        let decay =
            |value: f64| within("weight_decay", value, value >= 0.0 && value.is_finite(), "a finite number, at least 0");
        match self {
            Self::Sgd { momentum, nesterov, weight_decay } => {
                share("momentum", *momentum)?;
                within("momentum", *momentum, !nesterov || *momentum > 0.0, "above 0 with `nesterov`")?;
                decay(*weight_decay)
            }
            Self::Adam { betas, epsilon, weight_decay } => {
                share("betas[0]", betas.0)?;
                share("betas[1]", betas.1)?;
                within("epsilon", *epsilon, *epsilon > 0.0 && epsilon.is_finite(), "a finite number above 0")?;
                decay(*weight_decay)
            }
        }
    }
}

#[derive(Debug)]
struct Slot {
    var: Var,
    moments: Vec<Var>,
}

/// An optimizer at work on some parameters.
#[derive(Debug)]
pub struct Optimization {
    settings: Optimizer,
    slots: Vec<Slot>,
    /// The moments of all slots by name, sharing their numbers.
    moments: Params,
    steps: u64,
}

/// The step counter in a saved state: two numbers below 2²⁰, because one `f32` counts only to 2²⁴.
const STEPS: &str = "steps";
const STEPS_BASE: u64 = 1 << 20;

impl Optimization {
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Back-propagates a loss and makes a step.
    ///
    /// # Shapes
    /// `loss`: a scalar.
    pub fn descend(&mut self, loss: &Tensor, rate: f64) -> Result<()> {
        self.step(&loss.backward()?, rate)
    }

    /// Moves the parameters against their gradients.
    pub fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<()> {
        self.steps += 1;
        for slot in &self.slots {
            let Some(gradient) = gradients.get(slot.var.as_tensor()) else { continue };
            let (weights, gradient) = (&slot.var, &gradient.contiguous()?);
            match (&self.settings, slot.moments.as_slice()) {
                (&Optimizer::Sgd { momentum, nesterov, weight_decay }, [velocity]) => {
                    update(velocity, weights, gradient, UpdateRule::Velocity { momentum, weight_decay })?;
                    if nesterov {
                        update(weights, velocity, gradient, UpdateRule::LookAhead { momentum, weight_decay, rate })?;
                    } else {
                        update(weights, velocity, velocity, UpdateRule::Descent { rate, weight_decay: 0.0 })?;
                    }
                }
                (&Optimizer::Sgd { weight_decay, .. }, _) => {
                    update(weights, gradient, gradient, UpdateRule::Descent { rate, weight_decay })?;
                }
                (&Optimizer::Adam { betas, epsilon, weight_decay }, [mean, square]) => {
                    let steps = self.steps as f64;
                    let rate = rate / (1.0 - betas.0.powf(steps));
                    let root = (1.0 - betas.1.powf(steps)).sqrt();
                    update(mean, weights, gradient, UpdateRule::Mean { beta: betas.0, weight_decay })?;
                    update(square, weights, gradient, UpdateRule::Square { beta: betas.1, weight_decay })?;
                    update(weights, mean, square, UpdateRule::Scaled { rate, root, epsilon })?;
                }
                (Optimizer::Adam { .. }, _) => unreachable!("`over` gives Adam two moments"),
            }
        }
        Ok(())
    }

    /// What must be saved to go on bit for bit: the moments and the step counter.
    pub fn state(&self) -> Result<Tensors> {
        let mut state = self.moments.to_tensors()?;
        let steps = [self.steps / STEPS_BASE, self.steps % STEPS_BASE].map(|part| part as f32);
        state.insert(STEPS, vec![2], steps.to_vec());
        Ok(state)
    }

    /// Takes a saved state.
    ///
    /// # Errors
    /// [`kinset_model::ModelError::Weights`] if it was saved over other parameters or by another optimizer.
    pub fn load(&mut self, state: &Tensors) -> Result<()> {
        let steps = match state.get(STEPS) {
            Some(Weights { values, .. }) if values.len() == 2 => values[0] as u64 * STEPS_BASE + values[1] as u64,
            _ => return Err(ModelError::Weights(Mismatch { missing: vec![STEPS.into()], ..Mismatch::default() }).into()),
        };
        let mut moments = state.clone();
        moments.remove(STEPS);
        self.moments.load(&moments)?;
        self.steps = steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use serde_json::Value;

    use super::super::fused_update::PIECE;
    use super::*;
    use kinset_artifact::encoder::{Backbone, Projection, ProjectionKind, Stem};
    use kinset_base::seed::Seed;
    use kinset_model::params::values;
    use kinset_model::testing::{assert_near, fill, numbers, wave};
    use kinset_model::{EncoderNet, Mode, architecture};

    fn one(values: &[f64]) -> (Params, Var) {
        let var = Var::new(values, &Device::Cpu).unwrap();
        let mut params = Params::new();
        params.push("p", Role::Parameter, var.clone()).unwrap();
        (params, var)
    }

    /// The gradient of `Σ gᵢ pᵢ` with respect to p is g.
    fn loss(var: &Var, gradient: &[f64]) -> Tensor {
        let gradient = Tensor::new(gradient, &Device::Cpu).unwrap().to_dtype(var.dtype()).unwrap();
        (var.as_tensor() * gradient).unwrap().sum_all().unwrap()
    }

    fn trajectory(optimizer: &Optimizer, rate: f64) -> Vec<Vec<f64>> {
        let (params, var) = one(&[1.0, -2.0]);
        let mut at_work = optimizer.over(&params).unwrap();
        let mut visited = Vec::new();
        for s in 0..3 {
            at_work.descend(&loss(&var, &[0.5, -0.25 * f64::from(s + 1)]), rate).unwrap();
            visited.push(var.to_vec1::<f64>().unwrap());
        }
        visited
    }

    fn assert_walked(found: &[Vec<f64>], wanted: &[[f64; 2]]) {
        for (found, wanted) in found.iter().flatten().zip(wanted.iter().flatten()) {
            assert!((found - wanted).abs() < 1e-14, "{found} is not {wanted}");
        }
    }

    // methods/scan.md section 10, made with PyTorch in f64.

    #[test]
    fn sgd_with_momentum_and_decay_walks_as_in_pytorch() {
        let wanted = [[0.79996, -1.89992], [0.4198920016, -1.6097720032], [-0.122185992640064, -1.048574415199872]];
        assert_walked(&trajectory(&Optimizer::sgd(0.9, 1e-4), 0.4), &wanted);
    }

    #[test]
    fn adam_with_coupled_decay_walks_as_in_pytorch() {
        let wanted = [
            [0.9999000000019996, -1.9999000000039968],
            [0.9998000000040513, -1.9998034775406297],
            [0.9997000000061897, -1.9997076732378725],
        ];
        assert_walked(&trajectory(&Optimizer::adam(1e-4), 1e-4), &wanted);
    }

    #[test]
    fn nesterov_looks_ahead_by_hand() {
        // No decay, μ = 0.5, η = 1, g = 1: v = 1, 1.5; steps of g + μv = 1.5, 1.75.
        let (params, var) = one(&[0.0]);
        let mut optimizer = Optimizer::Sgd { momentum: 0.5, nesterov: true, weight_decay: 0.0 }.over(&params).unwrap();
        for wanted in [-1.5, -3.25] {
            optimizer.descend(&loss(&var, &[1.0]), 1.0).unwrap();
            assert!((var.to_vec1::<f64>().unwrap()[0] - wanted).abs() < 1e-15);
        }
    }

    #[test]
    fn plain_descent_needs_no_memory_and_decays() {
        let (params, var) = one(&[1.0]);
        let mut optimizer = Optimizer::sgd(0.0, 0.5).over(&params).unwrap();
        optimizer.descend(&loss(&var, &[2.0]), 0.1).unwrap();
        assert!((var.to_vec1::<f64>().unwrap()[0] - (1.0 - 0.1 * 2.5)).abs() < 1e-15);
        assert_eq!(optimizer.state().unwrap().len(), 1);
    }

    #[test]
    fn what_has_no_gradient_or_is_a_buffer_stays() {
        let (mut params, var) = one(&[1.0]);
        let (still, buffer) = (Var::new(&[5_f64], &Device::Cpu).unwrap(), Var::new(&[6_f64], &Device::Cpu).unwrap());
        params.push("still", Role::Parameter, still.clone()).unwrap();
        params.push("buffer", Role::Buffer, buffer.clone()).unwrap();
        let mut optimizer = Optimizer::sgd(0.9, 0.1).over(&params).unwrap();
        let loss = ((loss(&var, &[1.0])) + buffer.sum_all().unwrap()).unwrap();
        optimizer.descend(&loss, 0.1).unwrap();
        assert_eq!(still.to_vec1::<f64>().unwrap(), [5.0]);
        assert_eq!(buffer.to_vec1::<f64>().unwrap(), [6.0]);
        assert_eq!(optimizer.state().unwrap().len(), 3);
    }

    #[test]
    fn a_saved_state_goes_on_bit_for_bit() {
        let n = 3 * PIECE + 17;
        let mut rng = Seed::new(5).rng();
        let mut draw = || Tensor::from_vec((0..n).map(|_| rng.normal() as f32).collect(), n, &Device::Cpu).unwrap();
        let (start, gradients) = (draw(), [draw(), draw(), draw(), draw()]);
        for settings in [Optimizer::sgd(0.9, 1e-4), Optimizer::adam(1e-4)] {
            let begin = || {
                let mut params = Params::new();
                params.push("p", Role::Parameter, Var::from_tensor(&start).unwrap()).unwrap();
                (settings.over(&params).unwrap(), params)
            };
            let go = |optimizer: &mut Optimization, params: &Params, gradient: &Tensor| {
                let loss = (params.get("p").unwrap().as_tensor() * gradient).unwrap().sum_all().unwrap();
                optimizer.descend(&loss, 0.01).unwrap();
            };
            let (mut straight, params) = begin();
            for gradient in &gradients {
                go(&mut straight, &params, gradient);
            }
            let (mut first, stopped) = begin();
            for gradient in &gradients[..2] {
                go(&mut first, &stopped, gradient);
            }
            let (mut second, resumed) = begin();
            resumed.load(&stopped.to_tensors().unwrap()).unwrap();
            second.load(&first.state().unwrap()).unwrap();
            assert_eq!(second.steps(), 2);
            for gradient in &gradients[2..] {
                go(&mut second, &resumed, gradient);
            }
            assert_eq!(resumed.to_tensors().unwrap(), params.to_tensors().unwrap());
            assert_eq!(second.state().unwrap(), straight.state().unwrap());
        }
    }

    #[test]
    fn a_state_of_another_optimizer_is_refused() {
        let (params, _) = one(&[1.0]);
        let sgd = Optimizer::sgd(0.9, 0.0).over(&params).unwrap();
        let mut adam = Optimizer::adam(0.0).over(&params).unwrap();
        let error = adam.load(&sgd.state().unwrap()).unwrap_err().to_string();
        assert!(error.contains("`mean/p`, `square/p`") && error.contains("unexpected: `velocity/p`"), "{error}");
        assert!(adam.load(&Tensors::default()).is_err());
    }

    #[test]
    fn long_runs_are_counted_exactly() {
        let (params, _) = one(&[1.0]);
        let mut optimizer = Optimizer::adam(0.0).over(&params).unwrap();
        optimizer.steps = (1 << 30) + 12_345;
        let state = optimizer.state().unwrap();
        optimizer.steps = 0;
        optimizer.load(&state).unwrap();
        assert_eq!(optimizer.steps(), (1 << 30) + 12_345);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let (params, _) = one(&[1.0]);
        for settings in [
            Optimizer::sgd(1.0, 0.0),
            Optimizer::sgd(0.9, f64::NAN),
            Optimizer::Sgd { momentum: 0.0, nesterov: true, weight_decay: 0.0 },
            Optimizer::Adam { betas: (0.9, 1.0), epsilon: 1e-8, weight_decay: 0.0 },
            Optimizer::Adam { betas: (0.9, 0.99), epsilon: 0.0, weight_decay: 0.0 },
        ] {
            assert!(matches!(settings.over(&params), Err(TrainError::Setting { .. })), "{settings:?}");
        }
    }

    #[test]
    fn weights_of_another_precision_are_an_error_not_a_panic() {
        let mut params = Params::new();
        let var = Var::zeros(2, DType::BF16, &Device::Cpu).unwrap();
        params.push("p", Role::Parameter, var.clone()).unwrap();
        let mut optimizer = Optimizer::sgd(0.9, 0.0).over(&params).unwrap();
        assert!(optimizer.descend(&var.sum_all().unwrap(), 0.1).is_err());
    }

    #[test]
    fn a_whole_network_walks_as_in_pytorch() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/model/trajectory.json")).unwrap();
        let weight_decay = 1e-3;
        for (name, settings, rate) in [
            ("sgd_nesterov", Optimizer::Sgd { momentum: 0.9, nesterov: true, weight_decay }, 0.002),
            ("sgd", Optimizer::sgd(0.9, weight_decay), 0.002),
            ("adam", Optimizer::adam(weight_decay), 1e-3),
        ] {
            let golden = &golden[name];
            let projection = Some(Projection { kind: ProjectionKind::Mlp, dim: 5 });
            let shape = architecture(Backbone::ResnetTiny, Stem::Cifar, 4, 1, 8, projection).unwrap();
            let net = EncoderNet::init(&shape, Seed::new(1), &Device::Cpu).unwrap();
            fill(net.params());
            let output = |step: f64, mode| {
                net.project(&net.features(&wave(&[4, 1, 8, 8], step, 0.0, 1.0), mode).unwrap(), mode).unwrap()
            };
            let mut optimizer = settings.over(net.params()).unwrap();
            let losses: Vec<f32> = (0..6)
                .map(|s| {
                    let output = output(0.05 + 0.01 * f64::from(s), Mode::Train);
                    let loss = (output * wave(&[4, 5], 1.1, 0.4, 1.0)).unwrap().sum_all().unwrap();
                    optimizer.descend(&loss, rate).unwrap();
                    loss.to_scalar::<f32>().unwrap()
                })
                .collect();
            assert_near(name, &losses, &numbers(&golden["losses"]), 1e-4);
            let names: Vec<&str> = golden["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            assert_eq!(net.params().iter().map(|(name, ..)| name).collect::<Vec<_>>(), names, "state-dict order");
            let (sums, squares): (Vec<f32>, Vec<f32>) = net
                .params()
                .iter()
                .map(|(_, _, var)| values(var).unwrap())
                .map(|values| (values.iter().sum::<f32>(), values.iter().map(|v| v * v).sum::<f32>()))
                .unzip();
            assert_near(name, &sums, &numbers(&golden["sums"]), 2e-4);
            assert_near(name, &squares, &numbers(&golden["squares"]), 2e-4);
            let row = values(&output(0.05, Mode::Eval).get(1).unwrap()).unwrap();
            assert_near(name, &row, &numbers(&golden["eval_row_1"]), 2e-4);
        }
    }
}
