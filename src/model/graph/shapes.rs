//! Operators that move numbers and make none: other shapes, parts, rows by index, borders.

use candle_core::{DType, Tensor};

use super::inputs::{Inputs, Step, axis, bound, sides, small, stuck, whole};
use kinset_artifact::graph::Node;

pub(super) fn reshape(x: &Tensor, to: &[i64]) -> Step<Tensor> {
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

pub(super) fn slice(x: &Tensor, inputs: &Inputs<'_>) -> Step<Tensor> {
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

pub(super) fn split(node: &Node, x: &Tensor, inputs: &Inputs<'_>) -> Step<Vec<Tensor>> {
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

pub(super) fn gather(node: &Node, x: &Tensor, indices: &Tensor) -> Step<Tensor> {
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

pub(super) fn pad(node: &Node, x: &Tensor, inputs: &Inputs<'_>) -> Step<Tensor> {
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
