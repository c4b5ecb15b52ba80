//! What is a result the answer to? A [`Manifest`] holds everything that decides a stage's result, and its [`Key`] is the
//! digest of that, in a derivation context of its own so that it never equals the digest of a file.
//!
//! Not in it, and so free to change: paths, times, host, user, thread count, device index, the stage's name in the pipeline.
//!
//! The key is taken over canonical JSON: fields sorted, no spaces, and every number and text as a tagged string (`"n1"`,
//! `"s1"`). Plain JSON numbers are doubles to most readers, so that the seeds 9007199254740992 and 9007199254740993 would
//! collide; and without the tags the number 1 would collide with the text "1". Numbers are compared by value: `1` and `1.0`,
//! `0.0` and `-0.0` are the same setting.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::{Digest, Hasher, NotADigest};
use super::disk::entries;
use super::error::{Result, StoreError};
use super::open::{Store, name};
use super::reason::{Difference, differences};
use super::settings;
use kinset_base::fs;

/// The form of manifests. Raising it is one clean miss of everything.
pub const FORMAT: u32 = 1;

/// Of a kind's manifests, the newest so many are compared when a reason is looked for.
const COMPARED: usize = 256;

/// A manifest larger than this is none.
const LARGEST: u64 = 16 << 20;

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
    /// One artifact.
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
    /// The stage's VERSION.
    pub version: u32,
    // Private: it must have passed `settings::value`, or a NaN would hide in it as `null`.
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
    /// A manifest without inputs and seed, for `f32` on the CPU. `settings` hold every default filled in.
    ///
    /// # Errors
    /// If a setting cannot be part of a key (see [`settings::value`]).
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

    /// Connects a port.
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

    /// Sets the fingerprint of the seed.
    #[must_use]
    pub fn seed(mut self, fingerprint: impl Into<String>) -> Self {
        self.seed = Some(fingerprint.into());
        self
    }

    /// The settings, as JSON.
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

    /// The canonical JSON that is digested.
    pub fn canonical(&self) -> String {
        let fields = self.fields().into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let mut text = String::new();
        canonical(&Value::Object(fields.collect()), &mut text);
        text
    }

    /// The key.
    pub fn key(&self) -> Key {
        Key(Hasher::derived("kinset 2026-11 stage key").update(self.canonical().as_bytes()).finish())
    }
}

/// Appends the canonical form of a value.
pub(super) fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => {
            out.push_str("\"n");
            out.push_str(&decimal(number));
            out.push('"');
        }
        Value::String(text) => quote('s', text, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            // Sorted here: whether `Map` is, depends on a feature that any dependency may turn on.
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            out.push('{');
            for (i, (name, field)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                quote('f', name, out);
                out.push(':');
                canonical(field, out);
            }
            out.push('}');
        }
    }
}

/// A text in quotes behind its tag. All control characters, quotes and backslashes are escaped in one way.
fn quote(tag: char, text: &str, out: &mut String) {
    out.push('"');
    out.push(tag);
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                // Writing into a `String` cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The one decimal of a number: integers in full, other numbers as the shortest text that reads back as the same `f64`.
fn decimal(number: &serde_json::Number) -> String {
    /// Up to here every whole `f64` is exactly one integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(value) if number.is_f64() => {
            if value.fract() == 0.0 && value.abs() <= EXACT {
                (value as i64).to_string()
            } else {
                format!("{value:e}")
            }
        }
        _ => number.to_string(),
    }
}

impl Store {
    /// Where the manifests of a kind lie.
    fn manifests_of(&self, kind: &str) -> Result<PathBuf> {
        Ok(self.manifests().join(name("a kind", kind)?))
    }

    pub(super) fn manifest_path(&self, kind: &str, key: &Key) -> Result<PathBuf> {
        Ok(self.manifests_of(kind)?.join(format!("{key}.json")))
    }

