//! Runs a graph operator by operator, for the tests: as the specification of each operator says, with candle's operations, and
//! without knowledge of our networks.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Tensor};

use super::messages::{Attribute, Model, Node, Tensor as Numbers};
use kinset_kernel::max_pool2d;

/// All tensors of a model that was fed with `input`, by name.
pub(super) fn run(model: &Model, input: &Tensor) -> BTreeMap<String, Tensor> {
    let graph = model.graph.as_ref().unwrap();
    let mut known = BTreeMap::from([(graph.input[0].name.clone().unwrap(), input.clone())]);
    for numbers in &graph.initializer {
        let before = known.insert(numbers.name.clone().unwrap(), tensor(numbers));
        assert!(before.is_none(), "two tensors are called {:?}", numbers.name);
    }
    for node in &graph.node {
        let inputs: Vec<&Tensor> =
            node.input.iter().map(|name| known.get(name).unwrap_or_else(|| panic!("`{name}` is not made yet"))).collect();
        let output = operator(node, &inputs);
        let before = known.insert(node.output[0].clone(), output);
        assert!(before.is_none(), "two tensors are called {:?}", node.output);
    }
    known
}

fn tensor(numbers: &Numbers) -> Tensor {
    let shape: Vec<usize> = numbers.dims.iter().map(|&side| side as usize).collect();
    let bytes = numbers.raw_data.as_ref().unwrap();
    match numbers.data_type {
        Some(Numbers::FLOAT) => Tensor::from_raw_buffer(bytes, DType::F32, &shape, &Device::Cpu).unwrap(),
        Some(Numbers::INT64) => Tensor::from_raw_buffer(bytes, DType::I64, &shape, &Device::Cpu).unwrap(),
        other => panic!("numbers of type {other:?}"),
    }
}

fn attribute<'a>(node: &'a Node, name: &str) -> Option<&'a Attribute> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
}

fn int(node: &Node, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |attribute| attribute.i.unwrap())
}

fn float(node: &Node, name: &str, default: f64) -> f64 {
    attribute(node, name).map_or(default, |attribute| attribute.f.unwrap().into())
}

fn ints(node: &Node, name: &str) -> Vec<usize> {
    attribute(node, name).unwrap().ints.iter().map(|&value| value as usize).collect()
}

/// The one number of a list of equal ones.
fn same(list: &[usize]) -> usize {
    assert!(list.windows(2).all(|pair| pair[0] == pair[1]), "{list:?}");
    list[0]
}

fn operator(node: &Node, inputs: &[&Tensor]) -> Tensor {
    let x = inputs[0];
    let y = match node.op_type.as_deref().unwrap() {
        "Add" => x.broadcast_add(inputs[1]),
        "Sub" => x.broadcast_sub(inputs[1]),
        "Mul" => x.broadcast_mul(inputs[1]),
        "Div" => x.broadcast_div(inputs[1]),
        "Max" => x.broadcast_maximum(inputs[1]),
        "Mean" => Tensor::stack(inputs, 0).unwrap().mean(0),
        "MatMul" => x.contiguous().unwrap().matmul(&inputs[1].contiguous().unwrap()),
        "Gemm" => gemm(node, inputs),
        "Relu" => x.relu(),
        "Erf" => x.erf(),
        "Sigmoid" => (x.neg().unwrap().exp().unwrap() + 1.0).unwrap().recip(),
        "Softmax" => {
            let axis = int(node, "axis", -1);
            assert!(axis == -1 || axis as usize + 1 == x.rank());
            candle_nn::ops::softmax(x, D::Minus1)
        }
        "ArgMax" => {
            assert_eq!(int(node, "keepdims", 1), 0);
            x.argmax(int(node, "axis", 0) as usize).unwrap().to_dtype(DType::I64)
        }
        "ReduceL2" => {
            assert_eq!(int(node, "keepdims", 1), 1);
            x.sqr().unwrap().sum_keepdim(same(&ints(node, "axes"))).unwrap().sqrt()
        }
        "Conv" => convolution(node, inputs),
        "BatchNormalization" => batch_norm(node, inputs),
        "LayerNormalization" => layer_norm(node, inputs),
        "MaxPool" => {
            let [kernel, stride, padding] = ["kernel_shape", "strides", "pads"].map(|name| same(&ints(node, name)));
            max_pool2d(x, kernel, stride, padding)
        }
        "GlobalAveragePool" => x.mean_keepdim((2, 3)),
        "Flatten" => x.flatten_from(int(node, "axis", 1) as usize),
        "Transpose" => x.permute(ints(node, "perm")),
        "Reshape" => reshape(x, &whole(inputs[1])),
        "Pad" => pad(x, &whole(inputs[1])),
        "Gather" => {
            assert_eq!(inputs[1].rank(), 0, "a single index");
            let (axis, index) = (int(node, "axis", 0) as usize, inputs[1].to_scalar::<i64>().unwrap() as usize);
            x.narrow(axis, index, 1).unwrap().squeeze(axis)
        }
        other => panic!("the operator `{other}`"),
    };
    y.unwrap_or_else(|error| panic!("{:?} {:?}: {error}", node.op_type, node.name))
}

