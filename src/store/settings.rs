//! How do a stage's settings get into its key? Through JSON, but not through `serde_json::to_value`: that turns NaN into
//! `null`, so two different settings would share a key. Here a number that is not finite is refused, and the error names the
//! field.
//!
//! Two more rules make keys last. A struct field that is `None` is left out, so that a stage may gain an optional setting
//! without every old result being thrown away. A 32-bit float is taken as the decimal a person would write (0.1, not
//! 0.10000000149011612), so that widening a field moves no key.

use std::fmt::{self, Display};

use serde::Serialize;
use serde::ser::{self, Serializer};
use serde_json::{Map, Number, Value};

use super::error::{Result, StoreError};

/// The settings as JSON.
///
/// # Errors
/// A number that is not finite; raw bytes or a map with keys that are no text.
pub fn value(settings: &(impl Serialize + ?Sized)) -> Result<Value> {
    settings.serialize(ToValue).map_err(|refused| {
        let field = join("settings", &refused.path);
        match refused.why {
            Why::NotFinite(value) => StoreError::NotFinite { field, value },
            Why::Other(why) => StoreError::Unkeyable { field, why },
        }
    })
}

fn join(first: &str, rest: &str) -> String {
    match rest {
        "" => first.to_owned(),
        index if index.starts_with('[') => format!("{first}{index}"),
        field => format!("{first}.{field}"),
    }
}

/// A value that was refused, and the way to it.
#[derive(Debug)]
struct Refused {
    path: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    NotFinite(f64),
    Other(String),
}

impl Refused {
    fn new(why: Why) -> Self {
        Self { path: String::new(), why }
    }

    fn under(mut self, step: &str) -> Self {
        self.path = join(step, &self.path);
        self
    }
}

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.path, self.why)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Why::Other(message.to_string()))
    }
}

type Made<T> = std::result::Result<T, Refused>;

struct ToValue;

impl ToValue {
    fn float(value: f64) -> Made<Value> {
        // -0.0 and 0.0 are one setting.
        let value = if value == 0.0 { 0.0 } else { value };
        Number::from_f64(value).map(Value::Number).ok_or_else(|| Refused::new(Why::NotFinite(value)))
    }
}

impl Serializer for ToValue {
    type Ok = Value;
    type Error = Refused;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = List;
    type SerializeMap = Object;
    type SerializeStruct = Object;
    type SerializeStructVariant = Object;

    fn serialize_bool(self, v: bool) -> Made<Value> {
        Ok(v.into())
    }
    fn serialize_i8(self, v: i8) -> Made<Value> {
        Ok(v.into())
    }
    fn serialize_i16(self, v: i16) -> Made<Value> {
        Ok(v.into())
    }
    fn serialize_i32(self, v: i32) -> Made<Value> {
        Ok(v.into())
    }
    fn serialize_i64(self, v: i64) -> Made<Value> {
        Ok(v.into())
    }
    fn serialize_u8(self, v: u8) -> Made<Value> {
        Ok(v.into())
    }
    fn serialize_u16(self, v: u16) -> Made<Value> {
        Ok(v.into())
    }
    fn serialize_u32(self, v: u32) -> Made<Value> {
        Ok(v.into())
    }
    fn serialize_u64(self, v: u64) -> Made<Value> {
        Ok(v.into())
    }
    fn serialize_f32(self, v: f32) -> Made<Value> {
        // The shortest decimal that means this `f32`; every finite one reads back as an `f64`.
        Self::float(if v.is_finite() { v.to_string().parse().unwrap_or(f64::from(v)) } else { f64::from(v) })
    }
    fn serialize_f64(self, v: f64) -> Made<Value> {
        Self::float(v)
    }
    fn serialize_char(self, v: char) -> Made<Value> {
        Ok(v.to_string().into())
    }
    fn serialize_str(self, v: &str) -> Made<Value> {
        Ok(v.into())
    }
    fn serialize_bytes(self, _: &[u8]) -> Made<Value> {
        Err(Refused::new(Why::Other("raw bytes have no place in settings".into())))
    }
    fn serialize_none(self) -> Made<Value> {
        Ok(Value::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, v: &T) -> Made<Value> {
        v.serialize(self)
    }
    fn serialize_unit(self) -> Made<Value> {
        Ok(Value::Null)
    }
    fn serialize_unit_struct(self, _: &'static str) -> Made<Value> {
        Ok(Value::Null)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Made<Value> {
        Ok(variant.into())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, v: &T) -> Made<Value> {
        v.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        v: &T,
    ) -> Made<Value> {
        // Kept even if it is `None`: the name of the variant says something by itself.
        let inner = v.serialize(Self).map_err(|e| e.under(variant))?;
        Ok(Value::Object(Map::from_iter([(variant.to_owned(), inner)])))
    }
    fn serialize_seq(self, _: Option<usize>) -> Made<List> {
        Ok(List { items: Vec::new(), variant: None })
    }
    fn serialize_tuple(self, _: usize) -> Made<List> {
        self.serialize_seq(None)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Made<List> {
        self.serialize_seq(None)
    }
    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Made<List> {
        Ok(List { items: Vec::new(), variant: Some(variant) })
    }
    fn serialize_map(self, _: Option<usize>) -> Made<Object> {
        Ok(Object { fields: Map::new(), key: String::new(), variant: None })
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Made<Object> {
        self.serialize_map(None)
    }
    fn serialize_struct_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Made<Object> {
        Ok(Object { fields: Map::new(), key: String::new(), variant: Some(variant) })
    }
}

fn wrap(variant: Option<&'static str>, inner: Value) -> Value {
    match variant {
        Some(name) => Value::Object(Map::from_iter([(name.to_owned(), inner)])),
        None => inner,
    }
}

struct List {
    items: Vec<Value>,
    variant: Option<&'static str>,
}

impl List {
    fn push<T: Serialize + ?Sized>(&mut self, v: &T) -> Made<()> {
        let step = format!("[{}]", self.items.len());
        let item = v.serialize(ToValue).map_err(|e| match self.variant {
            Some(variant) => e.under(&step).under(variant),
            None => e.under(&step),
        })?;
        self.items.push(item);
        Ok(())
    }

    fn done(self) -> Value {
        wrap(self.variant, Value::Array(self.items))
    }
}

impl ser::SerializeSeq for List {
    type Ok = Value;
    type Error = Refused;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, v: &T) -> Made<()> {
        self.push(v)
    }
    fn end(self) -> Made<Value> {
        Ok(self.done())
    }
}

impl ser::SerializeTuple for List {
    type Ok = Value;
    type Error = Refused;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, v: &T) -> Made<()> {
        self.push(v)
    }
    fn end(self) -> Made<Value> {
        Ok(self.done())
    }
}

impl ser::SerializeTupleStruct for List {
    type Ok = Value;
    type Error = Refused;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, v: &T) -> Made<()> {
        self.push(v)
    }
    fn end(self) -> Made<Value> {
        Ok(self.done())
    }
}

impl ser::SerializeTupleVariant for List {
    type Ok = Value;
    type Error = Refused;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, v: &T) -> Made<()> {
        self.push(v)
    }
    fn end(self) -> Made<Value> {
        Ok(self.done())
    }
}

