//! A network that came as a graph: its operators one after the other, as ONNX specifies them.
//!
//! Pictures pass in small groups, side by side on all threads; a group is computed the same whatever threads there are. Nothing here
//! learns: weights are buffers, and no gradient reaches them. Whole numbers (shapes, axes, indices) are tensors of `i64` on the CPU.
//!
//! # Source
//! ONNX, "Operator schemas" (`docs/Operators.md`), operator set 17; `Gelu` of set 20.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::{sigmoid, softmax, softmax_last_dim};
use rayon::prelude::*;

use super::error::{ModelError, Result};
use super::init::Init;
use super::params::Builder;
use super::positions::keys;
use kinset_artifact::graph::{Graph, Node};
use kinset_kernel::{After, LayerNorm, batch_norm_eval, clip, conv2d, depthwise_conv2d, gelu, max_pool2d, relu, scale_shift};

/// Pictures that pass together.
const GROUP: usize = 4;
/// The largest tensor that is made, in numbers: what a damaged graph may ask for.
const LARGEST: usize = 1 << 29;

/// A graph, ready to run.
#[derive(Clone, Debug)]
pub(super) struct GraphNet {
    graph: Arc<Graph>,
    /// Weights and whole numbers, by name.
    constants: Arc<BTreeMap<String, Tensor>>,
    /// Of each operator, what nobody needs after it.
    done: Arc<Vec<Vec<String>>>,
}

/// What an operator could not do, in words, or what the tensor library said.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stuck {
    #[error("{0}")]
    Words(String),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

type Step<T> = std::result::Result<T, Stuck>;

fn stuck<T>(words: impl Into<String>) -> Step<T> {
    Err(Stuck::Words(words.into()))
}

impl GraphNet {
    pub(super) fn build(b: &mut Builder, graph: &Graph) -> Result<Self> {
        let mut constants = BTreeMap::new();
        for (name, shape) in &graph.weights {
            constants.insert(name.clone(), b.buffer(name, shape, Init::Zeros)?.as_detached_tensor());
        }
        for (name, whole) in &graph.whole {
            let tensor = Tensor::from_slice(&whole.values, whole.shape.as_slice(), &Device::Cpu)?;
            constants.insert(name.clone(), tensor);
        }
        Ok(Self::over(graph.clone(), constants))
    }

    /// A graph and its numbers.
    pub(super) fn over(graph: Graph, constants: BTreeMap<String, Tensor>) -> Self {
        let mut done = vec![Vec::new(); graph.nodes.len()];
        let mut seen = std::collections::BTreeSet::from([graph.output.as_str()]);
        for (node, done) in graph.nodes.iter().zip(&mut done).rev() {
            let last = node.inputs.iter().chain(&node.outputs).filter(|name| seen.insert(name));
            *done = last.cloned().collect();
        }
        Self { graph: Arc::new(graph), constants: Arc::new(constants), done: Arc::new(done) }
    }

    /// # Shapes
    /// `images`: `[B, C, S, S]`. Returns what the graph makes of them, B of it.
    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let batch = images.dim(0)?;
        let group = if self.graph.alone { 1 } else { GROUP };
        let starts: Vec<usize> = (0..batch).step_by(group).collect();
        let run = |&start: &usize| self.group(&images.narrow(0, start, group.min(batch - start))?.contiguous()?);
        let parts = if images.device().is_cpu() {
            starts.par_iter().map(run).collect::<Result<Vec<_>>>()?
        } else {
            starts.iter().map(run).collect::<Result<Vec<_>>>()?
        };
        Ok(Tensor::cat(&parts, 0)?)
    }

    fn group(&self, images: &Tensor) -> Result<Tensor> {
        let mut made: BTreeMap<&str, Tensor> = BTreeMap::from([(self.graph.input.as_str(), images.clone())]);
        for (node, done) in self.graph.nodes.iter().zip(self.done.iter()) {
            let failed = |what: String| ModelError::Operator { operator: node.operator.clone(), name: first(node), what };
            let of = |name: &String| made.get(name.as_str()).or_else(|| self.constants.get(name));
            if let Some(missing) = node.inputs.iter().find(|name| !name.is_empty() && of(name).is_none()) {
                return Err(failed(format!("its input `{missing}` is made nowhere")));
            }
            let inputs: Vec<Option<&Tensor>> = node.inputs.iter().map(of).collect();
            let outputs = operator(node, &Inputs(&inputs), images.device()).map_err(|why| failed(why.to_string()))?;
            for (name, output) in node.outputs.iter().zip(outputs) {
                made.insert(name, output);
            }
            for name in done {
                made.remove(name.as_str());
            }
        }
        let output = made.remove(self.graph.output.as_str()).or_else(|| self.constants.get(&self.graph.output).cloned());
        output.ok_or_else(|| ModelError::Input { wanted: format!("an output `{}`", self.graph.output), found: Vec::new() })
    }
}

