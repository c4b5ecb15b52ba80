//! Transformer block of a vision transformer: attention, MLP and layer norms in one pass over the tokens of some images.
//!
//! Where no gradient is recorded, on a CPU, some images are one task from the block's input to its output: only tokens go in
//! and out of memory; queries, keys and values, scores and the hidden layer stay in a core's caches. Weights are packed once
//! per call, which pays from a few images on. Else candle's operations and ours compute the same, with gradients.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::accumulate::add_to;
use super::attention::{self, Shape};
use super::autograd::{read, supported};
use super::buffers::{in_pieces, with_scratch};
use super::dispatch::vectorized;
use super::elementwise::add;
use super::error::KernelError;
use super::gelu::Activation;
use super::linear::linear;
use super::packed_gemm::{PackedMatrix, Start};

/// Tokens at a time through layers.
const PIECE: usize = 96;
/// Units of the hidden layer at a time: with a piece of tokens, 192 KiB.
const HIDDEN: usize = 512;
/// Images of few tokens go together until there are so many.
const TOKENS: usize = 192;

/// Layer norm: mean 0 and deviation 1 over the last axis, then a scale and a shift.
///
/// # Paper
/// Ba et al. 2016, "Layer normalization", eq. 4.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// `[D]`
    pub weight: &'a Tensor,
    /// `[D]`
    pub bias: &'a Tensor,
    /// Added to the variance.
    pub epsilon: f32,
}

impl LayerNorm<'_> {
    pub fn of(&self, x: &Tensor) -> Result<Tensor> {
        // The fused one has no gradient, and no double precision.
        let recorded = [x, self.weight, self.bias].iter().any(|t| t.track_op());
        let of = if recorded || x.dtype() == DType::F64 { candle_nn::ops::layer_norm_slow } else { candle_nn::ops::layer_norm };
        of(x, self.weight, self.bias, self.epsilon)
    }
}

/// Weights and bias of a layer, and a number for each output that it is multiplied with ("layer scale").
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// `[O, I]`
    pub weight: &'a Tensor,
    /// `[O]`
    pub bias: &'a Tensor,
    /// `[O]`
    pub scale: Option<&'a Tensor>,
}

impl Layer<'_> {
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        [self.weight, self.bias].into_iter().chain(self.scale)
    }

    /// Weights are scaled, which are fewer than the outputs of a batch.
    fn of(&self, x: &Tensor) -> Result<Tensor> {
        let Some(scale) = self.scale else { return linear(x, self.weight, self.bias) };
        linear(x, &self.weight.broadcast_mul(&scale.unsqueeze(1)?)?, &(self.bias * scale)?)
    }
}

