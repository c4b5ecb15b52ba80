//! Manifests and keys. A [`Manifest`] holds everything that decides a stage's result, and its [`Key`] is the digest of that, in a
//! derivation context of its own so that it never equals the digest of a file.
//!
//! Not in it, and so free to change: paths, times, host, user, thread count, device index, the stage's name in the pipeline.
//!
//! The key is taken over JSON with sorted fields and no spaces. A number has one way to be written ([`Manifest::new`] sees to it):
//! `1` and `1.0`, `0.0` and `-0.0` are the same setting, and a seed of 64 bits keeps all its digits.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::{Digest, Hasher, NotADigest};
use super::error::Result;
use super::settings;

/// The form of manifests. Raising it is one clean miss of everything.
pub const FORMAT: u32 = 2;

/// The name of a stage's result: the digest of everything that decides it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Digest);

impl Key {
    /// All 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// The first 12 digits, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Key {
    type Err = NotADigest;

    fn from_str(text: &str) -> std::result::Result<Self, NotADigest> {
        text.parse().map(Self)
    }
}

/// What is connected to a port: the digest of what one artifact says, or of several in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Input {
    One(Digest),
    /// Several, in order.
    Many(Vec<Digest>),
}

impl From<Digest> for Input {
    fn from(digest: Digest) -> Self {
        Self::One(digest)
    }
}

impl From<Vec<Digest>> for Input {
    fn from(digests: Vec<Digest>) -> Self {
        Self::Many(digests)
    }
}

/// Everything that decides a stage's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of the manifest, [`FORMAT`].
    pub format: u32,
    /// The kind of stage: `scan`.
    pub kind: String,
    pub version: u32,
    // Private: only [`Manifest::new`] makes them.
    settings: Value,
    /// By port, what the inputs *say* (not how they were made).
    pub inputs: BTreeMap<String, Input>,
    /// Precision of the numbers: `f32`.
    pub precision: String,
    /// Class of device: `cpu`, `cuda`, `metal`.
    pub device: String,
    /// Fingerprint of the stage's seed, if it draws anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
}

impl Manifest {
    /// A manifest without inputs and seed, for `f32` on the CPU. `settings` are of the
    /// stage's own type, with every default filled in.
    ///
    /// # Errors
    /// If a setting is not a finite number, or has a form that a key cannot hold.
    pub fn new(kind: impl Into<String>, version: u32, settings: &(impl Serialize + ?Sized)) -> Result<Self> {
        Ok(Self {
            format: FORMAT,
            kind: kind.into(),
            version,
            settings: settings::value(settings)?,
            inputs: BTreeMap::new(),
            precision: "f32".into(),
            device: "cpu".into(),
            seed: None,
        })
    }

    #[must_use]
    pub fn input(mut self, port: impl Into<String>, input: impl Into<Input>) -> Self {
        self.inputs.insert(port.into(), input.into());
        self
    }

    /// Sets precision (`f32`, `bf16`) and class of device (`cpu`, `cuda`, `metal`).
    #[must_use]
    pub fn numerics(mut self, precision: impl Into<String>, device: impl Into<String>) -> Self {
        self.precision = precision.into();
        self.device = device.into();
        self
    }

    #[must_use]
    pub fn seed(mut self, fingerprint: impl Into<String>) -> Self {
        self.seed = Some(fingerprint.into());
        self
    }

    /// True if one of these contents is among the inputs.
    pub(super) fn reads(&self, contents: &BTreeSet<Digest>) -> bool {
        self.inputs.values().any(|input| match input {
            Input::One(one) => contents.contains(one),
            Input::Many(many) => many.iter().any(|one| contents.contains(one)),
        })
    }

    pub fn settings(&self) -> &Value {
        &self.settings
    }

    /// The fields in the order in which reasons are given: what people change first comes first.
    pub(super) fn fields(&self) -> Vec<(&'static str, Option<Value>)> {
        let inputs = self.inputs.iter().map(|(port, input)| {
            let digests = match input {
                Input::One(digest) => Value::String(digest.hex()),
                Input::Many(digests) => digests.iter().map(|digest| Value::String(digest.hex())).collect(),
            };
            (port.clone(), digests)
        });
        vec![
            ("kind", Some(Value::String(self.kind.clone()))),
            ("version", Some(self.version.into())),
            ("settings", Some(self.settings.clone())),
            ("inputs", Some(Value::Object(inputs.collect()))),
            ("seed", self.seed.clone().map(Value::String)),
            ("precision", Some(Value::String(self.precision.clone()))),
            ("device", Some(Value::String(self.device.clone()))),
            ("format", Some(self.format.into())),
        ]
    }

    /// The JSON that is digested.
    pub fn canonical(&self) -> String {
        let mut fields: Value = self.fields().into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        // Whether objects are sorted by themselves depends on a feature that any dependency may turn on.
        fields.sort_all_objects();
        fields.to_string()
    }

