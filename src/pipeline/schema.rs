//! A JSON Schema (draft 7) of pipeline files, which editors use to complete keys, to show what they mean, and to mark mistakes while one
//! types. It is made of what the stages say of themselves. What a schema cannot say (whether a name is that of a stage, how settings
//! go together) is left to `kinset plan`.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::catalog::{INGEST, Registry};
use super::spec::{MAX_NAME, MAX_NODES, MAX_PROFILES, MAX_SEEDS};
use kinset_stage::{AnyStage, Arity, PortInfo};

/// The schema of all pipeline files.
pub fn schema(registry: &Registry) -> Json {
    let stages: Vec<&dyn AnyStage> = registry.0.iter().copied().filter(|stage| stage.kind() != INGEST).collect();
    let mut definitions = Map::new();
    definitions.insert("source".into(), registry.find(INGEST).map_or(json!({}), AnyStage::schema));
    definitions.extend(stages.iter().map(|stage| (name_of(*stage), stage_table(*stage))));
    definitions.insert("stage".into(), any_stage(&stages));
    definitions.insert("changed-source".into(), changed(["source".to_owned()], &definitions));
    definitions.insert("changed-stage".into(), changed(stages.iter().map(|stage| name_of(*stage)), &definitions));
    let source =
        "what is read, by name: images, and labels apart from them; stages read `data.NAME`, and scoring `data.NAME.labels`";
    let stage = "the steps, by name; other stages read a step's main result by its name, and another one by `NAME.RESULT`";
    let mut settings = general();
    settings["data"] = named(source, "source", MAX_NAME);
    settings["stage"] = named(stage, "stage", MAX_NAME);
    settings["repeat"]["required"] = json!(["from", "seeds"]);
    settings["shard"]["required"] = json!(["from", "parts"]);
    let (varied_source, varied_stage) = (varied("changed-source", &definitions), varied("changed-stage", &definitions));
    definitions.insert("varied-source".into(), varied_source);
    definitions.insert("varied-stage".into(), varied_stage);
    // Settings that are tables of settings: somewhere below there are lists.
    let deeper = json!({"type": "object", "minProperties": 1, "additionalProperties": reference("lists")});
    definitions.insert("lists".into(), list_or(json!({"type": "array", "minItems": 1, "uniqueItems": true}), deeper));
    let mut profile = general();
    profile["data"] = named("changed settings of sources", "changed-source", MAX_NAME);
    profile["stage"] = named("changed settings of stages", "changed-stage", MAX_NAME);
    settings["profile"] = json!({
        "description": "changes of the settings above, by name: `kinset run FILE --profile NAME` lays one over the file",
        "type": "object", "maxProperties": MAX_PROFILES,
        "additionalProperties": {"type": "object", "additionalProperties": false, "properties": profile},
    });
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "a pipeline of kinset",
        "type": "object",
        "additionalProperties": false,
        "properties": settings,
        "definitions": definitions,
    })
}

/// Where the table of a stage's kind is defined.
fn name_of(stage: &dyn AnyStage) -> String {
    format!("stage-{}", stage.kind())
}

fn reference(definition: &str) -> Json {
    json!({ "$ref": format!("#/definitions/{definition}") })
}

/// A table of tables that all look alike.
fn named(description: &str, definition: &str, longest: usize) -> Json {
    json!({
        "description": description, "type": "object", "propertyNames": {"pattern": format!("^[A-Za-z0-9_-]{{1,{longest}}}$")},
        "additionalProperties": reference(definition),
    })
}