    /// What went into a key, if it is known here.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn manifest(&self, kind: &str, key: &Key) -> Result<Option<Manifest>> {
        let path = self.manifest_path(kind, key)?;
        if fs::metadata(&path)?.is_none() {
            return Ok(None);
        }
        read_manifest(&path, key).map(Some)
    }

    /// The stored manifest that differs least from this one, of the same kind and none of `except`, and how: the newest first
    /// among equals, and only among the newest 256, so that a store with thousands of results answers as quickly as a small
    /// one. Damaged manifests are passed over.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    fn nearest_manifest(&self, candidate: &Manifest, except: &BTreeSet<Key>) -> Result<Option<Nearest>> {
        let mut known = Vec::new();
        for (file, path) in entries(&self.manifests_of(&candidate.kind)?)? {
            let Some(Ok(key)) = file.strip_suffix(".json").map(str::parse::<Key>) else { continue };
            if except.contains(&key) {
                continue;
            }
            let Some(written) = fs::metadata(&path)?.and_then(|found| found.modified().ok()) else { continue };
            known.push((std::cmp::Reverse(written), key, path));
        }
        known.sort_unstable();
        let mut best: Option<Nearest> = None;
        for (_, key, path) in known.into_iter().take(COMPARED) {
            let Ok(manifest) = read_manifest(&path, &key) else { continue };
            let differences = differences(&manifest, candidate);
            if best.as_ref().is_none_or(|best| differences.len() < best.differences.len()) {
                best = Some(Nearest { key, manifest, differences });
            }
        }
        Ok(best)
    }

    /// The stored result to compare with when somebody asks why a stage runs: what `<pipeline>/<stage>` shows now, else the
    /// nearest of its kind that is not shown for another stage of the pipeline (k-means on pixels says nothing about k-means on
    /// features). No differences: the result was there once, and its record or a blob has gone.
    ///
    /// # Errors
    /// If a folder cannot be listed.
    pub fn compare(&self, pipeline: &str, stage: &str, candidate: &Manifest) -> Result<Option<Nearest>> {
        match self.shown(pipeline, stage)? {
            Some(shown) if shown.kind == candidate.kind => {
                let differences = differences(&shown.manifest, candidate);
                Ok(Some(Nearest { key: shown.key, manifest: shown.manifest, differences }))
            }
            _ => {
                let siblings = self.shown_of(pipeline)?.into_iter().filter(|other| other.stage != stage);
                self.nearest_manifest(candidate, &siblings.map(|other| other.key).collect())
            }
        }
    }

    /// Saves a manifest beside its record.
    pub(super) fn save_manifest(&self, manifest: &Manifest, key: &Key) -> Result<()> {
        let path = self.manifest_path(&manifest.kind, key)?;
        if read_manifest(&path, key).is_ok() {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(manifest).map_err(|source| StoreError::Encode { what: "a manifest", source })?;
        self.replace(&path, &text)
    }
}

/// An earlier result of the same kind, and what tells it from the one that is wanted.
#[derive(Clone, Debug)]
pub struct Nearest {
    /// Its key.
    pub key: Key,
    /// What went into it.
    pub manifest: Manifest,
    /// Old and new, field by field, the likeliest cause first.
    pub differences: Vec<Difference>,
}

/// Reads a manifest and checks that it says what its name promises.
pub(super) fn read_manifest(path: &Path, key: &Key) -> Result<Manifest> {
    let damaged = |why: String| StoreError::Damaged { path: path.display().to_string(), why };
    let bytes = fs::read_at_most(path, LARGEST)?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if manifest.key() == *key { Ok(manifest) } else { Err(damaged("it does not say what its name promises".into())) }
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
        // Moving this makes every stored result unreachable: raise FORMAT with it and say so in the release notes.
        let manifest = manifest(json!({"epochs": 100, "rate": 1e-4, "heads": [1, 2.5], "name": "a\"b\n", "none": null}));
        assert_eq!(
            manifest.canonical(),
            format!(
                concat!(
                    r#"{{"fdevice":"scpu","fformat":"n1","finputs":{{"fimages":"s{}"}},"fkind":"sscan","fprecision":"sf32","#,
                    r#""fseed":"s5eed","fsettings":{{"fepochs":"n100","fheads":["n1","n2.5e0"],"fname":"sa\"b\u000a","#,
                    r#""fnone":null,"frate":"n1e-4"}},"fversion":"n2"}}"#
                ),
                Digest::of(b"images")
            )
        );
        assert_eq!(manifest.key().hex(), "9c36d2829d31d3eb10745aff675261ee83bf0d689dc58d6093bc0fd363d1c12d");
    }

    #[test]
    fn large_integers_do_not_collide() {
        assert_ne!(key(json!({"seed": 9_007_199_254_740_993_u64})), key(json!({"seed": 9_007_199_254_740_992_u64})));
        assert_ne!(key(json!({"seed": u64::MAX})), key(json!({"seed": u64::MAX - 1})));
        assert_ne!(key(json!({"seed": i64::MIN})), key(json!({"seed": i64::MIN + 1})));
    }

    #[test]
    fn types_do_not_collide() {
        let values = [json!(1), json!("1"), json!("n1"), json!("s1"), json!([1]), json!({"1": 1}), json!(true), json!(null)];
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
        let leaves =
            [json!(null), json!(true), json!(0), json!(-0.0), json!(1), json!(1.0), json!("1"), json!("n1"), json!("")];
        prop::sample::select(leaves.to_vec()).prop_recursive(2, 4, 2, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a\"]", inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Equality, with numbers compared by value.
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
            (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
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
            let [text_a, text_b] = [&a, &b].map(|value| { let mut text = String::new(); canonical(value, &mut text); text });
            prop_assert_eq!(text_a == text_b, same(&a, &b), "{} and {}", text_a, text_b);
            prop_assert!(serde_json::from_str::<Value>(&text_a).is_ok());
        }
    }
}
