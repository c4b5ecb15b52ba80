"""Cost and accuracy of heads on frozen features: 50,000 x 768 by default, with kinset's own settings.

    python3 tests/bench/heads.py KINSET [--rows N] [--clusters K] [--seeds 1 2 3] [--only NAME …] [--set STAGE.SETTING=VALUE …]

Draws features once (a mixture of Gaussians on the sphere: each cluster has three modes, a third of the rows lie between two
clusters, and some directions say nothing), then runs stage by stage, each a process of its own, and prints wall seconds, CPU seconds
and, of heads, the accuracy after the best matching of clusters with components. Needs numpy, pyarrow and scipy.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.optimize import linear_sum_assignment

HEADS = {
    "kmeans": "",
    "scan_heads": 'neighbors = "neighbors"',
    "temi": 'neighbors = "neighbors"',
    "turtle": "",
}


def mixture(rows, dim, clusters, seed=7):
    """Features of unit length, and their components."""
    rng = np.random.default_rng(seed)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    component = rng.integers(0, clusters, rows)
    modes = 0.8 * unit(rng.normal(size=(clusters, 1, dim))) + 0.8 * unit(rng.normal(size=(clusters, 3, dim)))
    own = modes[component, rng.integers(0, 3, rows)]
    others = modes[(component + rng.integers(1, clusters, rows)) % clusters, rng.integers(0, 3, rows)]
    share = np.where(rng.random(rows) < 0.35, rng.uniform(0.25, 0.6, rows), 0.0)[:, None]
    nuisance = rng.normal(size=(rows, 12)) * 0.25 @ np.linalg.qr(rng.normal(size=(dim, 12)))[0].T
    x = (1 - share) * own + share * others + nuisance + rng.normal(size=(rows, dim)) * (1.6 / np.sqrt(dim))
    return unit(x).astype(np.float32), component


def pipeline(folder, clusters, extra):
    """All stages, in the order in which they run."""
    stages = {
        "features": f'kind = "import_features"\nfile = "{folder / "features.npy"}"',
        "neighbors": 'kind = "neighbors"\nfeatures = "features"\nk = 50',
    }
    for kind, ports in HEADS.items():
        stages[kind] = f'kind = "{kind}"\nfeatures = "features"\nclusters = {clusters}\n{ports}'
        stages[f"of_{kind}"] = f'kind = "predict"\nfeatures = "features"\nclassifier = "{kind}"'
    for setting in extra:
        stage, line = setting.split(".", 1)
        stages[stage] += "\n" + line
    text = 'name = "heads"\nseed = 1\ndevice = "cpu"\n'
    (folder / "heads.toml").write_text(text + "".join(f"\n[stage.{name}]\n{body}\n" for name, body in stages.items()))
    return stages


def run(program, folder, stage, seed):
    """Wall and CPU seconds of one stage; what it reads is there."""
    command = [program, "run", folder / "heads.toml", "--artifacts", folder / "artifacts", "--only", stage, "--seed", str(seed), "--no-report"]
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{stage}: exit code {process.returncode}\n{said}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def accuracy(found, wanted):
    clusters = max(found.max(), wanted.max()) + 1
    table = np.zeros((clusters, clusters), int)
    np.add.at(table, (found, wanted), 1)
    rows, columns = linear_sum_assignment(-table)
    return 100 * table[rows, columns].sum() / len(wanted)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--clusters", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--set", nargs="+", default=[], dest="extra", metavar="STAGE.SETTING=VALUE")
    parser.add_argument("--folder", type=Path, help="keep everything here, and go on from what is here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kinset-heads-") as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        features, component = mixture(args.rows, args.dim, args.clusters)
        np.save(folder / "features.npy", features)
        pipeline(folder, args.clusters, args.extra)
        for stage in ["features", "neighbors", *args.only]:
            lines = []
            for seed in args.seeds:
                wall, cpu = run(args.program, folder, stage, seed)
                line = {"stage": stage, "seed": seed, "wall": round(wall, 2), "cpu": round(cpu, 2)}
                if stage in HEADS:
                    run(args.program, folder, f"of_{stage}", seed)
                    assigned = pq.read_table(folder / "artifacts" / "heads" / f"of_{stage}" / "assignments.parquet")
                    line["accuracy"] = round(accuracy(assigned["cluster"].to_numpy(), component), 2)
                lines.append(line)
                print(json.dumps(line), flush=True)
                if stage not in HEADS:
                    break
            if len(lines) > 1:
                middle = {key: round(statistics.median(line[key] for line in lines), 2) for key in ("wall", "cpu", "accuracy")}
                print(json.dumps({"stage": stage, "median of": len(lines), **middle}), flush=True)


main()
