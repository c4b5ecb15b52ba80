"""k-means, spectral clustering, SCAN's heads and their consensus on features from elsewhere, scored with labels, several seeds.

    python tests/bench/recipe.py target/release/kinset --train train.parquet --test test.parquet --clusters 10

The files hold one row per image: `embedding` (a list of numbers), `name` (unique) and `label`. kinset gets copies without the labels, so
that no stage can read them; they are used here, for the scores. Needs NumPy, SciPy, scikit-learn and pyarrow.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import normalized_mutual_info_score

PIPELINE = """
name = "recipe-{seed}"
seed = {seed}
device = "cpu"

[stage.features]
kind = "import_features"
file = "train.parquet"
[stage.test]
kind = "import_features"
file = "test.parquet"

[stage.neighbors]
kind = "neighbors"
features = "features"
k = 20
[stage.kmeans]
kind = "kmeans"
features = "features"
clusters = {clusters}
[stage.spectral]
kind = "spectral"
features = "features"
neighbors = "neighbors"
clusters = {clusters}
[stage.heads]
kind = "scan_heads"
features = "features"
neighbors = "neighbors"
clusters = {clusters}
start = ["spectral", "kmeans"]
heads = 12
entropy_weight = 2.0
[stage.random_heads]
kind = "scan_heads"
features = "features"
neighbors = "neighbors"
clusters = {clusters}
[stage.alone]
kind = "consensus"
classifiers = "heads.last"
features = "features"
[stage.consensus]
kind = "consensus"
classifiers = "heads.last"
features = "features"
neighbors = "neighbors"
"""
CLASSIFIERS = ["kmeans", "spectral", "random_heads", "heads", "alone", "consensus"]
BINS = 15


def scores(truth, table):
    """ACC, NMI and ECE in percent."""
    cluster, confidence = np.array(table["cluster"]), np.array(table["confidence"])
    size = max(truth.max(), cluster.max()) + 1
    counts = np.zeros((size, size), int)
    np.add.at(counts, (cluster, truth), 1)
    right = linear_sum_assignment(-counts)[1][cluster] == truth
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    ece = sum(abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in range(BINS)) / len(truth)
    return [100 * right.mean(), 100 * normalized_mutual_info_score(truth, cluster), 100 * ece]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinset", type=Path)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--clusters", type=int, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    test = pq.read_table(args.test)
    kinds = sorted(set(test["label"].to_pylist()))
    truth = {name: kinds.index(label) for name, label in zip(test["name"].to_pylist(), test["label"].to_pylist())}
    found = {name: [] for name in CLASSIFIERS}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for file, given in (("train.parquet", args.train), ("test.parquet", args.test)):
            pq.write_table(pq.read_table(given, columns=["name", "embedding"]), folder / file)
        for seed in args.seeds:
            text = PIPELINE.format(seed=seed, clusters=args.clusters)
            for name in CLASSIFIERS:
                text += f'[stage.test_{name}]\nkind = "predict"\nfeatures = "test"\nclassifier = "{name}"\n'
            pipeline = folder / f"recipe-{seed}.toml"
            pipeline.write_text(text)
            subprocess.run([args.kinset.resolve(), "run", pipeline.name, "--no-report"], cwd=folder, check=True, capture_output=True)
            for name in CLASSIFIERS:
                table = pq.read_table(folder / f"artifacts/recipe-{seed}/test_{name}/assignments.parquet")
                of = np.array([truth[name] for name in table["id"].to_pylist()])
                found[name].append(scores(of, table))
    print(f"{args.train.stem}: {len(pq.read_table(args.train, columns=['name']))} images, {len(truth)} to test, seeds {args.seeds}")
    print(f"{'':14}{'ACC':>16}{'NMI':>16}{'ECE':>16}   ACC of each seed")
    for name, rows in found.items():
        rows = np.array(rows)
        spread = rows.std(axis=0, ddof=1) if len(rows) > 1 else np.full(3, np.nan)
        cells = "".join(f"{mean:9.1f} ± {std:4.1f}" for mean, std in zip(rows.mean(axis=0), spread))
        print(f"{name:14}{cells}   {' '.join(f'{acc:.1f}' for acc in rows[:, 0])}")


if __name__ == "__main__":
    sys.exit(main())