fn whole(x: &Tensor) -> Vec<i64> {
    x.to_vec1().unwrap()
}

fn gemm(node: &Node, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
    assert_eq!((int(node, "transA", 0), inputs[0].rank()), (0, 2));
    let weight = if int(node, "transB", 0) == 1 { inputs[1].t()? } else { inputs[1].clone() };
    let product = (inputs[0].matmul(&weight)? * float(node, "alpha", 1.0))?;
    inputs.get(2).map_or(Ok(product.clone()), |bias| product.broadcast_add(bias))
}

/// Numbers of a channel, for maps.
fn for_maps(x: &Tensor, numbers: &Tensor) -> Tensor {
    let mut shape = vec![1; x.rank()];
    shape[1] = numbers.elem_count();
    numbers.reshape(shape).unwrap()
}

fn convolution(node: &Node, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
    let padding = attribute(node, "pads").map_or(0, |_| same(&ints(node, "pads")));
    assert_eq!(ints(node, "kernel_shape"), inputs[1].dims()[2..]);
    let y = inputs[0].conv2d(inputs[1], padding, same(&ints(node, "strides")), 1, 1)?;
    inputs.get(2).map_or(Ok(y.clone()), |bias| y.broadcast_add(&for_maps(&y, bias)))
}

fn batch_norm(node: &Node, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
    let &[x, scale, bias, mean, variance] = inputs else { panic!("five inputs") };
    let root = (variance + float(node, "epsilon", 1e-5))?.sqrt()?;
    let [scale, bias, mean, root] = [scale, bias, mean, &root].map(|numbers| for_maps(x, numbers));
    x.broadcast_sub(&mean)?.broadcast_div(&root)?.broadcast_mul(&scale)?.broadcast_add(&bias)
}

fn layer_norm(node: &Node, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
    assert_eq!(int(node, "axis", -1), -1);
    let centred = inputs[0].broadcast_sub(&inputs[0].mean_keepdim(D::Minus1)?)?;
    let root = (centred.sqr()?.mean_keepdim(D::Minus1)? + float(node, "epsilon", 1e-5))?.sqrt()?;
    centred.broadcast_div(&root)?.broadcast_mul(inputs[1])?.broadcast_add(inputs[2])
}

fn reshape(x: &Tensor, to: &[i64]) -> candle_core::Result<Tensor> {
    let known: i64 = to.iter().filter(|&&side| side >= 0).product();
    let rest = x.elem_count() / known as usize;
    x.reshape(to.iter().map(|&side| if side < 0 { rest } else { side as usize }).collect::<Vec<_>>())
}

fn pad(x: &Tensor, sides: &[i64]) -> candle_core::Result<Tensor> {
    let rank = x.rank();
    assert_eq!(sides.len(), 2 * rank);
    (0..rank).try_fold(x.clone(), |x, axis| x.pad_with_zeros(axis, sides[axis] as usize, sides[rank + axis] as usize))
}
