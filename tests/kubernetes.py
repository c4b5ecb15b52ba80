"""Checks the manifests that kinset writes for Kubernetes against the published schemas of its API.

    python tests/kubernetes.py target/release/kinset FOLDER

Needs PyYAML and kubernetes-validate, which brings the schemas.
"""

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml

program, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
# The first that has all we use, and the newest there is.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]

PIPELINE = """
name = "pods"
[data.train]
dataset = "synthetic"
[stage.pretext]
kind = "simclr"
images = "data.train"
[stage.features]
kind = "embed"
images = "data.train"
encoder = "pretext"
[stage.cluster]
kind = "kmeans"
features = "features"
encoder = "pretext"
clusters = 3
[repeat]
from = "cluster"
seeds = 4
"""
LEAST = f'[kubernetes]\nimage = "kinset"\nclaims = ["team:{folder}"]\n'
WHOLE = f"""
kinset = "/opt/kin set/kinset"
setup = ["echo $(date)", 'export A="$$ ü"', "  - b: c"]
[default]
cpus = 4
memory = "3GiB"
time = "2d"
[[rule]]
kind = "simclr"
gpus = 2
gpu_type = "NVIDIA-A100-SXM4-40GB"
[limits]
at_once = 3
[kubernetes]
image = "registry.example/kinset:1"
namespace = "vision"
claims = ["team:{folder}", "scratch:/scratch disk"]
secrets = ["s3", "gs"]
service_account = "vision"
user = 1000
group = 100
"""

count = 0
for name, rules in [("least", LEAST), ("whole", WHOLE)]:
    own = folder / name
    own.mkdir(parents=True)
    (own / "p.toml").write_text(PIPELINE)
    (own / "cluster.toml").write_text(rules)
    said = subprocess.run([program, "run", "p.toml", "--executor", "kubernetes", "--dry-run", "d"], cwd=own, capture_output=True, text=True)
    if said.returncode:
        sys.exit(f"FAILED {name}\n{said.stderr}")
    manifests = sorted((own / "d").glob("*.yaml"))
    if len(manifests) != 4:
        sys.exit(f"FAILED {name}: {manifests}")
    for path in manifests:
        manifest = yaml.safe_load(path.read_text())
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                sys.exit(f"FAILED {path.name}, Kubernetes {version}: {error}\n{path.read_text()}")
        count += 1
        script = manifest["spec"]["template"]["spec"]["containers"][0]["command"][2]
        wanted = ["echo $$(date)", 'export A="$$$ ü"', "  - b: c"] if name == "whole" else []
        if script.split("\n")[:-1] != wanted or "exec-stage" not in script.split("\n")[-1]:
            sys.exit(f"FAILED {path.name}: the script of its pods is {script!r}")
print(f"{count} manifests are what the API of Kubernetes {' and '.join(VERSIONS)} takes")
