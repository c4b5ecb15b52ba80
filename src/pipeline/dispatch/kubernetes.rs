//! What would be submitted to Kubernetes, as files: a manifest of an Indexed Job for each unit, and a script that applies them in order.
//!
//! Kubernetes keeps no order among Jobs, so the script waits for those that one reads before it applies it, by `kubectl`. A pod is a worker of
//! one task. It finds the ticket, the store and the data in volumes, which lie where this machine has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::cluster::{After, Cluster, Death, Job, JobId, Queue};
use super::error::DispatchError;
use super::rules::{Pods, Rules};
use super::slurm::quoted;
use kinset_base::fault::Exit;
use kinset_base::fs;

/// The script that applies all manifests.
const SUBMIT: &str = "submit.sh";

/// A pod is called after its Job, with a number and five letters behind; it may have 63.
const LONGEST: usize = 48;

/// Exit codes after which a task would end so again.
const FINAL: [Exit; 6] = [Exit::Usage, Exit::Pipeline, Exit::Data, Exit::Run, Exit::Store, Exit::Bug];

/// Those after which another attempt may go on.
const PASSING: [Exit; 2] = [Exit::Machine, Exit::Stopped];

/// What the script begins with.
const HEAD: &str = r#"# Applies these Jobs, each once those that it reads are done. Started again it goes on, and tries again what has failed.
set -eu
cd "$(dirname "$0")"
failed=' '

# state JOB: Complete or Failed, once it is.
state() {
    kubectl get job "$1" --ignore-not-found -o 'jsonpath={.status.conditions[?(@.status=="True")].type}'
}

# over JOB: waits for its end; true if it is done.
over() {
    case $failed in *" $1 "*) return 1 ;; esac
    while :; do
        # No answer says nothing about a Job.
        case " $(state "$1" || true) " in
            *' Complete '*) return 0 ;;
            *' Failed '*) echo "$1 has failed: kubectl logs job/$1" >&2; failed+="$1 "; return 1 ;;
        esac
        sleep "${KINSET_POLL:-5}"
    done
}

# put FILE JOB AFTER...
put() {
    local file=$1 job=$2 above
    shift 2
    for above; do
        over "$above" || { echo "$job is not submitted, since $above has failed" >&2; failed+="$job "; return 0; }
    done
    case " $(state "$job") " in *' Failed '*) kubectl delete job "$job" ;; esac
    kubectl apply -f "$file" || { echo "$job is refused" >&2; failed+="$job "; }
}

"#;

#[derive(Debug)]
pub struct Kubernetes {
    rules: Rules,
    image: String,
    folder: PathBuf,
    jobs: Mutex<Vec<Put>>,
}

/// A line of the script.
#[derive(Debug)]
struct Put {
    file: String,
    name: JobId,
    after: Vec<JobId>,
    /// How many Jobs must be done before it, one after the other.
    wave: usize,
}

impl Kubernetes {
    /// Into this folder, which is there, for a store in `artifacts`.
    ///
    /// # Errors
    /// If there is no image, or pods would not see one of the folders.
    pub fn new(rules: Rules, folder: PathBuf, artifacts: &Path) -> Result<Self, DispatchError> {
        let image = rules.pods.image.clone().ok_or(DispatchError::NoImage)?;
        for path in [&folder, artifacts] {
            if !rules.pods.claims.iter().any(|(_, at)| path.starts_with(at)) {
                return Err(DispatchError::Unseen { path: path.display().to_string() });
            }
        }
        Ok(Self { rules, image, folder, jobs: Mutex::default() })
    }

