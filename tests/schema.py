"""Checks the JSON Schema of pipeline files: what kinset takes it takes, what it refuses kinset refuses, and it explains every setting.

    python tests/schema.py target/release/kinset pipelines FOLDER

Needs jsonschema. Taplo, the tool behind the TOML editors, is asked too where it is installed beside Python.
"""

import json
import re
import struct
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path

import jsonschema

program, pipelines, work = Path(sys.argv[1]).resolve(), sorted(Path(sys.argv[2]).glob("*.toml")), Path(sys.argv[3]).resolve()
work.mkdir(parents=True)


def kinset(*arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def fail(what, found=""):
    sys.exit(f"FAILED {what}\n{found}")


def png(shade):
    """A gray picture of 32 pixels a side."""
    part = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = zlib.compress((b"\0" + bytes([shade]) * 32) * 32)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0)) + part(b"IDAT", rows) + part(b"IEND", b"")


file = work / "kinset.schema.json"
if (said := kinset("schema", "--output", file)).returncode:
    fail("kinset schema", said.stderr)
schema = json.loads(file.read_text())
jsonschema.Draft7Validator.check_schema(schema)
validator = jsonschema.Draft7Validator(schema)
# Taplo marks mistakes behind any reference, but explains only what it finds by a plain one: it decodes no `%20`.
if strange := [name for name in re.findall(r'"\$ref": "([^"]*)"', file.read_text()) if not re.fullmatch(r"#/definitions/[\w/-]+", name)]:
    fail("references that Taplo does not follow", strange)


def faults(text):
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in validator.iter_errors(tomllib.loads(text))]


# What is shipped, and what `init` writes.
if len(pipelines) < 10:
    fail("where are the pipelines?")
texts = {path.name: path.read_text() for path in pipelines}
(work / "photos").mkdir()
for shade in range(24):
    (work / "photos" / f"{shade}.png").write_bytes(png(shade * 10))
said = kinset("init", work / "photos", "--clusters", "3")
if said.returncode:
    fail("kinset init", said.stderr)
texts["init.toml"] = said.stdout
for name, text in texts.items():
    if found := faults(text):
        fail(f"{name} is not as the schema has it", "\n".join(found))
print(f"  ok  {len(texts)} pipelines are as the schema has them")

# Every kind's defaults, written out, and a word on every setting of every table.
methods = json.loads(kinset("methods", "--json").stdout)
settings = 0


def without_null(value):
    if isinstance(value, dict):
        return {key: without_null(item) for key, item in value.items() if item is not None}
    return value


def explained(table, where):
    """Counts the settings; fails for one without type or document."""
    count = 0
    for name, setting in table.get("properties", {}).items():
        path = f"{where}.{name}"
        for inner in [setting, *setting.get("oneOf", [])]:
            if "properties" in inner:
                count += explained(inner, path)
        if name != "kind" or "const" not in setting:
            count += 1
            if not setting.get("description"):
                fail(f"{path} has no document")
            if not {"type", "enum", "const", "oneOf", "anyOf"} & set(setting):
                fail(f"{path} has no type")
            if "::" in json.dumps(setting):
                fail(f"the document of {path} names code")
    return count


for method in methods:
    settings += explained(method["schema"], method["kind"])
    if method["kind"] == "ingest":
        continue
    ports, either = {}, False
    for port in method["ports"]:
        if port["arity"] in ("either", "eithermany"):
            if either:
                continue
            either = True
        ports[port["name"]] = ["x"] if port["arity"] in ("many", "any", "eithermany") else "x"
    given = dict.fromkeys(method["schema"].get("required", []), "given")
    table = {"kind": method["kind"], **ports, **without_null(method["settings"]), **given}
    for error in validator.iter_errors({"stage": {"s": table}}):
        fail(f"the defaults of {method['kind']} are not as the schema has them", f"{list(error.absolute_path)}: {error.message}")
print(f"  ok  {len(methods)} kinds, {settings} settings: each has a type and a document, and all defaults fit")