struct Object {
    fields: Map<String, Value>,
    key: String,
    variant: Option<&'static str>,
}

impl Object {
    fn field<T: Serialize + ?Sized>(&mut self, name: &str, v: &T) -> Made<Value> {
        v.serialize(ToValue).map_err(|e| match self.variant {
            Some(variant) => e.under(name).under(variant),
            None => e.under(name),
        })
    }

    fn done(self) -> Value {
        wrap(self.variant, Value::Object(self.fields))
    }
}

impl ser::SerializeMap for Object {
    type Ok = Value;
    type Error = Refused;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Made<()> {
        self.key = match key.serialize(ToValue)? {
            Value::String(text) => text,
            Value::Number(number) if !number.is_f64() => number.to_string(),
            other => return Err(Refused::new(Why::Other(format!("{other} is no name for a field")))),
        };
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, v: &T) -> Made<()> {
        let name = std::mem::take(&mut self.key);
        let value = self.field(&name, v)?;
        self.fields.insert(name, value);
        Ok(())
    }
    fn end(self) -> Made<Value> {
        Ok(self.done())
    }
}

impl ser::SerializeStruct for Object {
    type Ok = Value;
    type Error = Refused;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, v: &T) -> Made<()> {
        let value = self.field(name, v)?;
        if !value.is_null() {
            self.fields.insert(name.to_owned(), value);
        }
        Ok(())
    }
    fn end(self) -> Made<Value> {
        Ok(self.done())
    }
}

impl ser::SerializeStructVariant for Object {
    type Ok = Value;
    type Error = Refused;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, v: &T) -> Made<()> {
        ser::SerializeStruct::serialize_field(self, name, v)
    }
    fn end(self) -> Made<Value> {
        Ok(self.done())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use kinset_base::hint::{Exit, Fault};

    #[derive(Serialize)]
    struct Config {
        rate: f32,
        seed: u64,
        betas: [f64; 2],
        head: Head,
        extra: Option<u32>,
        names: BTreeMap<u8, Option<String>>,
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
        let names = BTreeMap::from([(1, Some("a".to_owned())), (2, None)]);
        Config { rate: 0.1, seed: u64::MAX, betas: [-0.0, 0.999], head, extra: None, names }
    }

    #[test]
    fn settings_come_out_as_a_person_would_write_them() {
        assert_eq!(
            value(&config(Head::Mlp { width: 3, slope: None })).unwrap(),
            json!({
                "rate": 0.1, "seed": u64::MAX, "betas": [0.0, 0.999], "head": {"mlp": {"width": 3}},
                "names": {"1": "a", "2": null},
            })
        );
        assert_eq!(value(&config(Head::Plain)).unwrap()["head"], json!("plain"));
        assert_eq!(value(&config(Head::Scaled(None))).unwrap()["head"], json!({"scaled": null}));
        assert!(value(&-0.0_f64).unwrap().as_f64().unwrap().is_sign_positive());
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused_by_name() {
        let mut bad = config(Head::Plain);
        bad.betas[1] = f64::NAN;
        let error = value(&bad).unwrap_err();
        assert_eq!(error.to_string(), "`settings.betas[1]` is NaN, and a key holds only finite numbers");
        assert_eq!((error.code(), error.exit()), ("store::not-finite", Exit::Pipeline));
        let mut bad = config(Head::Plain);
        bad.rate = f32::NEG_INFINITY;
        assert_eq!(value(&bad).unwrap_err().to_string(), "`settings.rate` is -inf, and a key holds only finite numbers");
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