/// A block: attention, then two layers, each with a norm before it and a way past it.
///
/// # Paper
/// Dosovitskiy et al. 2021, "An image is worth 16×16 words", eq. 2 and 3; Touvron et al. 2021, "Going deeper with image
/// transformers", eq. 5 (layer scale).
#[derive(Clone, Copy, Debug)]
pub struct TransformerBlock<'a> {
    /// Before attention; before the hidden layer.
    pub norms: [LayerNorm<'a>; 2],
    /// `[3·D, D]`: of each token its query, key and value, each head by head.
    pub qkv: Layer<'a>,
    /// `[D, D]`
    pub out: Layer<'a>,
    /// `[H, D]` and `[D, H]`
    pub hidden: [Layer<'a>; 2],
    /// A divisor of D.
    pub heads: usize,
    /// Between the last two.
    pub activation: Activation,
}

impl TransformerBlock<'_> {
    /// The block applied to tokens.
    ///
    /// # Shapes
    /// `x`: `[B·T, D]`. Returns the same.
    ///
    /// # Errors
    /// Shapes that do not match, or an empty input.
    pub fn of(&self, x: &Tensor, batch: usize) -> Result<Tensor> {
        let shape = self.shape(x, batch)?;
        if !self.is_fixed(x) {
            return self.composed(x, shape);
        }
        let x = x.contiguous()?;
        let packed = Packed::of(self)?;
        let out = read(&x, |x| packed.run(shape, x))?;
        Tensor::from_vec(out, x.shape(), &Device::Cpu)
    }

    /// The block applied to tokens, of which only the first of each image is returned: a last block costs a quarter.
    ///
    /// # Shapes
    /// `x`: `[B·T, D]`. Returns `[B, D]`.
    pub fn of_first(&self, x: &Tensor, batch: usize) -> Result<Tensor> {
        let shape = self.shape(x, batch)?;
        let width = shape.heads * shape.dim;
        if !self.is_fixed(x) {
            let all = self.composed(x, shape)?.reshape((batch, shape.tokens, width))?;
            return all.narrow(1, 0, 1)?.squeeze(1)?.contiguous();
        }
        let x = x.contiguous()?;
        let packed = Packed::of(self)?;
        let out = read(&x, |x| packed.run_first(shape, x))?;
        Tensor::from_vec(out, (batch, width), &Device::Cpu)
    }

    /// No gradient is recorded, and all is where our kernels can read it.
    fn is_fixed(&self, x: &Tensor) -> bool {
        let all: Vec<&Tensor> = std::iter::once(x).chain(self.tensors()).collect();
        supported(&all) && !all.iter().any(|t| t.track_op())
    }

    fn layers(&self) -> [&Layer<'_>; 4] {
        [&self.qkv, &self.out, &self.hidden[0], &self.hidden[1]]
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let norms = self.norms.iter().flat_map(|norm| [norm.weight, norm.bias]);
        norms.chain([&self.qkv, &self.out, &self.hidden[0], &self.hidden[1]].into_iter().flat_map(Layer::tensors))
    }

    fn shape(&self, x: &Tensor, batch: usize) -> Result<Shape> {
        let wrong = || {
            let shapes = std::iter::once(x).chain(self.tensors()).map(|t| t.dims().to_vec()).collect();
            KernelError::Shape { op: "transformer block", shapes }.wrap()
        };
        let (&[rows, width], &[hidden, _]) = (x.dims(), self.hidden[0].weight.dims()) else { return Err(wrong()) };
        let wanted = [[3 * width, width], [width, width], [hidden, width], [width, hidden]];
        let fits = self.layers().iter().zip(wanted).all(|(layer, wanted)| {
            let row = |t: &Tensor| t.dims() == [wanted[0]];
            layer.weight.dims() == wanted && row(layer.bias) && layer.scale.is_none_or(row)
        });
        let norms = self.norms.iter().all(|norm| norm.weight.dims() == [width] && norm.bias.dims() == [width]);
        if !fits || !norms || batch * self.heads * rows * width * hidden == 0 {
            return Err(wrong());
        }
        if !rows.is_multiple_of(batch) || !width.is_multiple_of(self.heads) {
            return Err(wrong());
        }
        Ok(Shape { batch, tokens: rows / batch, heads: self.heads, dim: width / self.heads })
    }

    fn composed(&self, x: &Tensor, shape: Shape) -> Result<Tensor> {
        let taken = attention::composed(&self.qkv.of(&self.norms[0].of(x)?)?, shape)?;
        let x = add(x, &self.out.of(&taken)?)?;
        let hidden = self.activation.of(&self.hidden[0].of(&self.norms[1].of(&x)?)?)?;
        add(&x, &self.hidden[1].of(&hidden)?)
    }
}

