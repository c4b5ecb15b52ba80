//! The differences between two manifests, field by field. The pipeline turns the first into the sentence that a person reads:
//! `settings.epochs 200 → 500`.

use std::fmt;

use serde_json::Value;

use super::key::Manifest;

#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The way to it: `settings.optimizer.rate`, `settings.scale[0]`, `inputs.features`, `version`, `seed`.
    pub path: String,
    /// What it was; `None` if it was not there.
    pub old: Option<Value>,
    /// What it is; `None` if it is not there any more.
    pub new: Option<Value>,
}

impl Difference {
    /// The port, if it is an input that changed.
    pub fn port(&self) -> Option<&str> {
        let port = self.path.strip_prefix("inputs.")?;
        Some(port.split('[').next().unwrap_or(port))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} → {}", self.path, shortened(self.old.as_ref()), shortened(self.new.as_ref()))
    }
}

/// A value in a sentence: digests shortened, long ones cut.
fn shortened(value: Option<&Value>) -> String {
    const LONGEST: usize = 40;
    let text = match value {
        None => return "(not set)".into(),
        Some(Value::String(text)) if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) => text[..12].to_owned(),
        Some(other) => other.to_string(),
    };
    if text.chars().count() <= LONGEST { text } else { text.chars().take(LONGEST - 1).chain(['…']).collect() }
}

/// All fields that differ, the likeliest cause first: kind, version, settings, inputs, seed, precision, device, format; by name
/// within each. No differences: the same key.
pub fn differences(old: &Manifest, new: &Manifest) -> Vec<Difference> {
    let mut found = Vec::new();
    // Manifests of two formats write the same settings differently.
    let comparable = |name| old.format == new.format || name == "format";
    for ((name, old), (_, new)) in old.fields().into_iter().zip(new.fields()).filter(|((name, _), _)| comparable(*name)) {
        compare(name.to_owned(), old.as_ref(), new.as_ref(), &mut found);
    }
    found
}

/// The same for two values, such as the settings of stages that have not run yet; `path` is the way to them.
pub fn differences_of(path: &str, old: &Value, new: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(path.to_owned(), Some(old), Some(new), &mut found);
    found
}

fn compare(path: String, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Difference>) {
    match (old, new) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                compare(format!("{path}.{name}"), a.get(name), b.get(name), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                compare(format!("{path}[{i}]"), Some(a), Some(b), found);
            }
        }
        _ if old == new => {}
        _ => found.push(Difference { path, old: old.cloned(), new: new.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::digest::Digest;

    fn manifest(settings: &Value) -> Manifest {
        Manifest::new("scan", 2, settings).unwrap()
    }

    fn sentences(old: &Manifest, new: &Manifest) -> Vec<String> {
        let found = differences(old, new);
        assert_eq!(found.is_empty(), old.key() == new.key(), "no difference must mean the same key");
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_changed_field_is_named_with_old_and_new() {
        let old = manifest(&json!({"epochs": 200, "optimizer": {"rate": 0.1, "name": "sgd"}, "scale": [0.2, 1.0], "gone": 1}));
        let new = manifest(&json!({"epochs": 500, "optimizer": {"rate": 0.1, "name": "adam"}, "scale": [0.1, 1]}));
        assert_eq!(
            sentences(&old, &new),
            [
                "settings.epochs 200 → 500",
                "settings.gone 1 → (not set)",
                r#"settings.optimizer.name "sgd" → "adam""#,
                "settings.scale[0] 0.2 → 0.1",
            ]
        );
        assert!(sentences(&old, &old).is_empty());
        assert!(sentences(&manifest(&json!({"x": 1})), &manifest(&json!({"x": 1.0}))).is_empty());
    }

    #[test]
    fn a_manifest_of_another_format_differs_in_nothing_else() {
        let old = json!({"format": 1, "kind": "scan", "version": 1, "settings": {"hidden": null, "rate": 0.1}, "inputs": {},
            "precision": "f32", "device": "cpu"});
        let old: Manifest = serde_json::from_value(old).unwrap();
        assert_eq!(sentences(&old, &manifest(&json!({"rate": 0.1}))), ["format 1 → 2"]);
    }

    #[test]
    fn version_comes_before_settings_and_settings_before_inputs() {
        let old = manifest(&json!({"epochs": 1})).input("features", Digest::of(b"a")).input("images", Digest::of(b"i"));
        let mut new = manifest(&json!({"epochs": 2})).input("features", Digest::of(b"b")).seed("1").numerics("bf16", "cuda");
        new.version = 3;
        let found = differences(&old, &new);
        let paths: Vec<_> = found.iter().map(|d| d.path.as_str()).collect();
        assert_eq!(paths, ["version", "settings.epochs", "inputs.features", "inputs.images", "seed", "precision", "device"]);
        assert_eq!(found[2].port(), Some("features"));
        assert_eq!(found[1].port(), None);
        let (a, b) = (Digest::of(b"a").short(), Digest::of(b"b").short());
        assert_eq!(found[2].to_string(), format!("inputs.features {a} → {b}"));
    }

    #[test]
    fn lists_of_inputs_name_the_port_and_long_values_are_cut() {
        let [a, b] = [b"a", b"b"].map(|x| Digest::of(x));
        let base = manifest(&json!({}));
        let found = differences(&base.clone().input("shards", vec![a, a]), &base.clone().input("shards", vec![a, b]));
        assert_eq!((found[0].path.as_str(), found[0].port()), ("inputs.shards[1]", Some("shards")));
        let found = differences(&base, &manifest(&json!({"text": "x".repeat(100)})));
        assert_eq!(found[0].to_string().chars().count(), "settings.text (not set) → ".chars().count() + 40);
    }
}