/// What is no source and no stage.
fn general() -> Json {
    let seed = json!({"type": "integer", "minimum": 0});
    let stage = json!({"type": "string"});
    json!({
        "name": {
            "description": "The pipeline's name, and that of the folder of its results; else the file's.", "type": "string",
            "pattern": format!("^[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{}}}$", MAX_NAME - 1), "not": {"const": "store"},
        },
        "seed": {"description": "All randomness comes from it.", "type": "integer", "minimum": 0, "default": 1},
        "device": {
            "description": "What computes: `auto`, `cpu`, `cuda:0`, `metal`.", "type": "string",
            "pattern": "^(auto|cpu|(cuda|metal)(:[0-9]{1,3})?)$", "default": "auto",
        },
        "precision": {"description": "Of numbers; every stage computes in this one.", "enum": ["f32"], "default": "f32"},
        "repeat": {
            "description": "Some stages, with all that depends on them, once for each of several seeds.",
            "type": "object", "additionalProperties": false,
            "properties": {
                "from": {
                    "description": "The stage from which on all is repeated, or several.",
                    "anyOf": [stage, {"type": "array", "items": stage, "minItems": 1}],
                },
                "seeds": {
                    "description": "How many, counted from `seed`, or which.",
                    "anyOf": [
                        {"type": "integer", "minimum": 1, "maximum": MAX_SEEDS},
                        {"type": "array", "items": seed, "minItems": 1, "maxItems": MAX_SEEDS, "uniqueItems": true},
                    ],
                },
            },
        },
        "shard": {
            "description": "A source that is read in parts, and all that depends on it once for each part, until a stage collects them.",
            "type": "object", "additionalProperties": false,
            "properties": {
                "from": {"description": "The source: `data.NAME`.", "type": "string", "pattern": "^data\\.[A-Za-z0-9_-]+$"},
                "parts": {"description": "How many parts.", "type": "integer", "minimum": 1, "maximum": MAX_NODES},
                "files": {
                    "description": "Files in each, fewer in the last; unset, all parts have the same number, or one more.",
                    "type": "integer", "minimum": 1, "maximum": u32::MAX,
                },
            },
        },
        "vary": {
            "description": "Settings that take several values: what depends on them is computed for every combination.",
            "type": "object", "additionalProperties": false, "minProperties": 1,
            "properties": {"data": vary("changed-source", "varied-source"), "stage": vary("changed-stage", "varied-stage")},
        },
        "store": {
            "description": "The store of results.", "type": "object", "additionalProperties": false,
            "properties": {
                "max_size": {
                    "description": "Bytes, or a text such as `200 GB`, above which a run says that `kinset gc` is due.",
                    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^ *[0-9.]+ *([kmgtKMGT][iI]?)?[bB]? *$"}],
                },
            },
        },
    })
}

/// `[stage.NAME]` of a kind: its ports and its settings.
fn stage_table(stage: &dyn AnyStage) -> Json {
    let mut table = stage.schema();
    table["description"] = json!(format!("{}: {}", stage.kind(), stage.summary()));
    let mut required = vec![json!("kind")];
    required.extend(table["required"].as_array().into_iter().flatten().cloned());
    let mut properties = Map::new();
    properties.insert("kind".into(), json!({"description": stage.summary(), "const": stage.kind()}));
    for port in stage.ports() {
        properties.insert(port.name.into(), port_value(stage.kind(), port));
        if port.arity.is_needed() {
            required.push(json!(port.name));
        }
    }
    for (name, mut setting) in table["properties"].as_object_mut().map(std::mem::take).unwrap_or_default() {
        // Taplo shows what every kind says of a key of this name.
        setting["description"] = json!(format!("{}: {}", stage.kind(), setting["description"].as_str().unwrap_or_default()));
        properties.insert(name, setting);
    }
    table["properties"] = Json::Object(properties);
    table["required"] = Json::Array(required);
    let either = stage.ports().iter().filter(|port| port.arity.is_either()).map(|port| json!({"required": [port.name]}));
    let either: Vec<Json> = either.collect();
    if !either.is_empty() {
        table["oneOf"] = Json::Array(either);
    }
    table
}

/// `data` or `stage` below `[vary]`: lists of values by name and setting, or a list of tables whose settings go together.
fn vary(changed: &str, varied: &str) -> Json {
    let together = json!({"type": "object", "minProperties": 1, "additionalProperties": reference(changed)});
    list_or(
        json!({"type": "array", "minItems": 1, "uniqueItems": true, "items": together}),
        json!({"type": "object", "minProperties": 1, "additionalProperties": reference(varied)}),
    )
}