fn first(node: &Node) -> String {
    node.outputs.first().cloned().unwrap_or_default()
}

/// What an operator reads; inputs may be left out.
pub(super) struct Inputs<'a>(pub(super) &'a [Option<&'a Tensor>]);

impl<'a> Inputs<'a> {
    fn get(&self, place: usize) -> Option<&'a Tensor> {
        self.0.get(place).copied().flatten()
    }

    fn at(&self, place: usize) -> Step<&'a Tensor> {
        self.get(place).map_or_else(|| stuck(format!("it lacks input {place}")), Ok)
    }

    /// Whole numbers, if they are there.
    fn whole(&self, place: usize) -> Step<Option<Vec<i64>>> {
        match self.get(place) {
            Some(x) if x.dtype() == DType::I64 => Ok(Some(x.flatten_all()?.to_vec1()?)),
            Some(_) => stuck(format!("input {place} has no whole numbers")),
            None => Ok(None),
        }
    }

    fn scalar(&self, place: usize) -> Step<Option<f32>> {
        match self.get(place) {
            Some(x) if x.elem_count() == 1 => Ok(Some(x.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?[0])),
            Some(_) => stuck(format!("input {place} is not one number")),
            None => Ok(None),
        }
    }
}

/// What operator makes of its inputs.
pub(super) fn operator(node: &Node, inputs: &Inputs<'_>, device: &Device) -> Step<Vec<Tensor>> {
    let x = || inputs.at(0);
    let one = match node.operator.as_str() {
        "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Equal" | "Less" | "Greater" | "And" | "Or" => {
            pair(&node.operator, x()?, inputs.at(1)?)?
        }
        "Pow" => power(x()?, inputs)?,
        "Identity" | "Dropout" => x()?.clone(),
        "Relu" => relu(x()?)?,
        "Gelu" if node.text("approximate").is_none_or(|how| how == "none") => gelu(x()?)?,
        "Gelu" => x()?.gelu()?,
        "Sigmoid" => sigmoid(x()?)?,
        "HardSigmoid" => {
            clip(&x()?.affine(node.float("alpha").unwrap_or(0.2).into(), node.float("beta").unwrap_or(0.5).into())?, 0.0, 1.0)?
        }
        "HardSwish" => (x()? * clip(&x()?.affine(1.0 / 6.0, 0.5)?, 0.0, 1.0)?)?,
        "LeakyRelu" => {
            let below = (x()?.minimum(0.0)? * f64::from(node.float("alpha").unwrap_or(0.01)))?;
            (x()?.relu()? + below)?
        }
        "Clip" => {
            let (low, high) = (inputs.scalar(1)?.unwrap_or(f32::MIN), inputs.scalar(2)?.unwrap_or(f32::MAX));
            clip(x()?, low, high)?
        }
        "Tanh" => x()?.tanh()?,
        "Erf" => x()?.erf()?,
        "Exp" => x()?.exp()?,
        "Log" => x()?.log()?,
        "Sqrt" => x()?.sqrt()?,
        "Reciprocal" => x()?.recip()?,
        "Neg" => x()?.neg()?,
        "Abs" => x()?.abs()?,
        "Floor" => x()?.floor()?,
        "Ceil" => x()?.ceil()?,
        "Sin" => x()?.sin()?,
        "Cos" => x()?.cos()?,
        "Not" => x()?.eq(0_i64)?.to_dtype(DType::I64)?,
        "Cast" => cast(x()?, node.int("to").unwrap_or(1), device)?,
        "MatMul" => product(x()?, inputs.at(1)?)?,
        "Gemm" => gemm(node, inputs)?,
        "Conv" => convolution(node, inputs)?,
        "BatchNormalization" => batch_norm(node, inputs)?,
        "LayerNormalization" => layer_norm(node, inputs)?,
        "Softmax" => {
            let axis = axis(node.int("axis").unwrap_or(-1), x()?.rank())?;
            if axis + 1 == x()?.rank() { softmax_last_dim(&x()?.contiguous()?)? } else { softmax(x()?, axis)? }
        }
        "MaxPool" | "AveragePool" => pool(node, x()?)?,
        "GlobalAveragePool" => spatial(x()?)?.mean_keepdim((2, 3))?,
        "GlobalMaxPool" => spatial(x()?)?.max_keepdim(3)?.max_keepdim(2)?,
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceL2" | "ReduceProd" => reduce(node, x()?)?,
        "Shape" => {
            let sides: Vec<i64> = x()?.dims().iter().map(|&side| side as i64).collect();
            let (start, end) = (node.int("start").unwrap_or(0), node.int("end").unwrap_or(i64::MAX));
            let [start, end] = [start, end].map(|at| bound(at, sides.len()));
            whole(&sides[start..end.max(start)])?
        }
        "Reshape" => reshape(x()?, &inputs.whole(1)?.unwrap_or_default())?,
        "Flatten" => {
            let at = bound(node.int("axis").unwrap_or(1), x()?.rank());
            let left: usize = x()?.dims()[..at].iter().product();
            x()?.reshape((left, ()))?
        }
        "Transpose" => {
            let rank = x()?.rank();
            let order = match node.ints("perm") {
                Some(perm) => perm.iter().map(|&at| axis(at, rank)).collect::<Step<Vec<_>>>()?,
                None => (0..rank).rev().collect(),
            };
            x()?.permute(order)?.contiguous()?
        }
        "Unsqueeze" => {
            let axes = inputs.whole(1)?.unwrap_or_default();
            let rank = x()?.rank() + axes.len();
            let mut axes = axes.iter().map(|&at| axis(at, rank)).collect::<Step<Vec<_>>>()?;
            axes.sort_unstable();
            axes.into_iter().try_fold(x()?.clone(), |x, axis| x.unsqueeze(axis))?
        }
        "Squeeze" => {
            let rank = x()?.rank();
            let mut axes = match inputs.whole(1)? {
                Some(axes) => axes.iter().map(|&at| axis(at, rank)).collect::<Step<Vec<_>>>()?,
                None => (0..rank).filter(|&axis| x().is_ok_and(|x| x.dims()[axis] == 1)).collect(),
            };
            axes.sort_unstable();
            axes.into_iter().rev().try_fold(x()?.clone(), |x, axis| x.squeeze(axis))?
        }
        "Concat" => {
            let all = (0..node.inputs.len()).map(|place| inputs.at(place)).collect::<Step<Vec<_>>>()?;
            Tensor::cat(&all, axis(node.int("axis").unwrap_or(0), x()?.rank())?)?
        }
        "Slice" => slice(x()?, inputs)?,
        "Split" => return split(node, x()?, inputs),
        "Gather" => gather(node, x()?, inputs.at(1)?)?,
        "Expand" => {
            let to = sides(&inputs.whole(1)?.unwrap_or_default())?;
            let both = x()?.shape().broadcast_shape_binary_op(&to.as_slice().into(), "expand")?;
            small(both.elem_count())?;
            x()?.broadcast_as(both)?.contiguous()?
        }
        "ConstantOfShape" => {
            let to = sides(&inputs.whole(0)?.unwrap_or_default())?;
            small(to.iter().product())?;
            match node.int("value") {
                Some(value) => Tensor::full(value, to, &Device::Cpu)?,
                None => Tensor::full(node.float("value").unwrap_or(0.0), to, device)?,
            }
        }
        "Range" => match [inputs.whole(0)?, inputs.whole(1)?, inputs.whole(2)?] {
            [Some(from), Some(to), Some(step)]
                if step.first().is_some_and(|&step| step > 0) && from.len() == 1 && to.len() == 1 =>
            {
                let (from, to, step) = (from[0], to[0], step[0]);
                small((to.saturating_sub(from).max(0) / step) as usize)?;
                whole(&(from..to).step_by(step as usize).collect::<Vec<_>>())?
            }
            _ => return stuck("it counts up by whole numbers alone"),
        },
        "Where" => {
            let (condition, a, b) = (x()?, inputs.at(1)?, inputs.at(2)?);
            let shape = a.shape().broadcast_shape_binary_op(b.shape(), "where")?;
            let shape = condition.shape().broadcast_shape_binary_op(&shape, "where")?;
            let condition = condition.ne(0_i64)?.to_device(a.device())?.broadcast_as(&shape)?;
            condition.where_cond(&a.broadcast_as(&shape)?, &b.broadcast_as(&shape)?)?
        }
        "Pad" => pad(node, x()?, inputs)?,
        "Resize" => resize(node, x()?, inputs)?,
        _ => return stuck("kinset does not have it"),
    };
    Ok(vec![one])
}