# Mistakes, each in a file that is right otherwise: what to replace, by what, and where the schema points.
sample = """name = "p"
[data.train]
dataset = "synthetic"
images = 30
[stage.pretext]
kind = "simclr"
images = "data.train"
temperature = 0.2
optimizer = { lr = 0.1 }
augment = { crop_scale = [0.3, 1.0] }
[stage.features]
kind = "embed"
images = "data.train"
encoder = "pretext"
[stage.cluster]
kind = "kmeans"
features = "features"
encoder = "pretext"
clusters = 4
[profile.smoke.stage.pretext]
epochs = 1
"""
mistakes = [
    ('name = "p"', "nam = 1", ""),
    ('name = "p"', 'name = "a/b"', "name"),
    ('name = "p"', "seed = -1", "seed"),
    ('name = "p"', 'device = "gpu"', "device"),
    ("images = 30", "image = 30", "data.train"),
    ('"synthetic"', '"synthetik"', "data.train.dataset"),
    ('dataset = "synthetic"\nimages = 30', "images = 30", "data.train"),
    ('kind = "embed"', 'kind = "embd"', "stage.features.kind"),
    ('kind = "embed"\n', "", "stage.features"),
    ('encoder = "pretext"\n[stage.cluster]', "[stage.cluster]", "stage.features"),
    ('images = "data.train"\ntemp', 'images = ["data.train"]\ntemp', "stage.pretext.images"),
    ("temperature = 0.2", "temperature = 0.0", "stage.pretext.temperature"),
    ("temperature = 0.2", 'temperature = "low"', "stage.pretext.temperature"),
    ("temperature = 0.2", "temprature = 0.2", "stage.pretext"),
    ("lr = 0.1", "lr = -0.1", "stage.pretext.optimizer.lr"),
    ("lr = 0.1", 'kind = "adagrad"', "stage.pretext.optimizer.kind"),
    ("crop_scale = [0.3, 1.0]", "crop_scale = [0.3, 1.0, 2.0]", "stage.pretext.augment"),
    ("crop_scale = [0.3, 1.0]", "crop_scale = [0.3, 1.5]", "stage.pretext.augment"),
    ("crop_scale = [0.3, 1.0]", 'kind = "strong", crop_scale = [0.3, 1.0]', "stage.pretext.augment"),
    ("clusters = 4", "clusters = 4.5", "stage.cluster.clusters"),
    ("clusters = 4", "clusters = 0", "stage.cluster.clusters"),
    ("epochs = 1", "epoch = 1", "profile.smoke.stage.pretext"),
    ("epochs = 1", 'epochs = "one"', "profile.smoke.stage.pretext.epochs"),
    ("[profile", '[repeat]\nfrom = "cluster"\n[profile', "repeat"),
    ("[profile", '[repeat]\nfrom = "cluster"\nseeds = 0\n[profile', "repeat.seeds"),
    ("[profile", '[store]\nmax_size = "much"\n[profile', "store.max_size"),
    ("[profile.smoke.stage.pretext]", "[profile.smoke.stages.pretext]", "profile.smoke"),
    ("[profile", "[vary]\nseed = [1, 2]\n[profile", "vary"),
    ("[profile", "[vary]\nstage.pretext.temperature = []\n[profile", "vary.stage.pretext.temperature"),
    ("[profile", "[vary]\nstage.pretext.temperature = [0.1, 0.1]\n[profile", "vary.stage.pretext.temperature"),
    ("[profile", '[vary]\nstage.pretext.temperature = [0.1, "low"]\n[profile', "vary.stage.pretext.temperature.1"),
    ("[profile", "[vary]\nstage.pretext.temprature = [0.1]\n[profile", "vary.stage.pretext"),
    ("[profile", "[vary]\nstage.pretext.optimizer.lr = 0.1\n[profile", "vary.stage.pretext.optimizer.lr"),
]
right = [
    sample,
    sample.replace("lr = 0.1", 'kind = "adam", lr = 0.1'),
    sample.replace("crop_scale = [0.3, 1.0]", 'kind = "strong", operations = 2'),
    sample.replace("temperature = 0.2", "temperature = 1"),
    sample.replace("[profile", '[repeat]\nfrom = ["cluster"]\nseeds = [3, 5]\n[profile'),
    sample.replace("[profile", '[store]\nmax_size = "1.5 TiB"\n[profile'),
    sample.replace("[profile", "[vary]\nstage.pretext.optimizer.lr = [0.1, 0.2]\ndata.train.limit = [10, 20]\n[profile"),
    sample.replace("[profile", "[vary]\nstage.pretext = [{ temperature = 0.1, batch = 8 }, { temperature = 0.2, batch = 16 }]\n[profile"),
    sample.replace("epochs = 1", "epochs = 1\nnetwork = { width = 8 }\n[profile.smoke]\nseed = 3"),
]


