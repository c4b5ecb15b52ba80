//! Benchmarks of the kernels: `cargo bench --bench kernels [-- NAME]`; `RAYON_NUM_THREADS=1` in front for one core.
//!
//! For work on a kernel: the same machine, before and after. What the numbers are worth beside other programs, `just bench-peers`
//! says.

use candle_core::{Device, Tensor, Var};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use kinset::artifact::encoder::{Backbone, Stem};
use kinset::augment::{Recipe, Simclr, Viewer};
use kinset::base::seed::Seed;
use kinset::kernel::gemm::Gemm;
use kinset::kernel::{After, avg_pool2d, batch_norm, conv2d, global_avg_pool, l2_normalize, max_pool2d, neighbors};
use kinset::math::kmeans::KMeans;
use kinset::methods::scan::loss::scan_loss;
use kinset::model::{ClassifierNet, EncoderNet, architecture};
use kinset::stage::Stop;
use kinset::train::optim::Optimizer;

mod ground;

/// As in the program: memory of steps comes back without a call to the system.
#[global_allocator]
static ALLOCATOR: kinset::kernel::CachingAllocator = kinset::kernel::CachingAllocator::new();

fn main() {
    kinset::kernel::keep_candle_on_one_thread();
    divan::main();
}

/// What a benchmark that cannot go on does.
fn sure<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

fn tensor(shape: &[usize]) -> Tensor {
    sure(Tensor::from_vec(ground::bells(shape.iter().product()), shape, &Device::Cpu))
}

fn variable(shape: &[usize]) -> Var {
    sure(Var::from_tensor(&tensor(shape)))
}

/// Layers of ResNet-18 at 32 px, of its quarter-width sibling, and a strided and a pointwise one: in, out, side, kernel, stride.
const CONVOLUTIONS: [[usize; 5]; 9] = [
    [64, 64, 32, 3, 1],
    [128, 128, 16, 3, 1],
    [256, 256, 8, 3, 1],
    [512, 512, 4, 3, 1],
    [3, 64, 32, 3, 1],
    [64, 128, 32, 3, 2],
    [64, 128, 32, 1, 2],
    [16, 16, 32, 3, 1],
    [64, 64, 8, 3, 1],
];
/// Images in a batch of layers.
const BATCH: usize = 64;

#[divan::bench(args = CONVOLUTIONS.map(|shape| format!("{shape:?}")), sample_count = 10)]
fn convolution(bencher: Bencher<'_, '_>, shape: &str) {
    let (x, w, stride, padding) = layer(shape);
    bencher.bench_local(|| sure(conv2d(&x, &w, stride, padding)));
}

#[divan::bench(args = CONVOLUTIONS.map(|shape| format!("{shape:?}")), sample_count = 10)]
fn convolution_and_gradients(bencher: Bencher<'_, '_>, shape: &str) {
    let (x, w, stride, padding) = layer(shape);
    bencher.bench_local(|| sure(conv2d(&x, &w, stride, padding).and_then(|y| y.backward())));
}

fn layer(shape: &str) -> (Var, Var, usize, usize) {
    let Some([inputs, outputs, side, kernel, stride]) = CONVOLUTIONS.into_iter().find(|s| format!("{s:?}") == shape) else {
        unreachable!("the names are made of the shapes")
    };
    (variable(&[BATCH, inputs, side, side]), variable(&[outputs, inputs, kernel, kernel]), stride, kernel / 2)
}

#[divan::bench(args = [[64, 32], [512, 4], [16, 32]], sample_count = 20)]
fn batch_norm_relu_and_gradients(bencher: Bencher<'_, '_>, [channels, side]: [usize; 2]) {
    let (x, gamma, beta) = (variable(&[BATCH, channels, side, side]), variable(&[channels]), variable(&[channels]));
    bencher.bench_local(|| sure(batch_norm(&x, &gamma, &beta, 1e-5, After::Relu).and_then(|norm| norm.output.backward())));
}