    /// The manifest of a Job.
    fn manifest(&self, job: &Job<'_>, name: &str) -> Value {
        let Job { place, ticket, needs, comment } = job;
        let Pods { namespace, claims, secrets, service_account, user, group, .. } = &self.rules.pods;
        let kinset = self.rules.kinset.clone().unwrap_or_else(|| "kinset".into());
        let start = format!("exec {} exec-stage {} \"$JOB_COMPLETION_INDEX\"", quoted(&kinset), quoted(&place.ticket()));
        let script = self.rules.setup.iter().chain([&start]).map(String::as_str).collect::<Vec<_>>().join("\n");

        let mut limits = Map::new();
        limits.extend(needs.cpus.map(|cpus| ("cpu".to_owned(), json!(cpus.to_string()))));
        limits.extend(needs.memory.map(|bytes| ("memory".to_owned(), json!(format!("{}Mi", bytes.div_ceil(1 << 20))))));
        let requests = limits.clone();
        let gpus = needs.gpus.filter(|gpus| *gpus > 0);
        limits.extend(gpus.map(|gpus| ("nvidia.com/gpu".to_owned(), json!(gpus.to_string()))));
        let selector = needs.gpu_type.as_ref().filter(|_| gpus.is_some()).map(|kind| json!({ "nvidia.com/gpu.product": kind }));

        let names: Vec<String> = (0..claims.len()).map(|number| format!("volume-{number}")).collect();
        let mounts = claims.iter().zip(&names).map(|((_, at), name)| json!({ "name": name, "mountPath": at }));
        let volumes = claims
            .iter()
            .zip(&names)
            .map(|((claim, _), name)| json!({ "name": name, "persistentVolumeClaim": { "claimName": claim } }));
        let container = object([
            ("name", Some(json!("kinset"))),
            ("image", Some(json!(self.image))),
            ("command", Some(json!(["/bin/sh", "-c", literal(&script)]))),
            ("resources", (!limits.is_empty()).then(|| json!({ "limits": limits, "requests": requests }))),
            ("envFrom", some_list(secrets.iter().map(|name| json!({ "secretRef": { "name": name } })))),
            ("volumeMounts", some_list(mounts)),
        ]);
        let rights = object([
            ("runAsUser", user.map(|user| json!(user))),
            ("runAsGroup", group.map(|group| json!(group))),
            ("fsGroup", group.map(|group| json!(group))),
        ]);
        let pod = object([
            ("restartPolicy", Some(json!("Never"))),
            // Progress is kept by then.
            ("terminationGracePeriodSeconds", Some(json!(self.rules.requeue.lead.as_secs()))),
            ("activeDeadlineSeconds", needs.time.map(|time| json!(time.as_secs().max(1)))),
            ("serviceAccountName", service_account.as_ref().map(|name| json!(name))),
            ("automountServiceAccountToken", service_account.is_none().then_some(Value::Bool(false))),
            ("nodeSelector", selector),
            ("securityContext", (rights != json!({})).then_some(rights)),
            ("containers", Some(json!([container]))),
            ("volumes", some_list(volumes)),
        ]);
        let labels =
            json!({ "app.kubernetes.io/name": "kinset", "app.kubernetes.io/instance": plain(&ticket.pipeline, LONGEST) });
        let codes = |exits: &[Exit]| exits.iter().map(|exit| *exit as u8).collect::<Vec<_>>();
        let ended = |codes: Vec<u8>| json!({ "containerName": "kinset", "operator": "In", "values": codes });
        let tasks = ticket.tasks.len();
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": object([
                ("name", Some(json!(name))),
                ("namespace", namespace.as_ref().map(|name| json!(name))),
                ("labels", Some(labels.clone())),
                ("annotations", Some(json!({ "kinset/comment": comment }))),
            ]),
            "spec": {
                "completionMode": "Indexed",
                "completions": tasks,
                "parallelism": self.rules.limits.at_once.map_or(tasks, |limit| limit.min(tasks)),
                // Each task has its own: the others go on when one has failed.
                "backoffLimitPerIndex": self.rules.requeue.times,
                "podFailurePolicy": { "rules": [
                    { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
                    { "action": "FailIndex", "onExitCodes": ended(codes(&FINAL)) },
                    { "action": "Count", "onExitCodes": ended(codes(&PASSING)) },
                ] },
                "template": { "metadata": { "labels": labels }, "spec": pod },
            },
        })
    }

    fn script(&self, jobs: &[Put]) -> String {
        let mut text = format!("#!/bin/bash\n{HEAD}");
        if let Some(namespace) = &self.rules.pods.namespace {
            text = text.replacen(
                "failed=' '\n",
                &format!("failed=' '\nkubectl() {{ command kubectl --namespace {namespace} \"$@\"; }}\n"),
                1,
            );
        }
        let mut ordered: Vec<&Put> = jobs.iter().collect();
        ordered.sort_by_key(|put| put.wave);
        for Put { file, name, after, .. } in &ordered {
            let words = [file, name].into_iter().chain(after).map(|word| quoted(Path::new(word))).collect::<Vec<_>>();
            text.push_str(&format!("put {}\n", words.join(" ")));
        }
        let names: Vec<&str> = ordered.iter().map(|put| put.name.as_str()).collect();
        text + &format!(
            "\nfor job in {}; do over \"$job\" || true; done\n[ \"$failed\" = ' ' ] || exit {}\n",
            names.join(" "),
            Exit::Run as u8
        )
    }
}