/// By a condition, so that a mistake is told where it is. Taplo looks into none, and finds the table in the alternatives.
fn list_or(list: Json, table: Json) -> Json {
    json!({"if": {"type": "array"}, "then": list, "else": table.clone(), "anyOf": [table, {}]})
}

/// A table of lists of what a table of changed settings may hold, or a list of such tables.
fn varied(changed: &str, definitions: &Map<String, Json>) -> Json {
    let lists = |(key, _): (&String, &Json)| {
        let value = reference(&format!("{changed}/properties/{key}"));
        let list = json!({"type": "array", "minItems": 1, "uniqueItems": true, "items": value});
        let deeper = json!({"type": "object", "minProperties": 1, "additionalProperties": reference("lists")});
        (key.clone(), list_or(list, deeper))
    };
    let settings: Map<String, Json> = definitions[changed]["properties"].as_object().into_iter().flatten().map(lists).collect();
    list_or(
        json!({"type": "array", "minItems": 1, "uniqueItems": true, "items": reference(changed)}),
        json!({"type": "object", "minProperties": 1, "additionalProperties": false, "properties": settings}),
    )
}

fn port_value(kind: &str, port: &PortInfo) -> Json {
    let how = match port.arity {
        Arity::One | Arity::Many => "",
        Arity::Optional | Arity::Any => "; may be left out",
        Arity::Either | Arity::EitherMany => "; one of several such ports is connected",
    };
    let name = json!({"type": "string"});
    let description = |of: &str| format!("{kind}: the name of {of} that gives {}{how}.", port.artifact);
    if !port.arity.is_list() {
        return json!({"description": description("a source, stage or result"), "type": "string"});
    }
    let least = usize::from(port.arity == Arity::Many);
    let list = json!({"type": "array", "items": name, "minItems": least, "uniqueItems": true});
    json!({"description": description("each source, stage or result"), "anyOf": [name, list]})
}

/// `[stage.NAME]`: what its kind says. By conditions, so that a mistake is told of the kind that is written there. Taplo looks into no
/// condition for what to complete and to explain; it finds all kinds in the alternatives, the last of which lets everything pass.
fn any_stage(stages: &[&dyn AnyStage]) -> Json {
    let kinds: Vec<Json> = stages.iter().map(|stage| json!({"const": stage.kind(), "description": stage.summary()})).collect();
    let conditions = stages.iter().map(|stage| {
        json!({
            "if": {"properties": {"kind": {"const": stage.kind()}}, "required": ["kind"]},
            "then": reference(&name_of(*stage)),
        })
    });
    let mut tables: Vec<Json> = stages.iter().map(|stage| reference(&name_of(*stage))).collect();
    tables.push(json!({}));
    json!({
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"description": "The kind of stage; `kinset methods` lists them.", "oneOf": kinds}},
        "allOf": conditions.collect::<Vec<_>>(),
        "anyOf": tables,
    })
}

/// A table of which a profile changes some keys. Of a stage's table it does not repeat the kind, so every key of every kind may stand
/// there, with any of the values that it has anywhere.
fn changed(tables: impl IntoIterator<Item = String>, definitions: &Map<String, Json>) -> Json {
    let mut keys: BTreeMap<&str, Vec<(&Json, Json)>> = BTreeMap::new();
    for table in tables {
        for (key, value) in definitions[&table]["properties"].as_object().into_iter().flatten() {
            let values = keys.entry(key).or_default();
            if !values.iter().any(|(known, _)| *known == value) {
                values.push((value, reference(&format!("{table}/properties/{key}"))));
            }
        }
    }
    let keys: Map<String, Json> = keys
        .into_iter()
        .map(|(key, values)| {
            let mut values: Vec<Json> = values.into_iter().map(|(_, reference)| reference).collect();
            let value = if values.len() == 1 { values.remove(0) } else { json!({ "anyOf": values }) };
            (key.to_owned(), value)
        })
        .collect();
    json!({"type": "object", "additionalProperties": false, "properties": keys})
}
