//! Formulas and comparisons that the tests share with `tests/golden/model/make.py` and `tests/parity/alexnet.py`.
#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

use candle_core::{Device, Tensor};
use serde_json::Value;

use super::Params;

/// `scale · sin(step · flat index + phase)`.
pub fn wave(shape: &[usize], step: f64, phase: f64, scale: f64) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (scale * (step * i as f64 + phase).sin()) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Fills a network from each tensor's place and flat index: the formula of methods/scan.md section 10.
pub fn fill(params: &Params) {
    for (k, (name, _, var)) in params.iter().enumerate() {
        let (k, shape) = (k as f64, var.dims());
        let inputs: usize = shape.iter().skip(1).product();
        let value = |j: f64| match shape.len() {
            4 => 0.5 * (0.7 * j + k).sin() / (inputs as f64).sqrt(),
            2 => (0.7 * j + k).sin() / (inputs as f64).sqrt(),
            _ if name.ends_with("running_var") || name.ends_with(".weight") => 1.0 + 0.1 * (0.37 * j + k).sin(),
            _ => 0.1 * (0.53 * j + k).sin(),
        };
        let values: Vec<f32> = (0..var.elem_count()).map(|j| value(j as f64) as f32).collect();
        var.set(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap();
    }
}

/// Numbers from -1 to 1 for the tensor at a place: whole-number noise, so that every bit is PyTorch's too.
pub fn noise(count: usize, place: usize) -> Vec<f64> {
    let value = |index: usize| {
        let x = (index as u64 + 1 + 1_000_003 * place as u64).wrapping_mul(2_654_435_761) as u32;
        let x = (x ^ (x >> 16)).wrapping_mul(1_812_433_253);
        f64::from(x ^ (x >> 13)) / 2_147_483_648.0 - 1.0
    };
    (0..count).map(value).collect()
}

/// A tensor of noise.
pub fn noisy(shape: &[usize], place: usize) -> Tensor {
    let values: Vec<f32> = noise(shape.iter().product(), place).into_iter().map(|value| value as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Fills a network with noise that keeps the variance through ReLU.
pub fn fill_with_noise(params: &Params) {
    for (place, (name, _, var)) in params.iter().enumerate() {
        let shape = var.dims();
        let inputs: usize = shape.iter().skip(1).product();
        let value = |noise: f64| match shape.len() {
            1 if name.ends_with("running_var") || name.ends_with(".weight") => 1.0 + 0.1 * noise,
            1 => 0.1 * noise,
            _ => noise * (6.0 / inputs as f64).sqrt(),
        };
        let values: Vec<f32> = noise(var.elem_count(), place).into_iter().map(|noise| value(noise) as f32).collect();
        var.set(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap();
    }
}

/// The numbers of a JSON list.
pub fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Compares lists, each number relative to 1 or its own size.
#[track_caller]
pub fn assert_near(what: &str, found: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (&found, wanted)) in found.iter().zip(wanted).enumerate() {
        let off = (f64::from(found) - wanted).abs() / wanted.abs().max(1.0);
        assert!(off <= tolerance, "{what}[{i}]: {found} is not {wanted} (off by {off:e})");
    }
}
