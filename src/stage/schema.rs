//! Settings as a JSON Schema (draft 7), for editors and for people: types and documents are those of the code, defaults and limits those
//! of the stage.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::settings::{Limit, Settings};

/// The schema of a stage's settings as a pipeline file may write them. A file's tables are laid over `defaults`, so nothing has to be
/// given but `needed`, the settings that have no default.
pub fn of<S: Settings>(defaults: &Value, needed: &[String]) -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<S>().to_value();
    tidy(&mut schema);
    lay_over(&mut schema, defaults);
    if let Some(table) = schema.as_object_mut() {
        // What all settings are together is said of the stage.
        table.remove("description");
        if !needed.is_empty() {
            table.insert("required".into(), json!(needed));
        }
    }
    for needed in needed {
        if let Some(setting) = schema["properties"][needed.as_str()].as_object_mut() {
            setting.remove("default");
        }
    }
    schema
}

/// Writes limits of numbers into a table's schema; limits of nested tables are in theirs.
pub fn limit(table: &mut Schema, limits: &[(String, Limit)]) {
    let Some(settings) = table.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (path, limit) in limits {
        if let Some(setting) = settings.get_mut(path).and_then(Value::as_object_mut) {
            match setting.get_mut("items").and_then(Value::as_object_mut) {
                Some(each) => bound(each, *limit),
                None => bound(setting, *limit),
            }
        }
    }
}

/// [`limit`] with those that a type's defaults have.
pub fn limited<S: Settings + Default>(table: &mut Schema) {
    limit(table, &S::default().limits());
}

fn bound(number: &mut Map<String, Value>, limit: Limit) {
    let bounds = match limit {
        Limit::AtLeast(least) => vec![("minimum", least)],
        Limit::AboveZero => vec![("exclusiveMinimum", 0.0)],
        Limit::NotNegative => vec![("minimum", 0.0)],
        Limit::BelowOne => vec![("minimum", 0.0), ("exclusiveMaximum", 1.0)],
        Limit::Within(low, high) | Limit::Rising(low, high) => vec![("minimum", low), ("maximum", high)],
    };
    for (name, value) in bounds {
        // Whole numbers without a fraction, as a person would write them.
        let whole = value.fract() == 0.0 && value.abs() < 1e15;
        number.insert(name.into(), if whole { json!(value as i64) } else { json!(value) });
    }
}

/// Leaves out what says nothing to the writer of a file: the width of numbers, names of Rust types, and null, which TOML has not.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for name in ["format", "title"] {
                if fields.get(name).is_some_and(Value::is_string) {
                    fields.remove(name);
                }
            }
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    fields.insert("type".into(), one);
                }
            }
            if let Some(Value::Array(values)) = fields.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            if let Some(Value::Array(ways)) = fields.get_mut("anyOf") {
                ways.retain(|way| way["type"] != "null");
                if ways.len() == 1
                    && let Some(Value::Object(way)) = ways.pop()
                {
                    fields.remove("anyOf");
                    for (name, value) in way {
                        // What is said of the setting goes before what is said of its type.
                        fields.entry(name).or_insert(value);
                    }
                }
            }
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = in_plain_words(text);
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// A document without links into the code, each paragraph on a line.
fn in_plain_words(document: &str) -> String {
    let linked = document.replace("[`", "`").replace("`]", "`");
    let paragraphs = linked.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n")
}

/// Writes a stage's own defaults into the schema of its settings. Tables are merged, so no key of theirs is required; a table of
/// another `kind` than the default's is one of its own, and says so.
fn lay_over(schema: &mut Value, default: &Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    if let Some(Value::Array(kinds)) = fields.get_mut("oneOf")
        && default.is_object()
    {
        for table in kinds {
            if table["properties"]["kind"]["const"] == default["kind"] {
                lay_over(table, default);
            } else {
                table["required"] = json!(["kind"]);
            }
        }
        fields.remove("default");
    } else if let Some(settings) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        if default.is_object() {
            settings.iter_mut().for_each(|(name, setting)| lay_over(setting, &default[name]));
            fields.remove("required");
        }
        fields.remove("default");
    } else if default.is_null() {
        fields.remove("default");
    } else if !fields.contains_key("const") {
        fields.insert("default".into(), default.clone());
    }
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "the settings of a stage are public, and so are those that the macro writes here")]
mod tests {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum Way {
        /// The near one.
        Near,
        Far,
    }

    crate::settings! {
        /// A table.
        pub struct Inner {
            /// Both of [`Inner`]:
            /// low and high.
            ends: [f64; 2] = [0.0, 0.5], rising 0..=1;
        }
    }

    crate::settings! {
        /// Another table.
        pub struct Other {
            /// A share.
            share: f64 = 0.25, below_one;
        }
    }

    #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    pub enum Recipe {
        /// As a rule.
        Usual(Inner),
        /// Now and then.
        Rare(Other),
    }

    impl Settings for Recipe {}

    crate::settings! {
        /// All of it.
        pub struct Config {
            /// How many.
            count: usize = 3, min 2;
            /// At most, if anything.
            most: Option<u64> = None, min 1;
            /// Where to.
            way: Way = Way::Far;
            /// What to do.
            recipe: Recipe = Recipe::Usual(Inner { ends: [0.25, 0.75] }), nested;
            /// More, perhaps.
            more: Option<Other> = None, nested;
            /// A file.
            file: String = String::new();
        }
    }

    #[test]
    fn types_documents_defaults_and_limits_are_in_the_schema() {
        let defaults = serde_json::to_value(Config::default()).unwrap();
        let share = json!({
            "description": "A share.", "type": "number", "minimum": 0, "exclusiveMaximum": 1, "default": 0.25,
        });
        let ends = json!({
            "description": "Both of `Inner`: low and high.", "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 2, "maxItems": 2, "default": [0.25, 0.75],
        });
        let expected = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["file"],
            "properties": {
                "count": {"description": "How many.", "type": "integer", "minimum": 2, "default": 3},
                "most": {"description": "At most, if anything.", "type": "integer", "minimum": 1},
                "way": {
                    "description": "Where to.", "default": "far",
                    "oneOf": [
                        {"type": "string", "enum": ["far"]},
                        {"description": "The near one.", "type": "string", "const": "near"},
                    ],
                },
                "recipe": {
                    "description": "What to do.",
                    "oneOf": [
                        {
                            "description": "As a rule.", "type": "object", "additionalProperties": false,
                            "properties": {"kind": {"type": "string", "const": "usual"}, "ends": ends},
                        },
                        {
                            "description": "Now and then.", "type": "object", "additionalProperties": false,
                            "properties": {"kind": {"type": "string", "const": "rare"}, "share": share},
                            "required": ["kind"],
                        },
                    ],
                },
                "more": {
                    "description": "More, perhaps.", "type": "object", "additionalProperties": false,
                    "properties": {"share": share},
                },
                "file": {"description": "A file.", "type": "string"},
            },
        });
        let found = of::<Config>(&defaults, &["file".to_owned()]);
        assert_eq!(found, expected, "{found:#}");
    }
}
