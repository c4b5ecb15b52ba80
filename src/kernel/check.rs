//! Test helpers: random tensors, gradients against finite differences in f64, equal bits from any number of threads.

use candle_core::{DType, Device, Result, Tensor, Var};

use kinset_base::seed::Seed;

/// Normal numbers, rounded to f32 so that both precisions see the same ones.
pub(super) fn normal(name: &str, dims: &[usize]) -> Tensor {
    let mut rng = Seed::new(7).branch(name).rng();
    let numbers: Vec<f32> = (0..dims.iter().product()).map(|_| rng.normal() as f32).collect();
    Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap()
}

pub(super) fn floats(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

pub(super) fn doubles(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// Largest difference, relative to the largest number.
pub(super) fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    a.iter()
        .zip(b)
        .map(|(a, b)| if a.is_nan() || b.is_nan() { f64::INFINITY } else { (a - b).abs() / scale })
        .fold(0.0, f64::max)
}

/// Output and the gradients of Σ r · f(x) for a fixed random r.
pub(super) fn run(f: &dyn Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> (Tensor, Vec<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors).unwrap();
    let r = normal("cotangent", y.dims()).to_dtype(y.dtype()).unwrap();
    let gradients = (&y * r).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients = tensors.iter().map(|x| gradients.get(x).unwrap().clone()).collect();
    (y.detach(), gradients)
}

/// The f32 operation gives the output of the f64 one (candle's own), and the gradient of central differences of it. At most 60
/// coordinates per input are tried.
pub(super) fn agrees_with_differences(name: &str, f: &dyn Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) {
    let (y, gradients) = run(f, inputs);
    let wide: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
    let expected = f(&wide).unwrap();
    assert_eq!(y.dims(), expected.dims(), "{name}: shape");
    let off = distance(&doubles(&y), &doubles(&expected));
    assert!(off < 2e-5, "{name}: output off by {off:e}");
    let r = doubles(&normal("cotangent", y.dims()));
    let loss = |inputs: &[Tensor]| -> f64 { doubles(&f(inputs).unwrap()).iter().zip(&r).map(|(y, r)| y * r).sum() };
    let step = 1e-5;
    for (which, gradient) in gradients.iter().enumerate() {
        let (values, got) = (doubles(&wide[which]), doubles(gradient));
        let scale = got.iter().fold(1e-2f64, |m, v| m.max(v.abs()));
        for at in (0..values.len()).step_by(values.len().div_ceil(60)) {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[at] += by;
                let mut inputs = wide.clone();
                inputs[which] = Tensor::from_vec(values, wide[which].dims(), &Device::Cpu).unwrap();
                loss(&inputs)
            };
            let expected = (moved(step) - moved(-step)) / (2.0 * step);
            let off = (got[at] - expected).abs() / scale;
            assert!(off < 1e-4, "{name}: gradient of input {which} at {at}: {} instead of {expected}", got[at]);
        }
    }
}

/// One, two and three threads give the same bits, output and gradients.
pub(super) fn same_bits(name: &str, f: &(dyn Fn(&[Tensor]) -> Result<Tensor> + Sync), inputs: &[Tensor]) {
    let bits = |threads: usize| -> Vec<Vec<u32>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (y, gradients) = pool.install(|| run(f, inputs));
        std::iter::once(&y).chain(&gradients).map(|t| floats(t).into_iter().map(f32::to_bits).collect()).collect()
    };
    let one = bits(1);
    assert_eq!(one, bits(2), "{name}: two threads");
    assert_eq!(one, bits(3), "{name}: three threads");
}
