//! What are the weights on average?
//!
//! An exponential moving average follows training and ends up better than the last weights. It exists twice in the field:
//! as intended, and as SCAN's code runs it (see [`Averaging`]).

use candle_core::Var;
use serde::{Deserialize, Serialize};

use super::error::Result;
use super::sweep::{Rule, update};
use kinset_artifact::encoder::Tensors;
use kinset_model::{Mismatch, Params, Role};

/// What an average does to the network it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Averaging {
    /// Nothing: the average is kept beside the live network, its buffers those of the live network.
    #[default]
    Shadow,
    /// What SCAN's code does: after each step the whole average overwrites the live network. So the live weights *are* the
    /// average (the rate is in effect 1 − α times as large), and the running statistics of batch norm never leave the values
    /// they started from. For comparison with published runs.
    Parity,
}

/// A moving average of weights: shadow ← α·shadow + (1−α)·live.
///
/// # Paper
/// Tarvainen & Valpola 2017, "Mean teachers", section 2, for [`Averaging::Shadow`].
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    averaging: Averaging,
    shadow: Params,
}

impl Ema {
    /// Starts at the live weights. `decay` is α, 0 to 1.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(live: &Params, decay: f64, averaging: Averaging) -> Result<Self> {
        Ok(Self { decay, averaging, shadow: live.duplicate()? })
    }

    /// Takes in the live weights: to be called after each optimizer step.
    ///
    /// # Errors
    /// [`ModelError::Weights`](kinset_model::ModelError::Weights) if `live` is another network.
    pub fn update(&self, live: &Params) -> Result<()> {
        blend(&self.shadow, live, self.decay)?;
        match self.averaging {
            Averaging::Shadow => copy(&self.shadow, live, |role| role == Role::Buffer),
            Averaging::Parity => copy(live, &self.shadow, |_| true),
        }
    }

    /// The averaged weights.
    pub fn shadow(&self) -> &Params {
        &self.shadow
    }

    /// Overwrites a network with the averaged weights.
    ///
    /// # Errors
    /// [`ModelError::Weights`](kinset_model::ModelError::Weights) if it is another network.
    pub fn copy_into(&self, network: &Params) -> Result<()> {
        copy(network, &self.shadow, |_| true)
    }

    /// What must be saved to go on bit for bit.
    ///
    /// # Errors
    /// If the device fails.
    pub fn state(&self) -> Result<Tensors> {
        Ok(self.shadow.to_tensors()?)
    }

    /// Takes a saved state.
    ///
    /// # Errors
    /// [`ModelError::Weights`](kinset_model::ModelError::Weights) if it was saved of another network.
    pub fn load(&self, state: &Tensors) -> Result<()> {
        Ok(self.shadow.load(state)?)
    }
}

/// Moves the parameters of one network towards those of another: target ← α·target + (1−α)·source. Buffers stay.
///
/// # Errors
/// [`ModelError::Weights`](kinset_model::ModelError::Weights) if `source` lacks a parameter of `target`, or has it in another shape.
///
/// # Paper
/// He et al. 2020, "Momentum contrast", eq. 2.
pub fn blend(target: &Params, source: &Params, decay: f64) -> Result<()> {
    for (to, from) in pairs(target, source, |role| role == Role::Parameter)? {
        let from = from.as_detached_tensor();
        update(to, &from, &from, Rule::Blend { decay })?;
    }
    Ok(())
}

fn copy(target: &Params, source: &Params, which: impl Fn(Role) -> bool) -> Result<()> {
    for (to, from) in pairs(target, source, which)? {
        to.set(&from.as_detached_tensor())?;
    }
    Ok(())
}

