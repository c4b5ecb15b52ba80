//! Patch embedding of a vision transformer: an image becomes tokens, one per patch, after class and register tokens.

#![expect(unsafe_code, reason = "tokens are written without being zeroed first")]

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::accumulate::add_to;
use super::autograd::{read, supported};
use super::buffers::{room, with_scratch, written};
use super::error::KernelError;
use super::linear::linear;
use super::packed_gemm::{PackedMatrix, Start};

/// Patches that are projected at once.
const PIECE: usize = 96;

#[derive(Clone, Copy, Debug)]
pub struct Patches<'a> {
    /// `[D, C, P, P]`
    pub weight: &'a Tensor,
    /// `[D]`
    pub bias: Option<&'a Tensor>,
    /// `[R, D]`: tokens that stand before those of the patches.
    pub before: &'a Tensor,
    /// `[G², D]`: added to the patches', row by row.
    pub positions: &'a Tensor,
}

impl Patches<'_> {
    /// The tokens of images.
    ///
    /// # Shapes
    /// `images`: `[B, C, G·P, G·P]`. Returns `[B·(R + G²), D]`.
    ///
    /// # Paper
    /// Dosovitskiy et al. 2021, "An image is worth 16×16 words", eq. 1.
    pub fn tokens(&self, images: &Tensor) -> Result<Tensor> {
        let shape = self.shape(images)?;
        let all = [Some(images), Some(self.weight), self.bias, Some(self.before), Some(self.positions)];
        let all: Vec<&Tensor> = all.into_iter().flatten().collect();
        if !supported(&all) || all.iter().any(|t| t.track_op()) {
            return self.composed(images, shape);
        }
        let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let bias = self.bias.map_or_else(|| Ok(vec![0.0; shape.width]), values)?;
        let (before, positions) = (values(self.before)?, values(self.positions)?);
        let (images, weight) = (images.contiguous()?, self.weight.contiguous()?);
        let inputs = shape.inputs();
        let packed = read(&weight, |w| PackedMatrix::of_columns(w, inputs, shape.width, inputs))?;
        let out = read(&images, |images| shape.tokens(images, &packed, &bias, &before, &positions))?;
        Tensor::from_vec(out, ((), shape.width), &Device::Cpu)
    }

    fn shape(&self, images: &Tensor) -> Result<Shape> {
        let mut shapes = vec![images.dims().to_vec(), self.weight.dims().to_vec()];
        shapes.extend([self.before.dims().to_vec(), self.positions.dims().to_vec()]);
        let wrong = || KernelError::Shape { op: "patches", shapes }.wrap();
        let (&[batch, channels, height, side], &[width, inputs, patch, other]) = (images.dims(), self.weight.dims()) else {
            return Err(wrong());
        };
        let (&[before, one], &[patches, another]) = (self.before.dims(), self.positions.dims()) else { return Err(wrong()) };
        let fits = channels == inputs
            && patch == other
            && batch * channels * patch * width > 0
            && height == side
            && (one, another) == (width, width)
            && side > 0
            && side.is_multiple_of(patch)
            && patches == (side / patch).pow(2)
            && self.bias.is_none_or(|bias| bias.dims() == [width]);
        if fits { Ok(Shape { batch, channels, patch, grid: side / patch, width, before }) } else { Err(wrong()) }
    }

    /// The same of candle's operations, with gradients.
    fn composed(&self, images: &Tensor, s: Shape) -> Result<Tensor> {
        let cut = images.reshape((s.batch, s.channels, s.grid, s.patch, s.grid, s.patch))?.permute((0, 2, 4, 1, 3, 5))?;
        let cut = cut.reshape((s.batch * s.grid * s.grid, s.inputs()))?;
        let none = self.bias.is_none().then(|| Tensor::zeros(s.width, images.dtype(), images.device())).transpose()?;
        let Some(bias) = self.bias.or(none.as_ref()) else { unreachable!("there is one, or one was made") };
        let patches = linear(&cut, &self.weight.reshape((s.width, s.inputs()))?, bias)?;
        let patches = patches.reshape((s.batch, s.grid * s.grid, s.width))?.broadcast_add(self.positions)?;
        let before = self.before.unsqueeze(0)?.broadcast_as((s.batch, s.before, s.width))?;
        Tensor::cat(&[&before, &patches], 1)?.reshape(((), s.width))
    }
}

#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    channels: usize,
    patch: usize,
    grid: usize,
    width: usize,
    before: usize,
}

impl Shape {
    /// Numbers of a patch.
    fn inputs(&self) -> usize {
        self.channels * self.patch * self.patch
    }