vectorized! {
    fn normed(out: &mut [f32], x: &[f32], width: usize, weight: &[f32], bias: &[f32], epsilon: f32) {
        const LANES: usize = 32;
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let mut sums = [0.0_f32; LANES];
            for part in x.chunks(LANES) {
                for (sum, x) in sums.iter_mut().zip(part) {
                    *sum += x;
                }
            }
            let mut mean = 0.0;
            for sum in sums {
                mean += sum;
            }
            mean /= width as f32;
            let mut sums = [0.0_f32; LANES];
            for part in x.chunks(LANES) {
                for (sum, x) in sums.iter_mut().zip(part) {
                    *sum += (x - mean) * (x - mean);
                }
            }
            let mut variance = 0.0;
            for sum in sums {
                variance += sum;
            }
            let scale = 1.0 / (variance / width as f32 + epsilon).sqrt();
            for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = (x - mean) * scale * weight + bias;
            }
        }
    }
}

struct PackedNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl PackedNorm {
    fn of(norm: &LayerNorm<'_>) -> Result<Self> {
        Ok(Self { weight: norm.weight.to_vec1()?, bias: norm.bias.to_vec1()?, epsilon: norm.epsilon })
    }

    fn rows(&self, out: &mut [f32], x: &[f32]) {
        normed(out, x, self.weight.len(), &self.weight, &self.bias, self.epsilon);
    }
}

/// A layer, ready for products: its inputs or its outputs in parts.
struct PackedLayer {
    parts: Vec<PackedMatrix>,
    bias: Vec<f32>,
}

impl PackedLayer {
    /// Cut into parts of `part` outputs or, if `inputs`, of so many inputs.
    fn of(layer: &Layer<'_>, part: usize, inputs: bool) -> Result<Self> {
        let (o, i) = layer.weight.dims2()?;
        let scale: Option<Vec<f32>> = layer.scale.map(Tensor::to_vec1).transpose()?;
        let mut bias: Vec<f32> = layer.bias.to_vec1()?;
        if let Some(scale) = &scale {
            bias.iter_mut().zip(scale).for_each(|(bias, scale)| *bias *= scale);
        }
        let weight = layer.weight.contiguous()?;
        let pack = |w: &[f32], first: usize| {
            let (at, columns, terms) =
                if inputs { (first, o, part.min(i - first)) } else { (first * i, part.min(o - first), i) };
            let mut panels = PackedMatrix::of_columns(&w[at..], i, columns, terms);
            if let Some(scale) = &scale {
                panels.scale(if inputs { scale } else { &scale[first..first + columns] });
            }
            panels
        };
        let firsts: Vec<usize> = (0..if inputs { i } else { o }).step_by(part).collect();
        let parts = read(&weight, |w| firsts.par_iter().map(|&first| pack(w, first)).collect())?;
        Ok(Self { parts, bias })
    }

    /// Of rows `line` apart, `[count, O]`; for parts of outputs.
    fn rows(&self, count: usize, x: &[f32], line: usize, out: &mut [f32]) {
        let pitch = self.bias.len();
        let mut first = 0;
        for part in &self.parts {
            let bias = &self.bias[first..first + part.columns()];
            part.multiply(count, x, line, &mut out[first..], pitch, Start::Row(bias));
            first += part.columns();
        }
    }
}

struct Packed {
    norms: [PackedNorm; 2],
    qkv: PackedLayer,
    out: PackedLayer,
    hidden: [PackedLayer; 2],
    activation: Activation,
}

impl Packed {
    fn of(block: &TransformerBlock<'_>) -> Result<Self> {
        let [first, second] = &block.norms;
        let [one, other] = &block.hidden;
        Ok(Self {
            norms: [PackedNorm::of(first)?, PackedNorm::of(second)?],
            qkv: PackedLayer::of(&block.qkv, HIDDEN, false)?,
            out: PackedLayer::of(&block.out, HIDDEN, false)?,
            hidden: [PackedLayer::of(one, HIDDEN, false)?, PackedLayer::of(other, HIDDEN, true)?],
            activation: block.activation,
        })
    }

