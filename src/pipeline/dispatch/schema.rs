//! A JSON Schema (draft 7) of `cluster.toml`, for editors. Whether a job is long enough for its warning is left to `kinset plan`.

use serde_json::{Map, Value as Json, json};

use super::rules::{CacheMode, LINES, MOST_SHARES, SIGNALS};

/// The schema of all cluster files. `kinds` are those of stages.
pub fn schema(kinds: &[&str]) -> Json {
    let line = |description: &str| described(description, one_line());
    let rule: Map<String, Json> = [
        ("kind", described("Kinds of stages that it is for.", one_or_more(json!({"enum": kinds})))),
        ("stage", described("Names of stages that it is for: `cluster`, `cluster@3`.", one_or_more(json!({"type": "string"})))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .chain(needs())
    .collect();
    let count = |description: &str, least: u32| described(description, json!({"type": "integer", "minimum": least}));
    let after = |description: &str| described(description, time());
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "where kinset runs stages",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "executor": {
                "description": "What runs stages: this process (here), so many processes (local:4), jobs of Slurm or, written down, of Kubernetes. `--executor` overrides it.",
                "type": "string", "pattern": "^(here|slurm|kubernetes|local:[0-9]{1,4})$", "default": "here",
            },
            "kinset": line("The program on the nodes, of the same version; else the one that submits."),
            "data": line("`--data` of the jobs."),
            "setup": described("Lines of the script before kinset.", json!({"type": "array", "items": one_line()})),
            "default": {
                "description": "Of every job.", "type": "object", "additionalProperties": false,
                "properties": needs().into_iter().collect::<Map<_, _>>(), "not": both_gpus(),
            },
            "rule": {
                "description": "Of jobs of some stages: rules that fit are laid over `default`, in order.",
                "type": "array",
                "items": {"type": "object", "additionalProperties": false, "properties": rule, "not": both_gpus()},
            },
            "limits": {
                "description": "How much at once, and how often.", "type": "object", "additionalProperties": false,
                "properties": {
                    "jobs": count("Of this run in the queue at once, tasks of arrays counted.", 1),
                    "array": count("Tasks of an array; at most the cluster's MaxArraySize.", 1),
                    "at_once": count("Tasks of an array that run at once.", 1),
                    "poll": after("One look at the queue for all jobs; more rarely while nothing changes."),
                    "submit_every": after("Between two submissions."),
                    "settle": after("How late the file system may show a job's result."),
                },
            },
            "requeue": {
                "description": "Of jobs that reach the end of their time.", "type": "object", "additionalProperties": false,
                "properties": {
                    "times": count("Restarts of a job; 0: --no-requeue.", 0),
                    "signal": {"description": "The warning before the end of its time.", "enum": SIGNALS},
                    "lead": after("How long before its end it is warned."),
                    "without_progress": count("Restarts in a row that may move nothing.", 1),
                },
            },
            "kubernetes": {
                "description": "The pods of jobs.", "type": "object", "additionalProperties": false,
                "properties": pods().into_iter().collect::<Map<_, _>>(),
            },
            "cache": {
                "description": "Results that several machines share.", "type": "object", "additionalProperties": false,
                "properties": {
                    "url": {
                        "description": "s3://BUCKET/PREFIX, gs://…, az://…, file:///FOLDER, or to read only https://HOST/PATH; no credentials.",
                        "type": "string", "pattern": "^(s3|gs|az|file|https?)://[^@?#%]+$",
                    },
                    "mode": {
                        "description": "Whether runs only read it.", "enum": CacheMode::NAMES.map(|(name, _)| name), "default": "read",
                    },
                    "timeout": after("How long a server may be silent."),
                },
            },
        },
    })
}