impl Cluster for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn keeps_order(&self) -> bool {
        true
    }

    fn most_tasks(&self) -> usize {
        self.rules.limits.array.min(self.rules.limits.jobs)
    }

    fn most_at_once(&self) -> usize {
        usize::MAX
    }

    fn submit(&self, job: &Job<'_>, after: &[After]) -> Result<JobId, DispatchError> {
        let id = |after: &After| match after {
            After::Whole(id) | After::Task(id, _) | After::Each(id) => id.clone(),
        };
        let mut after: Vec<JobId> = after.iter().map(id).collect();
        after.dedup();
        // Of two units of one name the tickets differ.
        let digest = job.comment.split(':').nth(1).unwrap_or_default();
        let name = plain(&format!("kinset-{digest}-{}-{}", job.ticket.pipeline, job.ticket.unit), LONGEST);
        let file = format!("{}.yaml", job.place.stem);
        fs::write_atomic(&self.folder.join(&file), yaml(&self.manifest(job, &name)).as_bytes())?;
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let waves: BTreeMap<&JobId, usize> = jobs.iter().map(|put| (&put.name, put.wave)).collect();
        let wave = after.iter().filter_map(|id| waves.get(id)).max().map_or(0, |wave| wave + 1);
        jobs.push(Put { file, name: name.clone(), after, wave });
        fs::write_atomic(&self.folder.join(SUBMIT), self.script(&jobs).as_bytes())?;
        Ok(name)
    }

    fn poll(&self) -> Result<Queue, DispatchError> {
        Ok(Queue::new())
    }

    fn cancel(&self, _: &[JobId]) -> Result<(), DispatchError> {
        Ok(())
    }

    fn post_mortem(&self, _: &JobId, _: usize) -> Option<Death> {
        None
    }

    fn written(&self) -> Option<PathBuf> {
        Some(self.folder.clone())
    }
}

/// A name as Kubernetes takes it: small letters, digits and `-`, which neither begins nor ends it.
fn plain(name: &str, most: usize) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = name.chars().map(plain).take(most).collect();
    text.trim_matches('-').to_owned()
}

/// A text of a command that means itself: Kubernetes puts variables in the place of `$(NAME)`, and `$` in that of `$$`.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        out.push(c);
        if c == '$' && matches!(rest.peek(), Some('$' | '(')) {
            out.push('$');
        }
    }
    out
}

/// An object of those entries that there are.
fn object<const N: usize>(entries: [(&str, Option<Value>); N]) -> Value {
    entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>().into()
}

/// Nothing for an empty list.
fn some_list(items: impl Iterator<Item = Value>) -> Option<Value> {
    let items: Vec<Value> = items.collect();
    (!items.is_empty()).then(|| items.into())
}

