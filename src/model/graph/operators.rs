//! The operators by name, the short ones here.

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::{sigmoid, softmax, softmax_last_dim};

use super::inputs::{Inputs, Step, axis, bound, sides, small, spatial, stuck, whole};
use super::maps::{batch_norm, convolution, pool, resize};
use super::numbers::{cast, gemm, layer_norm, pair, power, product, reduce};
use super::shapes::{gather, pad, reshape, slice, split};
use kinset_artifact::graph::Node;
use kinset_kernel::{clip, gelu, relu};

/// What operator makes of its inputs.
pub(crate) fn operator(node: &Node, inputs: &Inputs<'_>, device: &Device) -> Step<Vec<Tensor>> {
    let x = || inputs.at(0);
    // candle answers whole numbers with a panic or with zeros.
    let real = || match x()? {
        x if x.dtype().is_float() => Ok(x),
        _ => stuck("it takes floating numbers, and these are whole ones"),
    };
    let one = match node.operator.as_str() {
        "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Equal" | "Less" | "Greater" | "And" | "Or" => {
            pair(&node.operator, x()?, inputs.at(1)?)?
        }
        "Pow" => power(x()?, inputs)?,
        "Identity" | "Dropout" => x()?.clone(),
        "Relu" => relu(x()?)?,
        "Gelu" if node.text("approximate").is_none_or(|how| how == "none") => gelu(real()?)?,
        "Gelu" => real()?.gelu()?,
        "Sigmoid" => sigmoid(real()?)?,
        "HardSigmoid" => clip(
            &real()?.affine(node.float("alpha").unwrap_or(0.2).into(), node.float("beta").unwrap_or(0.5).into())?,
            0.0,
            1.0,
        )?,
        "HardSwish" => (real()? * clip(&x()?.affine(1.0 / 6.0, 0.5)?, 0.0, 1.0)?)?,
        "LeakyRelu" => {
            let below = (real()?.minimum(0.0)? * f64::from(node.float("alpha").unwrap_or(0.01)))?;
            (x()?.relu()? + below)?
        }
        "Clip" => {
            let (low, high) = (inputs.scalar(1)?.unwrap_or(f32::MIN), inputs.scalar(2)?.unwrap_or(f32::MAX));
            clip(x()?, low, high)?
        }
        "Tanh" => real()?.tanh()?,
        "Erf" => real()?.erf()?,
        "Exp" => real()?.exp()?,
        "Log" => real()?.log()?,
        "Sqrt" => real()?.sqrt()?,
        "Reciprocal" => real()?.recip()?,
        "Neg" if !x()?.dtype().is_float() => x()?.zeros_like()?.sub(x()?)?,
        "Neg" => x()?.neg()?,
        "Abs" => x()?.abs()?,
        "Floor" => x()?.floor()?,
        "Ceil" => x()?.ceil()?,
        "Sin" => real()?.sin()?,
        "Cos" => real()?.cos()?,
        "Not" => x()?.eq(0_i64)?.to_dtype(DType::I64)?,
        "Cast" => cast(x()?, node.int("to").unwrap_or(1), device)?,
        "MatMul" => product(x()?, inputs.at(1)?)?,
        "Gemm" => gemm(node, inputs)?,
        "Conv" => convolution(node, inputs)?,
        "BatchNormalization" => batch_norm(node, inputs)?,
        "LayerNormalization" => layer_norm(node, inputs)?,
        "Softmax" => {
            let axis = axis(node.int("axis").unwrap_or(-1), x()?.rank())?;
            if axis + 1 == x()?.rank() { softmax_last_dim(&real()?.contiguous()?)? } else { softmax(real()?, axis)? }
        }
        "MaxPool" | "AveragePool" => pool(node, x()?)?,
        "GlobalAveragePool" => spatial(x()?)?.mean_keepdim((2, 3))?,
        "GlobalMaxPool" => spatial(x()?)?.max_keepdim(3)?.max_keepdim(2)?,
        "ReduceL2" => reduce(node, real()?)?,
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" => reduce(node, x()?)?,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What an operator makes of one input, or of two.
    fn of(operator_name: &str, inputs: &[&Tensor]) -> Step<Vec<Tensor>> {
        let node = Node { operator: operator_name.into(), inputs: vec!["x".into(); inputs.len()], ..Node::default() };
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(|input| Some(*input)).collect();
        operator(&node, &Inputs(&inputs), &Device::Cpu)
    }

    #[test]
    fn whole_numbers_where_floating_ones_belong_are_refused_and_never_a_panic() {
        let whole = Tensor::new(&[[4_i64, i64::MIN], [0, -1]], &Device::Cpu).unwrap();
        let real = [
            "Gelu",
            "Sigmoid",
            "HardSigmoid",
            "HardSwish",
            "LeakyRelu",
            "Tanh",
            "Erf",
            "Exp",
            "Log",
            "Sqrt",
            "Reciprocal",
            "Sin",
        ];
        for name in real.into_iter().chain(["Cos", "Softmax", "ReduceL2"]) {
            let refused = of(name, &[&whole]).unwrap_err().to_string();
            assert!(refused.contains("whole ones"), "{name}: {refused}");
        }
        // The others may answer or refuse.
        for name in
            ["Relu", "Clip", "Abs", "Floor", "Ceil", "Not", "Pow", "ReduceMean", "ReduceSum", "ReduceMax", "MatMul", "Gemm"]
        {
            drop(of(name, &[&whole, &whole]));
        }
        let negative = &of("Neg", &[&Tensor::new(&[3_i64, -1], &Device::Cpu).unwrap()]).unwrap()[0];
        assert_eq!(negative.to_vec1::<i64>().unwrap(), [-3, 1]);
        let one = Tensor::new(&[[-1_i64]], &Device::Cpu).unwrap();
        assert!(of("Div", &[&whole, &one]).unwrap_err().to_string().contains("out of range"));
    }
}