#[divan::bench(sample_count = 20)]
fn max_pool_and_gradient(bencher: Bencher<'_, '_>) {
    let x = variable(&[BATCH, 64, 48, 48]);
    bencher.bench_local(|| sure(max_pool2d(&x, 3, 2, 1).and_then(|y| y.backward())));
}

#[divan::bench(sample_count = 20)]
fn average_pool_and_gradient(bencher: Bencher<'_, '_>) {
    let x = variable(&[BATCH, 64, 32, 32]);
    bencher.bench_local(|| sure(avg_pool2d(&x, 2, 2).and_then(|y| y.backward())));
}

#[divan::bench(sample_count = 20)]
fn global_average_pool_and_gradient(bencher: Bencher<'_, '_>) {
    let x = variable(&[BATCH, 512, 4, 4]);
    bencher.bench_local(|| sure(global_avg_pool(&x).and_then(|y| y.backward())));
}

#[divan::bench(sample_count = 20)]
fn unit_length_and_gradient(bencher: Bencher<'_, '_>) {
    let x = variable(&[1024, 128]);
    bencher.bench_local(|| sure(l2_normalize(&x).and_then(|y| y.backward())));
}

#[divan::bench(args = [32, 96], sample_count = 20)]
fn simclr_views(bencher: Bencher<'_, '_>, size: usize) {
    let pictures = ground::pictures(512, size, 3);
    let rows: Vec<usize> = (0..pictures.len()).collect();
    let viewer = sure(Viewer::new(&Recipe::Simclr(Simclr::default()), size, &[0.5; 3], &[0.25; 3]));
    let bencher = bencher.counter(ItemsCount::new(rows.len()));
    bencher.bench_local(|| sure(viewer.views(&pictures, &rows, |row| Seed::new(1).at(row as u64))));
}

#[divan::bench(args = [[10_000, 128], [10_000, 512]], sample_count = 5)]
fn exact_neighbors(bencher: Bencher<'_, '_>, [count, dim]: [usize; 2]) {
    let rows = ground::unit_rows(count, dim);
    bencher.bench_local(|| sure(neighbors::all_pairs(&rows, dim, 20, &Stop::default(), &mut |_, _| {})));
}

/// One start of ten iterations.
#[divan::bench(args = [[10, 128], [100, 128], [10, 512]], sample_count = 5)]
fn k_means(bencher: Bencher<'_, '_>, [clusters, dim]: [usize; 2]) {
    let rows = ground::bells(20_000 * dim);
    let settings = KMeans { restarts: 1, iterations: 10, tolerance: 0.0, ..KMeans::new(clusters) };
    bencher.bench_local(|| settings.fit(&rows, dim, &Gemm, Seed::new(1), &Stop::default()));
}

/// One step of SCAN's heads on cached features: losses of 128 anchors and their neighbors, gradients, Adam.
#[divan::bench(args = [1, 5], sample_count = 50)]
fn scan_heads_step(bencher: Bencher<'_, '_>, heads: usize) {
    let shape = sure(architecture(Backbone::Pixels, Stem::Cifar, 1, 1, 23, None));
    let body = sure(EncoderNet::init(&shape, Seed::new(1), &Device::Cpu));
    let net = sure(ClassifierNet::init(&body, 10, heads, None, Seed::new(1), &Device::Cpu));
    let features = tensor(&[256, 529]);
    let (anchors, neighbors) = (sure(features.narrow(0, 0, 128)), sure(features.narrow(0, 128, 128)));
    let mut optimizer = sure(Optimizer::adam(1e-4).over(&net.head_params()));
    bencher.bench_local(|| {
        let (anchors, neighbors) = (sure(net.all_logits(&anchors)), sure(net.all_logits(&neighbors)));
        let loss = sure(scan_loss(&anchors, &neighbors, heads, 5.0));
        sure(optimizer.descend(black_box(&loss.total), 1e-4));
    });
}
