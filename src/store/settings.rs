//! The form in which settings enter a key: JSON, made once from the stage's own type.
//!
//! Not by `serde_json::to_value`, which writes NaN and an unset setting both as `null`, and 0.1 in 32 bits as
//! 0.10000000149011612. Here a setting that is `None` is left out, so that a stage may gain an optional setting without losing
//! its old results; a 32-bit float is the decimal a person would write, so that widening a field moves no key; whole
//! numbers are integers; and a number that is not finite is refused with the field's name.

use std::fmt::Display;

use serde::Serialize;
use serde::ser::{self, Serializer};
use serde_json::{Number, Value};

use super::error::{Result, StoreError};

pub(super) fn value(settings: &(impl Serialize + ?Sized)) -> Result<Value> {
    settings.serialize(At("settings".into()))
}

impl ser::Error for StoreError {
    fn custom<T: Display>(message: T) -> Self {
        Self::Unkeyable { field: "settings".into(), why: message.to_string() }
    }
}

/// The serializer of one value, with the way to it: `settings.optimizer.rate`.
struct At(String);

impl At {
    fn list(self, variant: Option<&'static str>) -> Parts {
        self.parts(Value::Array(Vec::new()), variant)
    }

    fn object(self, variant: Option<&'static str>) -> Parts {
        self.parts(Value::Object(serde_json::Map::new()), variant)
    }

    fn parts(self, value: Value, variant: Option<&'static str>) -> Parts {
        let at = variant.map_or_else(|| self.0.clone(), |name| format!("{}.{name}", self.0));
        Parts { at, variant, value, key: String::new() }
    }

    fn unkeyable(self, why: impl Into<String>) -> StoreError {
        StoreError::Unkeyable { field: self.0, why: why.into() }
    }
}

macro_rules! scalars {
    ($($method:ident: $kind:ty),*) => {$(
        fn $method(self, v: $kind) -> Result<Value> {
            Ok(v.into())
        }
    )*};
}

