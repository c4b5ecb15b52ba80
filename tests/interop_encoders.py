"""Any ONNX encoder through the stages `onnx_encoder` and `embed`, beside onnxruntime on the same pictures.

    just encoders FILE.onnx …
    KINSET=target/release/kinset python tests/interop_encoders.py PICTURES FILE.onnx …

PICTURES is a folder of pictures. A file may be followed by `=FILE.safetensors`, the same network under the names of its authors, which
the stage `frozen` (DINOv2 ViT-S/14) must agree with. Needs numpy, onnxruntime, pyarrow and Pillow.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
from PIL import Image

PIPELINE = """
name = "encoders"
seed = 1
device = "cpu"
[data.images]
dataset = "folder"
root = {root}
limit = 64
labels = false
[stage.encoder]
{encoder}
[stage.features]
kind = "embed"
images = "data.images"
encoder = "encoder"
normalize = false
"""
program, pictures = os.environ["KINSET"], str(Path(sys.argv[1]).resolve())


def features(work, encoder, threads=None):
    """What kinset makes of the pictures, their paths, how it prepares them, and the seconds of `embed`."""
    file = work / "encoders.toml"
    file.write_text(PIPELINE.format(root=json.dumps(pictures), encoder=encoder))
    artifacts = work / f"artifacts-{threads}"
    environment = dict(os.environ, **({"RAYON_NUM_THREADS": str(threads)} if threads else {}))
    run = lambda *more: subprocess.run([program, *more], check=True, capture_output=True, env=environment)
    run("run", file, "--artifacts", artifacts, "--until", "encoder", "--no-report")
    run("run", file, "--artifacts", artifacts, "--only", "data.images", "--no-report")
    start = time.perf_counter()
    run("run", file, "--artifacts", artifacts, "--no-report")
    seconds = time.perf_counter() - start
    view = artifacts / "encoders"
    card = json.loads((view / "encoder" / "encoder.json").read_text())["content"]
    images = pq.read_table(view / "data.images" / "images.parquet", columns=["image"])["image"].to_pylist()
    values = np.stack(pq.read_table(view / "features" / "features.parquet")["embedding"].to_numpy())
    exported(run, file, artifacts, work, values)
    return values, images, card, seconds


def exported(run, file, artifacts, work, values):
    """Features as others load them are the same numbers."""
    for name in ("f.npy", "f.csv", "f.safetensors", "projector"):
        run("export", file, "features", "--output", work / name, "--artifacts", artifacts)
    raw = (work / "f.safetensors").read_bytes()
    head = 8 + int.from_bytes(raw[:8], "little")
    tensor = json.loads(raw[8:head])["features"]
    found = {
        "npy": np.load(work / "f.npy"),
        "csv": np.loadtxt(work / "f.csv", np.float32, delimiter=",", skiprows=1, usecols=range(1, values.shape[1] + 1)),
        "safetensors": np.frombuffer(raw[head:], "<f4").reshape(tensor["shape"]),
        "projector": np.loadtxt(work / "projector" / "vectors.tsv", np.float32, delimiter="\t"),
    }
    for form, numbers in found.items():
        if not np.array_equal(numbers, values):
            sys.exit(f"FAILED features exported as {form}")
    for names in ("f.names.txt", "projector/metadata.tsv"):
        if len((work / names).read_text().splitlines()) != len(values):
            sys.exit(f"FAILED {names}")
        (work / names).unlink()
    for made in ("f.npy", "f.csv", "f.safetensors"):
        (work / made).unlink()
    subprocess.run(["rm", "-r", work / "projector"], check=True)


def prepared(image, card):
    """A picture as the card says: shorter side, centre, channels."""
    picture = Image.open(io.BytesIO(image["bytes"]))
    if picture.mode in ("P", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    picture = picture.convert("RGB")
    resize, size = card["normalization"]["resize"], card["architecture"]["size"]
    (width, height), shorter = picture.size, resize["shorter"]
    width, height = (shorter, shorter * height // width) if width <= height else (shorter * width // height, shorter)
    picture = picture.resize((width, height), Image.Resampling[resize["filter"].upper()])
    left, top = round((width - size) / 2), round((height - size) / 2)
    numbers = np.asarray(picture.crop((left, top, left + size, top + size)), np.float32) / 255
    mean, std = (np.array(card["normalization"][part], np.float32) for part in ("mean", "std"))
    return ((numbers - mean) / std).transpose(2, 0, 1)


for argument in sys.argv[2:]:
    file, _, published = argument.partition("=")
    file = Path(file).resolve()
    with tempfile.TemporaryDirectory() as work:
        stage = f"kind = \"onnx_encoder\"\nfile = {json.dumps(str(file))}"
        values, images, card, seconds = features(Path(work), stage)
        alone = features(Path(work), stage, 1)[0]
        if not np.array_equal(values, alone):
            sys.exit(f"FAILED {file.name}: one thread gives other bits")
        x = np.stack([prepared(image, card) for image in images])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count()
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        names, (port,) = [output.name for output in session.get_outputs()], session.get_inputs()
        output = "embedding" if "embedding" in names else names[0]
        start = time.perf_counter()
        wanted = np.concatenate([session.run([output], {port.name: x[at : at + 8]})[0] for at in range(0, len(x), 8)])
        theirs = time.perf_counter() - start
        # A picture that is brought to size differs by one in 255 here and there.
        off = np.abs(values - wanted).max() / np.abs(wanted).max()
        cosine = (values * wanted).sum(1) / np.linalg.norm(values, axis=1) / np.linalg.norm(wanted, axis=1)
        print(f"{file.name}: {len(x)} pictures, off by {off:.1e} of the largest, cosine {cosine.min():.6f}; "
              f"embed {seconds:.1f} s, onnxruntime {theirs:.1f} s")
        if not (off < 2e-3 and cosine.min() > 0.9999):
            sys.exit(f"FAILED {file.name}")
        if published:
            stage = f"kind = \"frozen\"\nnetwork = {{ backbone = \"dinov2_vits14\" }}\nweights = {json.dumps(str(Path(published).resolve()))}"
            own, _, _, seconds = features(Path(work), stage)
            off = np.abs(own - wanted).max() / np.abs(wanted).max()
            print(f"  `frozen` with {Path(published).name}: off by {off:.1e}, {seconds:.1f} s")
            if not off < 2e-3:
                sys.exit(f"FAILED {published}")