/// A value as YAML in blocks. Texts are written as JSON has them, which YAML reads, but for scripts of several lines.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// Writes a value whose lines are so far to the right. It begins where the text ends: behind `key:`, behind `-`, or on an empty line.
fn block(value: &Value, indent: usize, text: &mut String) {
    let margin = " ".repeat(indent);
    let begin = |text: &mut String| {
        if text.ends_with(':') {
            text.push('\n');
        }
        if text.is_empty() || text.ends_with('\n') {
            text.push_str(&margin);
        }
    };
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (name, value) in entries {
                begin(text);
                text.push_str(&format!("{}:", if is_word(name) { name.clone() } else { json!(name).to_string() }));
                block(value, indent + 2, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                begin(text);
                text.push_str("- ");
                block(item, indent + 2, text);
            }
        }
        other => {
            if text.ends_with(':') {
                text.push(' ');
            }
            match other.as_str() {
                Some(script) if script.contains('\n') && !script.starts_with([' ', '\n']) && !script.ends_with('\n') => {
                    let lines = script.lines().map(|line| format!("{margin}{line}\n"));
                    text.push_str(&format!("|-\n{}", lines.collect::<String>()));
                }
                _ => text.push_str(&format!("{other}\n")),
            }
        }
    }
}

/// A key that means itself without quotes.
fn is_word(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || "./-".contains(c)) && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::super::rules::Needs;
    use super::super::ticket::{Form, Place, Restarts, Task, Worker};
    use super::*;
    use crate::spec::Request;
    use crate::state::Devices;
    use crate::testing::catalog;
    use kinset_base::search_path::DataPaths;
    use kinset_store::digest::Digest;

    const RULES: &str = r#"
setup = ["ulimit -n $(ulimit -H -n)"]

[default]
cpus = 4
memory = "16GiB"
time = "1h"
gpus = 2
gpu_type = "NVIDIA-A100-SXM4-40GB"

[limits]
at_once = 2

[requeue]
times = 5
lead = "2min"