/// Equally named tensors of two networks.
fn pairs<'a>(target: &'a Params, source: &'a Params, which: impl Fn(Role) -> bool) -> Result<Vec<(&'a Var, &'a Var)>> {
    let (mut found, mut mismatch) = (Vec::new(), Mismatch::default());
    for (name, _, to) in target.iter().filter(|&(_, role, _)| which(role)) {
        match source.get(name) {
            None => mismatch.missing.push(name.to_owned()),
            Some(from) if from.dims() != to.dims() => {
                mismatch.misshapen.push((name.to_owned(), to.dims().to_vec(), from.dims().to_vec()));
            }
            Some(from) => found.push((to, from)),
        }
    }
    mismatch.check()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use kinset_artifact::encoder::{Backbone, Stem};
    use kinset_base::seed::Seed;
    use kinset_model::params::values;
    use kinset_model::{EncoderNet, Mode, architecture};

    fn net() -> EncoderNet {
        let shape = architecture(Backbone::ResnetTiny, Stem::Cifar, 4, 1, 8, None).unwrap();
        EncoderNet::init(&shape, Seed::new(1), &Device::Cpu).unwrap()
    }

    /// One train-mode forward, then one added to every weight.
    fn disturb(net: &EncoderNet) {
        let images: Vec<f32> = (0..4 * 64).map(|i| (0.1 * f64::from(i)).sin() as f32).collect();
        net.features(&Tensor::from_vec(images, (4, 1, 8, 8), &Device::Cpu).unwrap(), Mode::Train).unwrap();
        for (_, var) in net.params().parameters() {
            var.set(&(var.as_detached_tensor() + 1.0).unwrap()).unwrap();
        }
    }

    fn rise(after: &Params, before: &Params, role: Role) -> Vec<f64> {
        let mut all = Vec::new();
        for (name, ..) in after.iter().filter(|&(_, found, _)| found == role) {
            let old = values(before.get(name).unwrap()).unwrap();
            let new = values(after.get(name).unwrap()).unwrap();
            all.extend(new.iter().zip(old).map(|(&new, old)| f64::from(new) - f64::from(old)));
        }
        all
    }

    #[test]
    fn parity_overwrites_the_live_weights_and_resets_the_buffers() {
        // methods/scan.md section 10: weights +1 after one train-mode forward end at +0.001, buffers where they began.
        let net = net();
        let start = net.params().duplicate().unwrap();
        let ema = Ema::new(net.params(), 0.999, Averaging::Parity).unwrap();
        disturb(&net);
        assert!(rise(net.params(), &start, Role::Buffer).iter().any(|r| r.abs() > 1e-4), "the forward moved no buffer");
        ema.update(net.params()).unwrap();
        assert!(rise(net.params(), &start, Role::Parameter).iter().all(|r| (r - 0.001).abs() < 1e-6));
        assert!(rise(net.params(), &start, Role::Buffer).iter().all(|r| *r == 0.0));
    }

    #[test]
    fn a_shadow_leaves_the_live_network_alone_and_takes_its_buffers() {
        let net = net();
        let ema = Ema::new(net.params(), 0.9, Averaging::Shadow).unwrap();
        let start = net.params().duplicate().unwrap();
        disturb(&net);
        let disturbed = net.params().duplicate().unwrap();
        ema.update(net.params()).unwrap();
        assert_eq!(net.to_tensors().unwrap(), disturbed.to_tensors().unwrap());
        assert!(rise(ema.shadow(), &start, Role::Parameter).iter().all(|r| (r - 0.1).abs() < 1e-6));
        assert!(rise(ema.shadow(), &disturbed, Role::Buffer).iter().all(|r| *r == 0.0));
    }

    #[test]
    fn a_saved_average_goes_on_and_another_network_is_refused() {
        let net = net();
        let (ema, again) =
            (Ema::new(net.params(), 0.9, Averaging::Shadow).unwrap(), Ema::new(net.params(), 0.9, Averaging::Shadow).unwrap());
        disturb(&net);
        ema.update(net.params()).unwrap();
        again.load(&ema.state().unwrap()).unwrap();
        assert_eq!(again.state().unwrap(), ema.state().unwrap());
        let half = net.params().subset(|name| name.contains("layer1"));
        assert!(ema.update(&half).unwrap_err().to_string().contains("missing"));
    }
}