    fn run(&self, s: Shape, x: &[f32]) -> Vec<f32> {
        let image = s.tokens * s.heads * s.dim;
        let task = TOKENS.div_ceil(s.tokens) * image;
        in_pieces(x.len(), task, |i, out| {
            let x = &x[i * task..][..out.len()];
            let out = out.write_copy_of_slice(x);
            self.images(s, out);
            out
        })
    }

    fn run_first(&self, s: Shape, x: &[f32]) -> Vec<f32> {
        let (width, group) = (s.heads * s.dim, TOKENS.div_ceil(s.tokens));
        let [mut taken, mut first] = [(); 2].map(|()| vec![0.0; s.batch * width]);
        let images = taken.par_chunks_mut(group * width).zip(first.par_chunks_mut(group * width));
        images.zip(x.par_chunks(group * s.tokens * width)).for_each(|((taken, first), x)| {
            self.attended(s, x, taken);
            for (first, x) in first.chunks_exact_mut(width).zip(x.chunks_exact(s.tokens * width)) {
                first.copy_from_slice(&x[..width]);
            }
        });
        self.all_layers(Shape { tokens: 1, ..s }, &taken, &mut first);
        first
    }

    /// Some images. Threads that have nothing else to do help with their parts.
    fn images(&self, s: Shape, x: &mut [f32]) {
        let mut taken = vec![0.0; x.len()];
        self.attended(s, x, &mut taken);
        self.all_layers(s, &taken, x);
    }

    /// What the first tokens of each image take from all, as many as there is room for: image by image, head by head, `[tokens,
    /// d]` each.
    fn attended(&self, s: Shape, x: &[f32], taken: &mut [f32]) {
        let width = s.heads * s.dim;
        let image = s.tokens * width;
        let asking = taken.len() / (x.len() / image) / width;
        let mut qkv = vec![0.0; 3 * x.len()];
        qkv.par_chunks_mut(PIECE * 3 * width).zip(x.par_chunks(PIECE * width)).for_each(|(qkv, x)| {
            with_scratch([x.len(), 0, 0], |rows, _, _| {
                self.norms[0].rows(rows, x);
                self.qkv.rows(x.len() / width, rows, width, qkv);
            });
        });
        taken.par_chunks_mut(asking * s.dim).enumerate().for_each(|(at, out)| {
            attention::of_head(s, &qkv[at / s.heads * 3 * image..][..3 * image], at % s.heads, out);
        });
    }

    fn all_layers(&self, s: Shape, taken: &[f32], x: &mut [f32]) {
        x.par_chunks_mut(PIECE * s.heads * s.dim).enumerate().for_each(|(piece, x)| self.layers(s, taken, piece * PIECE, x));
    }