/// What pods are.
fn pods() -> Vec<(String, Json)> {
    let name = |description: &str| described(description, json!({"type": "string", "pattern": NAME}));
    let whole = |description: &str| described(description, json!({"type": "integer", "minimum": 0}));
    let claim = json!({"type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?:/[^\\u0000-\\u001f\\u007f]*$"});
    let secret = json!({"type": "string", "pattern": NAME});
    [
        ("image", described("The image, which has kinset and a shell.", one_line())),
        ("namespace", name("The namespace of the Jobs.")),
        (
            "claims",
            described("Volumes by claim, and where pods mount them: `team:/shared`.", json!({"type": "array", "items": claim})),
        ),
        (
            "secrets",
            described("Secrets whose entries are variables of the environment.", json!({"type": "array", "items": secret})),
        ),
        ("service_account", name("The service account of pods.")),
        ("user", whole("The number of the user that pods run as.")),
        ("group", whole("The number of their group.")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The name of an object of Kubernetes.
const NAME: &str = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$";

/// What a job asks for.
fn needs() -> Vec<(String, Json)> {
    let line = |description: &str| described(description, one_line());
    let count = |description: &str, least: u32| described(description, json!({"type": "integer", "minimum": least}));
    let lines = |description: &str, line: Json| described(description, json!({"type": "array", "items": line}));
    let bytes = json!({"anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": "^ *[0-9.]+ *([kmgtKMGT][iI]?)?[bB]? *$"},
    ]});
    [
        ("cpus", count("--cpus-per-task, and the threads of kinset.", 1)),
        ("memory", described("--mem: bytes, or a text such as `16GiB`.", bytes)),
        ("time", described("--time, such as `90min` or `1d`.", time())),
        ("partition", line("--partition.")),
        ("account", line("--account.")),
        ("qos", line("--qos.")),
        ("gpus", count("--gpus-per-node.", 0)),
        ("gpu_type", line("The kind of `gpus`: `a100`.")),
        ("gres", line("--gres, in place of `gpus`: `gpu:1`.")),
        (
            "device",
            described(
                "What `device = \"auto\"` means there.",
                json!({"type": "string", "pattern": "^(cpu|cuda|metal)(:.*)?$"}),
            ),
        ),
        ("where", described("In a job, or in the process that watches.", json!({"enum": ["here", "job"]}))),
        ("fuse", described("A chain of such stages is one job.", json!({"type": "boolean"}))),
        (
            "split",
            described(
                "Jobs that compute a stage together, and one that puts it together, where that can be done: `neighbors`.",
                json!({"type": "integer", "minimum": 1, "maximum": MOST_SHARES}),
            ),
        ),
        ("extra", lines("Further options of sbatch.", json!({"type": "string", "pattern": "^-"}))),
        ("without", lines("Lines of the script to leave out.", json!({"enum": LINES}))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// `gpus` and `gres` say the same.
fn both_gpus() -> Json {
    json!({"required": ["gpus", "gres"]})
}

fn described(description: &str, mut value: Json) -> Json {
    value["description"] = json!(description);
    value
}

fn one_line() -> Json {
    json!({"type": "string", "pattern": "^[^\\u0000-\\u001f\\u007f]+$"})
}

fn one_or_more(name: Json) -> Json {
    json!({"anyOf": [name, {"type": "array", "items": name}]})
}

fn time() -> Json {
    json!({"type": "string", "pattern": "^ *([0-9]+ *(ms|s|m|min|h|d) *)+$"})
}

#[cfg(test)]
mod tests {
    use super::super::rules::{NEEDS, PODS};
    use super::*;

    #[test]
    fn it_has_what_the_file_may_have() {
        let names: Vec<String> = needs().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, NEEDS);
        let names: Vec<String> = pods().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, PODS);
        let schema = schema(&["scan"]);
        let rule = &schema["properties"]["rule"]["items"]["properties"];
        assert_eq!(rule["kind"]["anyOf"][0]["enum"], json!(["scan"]));
        assert_eq!(rule.as_object().unwrap().len(), NEEDS.len() + 2);
    }
}