/// Places of an axis counted from the front or, below 0, from the end.
fn axis(at: i64, rank: usize) -> Step<usize> {
    let counted = if at < 0 { at + rank as i64 } else { at };
    if (0..rank as i64).contains(&counted) { Ok(counted as usize) } else { stuck(format!("there is no axis {at} of {rank}")) }
}

/// A place in a row of so many, negative ones from the end, cut to the row.
fn bound(at: i64, count: usize) -> usize {
    let at = if at < 0 { at.saturating_add(count as i64) } else { at };
    at.clamp(0, count as i64) as usize
}

fn sides(list: &[i64]) -> Step<Vec<usize>> {
    list.iter().map(|&side| usize::try_from(side).or_else(|_| stuck(format!("a side of {side}")))).collect()
}

/// Refuses what would take all memory.
fn small(count: usize) -> Step<()> {
    if count <= LARGEST { Ok(()) } else { stuck(format!("it would make {count} numbers")) }
}

fn whole(values: &[i64]) -> Step<Tensor> {
    Ok(Tensor::from_slice(values, values.len(), &Device::Cpu)?)
}

fn spatial(x: &Tensor) -> Step<&Tensor> {
    if x.rank() == 4 { Ok(x) } else { stuck(format!("it takes maps `[B, C, H, W]`, not {:?}", x.dims())) }
}