    /// What comes after attention, for some tokens from the `first` on.
    fn layers(&self, s: Shape, taken: &[f32], first: usize, x: &mut [f32]) {
        let width = s.heads * s.dim;
        let count = x.len() / width;
        let most = self.hidden[0].parts.iter().map(PackedMatrix::columns).max().unwrap_or(0);
        with_scratch([x.len(), x.len(), count * most], |rows, sums, hidden| {
            for (row, token) in rows.chunks_exact_mut(width).zip(first..) {
                for (head, to) in row.chunks_exact_mut(s.dim).enumerate() {
                    let from = (token / s.tokens * s.heads + head) * s.tokens + token % s.tokens;
                    to.copy_from_slice(&taken[from * s.dim..][..s.dim]);
                }
            }
            self.out.rows(count, rows, width, sums);
            add_to(x, sums);
            self.norms[1].rows(rows, x);
            let [one, other] = &self.hidden;
            let (mut at, mut start) = (0, Start::Row(&other.bias));
            for (into, out_of) in one.parts.iter().zip(&other.parts) {
                let units = into.columns();
                let hidden = &mut hidden[..count * units];
                into.multiply(count, rows, width, hidden, units, Start::Row(&one.bias[at..at + units]));
                self.activation.apply(hidden);
                out_of.multiply(count, hidden, units, sums, width, start);
                (at, start) = (at + units, Start::There);
            }
            add_to(x, sums);
        });
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use proptest::prelude::*;

    use super::super::check::{distance, doubles, floats, normal};
    use super::super::isa::Isa;
    use super::*;

    /// Tokens, then the parameters of a block.
    fn numbers(rows: usize, width: usize, hidden: usize) -> Vec<Tensor> {
        let shapes: [&[usize]; 15] = [
            &[rows, width],
            &[width],
            &[width],
            &[width],
            &[width],
            &[3 * width, width],
            &[3 * width],
            &[width, width],
            &[width],
            &[width],
            &[hidden, width],
            &[hidden],
            &[width, hidden],
            &[width],
            &[width],
        ];
        shapes.iter().enumerate().map(|(i, shape)| (normal(&format!("block {i}"), shape) * 0.5).unwrap()).collect()
    }

    fn run(t: &[Tensor], batch: usize, heads: usize, activation: Activation, scaled: bool) -> Result<Tensor> {
        with(t, heads, activation, scaled, |block| block.of(&t[0], batch))
    }

    fn with<T>(
        t: &[Tensor],
        heads: usize,
        activation: Activation,
        scaled: bool,
        f: impl FnOnce(&TransformerBlock<'_>) -> T,
    ) -> T {
        let norm = |at: usize, epsilon| LayerNorm { weight: &t[at], bias: &t[at + 1], epsilon };
        let layer = |at: usize, scale: Option<usize>| Layer {
            weight: &t[at],
            bias: &t[at + 1],
            scale: scale.filter(|_| scaled).map(|at| &t[at]),
        };
        let block = TransformerBlock {
            norms: [norm(1, 1e-6), norm(3, 1e-5)],
            qkv: layer(5, None),
            out: layer(7, Some(9)),
            hidden: [layer(10, None), layer(12, Some(14))],
            heads,
            activation,
        };
        f(&block)
    }

    /// Largest difference between the fast one and the composition in double precision.
    fn off([batch, tokens, heads, dim, hidden]: [usize; 5], activation: Activation, scaled: bool) -> f64 {
        let t = numbers(batch * tokens, heads * dim, hidden);
        let wide: Vec<Tensor> = t.iter().map(|t| t.to_dtype(DType::F64).unwrap()).collect();
        let found = run(&t, batch, heads, activation, scaled).unwrap();
        let wanted = run(&wide, batch, heads, activation, scaled).unwrap();
        assert_eq!(found.dims(), t[0].dims());
        distance(&doubles(&found), &doubles(&wanted))
    }

    #[test]
    fn a_block_is_the_composition_in_double_precision() {
        for shape in [[1, 1, 1, 1, 1], [3, 5, 2, 4, 24], [2, 97, 3, 8, 600], [5, 50, 2, 16, 130], [1, 257, 1, 64, 256]] {
            for (activation, scaled) in [(Activation::Gelu, true), (Activation::QuickGelu, false)] {
                let off = off(shape, activation, scaled);
                assert!(off < 1e-5, "{shape:?} {activation:?}: off by {off:e}");
            }
        }
    }

    #[test]
    fn first_tokens_alone_are_those_among_all() {
        for [batch, tokens, heads, dim, hidden] in [[1, 1, 1, 1, 1], [7, 5, 2, 4, 24], [3, 100, 2, 8, 600]] {
            let t = numbers(batch * tokens, heads * dim, hidden);
            let wide: Vec<Tensor> = t.iter().map(|t| t.to_dtype(DType::F64).unwrap()).collect();
            let first = |t: &[Tensor]| with(t, heads, Activation::Gelu, true, |block| block.of_first(&t[0], batch)).unwrap();
            let (found, composed) = (first(&t), first(&wide));
            assert_eq!((found.dims(), composed.dims()), ([batch, heads * dim].as_slice(), [batch, heads * dim].as_slice()));
            assert!(distance(&doubles(&found), &doubles(&composed)) < 1e-5);
            let all = run(&t, batch, heads, Activation::Gelu, true).unwrap().reshape((batch, tokens, ())).unwrap();
            let among = doubles(&all.narrow(1, 0, 1).unwrap());
            let same = doubles(&found) == among;
            assert!(same || Isa::used() == Isa::Portable);
        }
    }

    #[test]
    fn layers_of_zeros_let_tokens_pass() {
        let mut t = numbers(6, 8, 12);
        for at in [7, 8, 12, 13] {
            t[at] = t[at].zeros_like().unwrap();
        }
        assert_eq!(floats(&run(&t, 2, 2, Activation::Gelu, false).unwrap()), floats(&t[0]));
    }

    #[test]
    fn rows_of_hand_values_are_normed() {
        let mut out = [0.0; 4];
        normed(&mut out, &[1.0, 3.0, 5.0, 5.0], 2, &[2.0, 3.0], &[10.0, 20.0], 0.0);
        assert_eq!(out[..2], [8.0, 23.0]);
        // Nothing varies: the shift is left, by way of 0 / 0 without an epsilon.
        assert!(out[2].is_nan());
        normed(&mut out, &[1.0, 3.0, 5.0, 5.0], 2, &[2.0, 3.0], &[10.0, 20.0], 1e-6);
        assert_eq!(out[2..], [10.0, 20.0]);
    }

    #[test]
    fn what_is_recorded_gets_its_gradient_and_says_the_same() {
        let t = numbers(6, 8, 12);
        let wanted = doubles(&run(&t, 2, 2, Activation::Gelu, true).unwrap());
        for recorded in 0..t.len() {
            let mut t = t.clone();
            let variable = Var::from_tensor(&t[recorded]).unwrap();
            t[recorded] = variable.as_tensor().clone();
            let found = run(&t, 2, 2, Activation::Gelu, true).unwrap();
            assert!(distance(&doubles(&found.detach()), &wanted) < 1e-5);
            let gradients = found.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            assert!(gradients.get(variable.as_tensor()).is_some(), "number {recorded} has no gradient");
        }
    }

    #[test]
    fn any_number_of_threads_and_any_company_give_the_same_bits() {
        let (tokens, width) = (40, 24);
        let t = numbers(7 * tokens, width, 50);
        let bits = |t: &[Tensor], batch: usize, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let out = pool.install(|| floats(&run(t, batch, 3, Activation::Gelu, true).unwrap()));
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let all = bits(&t, 7, 1);
        assert_eq!(all, bits(&t, 7, 3));
        if Isa::used() != Isa::Portable {
            let mut alone = t.clone();
            alone[0] = t[0].narrow(0, 6 * tokens, tokens).unwrap();
            assert_eq!(all[6 * tokens * width..], bits(&alone, 1, 2));
        }
    }

    #[test]
    fn shapes_must_match() {
        let good = numbers(6, 8, 12);
        assert!(run(&good, 2, 2, Activation::Gelu, true).is_ok());
        for (batch, heads) in [(4, 2), (2, 3), (0, 2), (2, 0)] {
            assert!(run(&good, batch, heads, Activation::Gelu, true).is_err(), "{batch} {heads}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = normal("other", &[9, 9]);
            assert!(run(&bad, 2, 2, Activation::Gelu, true).is_err(), "number {at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn blocks_of_any_shape_are_the_composition(
            batch in 1_usize..5, tokens in 1_usize..60, heads in 1_usize..4, dim in 1_usize..20, hidden in 1_usize..80,
            quick: bool, scaled: bool,
        ) {
            let activation = if quick { Activation::QuickGelu } else { Activation::Gelu };
            let off = off([batch, tokens, heads, dim, hidden], activation, scaled);
            prop_assert!(off < 3e-5, "off by {off:e}");
        }
    }
}