impl Serializer for At {
    type Ok = Value;
    type Error = StoreError;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = Parts;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    scalars!(serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64);
    scalars!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_str: &str);

    fn serialize_f32(self, v: f32) -> Result<Value> {
        // The shortest decimal that means this `f32`; each reads back as an `f64`.
        self.serialize_f64(v.to_string().parse().unwrap_or(f64::from(v)))
    }
    fn serialize_f64(self, v: f64) -> Result<Value> {
        // Up to here every whole `f64` is exactly one integer, and -0.0 is 0.
        if v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0 {
            return Ok((v as i64).into());
        }
        Number::from_f64(v).map(Value::Number).ok_or(StoreError::NotFinite { field: self.0, value: v })
    }
    fn serialize_char(self, v: char) -> Result<Value> {
        Ok(v.to_string().into())
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<Value> {
        Err(self.unkeyable("raw bytes are not supported"))
    }
    fn serialize_none(self) -> Result<Value> {
        Ok(Value::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, v: &T) -> Result<Value> {
        v.serialize(self)
    }
    fn serialize_unit(self) -> Result<Value> {
        Ok(Value::Null)
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Value> {
        Ok(Value::Null)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value> {
        Ok(variant.into())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, v: &T) -> Result<Value> {
        v.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        v: &T,
    ) -> Result<Value> {
        // Kept even if it is `None`: the name of the variant says something by itself.
        let inner = v.serialize(At(format!("{}.{variant}", self.0)))?;
        Ok(Value::from_iter([(variant, inner)]))
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Parts> {
        Ok(self.list(None))
    }
    fn serialize_tuple(self, _: usize) -> Result<Parts> {
        Ok(self.list(None))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts> {
        Ok(self.list(None))
    }
    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Parts> {
        Ok(self.list(Some(variant)))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Parts> {
        Ok(self.object(None))
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts> {
        Ok(self.object(None))
    }
    fn serialize_struct_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Parts> {
        Ok(self.object(Some(variant)))
    }
}

struct Parts {
    at: String,
    variant: Option<&'static str>,
    value: Value,
    /// The name of the next value of a map.
    key: String,
}

impl Parts {
    fn item<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<()> {
        if let Value::Array(items) = &mut self.value {
            items.push(v.serialize(At(format!("{}[{}]", self.at, items.len())))?);
        }
        Ok(())
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, v: &T) -> Result<()> {
        let value = v.serialize(At(format!("{}.{name}", self.at)))?;
        if !value.is_null() {
            self.value[name] = value;
        }
        Ok(())
    }

    fn done(self) -> Value {
        match self.variant {
            Some(name) => Value::from_iter([(name, self.value)]),
            None => self.value,
        }
    }
}

macro_rules! compound {
    ($($of:ident: $method:ident => $add:ident($($name:ident)?),)*) => {$(
        impl ser::$of for Parts {
            type Ok = Value;
            type Error = StoreError;

            fn $method<T: Serialize + ?Sized>(&mut self, $($name: &'static str,)? v: &T) -> Result<()> {
                self.$add($($name,)? v)
            }
            fn end(self) -> Result<Value> {
                Ok(self.done())
            }
        }
    )*};
}

compound! {
    SerializeSeq: serialize_element => item(),
    SerializeTuple: serialize_element => item(),
    SerializeTupleStruct: serialize_field => item(),
    SerializeTupleVariant: serialize_field => item(),
    SerializeStruct: serialize_field => field(name),
    SerializeStructVariant: serialize_field => field(name),
}

impl ser::SerializeMap for Parts {
    type Ok = Value;
    type Error = StoreError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.key = match key.serialize(At(self.at.clone()))? {
            Value::String(name) => name,
            other => return Err(At(self.at.clone()).unkeyable(format!("the map key {other} is not text"))),
        };
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<()> {
        let name = std::mem::take(&mut self.key);
        self.field(&name, v)
    }
    fn end(self) -> Result<Value> {
        Ok(self.done())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use kinset_base::fault::{Exit, Fault};

    #[derive(Serialize)]
    struct Config {
        rate: f32,
        seed: u64,
        betas: [f64; 2],
        head: Head,
        extra: Option<u32>,
        names: BTreeMap<&'static str, Option<String>>,
    }

    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Head {
        Plain,
        Mlp { width: usize, slope: Option<f64> },
        Pair(f64, f64),
        Scaled(Option<f64>),
    }

    fn config(head: Head) -> Config {
        let names = BTreeMap::from([("1", Some("a".to_owned())), ("2", None)]);
        Config { rate: 0.1, seed: u64::MAX, betas: [-0.0, 0.999], head, extra: None, names }
    }

    #[test]
    fn settings_come_out_as_a_person_would_write_them() {
        assert_eq!(
            value(&config(Head::Mlp { width: 3, slope: None })).unwrap(),
            json!({
                "rate": 0.1, "seed": u64::MAX, "betas": [0, 0.999], "head": {"mlp": {"width": 3}},
                "names": {"1": "a"},
            })
        );
        assert_eq!(value(&config(Head::Plain)).unwrap()["head"], json!("plain"));
        assert_eq!(value(&config(Head::Scaled(None))).unwrap()["head"], json!({"scaled": null}));
        assert_eq!(value(&(-0.0_f64, 2.0_f32, 1e20_f64)).unwrap(), json!([0, 2, 1e20]));
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused_by_name() {
        let mut bad = config(Head::Plain);
        bad.betas[1] = f64::NAN;
        let error = value(&bad).unwrap_err();
        assert_eq!(error.to_string(), "`settings.betas[1]` is NaN; expected a finite number");
        assert_eq!((error.code(), error.exit()), ("store::not-finite", Exit::Pipeline));
        let mut bad = config(Head::Plain);
        bad.rate = f32::NEG_INFINITY;
        assert_eq!(value(&bad).unwrap_err().to_string(), "`settings.rate` is -inf; expected a finite number");
        for (head, field) in [
            (Head::Mlp { width: 1, slope: Some(f64::INFINITY) }, "settings.head.mlp.slope"),
            (Head::Pair(0.0, f64::INFINITY), "settings.head.pair[1]"),
            (Head::Scaled(Some(f64::INFINITY)), "settings.head.scaled"),
        ] {
            let error = value(&config(head)).unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{field}` is inf")), "{error}");
        }
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        assert!(value(&BTreeMap::from([(vec![1], 1)])).is_err());
        assert!(value(&u128::MAX).is_err());
    }
}