fn pair(operator: &str, a: &Tensor, b: &Tensor) -> Step<Tensor> {
    if a.dtype() != b.dtype() {
        return stuck("its inputs are whole numbers and others");
    }
    let same = a.dims() == b.dims();
    small(a.shape().broadcast_shape_binary_op(b.shape(), "pair")?.elem_count())?;
    if operator == "Div" && b.dtype() == DType::I64 && b.flatten_all()?.to_vec1::<i64>()?.contains(&0) {
        return stuck("it divides by 0");
    }
    let yes = |found: candle_core::Result<Tensor>| found?.to_dtype(DType::I64)?.to_device(&Device::Cpu);
    Ok(match operator {
        "Add" if same => a.add(b),
        "Add" => a.broadcast_add(b),
        "Sub" => a.broadcast_sub(b),
        "Mul" if same => a.mul(b),
        // Truths are 0 and 1.
        "Mul" | "And" => a.broadcast_mul(b),
        "Div" => a.broadcast_div(b),
        "Max" | "Or" => a.broadcast_maximum(b),
        "Min" => a.broadcast_minimum(b),
        "Equal" => yes(a.broadcast_eq(b)),
        "Less" => yes(a.broadcast_lt(b)),
        _ => yes(a.broadcast_gt(b)),
    }?)
}

fn power(x: &Tensor, inputs: &Inputs<'_>) -> Step<Tensor> {
    let Some(exponent) = inputs.scalar(1)? else { return stuck("it lacks its exponent") };
    let x = x.to_dtype(DType::F32)?;
    Ok(if exponent.to_bits() == 2.0_f32.to_bits() { x.sqr()? } else { x.powf(exponent.into())? })
}

/// The codes of `TensorProto.DataType`: floating numbers of every width are `f32` here, whole ones and truths `i64`.
fn cast(x: &Tensor, to: i64, device: &Device) -> Step<Tensor> {
    match to {
        1 | 10 | 11 | 16 => Ok(x.to_dtype(DType::F32)?.to_device(device)?),
        // Truth of a number is whether it is 0, and not its whole part.
        9 if x.dtype() == DType::F32 => Ok(x.ne(0_f32)?.to_dtype(DType::I64)?.to_device(&Device::Cpu)?),
        2..=7 | 9 | 12 | 13 => Ok(x.to_dtype(DType::I64)?.to_device(&Device::Cpu)?),
        _ => stuck(format!("there is no type {to} here")),
    }
}

fn product(a: &Tensor, b: &Tensor) -> Step<Tensor> {
    if a.rank() > 2 && b.rank() == 2 {
        let (inputs, outputs) = b.dims2()?;
        let mut shape = a.dims().to_vec();
        if shape.pop() != Some(inputs) {
            return stuck(format!("{:?} times {:?}", a.dims(), b.dims()));
        }
        shape.push(outputs);
        return Ok(a.reshape(((), inputs))?.matmul(&b.contiguous()?)?.reshape(shape)?);
    }
    let (outer, columns) = (a.dims().len().max(b.dims().len()), b.dim(D::Minus1)?);
    let side = |x: &Tensor, at: usize| x.dims().iter().rev().nth(at).copied().unwrap_or(1);
    small((2..outer).map(|at| side(a, at).max(side(b, at))).product::<usize>().saturating_mul(side(a, 1) * columns))?;
    Ok(a.contiguous()?.broadcast_matmul(&b.contiguous()?)?)
}

