"""Self-label, RUC and NNM after SCAN's heads: how often `choose` keeps the better of the two, several seeds.

    python tests/bench/kept.py target/release/kinset --data fashion-mini --clusters 10
    python tests/bench/kept.py target/release/kinset --data FOLDER --clusters 18 --color

A folder has a subfolder per class; every fifth image of it is to test. One encoder is shared by all seeds; heads, self-label, RUC and
NNM are trained anew with each. Labels are read by `evaluate` alone. Needs nothing but Python.
"""

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

PIPELINE = """
name = "kept"
seed = 1
device = "cpu"
{data}
[stage.pretext]
kind = "simclr"
images = "data.train"
epochs = {epochs}
batch = 256
temperature = 0.2
network = {{ backbone = "resnet_tiny", stem = "strided", width = 16 }}
optimizer = {{ lr = 0.2 }}
{augment}
[stage.features]
kind = "embed"
images = "data.train"
encoder = "pretext"
layer = "backbone"
[stage.neighbors]
kind = "neighbors"
features = "features"
k = 20
[stage.voters]
kind = "neighbors"
features = "features"
k = 99
[stage.kmeans]
kind = "kmeans"
features = "features"
encoder = "pretext"
clusters = {clusters}
[stage.spectral]
kind = "spectral"
features = "features"
neighbors = "neighbors"
encoder = "pretext"
clusters = {clusters}
[stage.base]
kind = "scan_heads"
features = "features"
neighbors = "neighbors"
encoder = "pretext"
clusters = {clusters}
start = ["spectral", "kmeans"]
heads = 12
entropy_weight = 2.0
[stage.selflabel]
kind = "selflabel"
images = "data.train"
classifier = "base"
epochs = 5
batch = 500
augment = {{ kind = "strong", operations = 2, cutout = 8 }}
[stage.ruc]
kind = "ruc"
images = "data.train"
classifier = "base"
neighbors = "voters"
head = "kept"
epochs = 3
ramp_epochs = 3
batch = 250
confidence_threshold = 0.9
relabel_threshold = 0.9
relabel_rise = 0.02
optimizer = {{ lr = 0.002 }}
weak = {{ crop_scale = [0.5, 1.0] }}
[stage.nnm]
kind = "nnm"
images = "data.train"
encoder = "pretext"
neighbors = "neighbors"
start = "base"
clusters = {clusters}
heads = 5
update = "heads"
epochs = 60
batch = 250
entropy_weight = 2.0
optimizer = {{ kind = "adam", lr = 0.01 }}
augment = {{ kind = "plain" }}
{kept}
[stage.scores]
kind = "evaluate"
classifiers = {classifiers}
images = "data.test"
labels = "data.test.labels"
[repeat]
from = ["kmeans", "spectral"]
seeds = {seeds}
"""
REFINED = ["selflabel", "ruc", "nnm"]
KEPT = """
[stage.{0}_or_base]
kind = "choose"
classifiers = ["base", "{0}"]
images = "data.train"
neighbors = "neighbors"
"""


def split(folder, out):
    """Copies a folder of class folders to `train` and `test`."""
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        for place, image in enumerate(sorted(path for path in kind.iterdir() if path.is_file())):
            target = out / ("test" if place % 5 == 4 else "train") / kind.name / image.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinset", type=Path)
    parser.add_argument("--data", required=True, help="a data set of kinset's, or a folder of class folders")
    parser.add_argument("--clusters", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=40, help="of the pretext")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--color", action="store_true", help="color pictures: SimCLR's own augmentation")
    parser.add_argument("--search-path", type=Path, default=Path("data"), help="where kinset finds its data sets")
    parser.add_argument("--work", type=Path, default=Path("kept-work"), help="where results lie; a second run goes on there")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if Path(args.data).is_dir():
        if not (args.work / "images").is_dir():
            split(Path(args.data), args.work / "images.half")
            (args.work / "images.half").rename(args.work / "images")
        rows = [f'[data.{part}]\ndataset = "folder"\nroot = "images/{part}"\nskip_broken = true\n' for part in ("train", "test")]
    else:
        rows = [f'[data.{part}]\ndataset = "{args.data}"\nsplit = "{part}"\n' for part in ("train", "test")]
    names = ["kmeans", "spectral", "base", *REFINED, *(f"{name}_or_base" for name in REFINED)]
    text = PIPELINE.format(
        data="".join(rows),
        epochs=args.epochs,
        augment="" if args.color else "augment = { crop_scale = [0.3, 1.0] }",
        clusters=args.clusters,
        kept="".join(KEPT.format(name) for name in REFINED),
        classifiers=str(names).replace("'", '"'),
        seeds=args.seeds,
    )
    (args.work / "kept.toml").write_text(text)
    command = [args.kinset.resolve(), "run", "kept.toml", "--no-report", "--data", args.search_path.resolve()]
    subprocess.run(command, cwd=args.work, check=True)
    found = {name: [] for name in names}
    for seed in range(1, args.seeds + 1):
        scores = args.work / f"artifacts/kept/scores@{seed}/scores.csv"
        with scores.open(newline="") as file:
            for row in csv.DictReader(file):
                found[row["measured"].split("@")[0]].append(100 * float(row["acc"]))
    print(f"{args.data}: test ACC of {args.seeds} seeds")
    for name, rows in found.items():
        spread = statistics.stdev(rows) if len(rows) > 1 else float("nan")
        print(f"{name:18} {statistics.mean(rows):5.1f} ± {spread:4.1f}   {' '.join(f'{acc:.1f}' for acc in rows)}")
    print("\nafter SCAN's heads   better in   kept in   rightly   worst loss of what is kept")
    for name in REFINED:
        triples = list(zip(found["base"], found[name], found[f"{name}_or_base"]))
        better = [refined > base for base, refined, _ in triples]
        # Where both score the same nothing was chosen wrongly.
        kept = [kept == refined and refined != base for base, refined, kept in triples]
        right = sum(kept >= max(base, refined) for base, refined, kept in triples)
        worst = min(kept - base for base, _, kept in triples)
        print(f"{name:18} {sum(better):8} of {args.seeds} {sum(kept):8} {right:8}   {worst:+.1f}")


if __name__ == "__main__":
    sys.exit(main())
