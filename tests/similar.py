"""Share of the target's classes in a selection: real images, and classes that only this script knows.

    kinset run pipelines/fashion-mnist.toml --until pretext,features,pixel_features
    python tests/similar.py target/release/kinset artifacts/fashion-mnist/data.train/labels.parquet /tmp/similar \\
        artifacts/fashion-mnist/pixel_features/features.parquet artifacts/fashion-mnist/features/features.parquet

For five pairs of classes the target is 300 images of the two, the pool all others; 6,000 of the pool are taken. Printed for every
table of features and four orders of the budget, as means over the pairs: the share of the two classes among those taken (of
random images: 19.6 %), and what the report says without classes, for the selection and for as many random images. Needs numpy
and pyarrow.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

program, labels_file, scratch, *tables = sys.argv[1:]
scratch = Path(scratch)
PAIRS, TARGET, BUDGET, NEAREST = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)], 300, 6000, 400
ORDERS = {
    "rank": ["--order", "rank"],
    "votes": ["--order", "votes"],
    "votes in 30 parts": ["--order", "votes", "--clusters", "30", "--power", "1"],
    "clusters": ["--order", "clusters"],
}


def write(path, ids, rows):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    pq.write_table(pa.table({"id": ids, "embedding": vectors}), path)


def select(folder, *more):
    command = [program, "similar", "--target", folder / "target.parquet", "--pool", folder / "pool.parquet", "--save-dir", folder]
    command += ["--dedup", "none", "--budget", BUDGET, "--nn-factor", NEAREST, "--no-report", "--json", *more]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    taken = (folder / f"ImageSets/scan_nn{NEAREST}.txt").read_text().split()
    return taken, json.loads((folder / "report.json").read_text())["nn"][str(NEAREST)]


labels = pq.read_table(labels_file)
classes = dict(zip(labels["id"].to_pylist(), labels["label"].to_pylist()))
print(f"{'features':40} {'two classes':>12} {'random':>8}   MMD² sel/rnd     energy sel/rnd   told apart sel/rnd")
for number, table in enumerate(tables):
    features = pq.read_table(table)
    ids = np.array(features["id"].to_pylist())
    rows = np.asarray(features["embedding"].combine_chunks().flatten(), dtype=np.float32).reshape(len(ids), -1)
    own = np.array([classes[id] for id in ids])
    found = {order: [] for order in ORDERS}
    for pair in PAIRS:
        folder = scratch / f"{number}-{pair[0]}-{pair[1]}"
        folder.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(pair[0])
        target = np.sort(draw.choice(np.flatnonzero(np.isin(own, pair)), TARGET, replace=False))
        pool = np.setdiff1d(np.arange(len(ids)), target)
        write(folder / "target.parquet", ids[target], rows[target])
        write(folder / "pool.parquet", ids[pool], rows[pool])
        lot, _ = select(folder, "--pick", "random")
        random = np.mean([classes[id] in pair for id in lot])
        for order, flags in ORDERS.items():
            taken, report = select(folder, *flags)
            assert len(taken) == BUDGET, len(taken)
            share = np.mean([classes[id] in pair for id in taken])
            difference = report["difference"]
            both = [difference[of][name] for name in ("mmd2", "energy", "two_sample") for of in ("selection", "random")]
            assert both[0] < both[1] and both[2] < both[3], f"{pair}: the report does not rank them: {both}"
            found[order].append([share, random, *both])
    for order, values in found.items():
        mean, low = np.mean(values, axis=0), np.min(values, axis=0)
        name = "/".join(Path(table).parts[-3:-1]) + f", by {order}"
        print(
            f"{name:40} {100 * mean[0]:6.1f} (≥ {100 * low[0]:.1f}) {100 * mean[1]:6.1f}   {mean[2]:.4f} / {mean[3]:.4f}"
            f"  {mean[4]:.4f} / {mean[5]:.4f}  {mean[6]:.3f} / {mean[7]:.3f}",
            flush=True,
        )