fn gemm(node: &Node, inputs: &Inputs<'_>) -> Step<Tensor> {
    let of = |place: usize, flag: &str| -> Step<Tensor> {
        let x = inputs.at(place)?;
        Ok(if node.int(flag).unwrap_or(0) == 0 { x.contiguous()? } else { x.t()?.contiguous()? })
    };
    let mut y = of(0, "transA")?.matmul(&of(1, "transB")?)?;
    if let Some(alpha) = node.float("alpha").filter(|alpha| alpha.to_bits() != 1.0_f32.to_bits()) {
        y = (y * f64::from(alpha))?;
    }
    match inputs.get(2) {
        None => Ok(y),
        Some(bias) => Ok(y.broadcast_add(&(bias * f64::from(node.float("beta").unwrap_or(1.0)))?)?),
    }
}

/// Numbers of rows and columns that a window begins outside: top, left, bottom, right.
fn padding(node: &Node, [height, width]: [usize; 2], kernel: [usize; 2], stride: usize) -> Step<[usize; 4]> {
    match node.text("auto_pad").unwrap_or("NOTSET") {
        "NOTSET" => {}
        "VALID" => return Ok([0; 4]),
        how @ ("SAME_UPPER" | "SAME_LOWER") => {
            let all = [0, 1].map(|at| {
                let side = [height, width][at];
                (side.div_ceil(stride) * stride + kernel[at]).saturating_sub(stride).saturating_sub(side)
            });
            let [before, after] = if how == "SAME_UPPER" {
                [all.map(|n| n / 2), all.map(|n| n.div_ceil(2))]
            } else {
                [all.map(|n| n.div_ceil(2)), all.map(|n| n / 2)]
            };
            return Ok([before[0], before[1], after[0], after[1]]);
        }
        other => return stuck(format!("there is no padding `{other}`")),
    }
    match node.ints("pads") {
        None => Ok([0; 4]),
        Some(pads) => {
            let pads = sides(pads)?;
            <[usize; 4]>::try_from(pads).or_else(|pads| stuck(format!("it pads {} sides, and maps have 4", pads.len())))
        }
    }
}

/// The one number that both axes have.
fn both(node: &Node, name: &str) -> Step<usize> {
    match node.ints(name) {
        None => Ok(1),
        Some(&[a, b]) if a == b && a > 0 => Ok(a as usize),
        Some(other) => stuck(format!("`{name}` is {other:?}, and both must be one number above 0")),
    }
}

fn padded(x: &Tensor, [top, left, bottom, right]: [usize; 4]) -> Step<Tensor> {
    if top + left + bottom + right == 0 {
        return Ok(x.clone());
    }
    Ok(x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?.contiguous()?)
}

fn convolution(node: &Node, inputs: &Inputs<'_>) -> Step<Tensor> {
    let (x, w) = (spatial(inputs.at(0)?)?, spatial(inputs.at(1)?)?);
    let (_, channels, height, width) = x.dims4()?;
    let (outputs, each, kernel, across) = w.dims4()?;
    let (stride, dilation) = (both(node, "strides")?, both(node, "dilations")?);
    let groups = node.int("group").unwrap_or(1).max(1) as usize;
    if each * groups != channels || !outputs.is_multiple_of(groups) {
        return stuck(format!("weights {:?} in {groups} groups do not fit maps {:?}", w.dims(), x.dims()));
    }
    let window = [kernel, across].map(|side| side.saturating_sub(1) * dilation + 1);
    let pads = padding(node, [height, width], window, stride)?;
    small(x.elem_count() / (height * width).max(1) * (height + pads[0] + pads[2]) * (width + pads[1] + pads[3]))?;
    if height + pads[0] + pads[2] < window[0] || width + pads[1] + pads[3] < window[1] {
        return stuck(format!("its window {window:?} is larger than maps {:?}", x.dims()));
    }
    let even = pads.iter().all(|&pad| pad == pads[0]);
    let y = if groups == 1 && kernel == across && dilation == 1 && even {
        conv2d(x, w, stride, pads[0])?
    } else if groups == channels && each == 1 && outputs == channels && kernel == across && dilation == 1 {
        depthwise_conv2d(&padded(x, pads)?, w, stride)?
    } else {
        let (padding, x) = if even { (pads[0], x.clone()) } else { (0, padded(x, pads)?) };
        if groups == 1 && kernel == across && dilation == 1 {
            conv2d(&x, w, stride, padding)?
        } else {
            x.conv2d(w, padding, stride, dilation, groups)?
        }
    };
    match inputs.get(2) {
        None => Ok(y),
        Some(bias) => Ok(scale_shift(&y, &bias.ones_like()?, bias, After::Nothing)?),
    }
}

