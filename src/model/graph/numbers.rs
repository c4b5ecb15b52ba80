//! Operators of numbers: pairs, products, norms over the last axis, sums over axes.

use candle_core::{D, DType, Device, Tensor};

use super::inputs::{Inputs, Step, axis, small, stuck};
use kinset_artifact::graph::Node;
use kinset_kernel::LayerNorm;

pub(super) fn pair(operator: &str, a: &Tensor, b: &Tensor) -> Step<Tensor> {
    if a.dtype() != b.dtype() {
        return stuck("its inputs are whole numbers and others");
    }
    let same = a.dims() == b.dims();
    small(a.shape().broadcast_shape_binary_op(b.shape(), "pair")?.elem_count())?;
    if operator == "Div" && b.dtype() == DType::I64 {
        let below = b.flatten_all()?.to_vec1::<i64>()?;
        if below.contains(&0) || (below.contains(&-1) && a.flatten_all()?.to_vec1::<i64>()?.contains(&i64::MIN)) {
            return stuck("it divides by 0, or what is out of range");
        }
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

pub(super) fn power(x: &Tensor, inputs: &Inputs<'_>) -> Step<Tensor> {
    let Some(exponent) = inputs.scalar(1)? else { return stuck("it lacks its exponent") };
    let x = x.to_dtype(DType::F32)?;
    Ok(if exponent.to_bits() == 2.0_f32.to_bits() { x.sqr()? } else { x.powf(exponent.into())? })
}

/// The codes of `TensorProto.DataType`: floating numbers of every width are `f32` here, whole ones and truths `i64`.
pub(super) fn cast(x: &Tensor, to: i64, device: &Device) -> Step<Tensor> {
    match to {
        1 | 10 | 11 | 16 => Ok(x.to_dtype(DType::F32)?.to_device(device)?),
        // Truth of a number is whether it is 0, and not its whole part.
        9 if x.dtype() == DType::F32 => Ok(x.ne(0_f32)?.to_dtype(DType::I64)?.to_device(&Device::Cpu)?),
        2..=7 | 9 | 12 | 13 => Ok(x.to_dtype(DType::I64)?.to_device(&Device::Cpu)?),
        _ => stuck(format!("there is no type {to} here")),
    }
}

pub(super) fn product(a: &Tensor, b: &Tensor) -> Step<Tensor> {
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

pub(super) fn gemm(node: &Node, inputs: &Inputs<'_>) -> Step<Tensor> {
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

pub(super) fn layer_norm(node: &Node, inputs: &Inputs<'_>) -> Step<Tensor> {
    let (x, weight) = (inputs.at(0)?, inputs.at(1)?);
    if axis(node.int("axis").unwrap_or(-1), x.rank())? + 1 != x.rank() || weight.dims() != [x.dim(D::Minus1)?] {
        return stuck("it goes over the last axis alone");
    }
    let none = weight.zeros_like()?;
    let bias = inputs.get(2).unwrap_or(&none);
    Ok(LayerNorm { weight, bias, epsilon: node.float("epsilon").unwrap_or(1e-5) }.of(&x.contiguous()?)?)
}

pub(super) fn reduce(node: &Node, x: &Tensor) -> Step<Tensor> {
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
