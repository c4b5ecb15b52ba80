//! Exponential moving averages of weights.

use super::error::Result;
use super::fused_update::{UpdateRule, update};
use candle_core::Var;
use kinset_model::{Mismatch, Params, Role};

/// The moving average that SCAN's code trains with: after each step the whole average overwrites the live network. So the live
/// weights *are* the average (the rate is in effect 1 − α times as large), and the running statistics of batch norm never leave the
/// values they started from.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    shadow: Params,
}

impl Ema {
    /// Starts at the live weights. `decay` is α, 0 to 1.
    pub fn new(live: &Params, decay: f64) -> Result<Self> {
        Ok(Self { decay, shadow: live.duplicate()? })
    }

    /// shadow ← α·shadow + (1−α)·live, and live ← shadow: to be called after each optimizer step.
    ///
    /// # Errors
    /// [`ModelError::Weights`](kinset_model::ModelError::Weights) if `live` is another network.
    pub fn update(&self, live: &Params) -> Result<()> {
        blend(&self.shadow, live, self.decay)?;
        for (to, from) in pairs(live, &self.shadow, |_| true)? {
            to.set(&from.as_detached_tensor())?;
        }
        Ok(())
    }

    /// The averaged weights.
    pub fn shadow(&self) -> &Params {
        &self.shadow
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
        update(to, &from, &from, UpdateRule::Blend { decay })?;
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
        let ema = Ema::new(net.params(), 0.999).unwrap();
        disturb(&net);
        assert!(rise(net.params(), &start, Role::Buffer).iter().any(|r| r.abs() > 1e-4), "the forward moved no buffer");
        ema.update(net.params()).unwrap();
        assert!(rise(net.params(), &start, Role::Parameter).iter().all(|r| (r - 0.001).abs() < 1e-6));
        assert!(rise(net.params(), &start, Role::Buffer).iter().all(|r| *r == 0.0));
    }

    #[test]
    fn another_network_is_refused() {
        let net = net();
        let half = net.params().subset(|name| name.contains("layer1"));
        assert!(Ema::new(net.params(), 0.9).unwrap().update(&half).unwrap_err().to_string().contains("missing"));
    }
}