fn batch_norm(node: &Node, inputs: &Inputs<'_>) -> Step<Tensor> {
    let x = inputs.at(0)?;
    let [scale, bias, mean, variance] = [inputs.at(1)?, inputs.at(2)?, inputs.at(3)?, inputs.at(4)?];
    let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
    if x.rank() == 4 {
        return Ok(batch_norm_eval(x, scale, bias, mean, variance, epsilon, After::Nothing)?);
    }
    if x.rank() != 2 {
        return stuck(format!("it takes maps or rows, not {:?}", x.dims()));
    }
    let root = (variance + epsilon)?.sqrt()?;
    Ok(x.broadcast_sub(mean)?.broadcast_div(&root)?.broadcast_mul(scale)?.broadcast_add(bias)?)
}

fn layer_norm(node: &Node, inputs: &Inputs<'_>) -> Step<Tensor> {
    let (x, weight) = (inputs.at(0)?, inputs.at(1)?);
    if axis(node.int("axis").unwrap_or(-1), x.rank())? + 1 != x.rank() || weight.dims() != [x.dim(D::Minus1)?] {
        return stuck("it goes over the last axis alone");
    }
    let none = weight.zeros_like()?;
    let bias = inputs.get(2).unwrap_or(&none);
    Ok(LayerNorm { weight, bias, epsilon: node.float("epsilon").unwrap_or(1e-5) }.of(&x.contiguous()?)?)
}

fn pool(node: &Node, x: &Tensor) -> Step<Tensor> {
    let (_, _, height, width) = spatial(x)?.dims4()?;
    let (kernel, stride) = (both(node, "kernel_shape")?, both(node, "strides")?);
    let mut pads = padding(node, [height, width], [kernel; 2], stride)?;
    if both(node, "dilations")? != 1 {
        return stuck("its windows have holes");
    }
    if node.int("ceil_mode").unwrap_or(0) != 0 {
        for (pad, side, before) in [(2, height, 0), (3, width, 1)] {
            let rest = (side + pads[before] + pads[pad]).saturating_sub(kernel) % stride;
            if rest != 0 {
                return stuck("its last window reaches beyond the padding (`ceil_mode`)");
            }
        }
    }
    let even = pads.iter().all(|&pad| pad == pads[0]);
    if node.operator == "MaxPool" && even {
        return Ok(max_pool2d(x, kernel, stride, pads[0])?);
    }
    let fill = if node.operator == "MaxPool" { f64::from(f32::MIN) } else { 0.0 };
    let all = around(x, pads, fill)?;
    if node.operator == "MaxPool" {
        return Ok(max_pool2d(&all, kernel, stride, 0)?);
    }
    let mean = all.avg_pool2d_with_stride(kernel, stride)?;
    if node.int("count_include_pad").unwrap_or(0) != 0 {
        pads = [0; 4];
    }
    if pads == [0; 4] {
        return Ok(mean);
    }
    // A window is divided by the pixels that it has.
    let ones = Tensor::ones((1, 1, height, width), x.dtype(), x.device())?;
    Ok(mean.broadcast_div(&around(&ones, pads, 0.0)?.avg_pool2d_with_stride(kernel, stride)?)?)
}

/// Maps with a border of one number.
fn around(x: &Tensor, pads: [usize; 4], fill: f64) -> Step<Tensor> {
    if fill == 0.0 {
        return padded(x, pads);
    }
    let [top, left, bottom, right] = pads;
    let beside = |x: Tensor, axis: usize, before: usize, after: usize| -> Step<Tensor> {
        let of = |side: usize| {
            let mut dims = x.dims().to_vec();
            dims[axis] = side;
            Tensor::full(fill as f32, dims, x.device())
        };
        let mut parts = vec![x.clone()];
        if before > 0 {
            parts.insert(0, of(before)?);
        }
        if after > 0 {
            parts.push(of(after)?);
        }
        Ok(Tensor::cat(&parts, axis)?)
    };
    beside(beside(x.clone(), 2, top, bottom)?, 3, left, right)
}

