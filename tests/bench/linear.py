"""The linear probe beside scikit-learn's logistic regression on the same features, with the same penalty.

    python tests/bench/linear.py target/release/kinset [--sets digits fashion-mini fashion-mnist] [--data DIR]

Features are the pixels. Digits: scikit-learn's copy, the first 1,297 of 1,797 are learned from; fashion-mini: 5,000 and 1,000 images of
this repository; fashion-mnist: 60,000 and 10,000. kinset chooses a penalty on a fifth of the images that are learned from; scikit-learn
gets it, the same centered features and 1,000 iterations, and `C = 1` on standardized features besides, which is what most people use.
Needs NumPy, pyarrow, scikit-learn and Pillow.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import pyarrow.parquet
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

PIPELINE = """
name = "linear"
seed = 1
device = "cpu"
[data.bank]
{data}
split = "train"
[data.queries]
{data}
split = "test"
[stage.pixels]
kind = "pixels"
images = "data.bank"
[stage.bank]
kind = "embed"
images = "data.bank"
encoder = "pixels"
normalize = false
[stage.queries]
kind = "embed"
images = "data.queries"
encoder = "pixels"
normalize = false
[stage.linear]
kind = "linear_eval"
bank = "bank"
bank_labels = "data.bank.labels"
queries = "queries"
query_labels = "data.queries.labels"
"""


def digits(folder):
    """Pictures in folders of classes, for the reader of folders."""
    found = load_digits()
    for number, (image, label) in enumerate(zip(found.images, found.target)):
        place = folder / ("train" if number < 1297 else "test") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(numpy.uint8)).save(place / f"{number:04}.png")
    return f'dataset = "folder"\nroot = "{folder}"'


def table(folder, name):
    features = pyarrow.parquet.read_table(folder / name / "features.parquet")
    labels = pyarrow.parquet.read_table(folder / f"data.{name}" / "labels.parquet")
    known = dict(zip(labels["id"].to_pylist(), labels["label"].to_pylist()))
    ids = features["id"].to_pylist()
    values = features["embedding"].combine_chunks().flatten().to_numpy().reshape(len(ids), -1)
    return values.astype(numpy.float64), numpy.array([known[id] for id in ids])


def measure(kinset, places, name, data, scratch):
    (scratch / "p.toml").write_text(PIPELINE.format(data=data))
    began = time.time()
    done = subprocess.run([kinset, "run", "p.toml", "--no-report", "--data", places], cwd=scratch, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    seconds = time.time() - began
    folder = scratch / "artifacts" / "linear"
    row = json.loads((folder / "linear" / "scores.json").read_text())["content"]["rows"][0]
    penalty = float(re.search(r"penalty ([0-9.e-]+)", " ".join(row["notes"]))[1])
    (bank, labels), (queries, truth) = table(folder, "bank"), table(folder, "queries")
    mean = bank.mean(0)
    scale = numpy.sqrt(((bank - mean) ** 2).mean())
    began = time.time()
    same = LogisticRegression(C=1 / (penalty * len(bank)), max_iter=1000).fit((bank - mean) / scale, labels)
    same = same.score((queries - mean) / scale, truth)
    theirs = time.time() - began
    usual = StandardScaler().fit(bank)
    plain = LogisticRegression(max_iter=1000).fit(usual.transform(bank), labels).score(usual.transform(queries), truth)
    print(
        f"| {name} | {penalty} | {100 * row['linear']:.2f} | {100 * same:.2f} | {100 * (row['linear'] - same):+.2f} | {100 * plain:.2f} "
        f"| {seconds:.0f} s of the whole pipeline, {theirs:.0f} s of one fit |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinset", type=Path)
    parser.add_argument("--sets", nargs="+", default=["digits", "fashion-mini"])
    parser.add_argument("--data", type=Path, default=Path("data"))
    args = parser.parse_args()
    print("| set | penalty | kinset | scikit-learn, the same penalty | difference | `C = 1`, standardized | |\n|---|---|---|---|---|---|---|")
    for name in args.sets:
        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(scratch)
            data = digits(scratch / "digits") if name == "digits" else f'dataset = "{name}"'
            measure(args.kinset.resolve(), args.data.resolve(), name, data, scratch)


if __name__ == "__main__":
    main()