    pub fn key(&self) -> Key {
        Key(Hasher::derived("kinset 2026-11 stage key").update(self.canonical().as_bytes()).finish())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn manifest(settings: Value) -> Manifest {
        Manifest::new("scan", 2, &settings).unwrap().input("images", Digest::of(b"images")).seed("5eed")
    }

    fn key(settings: Value) -> Key {
        manifest(settings).key()
    }

    #[test]
    fn the_key_is_pinned() {
        // Moving this makes every stored result unreachable: raise FORMAT with it and say so in the changelog.
        let manifest = manifest(json!({
            "rate": 1e-4, "heads": [1.0, 2.5, -0.0], "name": "a\"b\n", "none": null, "seed": u64::MAX,
            "decay": [1e-7, 0.100_000_001_490_116_12, 123_456.789],
        }));
        assert_eq!(
            manifest.canonical(),
            format!(
                concat!(
                    r#"{{"device":"cpu","format":2,"inputs":{{"images":"{}"}},"kind":"scan","precision":"f32","seed":"5eed","#,
                    r#""settings":{{"decay":[1e-7,0.10000000149011612,123456.789],"heads":[1,2.5,0],"name":"a\"b\n","#,
                    r#""rate":0.0001,"seed":18446744073709551615}},"version":2}}"#
                ),
                Digest::of(b"images")
            )
        );
        assert_eq!(manifest.key().hex(), "efe775ce4bc53ee9afe0568edc0ec9f6d6fb05586f4c4550bb682b6703bbbb99");
    }

    #[test]
    fn large_integers_do_not_collide() {
        assert_ne!(key(json!({"seed": 9_007_199_254_740_993_u64})), key(json!({"seed": 9_007_199_254_740_992_u64})));
        assert_ne!(key(json!({"seed": u64::MAX})), key(json!({"seed": u64::MAX - 1})));
        assert_ne!(key(json!({"seed": i64::MIN})), key(json!({"seed": i64::MIN + 1})));
    }

    #[test]
    fn types_do_not_collide() {
        let values = [json!(1), json!("1"), json!("\"1\""), json!([1]), json!({"1": 1}), json!(true), json!(null)];
        let keys: BTreeSet<Key> = values.iter().map(|value| key(json!({"x": value}))).collect();
        assert_eq!(keys.len(), values.len());
        assert_ne!(key(json!({"a": "b\",\"fc\":\"sd"})), key(json!({"a": "b", "c": "d"})));
        assert_ne!(
            manifest(json!({})).input("x", Digest::of(b"x")).key(),
            manifest(json!({})).input("x", vec![Digest::of(b"x")]).key()
        );
    }

    #[test]
    fn ways_to_write_the_same_do_not_count() {
        let same = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|text| key(serde_json::from_str(text).unwrap()));
            assert_eq!(a, b);
        };
        same(r#"{"lr": 0.001, "epochs": 3}"#, r#"{"epochs": 3, "lr": 1e-3}"#);
        same(r#"{"lr": 1}"#, r#"{"lr": 1.0}"#);
        same(r#"{"lr": 0.0}"#, r#"{"lr": -0.0}"#);
        same(r#"{"lr": 0}"#, r#"{"lr": -0.0}"#);
        assert_ne!(key(json!({"lr": 0.1})), key(json!({"lr": 0.1 + f64::EPSILON})));
    }

    #[test]
    fn every_field_counts() {
        let base = manifest(json!({"epochs": 3}));
        let mut keys = BTreeSet::from([base.key()]);
        let mut others = vec![
            manifest(json!({"epochs": 4})),
            manifest(json!({})),
            base.clone().input("images", Digest::of(b"other")),
            base.clone().input("more", Digest::of(b"images")),
            base.clone().seed("5eee"),
            base.clone().numerics("bf16", "cpu"),
            base.clone().numerics("f32", "cuda"),
        ];
        let edit = |f: fn(&mut Manifest)| {
            let mut other = base.clone();
            f(&mut other);
            other
        };
        others.push(edit(|m| m.format += 1));
        others.push(edit(|m| m.kind = "nnm".into()));
        others.push(edit(|m| m.version += 1));
        others.push(edit(|m| m.inputs.clear()));
        others.push(edit(|m| m.seed = None));
        for other in others {
            assert!(keys.insert(other.key()), "{other:?} has the key of another");
        }
    }

    #[test]
    fn a_key_is_no_digest_of_the_same_bytes() {
        let manifest = manifest(json!({}));
        assert_ne!(manifest.key().hex(), Digest::of(manifest.canonical().as_bytes()).hex());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Values from so few leaves that two of them are often the same.
    fn few_values() -> impl Strategy<Value = Value> {
        let leaves = [json!(null), json!(true), json!(0), json!(-0.0), json!(1), json!(1.0), json!("1"), json!("\"")];
        prop::sample::select(leaves.to_vec()).prop_recursive(2, 4, 2, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a\"]", inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Equality, with numbers compared by value and `null` as if it were not there.
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
            (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Value::Object(a), Value::Object(b)) => {
                let field = |object: &serde_json::Map<String, Value>, name| object.get(name).unwrap_or(&Value::Null).clone();
                a.keys().chain(b.keys()).all(|name| same(&field(a, name), &field(b, name)))
            }
            _ => a == b,
        }
    }

    proptest! {
        #[test]
        fn a_manifest_survives_its_file(settings in any_value()) {
            let before = manifest(settings);
            let after: Manifest = serde_json::from_slice(&serde_json::to_vec_pretty(&before).unwrap()).unwrap();
            prop_assert_eq!(before.key(), after.key());
        }

        #[test]
        fn values_share_their_text_only_if_they_are_the_same(a in few_values(), b in few_values()) {
            let [text_a, text_b] = [&a, &b].map(|value| manifest(value.clone()).canonical());
            prop_assert_eq!(text_a == text_b, same(&a, &b), "{} and {}", text_a, text_b);
            prop_assert!(serde_json::from_str::<Value>(&text_a).is_ok());
        }
    }
}