fn reduce(node: &Node, x: &Tensor) -> Step<Tensor> {
    let rank = x.rank();
    let mut axes = match node.ints("axes") {
        Some(axes) => axes.iter().map(|&at| axis(at, rank)).collect::<Step<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    axes.sort_unstable();
    axes.dedup();
    let y = match node.operator.as_str() {
        "ReduceMean" => x.mean_keepdim(axes.as_slice())?,
        "ReduceSum" => x.sum_keepdim(axes.as_slice())?,
        "ReduceL2" => x.sqr()?.sum_keepdim(axes.as_slice())?.sqrt()?,
        "ReduceMax" => axes.iter().try_fold(x.clone(), |x, &axis| x.max_keepdim(axis))?,
        "ReduceMin" => axes.iter().try_fold(x.clone(), |x, &axis| x.min_keepdim(axis))?,
        _ if x.dtype() == DType::I64 && axes.len() == rank => {
            let all: i64 = x.flatten_all()?.to_vec1::<i64>()?.iter().fold(1, |all, &value| all.saturating_mul(value));
            Tensor::full(all, vec![1; rank], &Device::Cpu)?
        }
        _ => return stuck("it multiplies whole numbers alone"),
    };
    if node.int("keepdims").unwrap_or(1) != 0 {
        return Ok(y);
    }
    Ok(axes.into_iter().rev().try_fold(y, |y, axis| y.squeeze(axis))?)
}

fn reshape(x: &Tensor, to: &[i64]) -> Step<Tensor> {
    let mut shape = Vec::with_capacity(to.len());
    for (at, &side) in to.iter().enumerate() {
        shape.push(match side {
            0 => x.dims().get(at).copied().unwrap_or(0),
            -1 => 0,
            side => *sides(&[side])?.first().unwrap_or(&0),
        });
    }
    if let Some(open) = to.iter().position(|&side| side == -1) {
        let rest: usize = shape.iter().enumerate().filter(|(at, _)| *at != open).map(|(_, side)| side).product();
        if rest == 0 || !x.elem_count().is_multiple_of(rest) {
            return stuck(format!("{:?} does not become {to:?}", x.dims()));
        }
        shape[open] = x.elem_count() / rest;
    }
    Ok(x.reshape(shape)?)
}

fn slice(x: &Tensor, inputs: &Inputs<'_>) -> Step<Tensor> {
    let (Some(starts), Some(ends)) = (inputs.whole(1)?, inputs.whole(2)?) else { return stuck("it lacks its bounds") };
    let axes = inputs.whole(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = inputs.whole(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return stuck("its bounds are of different lengths");
    }
    let mut y = x.clone();
    for (((&start, &end), &at), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let axis = axis(at, y.rank())?;
        let side = y.dims()[axis];
        let rows: Vec<i64> = match step {
            1.. => (bound(start, side) as i64..bound(end, side) as i64).step_by(step as usize).collect(),
            -1 => {
                let first = if start < 0 { start + side as i64 } else { start.min(side as i64 - 1) };
                let last = if end < -(side as i64) {
                    -1
                } else if end < 0 {
                    end + side as i64
                } else {
                    end
                };
                (last.max(-1) + 1..=first).rev().collect()
            }
            _ => return stuck(format!("it steps by {step}")),
        };
        y = match rows.as_slice() {
            [first, ..] if step == 1 => y.narrow(axis, *first as usize, rows.len())?,
            _ => y.contiguous()?.index_select(&whole(&rows)?.to_device(y.device())?, axis)?,
        };
    }
    Ok(y.contiguous()?)
}

fn split(node: &Node, x: &Tensor, inputs: &Inputs<'_>) -> Step<Vec<Tensor>> {
    let axis = axis(node.int("axis").unwrap_or(0), x.rank())?;
    let side = x.dims()[axis];
    let parts = if let Some(parts) = inputs.whole(1)? {
        sides(&parts)?
    } else {
        let each = side.div_ceil(node.outputs.len().max(1)).max(1);
        (0..side).step_by(each).map(|at| each.min(side - at)).collect()
    };
    if parts.iter().sum::<usize>() != side || parts.len() != node.outputs.len() {
        return stuck(format!("{side} are not split into {parts:?}"));
    }
    let mut at = 0;
    let mut all = Vec::with_capacity(parts.len());
    for part in parts {
        all.push(x.narrow(axis, at, part)?.contiguous()?);
        at += part;
    }
    Ok(all)
}

fn gather(node: &Node, x: &Tensor, indices: &Tensor) -> Step<Tensor> {
    let axis = axis(node.int("axis").unwrap_or(0), x.rank())?;
    let side = x.dims()[axis] as i64;
    if indices.dtype() != DType::I64 {
        return stuck("its indices are no whole numbers");
    }
    let mut rows = indices.flatten_all()?.to_vec1::<i64>()?;
    for row in &mut rows {
        *row += if *row < 0 { side } else { 0 };
        if !(0..side).contains(row) {
            return stuck(format!("there is no row {row} of {side}"));
        }
    }
    let found = x.contiguous()?.index_select(&whole(&rows)?.to_device(x.device())?, axis)?;
    let shape = [&x.dims()[..axis], indices.dims(), &x.dims()[axis + 1..]].concat();
    Ok(found.reshape(shape)?)
}

fn pad(node: &Node, x: &Tensor, inputs: &Inputs<'_>) -> Step<Tensor> {
    let pads = sides(&inputs.whole(1)?.unwrap_or_default())?;
    let how = node.text("mode").unwrap_or("constant");
    let fill = inputs.scalar(2)?.unwrap_or(0.0);
    if how != "constant" || fill != 0.0 || pads.len() != 2 * x.rank() {
        return stuck(format!("it pads with zeros alone, not `{how}` with {fill}"));
    }
    let grown = x.dims().iter().enumerate().map(|(axis, side)| side + pads[axis] + pads[x.rank() + axis]);
    small(grown.fold(1_usize, usize::saturating_mul))?;
    Ok((0..x.rank()).try_fold(x.clone(), |x, axis| x.pad_with_zeros(axis, pads[axis], pads[x.rank() + axis]))?)
}

/// Interpolation along rows and columns: a matrix for each.
fn resize(node: &Node, x: &Tensor, inputs: &Inputs<'_>) -> Step<Tensor> {
    let (batch, channels, height, width) = spatial(x)?.dims4()?;
    let to = if let Some(to) = inputs.whole(3)? {
        sides(&to)?
    } else {
        let Some(scales) = inputs.get(2) else { return stuck("it lacks sizes and scales") };
        let scales = scales.flatten_all()?.to_vec1::<f32>()?;
        x.dims().iter().zip(scales).map(|(&side, scale)| (side as f32 * scale).floor() as usize).collect()
    };
    if to.len() != 4 || to[..2] != [batch, channels] || to[2] * to[3] == 0 || height * width == 0 {
        return stuck(format!("{:?} is not brought to {to:?}", x.dims()));
    }
    small(to.iter().product())?;
    let matrix = |from: usize, to: usize| -> Step<Tensor> {
        Ok(Tensor::from_vec(interpolation(node, from, to)?, (to, from), x.device())?)
    };
    let (rows, columns) = (matrix(height, to[2])?, matrix(width, to[3])?.t()?.contiguous()?);
    let wide = x.reshape((batch * channels * height, width))?.matmul(&columns)?;
    let wide = wide.reshape((batch * channels, height, to[3]))?;
    Ok(rows.broadcast_matmul(&wide)?.reshape(to)?)
}

/// Weights that make `to` numbers of `from`, `[to, from]`.
fn interpolation(node: &Node, from: usize, to: usize) -> Step<Vec<f32>> {
    let (mode, places) =
        (node.text("mode").unwrap_or("nearest"), node.text("coordinate_transformation_mode").unwrap_or("half_pixel"));
    if node.int("antialias").unwrap_or(0) != 0 || node.int("exclude_outside").unwrap_or(0) != 0 {
        return stuck("`antialias` and `exclude_outside` are not here");
    }
    let scale = from as f64 / to as f64;
    let a = f64::from(node.float("cubic_coeff_a").unwrap_or(-0.75));
    let mut all = vec![0.0; from * to];
    for (place, row) in all.chunks_exact_mut(from).enumerate() {
        let place = place as f64;
        let centre = match places {
            "pytorch_half_pixel" | "align_corners" if to == 1 => 0.0,
            "half_pixel" | "pytorch_half_pixel" => scale * (place + 0.5) - 0.5,
            "asymmetric" => scale * place,
            "align_corners" => place * (from - 1) as f64 / (to - 1) as f64,
            other => return stuck(format!("places `{other}` are not here")),
        };
        // Beyond the border stands what is at the border.
        let at = |x: f64| x.clamp(0.0, (from - 1) as f64) as usize;
        let before = centre.floor();
        match mode {
            "nearest" => match node.text("nearest_mode").unwrap_or("round_prefer_floor") {
                "floor" => row[at(before)] = 1.0,
                "ceil" => row[at(centre.ceil())] = 1.0,
                "round_prefer_floor" => row[at((centre - 0.5).ceil())] = 1.0,
                _ => row[at((centre + 0.5).floor())] = 1.0,
            },
            "linear" => {
                row[at(before)] += (1.0 - (centre - before)) as f32;
                row[at(before + 1.0)] += (centre - before) as f32;
            }
            "cubic" => {
                for step in [-1.0, 0.0, 1.0, 2.0] {
                    row[at(before + step)] += keys(a, before + step - centre) as f32;
                }
            }
            other => return stuck(format!("there is no interpolation `{other}`")),
        }
    }
    Ok(all)
}