    fn tokens(&self, images: &[f32], packed: &PackedMatrix, bias: &[f32], before: &[f32], positions: &[f32]) -> Vec<f32> {
        let (side, width, inputs) = (self.grid * self.patch, self.width, self.inputs());
        let mut out = room(None, self.batch * (self.before + self.grid * self.grid) * width);
        let one = out.len() / self.batch;
        out.par_chunks_mut(one).zip(images.par_chunks(self.channels * side * side)).for_each(|(out, image)| {
            let (first, out) = out.split_at_mut(before.len());
            first.write_copy_of_slice(before);
            out.par_chunks_mut(PIECE * width).enumerate().for_each(|(piece, out)| {
                for row in out.chunks_exact_mut(width) {
                    row.write_copy_of_slice(bias);
                }
                // SAFETY: all rows were just written.
                let out = unsafe { out.assume_init_mut() };
                let count = out.len() / width;
                with_scratch([count * inputs, 0, 0], |rows, _, _| {
                    for (row, number) in rows.chunks_exact_mut(inputs).zip(piece * PIECE..) {
                        self.cut(image, number, row);
                    }
                    packed.multiply(count, rows, inputs, out, width, Start::There);
                });
                add_to(out, &positions[piece * PIECE * width..]);
            });
        });
        // SAFETY: of each image the tokens before the patches and all pieces of patches were written.
        unsafe { written(out) }
    }

    /// The numbers of a patch: channel, row, column.
    fn cut(&self, image: &[f32], number: usize, row: &mut [f32]) {
        let side = self.grid * self.patch;
        let (down, right) = (number / self.grid * self.patch, number % self.grid * self.patch);
        for (line, to) in row.chunks_exact_mut(self.patch).enumerate() {
            let from = (line / self.patch * side + down + line % self.patch) * side + right;
            to.copy_from_slice(&image[from..][..self.patch]);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::super::check::{distance, doubles, floats, normal};
    use super::*;

    fn parts(batch: usize, grid: usize, patch: usize, width: usize, before: usize) -> [Tensor; 5] {
        [
            normal("images", &[batch, 3, grid * patch, grid * patch]),
            normal("weight", &[width, 3, patch, patch]),
            normal("bias", &[width]),
            normal("before", &[before, width]),
            normal("positions", &[grid * grid, width]),
        ]
    }

    fn tokens([images, weight, bias, before, positions]: &[Tensor; 5], with_bias: bool) -> Result<Tensor> {
        Patches { weight, bias: with_bias.then_some(bias), before, positions }.tokens(images)
    }

    #[test]
    fn tokens_are_those_of_the_composition_in_double_precision() {
        for (batch, grid, patch, width, before) in [(1, 1, 1, 1, 1), (2, 3, 4, 6, 5), (3, 11, 2, 70, 1)] {
            let parts = parts(batch, grid, patch, width, before);
            let wide = parts.clone().map(|t| t.to_dtype(DType::F64).unwrap());
            for with_bias in [true, false] {
                let (found, wanted) = (tokens(&parts, with_bias).unwrap(), tokens(&wide, with_bias).unwrap());
                assert_eq!(found.dims(), [batch * (before + grid * grid), width]);
                assert_eq!(wanted.dims(), found.dims());
                assert!(distance(&doubles(&found), &doubles(&wanted)) < 1e-6);
            }
        }
    }

    #[test]
    fn hand_values() {
        let of = |numbers: Vec<f32>, shape: &[usize]| Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
        // Two by two patches of one pixel: twice the pixel, plus a tenth, plus the position.
        let images = of(vec![1.0, 2.0, 3.0, 4.0], &[1, 1, 2, 2]);
        let (weight, bias) = (of(vec![2.0], &[1, 1, 1, 1]), of(vec![0.5], &[1]));
        let (before, positions) = (of(vec![7.0, 8.0], &[2, 1]), of(vec![10.0, 20.0, 30.0, 40.0], &[4, 1]));
        let patches = Patches { weight: &weight, bias: Some(&bias), before: &before, positions: &positions };
        assert_eq!(floats(&patches.tokens(&images).unwrap()), [7.0, 8.0, 12.5, 24.5, 36.5, 48.5]);
    }

    #[test]
    fn what_is_recorded_gets_its_gradient_and_says_the_same() {
        let parts = parts(2, 3, 4, 6, 2);
        let wanted = doubles(&tokens(&parts, true).unwrap());
        for recorded in 0..5 {
            let mut parts = parts.clone();
            let variable = Var::from_tensor(&parts[recorded]).unwrap();
            parts[recorded] = variable.as_tensor().clone();
            let found = tokens(&parts, true).unwrap();
            assert!(distance(&doubles(&found.detach()), &wanted) < 1e-5);
            let gradients = found.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            assert!(gradients.get(variable.as_tensor()).is_some(), "number {recorded} has no gradient");
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let parts = parts(3, 11, 2, 70, 1);
        let bits = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| floats(&tokens(&parts, true).unwrap()).into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        assert_eq!(bits(1), bits(3));
    }

    #[test]
    fn shapes_must_match() {
        let good = parts(1, 2, 3, 4, 1);
        assert!(tokens(&good, true).is_ok());
        let bad = [[1, 3, 6, 7].as_slice(), &[4, 2, 3, 3], &[5], &[1, 5], &[3, 4]];
        for (which, dims) in bad.into_iter().enumerate() {
            let mut parts = good.clone();
            parts[which] = normal("other", dims);
            assert!(tokens(&parts, true).is_err(), "number {which}");
        }
    }
}
