//! The protobuf messages of an ONNX file: those of `onnx.proto` that we fill, with its names and numbers; fields that we leave out
//! are left out here.
//!
//! Single numbers are `optional`, and lists of numbers not packed, because the format is of protobuf's second edition; so what is 0
//! is said, and the bytes are those of the `onnx` package.
//!
//! # Source
//! ONNX, `onnx/onnx.proto` (IR version 8): field numbers, and the codes of `TensorProto.DataType` and `AttributeProto.AttributeType`.

use prost::Message;

use kinset_artifact::graph::Attribute as Setting;

/// Operators as they were in ONNX 1.12 (June 2022): the first that has layer norm.
pub(super) const OPSET: i64 = 17;
/// The form of file that came with them.
pub(super) const IR: i64 = 8;

/// `ModelProto`: a file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, optional, tag = "1")]
    pub(super) ir_version: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(super) producer_name: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) producer_version: Option<String>,
    #[prost(string, optional, tag = "6")]
    pub(super) doc_string: Option<String>,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub(super) metadata_props: Vec<Entry>,
}

/// `OperatorSetIdProto`; the empty domain is ONNX's own.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSet {
    #[prost(string, optional, tag = "1")]
    pub(super) domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    pub(super) version: Option<i64>,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, optional, tag = "1")]
    pub(super) key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) value: Option<String>,
}

/// `GraphProto`: nodes in an order in which each finds its inputs made.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<Node>,
    #[prost(string, optional, tag = "2")]
    pub(super) name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfo>,
}

/// `NodeProto`: an operator at work.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) name: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) op_type: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<Attribute>,
    /// Whose operator it is; empty: ONNX's own.
    #[prost(string, optional, tag = "7")]
    pub(super) domain: Option<String>,
}

/// `AttributeProto`: a setting of an operator.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(float, optional, tag = "2")]
    pub(super) f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub(super) i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(super) s: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    pub(super) t: Option<Tensor>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub(super) floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(super) ints: Vec<i64>,
    /// Which of them it has: one of the codes below.
    #[prost(int32, optional, tag = "20")]
    pub(super) kind: Option<i32>,
}

impl Attribute {
    pub(super) const FLOAT: i32 = 1;
    pub(super) const INT: i32 = 2;
    pub(super) const STRING: i32 = 3;
    pub(super) const TENSOR: i32 = 4;
    pub(super) const INTS: i32 = 7;

    pub(super) fn float(name: &str, value: f32) -> Self {
        Self { f: Some(value), ..Self::of(name, Self::FLOAT) }
    }

    pub(super) fn text(name: &str, value: &str) -> Self {
        Self { s: Some(value.as_bytes().to_vec()), ..Self::of(name, Self::STRING) }
    }

    pub(super) fn int(name: &str, value: i64) -> Self {
        Self { i: Some(value), ..Self::of(name, Self::INT) }
    }

    pub(super) fn ints(name: &str, values: &[usize]) -> Self {
        Self::signed(name, &values.iter().map(|&value| value as i64).collect::<Vec<_>>())
    }

    pub(super) fn signed(name: &str, values: &[i64]) -> Self {
        Self { ints: values.to_vec(), ..Self::of(name, Self::INTS) }
    }

    /// One number in a tensor.
    pub(super) fn number(name: &str, value: &Setting) -> Self {
        let t = match value {
            Setting::Int(value) => Some(Tensor::ints("", &[1], &[*value])),
            Setting::Float(value) => Some(Tensor::floats("", &[1], &[*value])),
            Setting::Ints(_) | Setting::Text(_) => None,
        };
        Self { t, ..Self::of(name, Self::TENSOR) }
    }

    fn of(name: &str, kind: i32) -> Self {
        Self { name: Some(name.to_owned()), kind: Some(kind), ..Self::default() }
    }
}

/// `TensorProto`, its numbers in `raw_data`, little-endian; in the files of others also in a list of their type.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    pub(super) data_type: Option<i32>,
    #[prost(float, repeated, tag = "4")]
    pub(super) float_data: Vec<f32>,
    /// Also numbers of 16 bits and truths.
    #[prost(int32, repeated, tag = "5")]
    pub(super) int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub(super) int64_data: Vec<i64>,
    #[prost(string, optional, tag = "8")]
    pub(super) name: Option<String>,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub(super) raw_data: Option<Vec<u8>>,
    #[prost(double, repeated, tag = "10")]
    pub(super) double_data: Vec<f64>,
    /// 1: the numbers lie in another file.
    #[prost(int32, optional, tag = "14")]
    pub(super) data_location: Option<i32>,
}

impl Tensor {
    pub(super) const FLOAT: i32 = 1;
    pub(super) const INT32: i32 = 6;
    pub(super) const INT64: i32 = 7;
    pub(super) const BOOL: i32 = 9;
    pub(super) const FLOAT16: i32 = 10;
    pub(super) const DOUBLE: i32 = 11;
    pub(super) const BFLOAT16: i32 = 16;

    pub(super) fn floats(name: &str, shape: &[usize], values: &[f32]) -> Self {
        Self::of(name, shape, Self::FLOAT, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub(super) fn ints(name: &str, shape: &[usize], values: &[i64]) -> Self {
        Self::of(name, shape, Self::INT64, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn of(name: &str, shape: &[usize], data_type: i32, raw_data: Vec<u8>) -> Self {
        Self {
            dims: shape.iter().map(|&side| side as i64).collect(),
            data_type: Some(data_type),
            name: Some(name.to_owned()),
            raw_data: Some(raw_data),
            ..Self::default()
        }
    }
}

/// `ValueInfoProto`: what goes in or comes out.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub(super) kind: Option<Type>,
    #[prost(string, optional, tag = "3")]
    pub(super) doc_string: Option<String>,
}

/// `TypeProto`, of which we have tensors alone.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor_type: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, optional, tag = "1")]
    pub(super) elem_type: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<Shape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub(super) dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`: a number or, where any will do, a name.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub(super) dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(super) dim_param: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `tests/golden/onnx/make.py`, with the `onnx` package.
    #[test]
    fn a_file_of_the_onnx_package_is_read_whole_and_written_to_the_same_bytes() {
        let golden = include_bytes!("../../../tests/golden/onnx/tiny.onnx");
        let model = Model::decode(&golden[..]).unwrap();
        assert_eq!((model.ir_version, model.opset_import[0].version), (Some(IR), Some(OPSET)));
        let graph = model.graph.as_ref().unwrap();
        assert_eq!(graph.initializer[0], Tensor::floats("weight", &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        assert_eq!(graph.initializer[1], Tensor::ints("shape", &[2], &[-1, 2]));
        assert_eq!(
            graph.node[0].attribute,
            [Attribute::float("alpha", 0.5), Attribute::int("transA", 0), Attribute::int("transB", 1)]
        );
        assert_eq!(graph.node[1].attribute, [Attribute::ints("axes", &[1])]);
        assert_eq!(model.encode_to_vec(), golden, "not every field of the file is one of ours");
    }
}
