"""Opens exported networks with the `onnx` package and runs them in onnxruntime beside kinset.

    KINSET_INTEROP_DIR=/tmp/interop cargo test --release --lib left_for_onnxruntime
    python tests/interop_onnx.py /tmp/interop/onnx target/release/kinset /tmp/work

First the networks of each kind that a unit test left, with what they say of the same numbers. Then `kinset export` beside
`kinset predict` and the stage `embed`: pictures from files, prepared as the file itself says.
"""

import csv
import gzip
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
from PIL import Image

left, program, work = Path(sys.argv[1]), str(Path(sys.argv[2]).resolve()), Path(sys.argv[3])
root = Path(__file__).resolve().parent.parent
checks = 0


def near(what, found, wanted, tolerance=1e-4):
    global checks
    checks += 1
    found, wanted = np.asarray(found, np.float64).ravel(), np.asarray(wanted, np.float64).ravel()
    off = (np.abs(found - wanted) / np.maximum(np.abs(wanted), 1)).max() if found.shape == wanted.shape else math.inf
    if not off <= tolerance:
        sys.exit(f"FAILED {what}: off by {off}")
    return off


def check(what, holds):
    global checks
    checks += 1
    if not holds:
        sys.exit(f"FAILED {what}")


def session(path):
    """A file that the checker has no complaint about, every shape in it worked out, ready to run."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    check(f"{path.name}: versions", (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (8, [("", 17)]))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    check(f"{path.name}: shapes", {v.name for v in inferred.graph.value_info} | {v.name for v in model.graph.output} >= {
        name for node in model.graph.node for name in node.output
    })
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 2
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)

worst = {}
for case in json.loads((left / "expected.json").read_text()):
    net = session(left / f"{case['name']}.onnx")
    (port,) = net.get_inputs()
    x = np.array(case["input"], np.float32).reshape(-1, *port.shape[1:])
    answers = dict(zip([output.name for output in net.get_outputs()], net.run(None, {port.name: x})))
    check(f"{case['name']}: outputs", answers.keys() == case["outputs"].keys())
    for name, wanted in case["outputs"].items():
        off = near(f"{case['name']}: {name}", answers[name], wanted)
        kind = case["name"].split("-")[0]
        worst[kind] = max(worst.get(kind, 0), off)
    # One by one as all at once.
    alone = [net.run(None, {port.name: row[None]})[0] for row in x]
    near(f"{case['name']}: alone", np.concatenate(alone), answers[net.get_outputs()[0].name], 1e-5)
check("every kind of network was left", len(worst) >= 7)
for kind, off in sorted(worst.items()):
    print(f"  ok  {kind}: off by {off:.1e}")


def kinset(*arguments):
    done = subprocess.run([program, *map(str, arguments)], cwd=work, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"FAILED kinset {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def prepared(picture, how):
    """A picture as the file wants it: `how` is what it says under the key `kinset`."""
    picture, size = picture.convert(how["mode"]), how["size"]
    (width, height), shorter = picture.size, how["shorter"]
    width, height = (shorter, shorter * height // width) if width <= height else (shorter * width // height, shorter)
    picture = picture.resize((width, height), Image.Resampling[how["filter"].upper()])
    left, top = round((width - size) / 2), round((height - size) / 2)
    numbers = np.asarray(picture.crop((left, top, left + size, top + size)), np.float32) / 255
    return numbers.reshape(size, size, -1).transpose(2, 0, 1)


def beside_predict(pipeline, stage, pictures):
    """The same files through `kinset predict` and through the exported network."""
    file = work / f"{pipeline.stem}-{stage}.onnx"
    kinset("export", pipeline, stage, "--output", file)
    first = file.read_bytes()
    kinset("export", pipeline, stage, "--output", file)
    check(f"{file.name}: the same bytes again", file.read_bytes() == first)
    rows = list(csv.DictReader(io.StringIO(kinset("predict", pipeline, pictures, "--stage", stage))))
    net = session(file)
    about = json.loads(net.get_modelmeta().custom_metadata_map["kinset"])
    check(f"{file.name}: the card beside it", json.loads(Path(f"{file}.json").read_text()) == about)
    x = np.stack([prepared(Image.open(work / row["path"]), about["input"]) for row in rows])
    probabilities, cluster = net.run(["probabilities", "cluster"], {"images": x})
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-30))).sum(1)
    off = near(f"{file.name}: confidence", probabilities.max(1), [float(row["confidence"]) for row in rows])
    near(f"{file.name}: rows", probabilities.sum(1), np.ones(len(rows)), 1e-5)
    near(f"{file.name}: entropy", entropy, [float(row["entropy"]) for row in rows], 5e-4)
    ordered = np.sort(probabilities, 1)
    clear = ordered[:, -1] - ordered[:, -2] > 2e-5
    wanted = np.array([int(row["cluster"]) for row in rows])
    check(f"{file.name}: clusters", (cluster == wanted)[clear].all() and clear.sum() > len(rows) // 2)
    print(f"  ok  {file.stem}: {len(rows)} pictures as in `kinset predict`, off by {off:.1e}, {len(set(wanted))} clusters")


def beside_embed(pipeline, stage, features, source):
    """The images of a stage through `embed` and through the exported encoder."""
    file = work / f"{pipeline.stem}-{stage.split('.')[0]}.onnx"
    kinset("export", pipeline, stage, "--output", file)
    folder = work / "artifacts" / pipeline.stem
    wanted = np.stack(pq.read_table(folder / features / "features.parquet")["embedding"].to_numpy())
    images = pq.read_table(folder / source / "images.parquet")["image"].to_pylist()
    net = session(file)
    how = json.loads(net.get_modelmeta().custom_metadata_map["kinset"])["input"]
    x = np.stack([prepared(Image.open(io.BytesIO(image["bytes"])), how) for image in images])
    off = near(f"{file.name}: embedding", net.run(["embedding"], {"images": x})[0], wanted)
    print(f"  ok  {file.stem}: {len(images)} images as in `embed`, off by {off:.1e}")


work = work.resolve()
work.mkdir(parents=True, exist_ok=True)
# Clothes at their own size; and in color, not square, as photos come.
raw = gzip.open(root / "data" / "fashion-mini" / "train-images-idx3-ubyte.gz").read()[16:]
os.makedirs(work / "clothes", exist_ok=True)
os.makedirs(work / "photos", exist_ok=True)
for row in range(120):
    gray = Image.frombytes("L", (28, 28), raw[row * 784 : (row + 1) * 784])
    gray.save(work / "clothes" / f"{row:03}.png")
    color = Image.merge("RGB", (gray, gray.rotate(90), gray.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    color.resize([(61, 44), (40, 53), (35, 35)][row % 3], Image.Resampling.BICUBIC).save(work / "photos" / f"{row:03}.png")

LEARNED = """
name = "{name}"
seed = 1
device = "cpu"
[data.train]
dataset = "folder"
root = "{folder}"
[stage.pretext]
kind = "simclr"
images = "data.train"
epochs = 2
batch = 40
network = {{ backbone = "{backbone}", stem = "{stem}", width = 8 }}
size = {size}
optimizer = {{ lr = 0.05 }}
[stage.features]
kind = "embed"
images = "data.train"
encoder = "pretext"
[stage.neighbors]
kind = "neighbors"
features = "features"
k = 5
[stage.cluster]
kind = "scan"
images = "data.train"
encoder = "pretext"
neighbors = "neighbors"
clusters = 4
heads = 2
epochs = 3
batch = 40
update = "heads"
optimizer = {{ kind = "adam", lr = 0.001 }}
augment = {{ kind = "plain" }}
[stage.kmeans]
kind = "kmeans"
features = "features"
encoder = "pretext"
clusters = 4
"""
for name, folder, backbone, stem, size in [
    ("strided", "clothes", "resnet_tiny", "strided", 28),
    ("cifar", "photos", "resnet_tiny", "cifar", 32),
    ("stl", "photos", "resnet18", "stl", 32),
    ("imagenet", "photos", "resnet50", "imagenet", 40),
]:
    pipeline = work / f"{name}.toml"
    pipeline.write_text(LEARNED.format(name=name, folder=folder, backbone=backbone, stem=stem, size=size))
    kinset("run", pipeline)
    beside_embed(pipeline, "pretext.encoder", "features", "data.train")
    for stage in ["cluster", "kmeans"]:
        beside_predict(pipeline, stage, folder)

FROZEN = """
name = "{name}"
device = "cpu"
[data.train]
dataset = "folder"
root = "photos"
[stage.encoder]
kind = "frozen"
network = {network}
size = {size}
weights = "{weights}"
[stage.features]
kind = "embed"
images = "data.train"
encoder = "encoder"
[stage.kmeans]
kind = "kmeans"
features = "features"
encoder = "encoder"
clusters = 4
[stage.temi]
kind = "temi"
features = "features"
encoder = "encoder"
neighbors = "neighbors"
clusters = 4
heads = 2
epochs = 2
batch = 40
[stage.neighbors]
kind = "neighbors"
features = "features"
k = 5
[stage.together]
kind = "consensus"
classifiers = "temi"
features = "features"
"""
for name, network, size, weights in [
    ("dinov2", 'backbone = "dinov2_vits14", width = 16, depth = 2, heads = 2, patch = 4, grid = 5', 24, "dinov2_hub"),
    ("registers", 'backbone = "dinov2_vits14_reg", width = 16, depth = 2, heads = 2, patch = 4, grid = 5', 20, "dinov2_reg_hub"),
    ("clip", 'backbone = "clip_vit_b32", width = 16, depth = 2, heads = 2, hidden = 32, patch = 4, grid = 4, output = 6', 24, "clip_hub"),
    ("resnet50", 'backbone = "resnet50", width = 1', 32, "resnet50_hub"),
]:
    pipeline, file = work / f"{name}.toml", root / "tests" / "golden" / "encoders" / f"{weights}.safetensors"
    pipeline.write_text(FROZEN.format(name=name, network=f"{{ {network} }}", size=size, weights=file))
    kinset("run", pipeline)
    beside_embed(pipeline, "encoder", "features", "data.train")
    for stage in ["kmeans", "temi", "together"]:
        beside_predict(pipeline, stage, "photos")
print(f"{checks} checks passed")
