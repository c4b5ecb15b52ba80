//! Golden tests: PyTorch's numbers for the same operations (`tests/golden/kernel/make.py`).

use candle_core::{Device, Result, Tensor, Var};
use serde_json::Value;

use super::check::{distance, doubles};
use super::{After, batch_norm, conv2d, l2_normalize, max_pool2d, relu};

fn tensor(v: &Value) -> Tensor {
    let shape: Vec<usize> = v["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    let values: Vec<f32> = v["values"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn apply(name: &str, t: &[Tensor]) -> Result<Tensor> {
    match name {
        "conv 3 1 1" => conv2d(&t[0], &t[1], 1, 1),
        "conv 3 2 1" => conv2d(&t[0], &t[1], 2, 1),
        "conv 1 2 0" => conv2d(&t[0], &t[1], 2, 0),
        "conv 7 2 3" => conv2d(&t[0], &t[1], 2, 3),
        "norm relu" => Ok(batch_norm(&t[0], &t[1], &t[2], 1e-5, After::Relu)?.output),
        "norm add relu" => Ok(batch_norm(&t[0], &t[1], &t[2], 1e-5, After::AddRelu(&t[3]))?.output),
        "max 3 2 1" => max_pool2d(&relu(&t[0])?, 3, 2, 1),
        "normalize" => l2_normalize(&t[0]),
        other => unreachable!("no such case: {other}"),
    }
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../../tests/golden/kernel/torch.json")).unwrap()
}

#[test]
fn outputs_and_gradients_are_those_of_pytorch() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let vars: Vec<Var> = case["inputs"].as_array().unwrap().iter().map(|v| Var::from_tensor(&tensor(v)).unwrap()).collect();
        let inputs: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = apply(name, &inputs).unwrap();
        let off = distance(&doubles(&y), &doubles(&tensor(&case["output"])));
        assert!(off < 2e-6, "{name}: output off by {off:e}");
        let gradients = (y * tensor(&case["cotangent"])).unwrap().sum_all().unwrap().backward().unwrap();
        for (i, (x, expected)) in inputs.iter().zip(case["gradients"].as_array().unwrap()).enumerate() {
            let off = distance(&doubles(gradients.get(x).unwrap()), &doubles(&tensor(expected)));
            assert!(off < 5e-6, "{name}: gradient {i} off by {off:e}");
        }
    }
}

#[test]
fn running_statistics_follow_pytorch() {
    let running = &golden()["running"];
    let x = tensor(&running["input"]);
    let one = Tensor::ones(2, candle_core::DType::F32, &Device::Cpu).unwrap();
    let norm = batch_norm(&x, &one, &one, 1e-5, After::Nothing).unwrap();
    let n = norm.count as f64;
    let mean: Vec<f64> = doubles(&norm.mean).iter().map(|m| 0.1 * m).collect();
    let variance: Vec<f64> = doubles(&norm.variance).iter().map(|v| 0.9 + 0.1 * v * n / (n - 1.0)).collect();
    assert!(distance(&mean, &doubles(&tensor(&running["mean"]))) < 1e-6);
    assert!(distance(&variance, &doubles(&tensor(&running["variance"]))) < 1e-6);
}
