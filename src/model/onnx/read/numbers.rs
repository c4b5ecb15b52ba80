//! Tensors and settings of a file.

use candle_core::{Device, Tensor};
use half::{bf16, f16};

use super::file::onnx;
use crate::error::Result;
use crate::onnx::messages::{Attribute as Given, Tensor as Numbers};
use kinset_artifact::graph::Attribute;

/// Numbers of a file, floating ones as `f32`, whole ones and truths as `i64`.
pub(super) fn tensor(name: &str, numbers: &Numbers) -> Result<Tensor> {
    let wrong = |what: &str| onnx(format!("has a tensor `{name}` that {what}"));
    if numbers.data_location == Some(1) {
        return Err(wrong("lies in another file: save the model as one, `onnx.save(onnx.load(…), …)`"));
    }
    let shape = numbers.dims.iter().map(|&side| usize::try_from(side)).collect::<std::result::Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| wrong("has a side below 0"))?;
    let count = shape.iter().try_fold(1_usize, |all, &side| all.checked_mul(side)).ok_or_else(|| wrong("is too large"))?;
    let raw = numbers.raw_data.as_deref().unwrap_or_default();
    let narrow = |value: &i32| u16::try_from(*value).unwrap_or(0);
    let made = match numbers.data_type {
        Some(Numbers::FLOAT) if raw.is_empty() => Made::Floats(numbers.float_data.clone()),
        Some(Numbers::FLOAT) => Made::Floats(raw.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect()),
        Some(Numbers::DOUBLE) if raw.is_empty() => Made::Floats(numbers.double_data.iter().map(|&v| v as f32).collect()),
        Some(Numbers::DOUBLE) => Made::Floats(raw.as_chunks::<8>().0.iter().map(|v| f64::from_le_bytes(*v) as f32).collect()),
        Some(Numbers::FLOAT16) if raw.is_empty() => {
            Made::Floats(numbers.int32_data.iter().map(|v| f16::from_bits(narrow(v)).to_f32()).collect())
        }
        Some(Numbers::FLOAT16) => {
            Made::Floats(raw.as_chunks::<2>().0.iter().map(|v| f16::from_le_bytes(*v).to_f32()).collect())
        }
        Some(Numbers::BFLOAT16) if raw.is_empty() => {
            Made::Floats(numbers.int32_data.iter().map(|v| bf16::from_bits(narrow(v)).to_f32()).collect())
        }
        Some(Numbers::BFLOAT16) => {
            Made::Floats(raw.as_chunks::<2>().0.iter().map(|v| bf16::from_le_bytes(*v).to_f32()).collect())
        }
        Some(Numbers::INT64) if raw.is_empty() => Made::Whole(numbers.int64_data.clone()),
        Some(Numbers::INT64) => Made::Whole(raw.as_chunks::<8>().0.iter().map(|v| i64::from_le_bytes(*v)).collect()),
        Some(Numbers::INT32 | Numbers::BOOL) if raw.is_empty() => {
            Made::Whole(numbers.int32_data.iter().map(|&v| v.into()).collect())
        }
        Some(Numbers::INT32) => Made::Whole(raw.as_chunks::<4>().0.iter().map(|v| i32::from_le_bytes(*v).into()).collect()),
        Some(Numbers::BOOL) => Made::Whole(raw.iter().map(|&v| v.into()).collect()),
        other => {
            return Err(wrong(&format!(
                "has numbers of type {}, which are not read (a quantized network?)",
                other.unwrap_or(0)
            )));
        }
    };
    let len = match &made {
        Made::Floats(values) => values.len(),
        Made::Whole(values) => values.len(),
    };
    if len != count {
        return Err(wrong(&format!("has {len} numbers for the shape {shape:?}")));
    }
    Ok(match made {
        Made::Floats(values) => Tensor::from_vec(values, shape, &Device::Cpu)?,
        Made::Whole(values) => Tensor::from_vec(values, shape, &Device::Cpu)?,
    })
}

enum Made {
    Floats(Vec<f32>),
    Whole(Vec<i64>),
}

/// What a `Constant` stands for.
pub(super) fn constant(name: &str, attributes: &[Given]) -> Result<Option<Tensor>> {
    let [given] = attributes else { return Ok(None) };
    Ok(match (given.name.as_deref(), &given.t) {
        (Some("value"), Some(numbers)) => Some(tensor(name, numbers)?),
        (Some("value_float"), _) => Some(Tensor::full(given.f.unwrap_or(0.0), (), &Device::Cpu)?),
        (Some("value_int"), _) => Some(Tensor::full(given.i.unwrap_or(0), (), &Device::Cpu)?),
        (Some("value_floats"), _) => Some(Tensor::from_slice(&given.floats, given.floats.len(), &Device::Cpu)?),
        (Some("value_ints"), _) => Some(Tensor::from_slice(&given.ints, given.ints.len(), &Device::Cpu)?),
        _ => None,
    })
}

/// A setting of an operator; none where it says nothing that matters.
pub(super) fn setting(given: &Given) -> std::result::Result<Option<Attribute>, String> {
    let name = given.name.as_deref().unwrap_or_default();
    Ok(Some(match given.kind {
        Some(Given::FLOAT) => match given.f.unwrap_or(0.0) {
            value if value.is_finite() => Attribute::Float(value),
            value => return Err(format!("its setting `{name}` is {value}")),
        },
        Some(Given::INT) => Attribute::Int(given.i.unwrap_or(0)),
        Some(Given::INTS) => Attribute::Ints(given.ints.clone()),
        Some(Given::STRING) => Attribute::Text(String::from_utf8_lossy(given.s.as_deref().unwrap_or_default()).into_owned()),
        // `ConstantOfShape` has one number in a tensor.
        Some(Given::TENSOR) => {
            let numbers = given.t.as_ref().and_then(|numbers| tensor(name, numbers).ok());
            let numbers =
                numbers.filter(|numbers| numbers.elem_count() == 1).ok_or(format!("its setting `{name}` is no number"))?;
            let numbers = numbers.flatten_all().map_err(|error| error.to_string())?;
            match (numbers.to_vec1::<i64>(), numbers.to_vec1::<f32>()) {
                (Ok(whole), _) => Attribute::Int(whole[0]),
                (_, Ok(floats)) if floats[0].is_finite() => Attribute::Float(floats[0]),
                _ => return Err(format!("its setting `{name}` is no number")),
            }
        }
        _ => return Err(format!("its setting `{name}` is of a kind that is not read")),
    }))
}