def refused(text):
    path = work / "p.toml"
    path.write_text(text)
    said = kinset("plan", path, "--artifacts", work / "artifacts")
    return said.returncode == 3, said.stderr


for text in right:
    if found := faults(text):
        fail("the schema refuses what is right", "\n".join(found) + "\n" + text)
    wrong, said = refused(text)
    if wrong:
        fail("kinset refuses what this test takes to be right", said + text)
for old, new, where in mistakes:
    if sample.count(old) < 1:
        fail(f"the sample lacks {old!r}")
    text = sample.replace(old, new, 1)
    found = faults(text)
    if not any(fault.split(": ")[0] == where for fault in found):
        fail(f"{new!r}: the schema does not point at `{where}`", "\n".join(found))
    if not refused(text)[0]:
        fail(f"kinset takes {new!r}")
print(f"  ok  {len(mistakes)} mistakes are found, each at its place, and kinset refuses them too; {len(right)} variants are right")

# Cluster files: that of the guide, and mistakes in it.
cluster_schema = work / "cluster.schema.json"
if (said := kinset("schema", "cluster", "--output", cluster_schema)).returncode:
    fail("kinset schema cluster", said.stderr)
of_cluster = jsonschema.Draft7Validator(json.loads(cluster_schema.read_text()))
guide = (Path(__file__).resolve().parent.parent / "src" / "guide.md").read_text()
shown = re.search(r"```toml\n(executor = .*?)```", guide, re.DOTALL)[1]
(work / "p.toml").write_text(sample)


def taken(text):
    """What the schema says of a cluster file, and whether kinset takes it."""
    path = work / "cluster.toml"
    path.write_text(text)
    said = kinset("plan", work / "p.toml", "--cluster", path, "--executor", "here", "--artifacts", work / "artifacts")
    places = [".".join(map(str, error.absolute_path)) for error in of_cluster.iter_errors(tomllib.loads(text))]
    return places, said.returncode != 3, said.stderr


places, fits, said = taken(shown)
if places or not fits:
    fail("the guide's cluster file", f"{places}\n{said}")
of_clusters = [
    ('executor = "slurm"', 'executor = "slrum"', "executor"),
    ("cpus = 4", "cpu = 4", "default"),
    ("cpus = 4", "cpus = 0", "default.cpus"),
    ('time = "1h"', 'time = "1 week"', "default.time"),
    ('memory = "16GiB"', 'memory = "much"', "default.memory"),
    ('"simclr"', '"simcrl"', "rule.0.kind"),
    ("gpus = 1 ", 'gres = "gpu:1"\ngpus = 1 ', "rule.0"),
    ('["mem"]', '["memory"]', "rule.0.without.0"),
    ('["--constraint=a100"]', '["constraint=a100"]', "rule.0.extra.0"),
    ('where = "here"', 'where = "there"', "rule.1.where"),
    ("fuse = true", 'fuse = "true"', "rule.2.fuse"),
    ("jobs = 200", "jobs = 0", "limits.jobs"),
    ('signal = "USR2"', 'signal = "KILL"', "requeue.signal"),
]
for old, new, where in of_clusters:
    if old not in shown:
        fail(f"the guide's cluster file lacks {old!r}")
    places, fits, said = taken(shown.replace(old, new, 1))
    if where not in places:
        fail(f"{new!r}: the schema of cluster files does not point at `{where}`", places)
    if fits:
        fail(f"kinset takes {new!r} in a cluster file")
print(f"  ok  the guide's cluster file, and {len(of_clusters)} mistakes in it")

# The editors' own tool.
taplo = Path(sys.executable).with_name("taplo")
if taplo.exists():

    def lint(path, text):
        path.write_text(text)
        return subprocess.run([taplo, "lint", path], capture_output=True, text=True, cwd=work)

    for name, text in texts.items():
        said = lint(work / name, f"#:schema ./{file.name}\n{text}")
        if said.returncode:
            fail(f"Taplo refuses {name}", said.stderr)
    said = lint(work / "wrong.toml", f"#:schema ./{file.name}\n" + sample.replace("temperature", "temprature"))
    if said.returncode == 0 or "temprature" not in said.stderr:
        fail("Taplo does not find a mistyped setting", said.stderr)
    print(f"  ok  Taplo: {len(texts)} pipelines, and a mistake")
else:
    print("  --  no Taplo beside Python")