[kubernetes]
image = "registry.example/kinset:1"
namespace = "vision"
claims = ["team:/shared", "raw:/raw"]
secrets = ["s3"]
user = 1000
group = 100
"#;

    /// What an object of the API may hold, by the reference of Kubernetes 1.33 (`batch/v1` and `core/v1`): `name` a text, `name#` a whole
    /// number, `name?` true or false, `name=Kind` an object, `name*Kind` a list of them, `name*` a list of texts, `name:` texts by name,
    /// `name*#` whole numbers.
    const API: &[(&str, &str)] = &[
        ("Job", "apiVersion kind metadata=ObjectMeta spec=JobSpec"),
        ("ObjectMeta", "name namespace generateName labels: annotations: finalizers*"),
        (
            "JobSpec",
            "activeDeadlineSeconds# backoffLimit# backoffLimitPerIndex# completionMode completions# managedBy manualSelector? \
             maxFailedIndexes# parallelism# podFailurePolicy=PodFailurePolicy podReplacementPolicy suspend? \
             template=PodTemplateSpec ttlSecondsAfterFinished#",
        ),
        ("PodFailurePolicy", "rules*PodFailurePolicyRule"),
        ("PodFailurePolicyRule", "action onExitCodes=OnExitCodes onPodConditions*OnPodCondition"),
        ("OnExitCodes", "containerName operator values*#"),
        ("OnPodCondition", "type status"),
        ("PodTemplateSpec", "metadata=ObjectMeta spec=PodSpec"),
        (
            "PodSpec",
            "activeDeadlineSeconds# automountServiceAccountToken? containers*Container enableServiceLinks? hostNetwork? \
             initContainers*Container nodeName nodeSelector: priorityClassName restartPolicy runtimeClassName schedulerName \
             securityContext=PodSecurityContext serviceAccountName terminationGracePeriodSeconds# volumes*Volume",
        ),
        ("PodSecurityContext", "fsGroup# fsGroupChangePolicy runAsGroup# runAsNonRoot? runAsUser# supplementalGroups*#"),
        (
            "Container",
            "args* command* envFrom*EnvFromSource image imagePullPolicy name resources=ResourceRequirements stdin? tty? \
             volumeMounts*VolumeMount workingDir",
        ),
        ("EnvFromSource", "prefix secretRef=SecretRef"),
        ("SecretRef", "name optional?"),
        ("ResourceRequirements", "limits: requests:"),
        ("VolumeMount", "mountPath mountPropagation name readOnly? subPath subPathExpr"),
        ("Volume", "name persistentVolumeClaim=ClaimSource"),
        ("ClaimSource", "claimName readOnly?"),
    ];

    /// Everything in an object that its kind does not have, or has in another form.
    fn strange(value: &Value, kind: &str, at: &str, found: &mut Vec<String>) {
        let (_, fields) = API.iter().find(|(name, _)| *name == kind).unwrap();
        let Some(entries) = value.as_object() else { return found.push(format!("{at} is no object")) };
        for (name, value) in entries {
            let at = format!("{at}.{name}");
            let form = fields.split_whitespace().find_map(|field| {
                let rest = field.strip_prefix(name.as_str())?;
                (!rest.starts_with(|c: char| c.is_ascii_alphanumeric())).then_some(rest)
            });
            let fits = match form {
                Some("") => value.is_string(),
                Some("#") => value.is_u64(),
                Some("?") => value.is_boolean(),
                Some(":") => value.as_object().is_some_and(|entries| entries.values().all(Value::is_string)),
                Some("*") => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
                Some("*#") => value.as_array().is_some_and(|items| items.iter().all(Value::is_u64)),
                Some(inner) => {
                    let (list, kind) = inner.split_at(1);
                    let items = if list == "*" { value.as_array().cloned().unwrap_or_default() } else { vec![value.clone()] };
                    for item in &items {
                        strange(item, kind, &at, found);
                    }
                    !items.is_empty()
                }
                None => false,
            };
            if !fits {
                found.push(format!("{at}: {value}"));
            }
        }
    }

    fn rules(text: &str) -> Rules {
        Rules::check(Path::new("/shared/cluster.toml"), text, &catalog()).unwrap()
    }

    fn manifest(text: &str, needs: &Needs) -> Value {
        let rules = rules(text);
        let form = Form {
            pipeline: "Größe_1".into(),
            file: "/shared/p.toml".into(),
            text: String::new(),
            request: Request::default(),
            artifacts: "/shared/artifacts".into(),
            places: DataPaths::new("", None, None),
            devices: Devices::from("cpu"),
            checkpoint_every: 1.0,
            settle: 0.0,
            restarts: Restarts { times: 1, signal: "TERM".into(), without_progress: 2 },
            cache: None,
        };
        let task = Task { stage: "cluster@1".into(), forced: false, share: None, plan: Digest::of(b"") };
        let ticket = form.fill("cluster".into(), Worker::default(), BTreeMap::new(), vec![vec![task]; 3]);
        let place = Place { folder: "/shared/jobs of today".into(), stem: "01-cluster".into() };
        let job = Job { place: &place, ticket: &ticket, needs, comment: "kinset:123:Größe_1:cluster" };
        let made = Kubernetes::new(rules, "/shared/jobs of today".into(), Path::new("/shared/artifacts")).unwrap();
        made.manifest(&job, "kinset-123-cluster")
    }

    #[test]
    fn a_manifest_has_the_fields_of_the_published_api_and_no_others() {
        let needs = Needs {
            cpus: Some(4),
            memory: Some((1 << 30) + 1),
            time: Some(std::time::Duration::from_hours(1)),
            gpus: Some(2),
            gpu_type: Some("NVIDIA-A100-SXM4-40GB".into()),
            ..Needs::default()
        };
        let least = "[kubernetes]\nimage = \"x\"\nclaims = [\"team:/\"]\n";
        for (text, needs) in [(RULES, needs), (least, Needs::default())] {
            let (found, mut wrong) = (manifest(text, &needs), Vec::new());
            strange(&found, "Job", "Job", &mut wrong);
            assert!(wrong.is_empty(), "{wrong:#?}\n{}", yaml(&found));
            let (spec, pod) = (&found["spec"], &found["spec"]["template"]["spec"]);
            // What the API wants of an Indexed Job with limits of its own for each index.
            assert_eq!(
                (&spec["completionMode"], &spec["completions"], &pod["restartPolicy"]),
                (&json!("Indexed"), &json!(3), &json!("Never"))
            );
            let rules = spec["podFailurePolicy"]["rules"].as_array().unwrap();
            assert_eq!(
                rules.iter().map(|rule| rule["action"].as_str().unwrap()).collect::<Vec<_>>(),
                ["Ignore", "FailIndex", "Count"]
            );
            let codes: Vec<u64> = rules
                .iter()
                .flat_map(|rule| rule["onExitCodes"]["values"].as_array().cloned().unwrap_or_default())
                .map(|code| code.as_u64().unwrap())
                .collect();
            assert_eq!(codes, [2, 3, 4, 5, 6, 70, 7, 75]);
            let [container] = pod["containers"].as_array().unwrap().as_slice() else { panic!("{pod}") };
            let volumes: Vec<&Value> = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
            assert_eq!(
                container["volumeMounts"].as_array().unwrap().iter().map(|mount| &mount["name"]).collect::<Vec<_>>(),
                volumes
            );
            for label in found["metadata"]["labels"].as_object().unwrap().values() {
                assert!(label.as_str().unwrap().bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-'), "{label}");
            }
        }
    }

    #[test]
    fn what_a_job_asks_for_is_what_its_pods_ask_for() {
        let needs = Needs {
            cpus: Some(4),
            memory: Some((1 << 30) + 1),
            gpus: Some(2),
            gpu_type: Some("a100".into()),
            ..Needs::default()
        };
        let found = manifest(RULES, &needs);
        let (spec, pod) = (&found["spec"], &found["spec"]["template"]["spec"]);
        assert_eq!(
            (&spec["backoffLimitPerIndex"], &spec["parallelism"], &pod["terminationGracePeriodSeconds"]),
            (&json!(5), &json!(2), &json!(120))
        );
        let container = &pod["containers"][0];
        assert_eq!(
            container["resources"],
            json!({"limits": {"cpu": "4", "memory": "1025Mi", "nvidia.com/gpu": "2"}, "requests": {"cpu": "4", "memory": "1025Mi"}})
        );
        assert_eq!(pod["nodeSelector"], json!({"nvidia.com/gpu.product": "a100"}));
        assert_eq!(pod["securityContext"], json!({"runAsUser": 1000, "runAsGroup": 100, "fsGroup": 100}));
        assert_eq!(
            container["command"][2],
            "ulimit -n $$(ulimit -H -n)\nexec kinset exec-stage '/shared/jobs of today/01-cluster.json' \"$JOB_COMPLETION_INDEX\""
        );
    }

    #[test]
    fn without_an_image_or_a_volume_that_pods_share_nothing_is_written() {
        let made =
            |text: &str, artifacts: &str| Kubernetes::new(rules(text), "/shared/d".into(), Path::new(artifacts)).map(drop);
        assert!(matches!(made("", "/shared/artifacts"), Err(DispatchError::NoImage)));
        assert!(matches!(made(RULES, "/local/artifacts"), Err(DispatchError::Unseen { path }) if path == "/local/artifacts"));
        assert!(matches!(made(RULES, "/shared2/artifacts"), Err(DispatchError::Unseen { .. })));
        made(RULES, "/shared/artifacts").unwrap();
    }

    #[test]
    fn values_are_written_as_yaml_in_blocks() {
        let value = json!({
            "a": {"b/c.d": ["x: y", "two\nlines", " odd\n"], "no word": 1},
            "e": [{"f": true, "g": []}, [{"h": {}}]],
        });
        let text = "a:\n  b/c.d:\n    - \"x: y\"\n    - |-\n      two\n      lines\n    - \" odd\\n\"\n  \"no word\": 1\n\
                    e:\n  - f: true\n    g: []\n  - - h: {}\n";
        assert_eq!(yaml(&value), text);
    }

    #[test]
    fn dollars_that_kubernetes_would_replace_are_doubled() {
        assert_eq!(literal("$A $(B) $$ ${C} $"), "$A $$(B) $$$ ${C} $");
        assert_eq!(literal("$$(x)"), "$$$$(x)");
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        assert_eq!(plain("kinset-12-Tiny_1-data.train", LONGEST), "kinset-12-tiny-1-data-train");
        assert_eq!(plain(&"a-".repeat(40), LONGEST), format!("{}a", "a-".repeat(23)));
    }
}
