"""Approximate nearest neighbors beside exact ones: work and recall on a large set made of real features.

    python3 tests/bench/neighbors.py KINSET FEATURES [--rows 1280000] [--kind between|around|as-is] [--recall 0.99] [--exact 160000]

FEATURES is a Parquet file with a column `embedding`, as kinset writes it. More than `--dim` numbers are projected on their principal
components. Rows are drawn around these features: `between` lies anywhere between a feature and one of its twenty nearest, with noise of a
fifth of the distance to the nearest; `around` is a feature with noise as long as the distance to its tenth nearest, in all directions, which
is harder; `as-is` takes the features themselves. The exact search runs on the first `--exact` rows, and its CPU time is extrapolated to all by
the square of the rows. Both are whole stages: reading, searching, writing. Needs numpy and pyarrow.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

NEAREST = 20


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def load(path, dim):
    column = pq.read_table(path, columns=["embedding"])["embedding"].combine_chunks()
    x = unit(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1))
    if x.shape[1] > dim:
        x = x - x.mean(0)
        x = unit(x @ np.linalg.eigh(x.T @ x)[1][:, -dim:])
    return x


def nearest(x):
    """Of each row the nearest ones, best first, and their distances."""
    rows, distances = [], []
    for first in range(0, len(x), 1000):
        cosine = x[first : first + 1000] @ x.T
        cosine[np.arange(len(cosine)), first + np.arange(len(cosine))] = -2
        found = np.argpartition(-cosine, NEAREST, axis=1)[:, :NEAREST]
        value = np.take_along_axis(cosine, found, 1)
        order = np.argsort(-value, axis=1)
        rows.append(np.take_along_axis(found, order, 1))
        distances.append(np.sqrt(np.maximum(2 - 2 * np.take_along_axis(value, order, 1), 0)))
    return np.concatenate(rows), np.concatenate(distances)


def enlarge(x, rows, kind, path):
    """Writes [rows, D] to an .npy file."""
    rng = np.random.default_rng(7)
    near, distance = nearest(x) if kind != "as-is" else (None, None)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, x.shape[1]))
    for first in range(0, rows, 80_000):
        count = min(80_000, rows - first)
        if kind == "as-is":
            out[first : first + count] = x[first : first + count]
            continue
        own = rng.integers(0, len(x), count)
        noise = rng.standard_normal((count, x.shape[1]), dtype=np.float32) / np.sqrt(x.shape[1])
        if kind == "between":
            other = near[own, rng.integers(0, NEAREST, count)]
            share = rng.random(count)[:, None].astype(np.float32)
            y = (1 - share) * x[own] + share * x[other] + 0.2 * distance[own, :1] * noise
        else:
            y = x[own] + distance[own, 9:10] * noise
        out[first : first + count] = unit(y)


def run(program, folder, name, file, settings):
    """Wall and CPU seconds and the peak memory of the stage alone, and what its table says of itself."""
    stages = f'[stage.features]\nkind = "import_features"\nfile = "{file}"\n'
    stages += f'[stage.neighbors]\nkind = "neighbors"\nfeatures = "features"\n{settings}\n'
    (folder / f"{name}.toml").write_text(f'name = "{name}"\nseed = 1\ndevice = "cpu"\n{stages}')
    for stage in ("features", "neighbors"):
        command = [program, "run", folder / f"{name}.toml", "--artifacts", folder / "artifacts", "--only", stage, "--no-report"]
        start = time.perf_counter()
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{stage}: exit code {process.returncode}\n{said}")
        wall = time.perf_counter() - start
    meta = pq.read_metadata(folder / "artifacts" / name / "neighbors" / "neighbors.parquet").metadata
    fields = json.loads(meta[b"kinset"])["fields"]
    found = {key: fields[key] for key in ("exact", "recall", "recall_images") if key in fields}
    return {"wall": round(wall, 1), "cpu": round(usage.ru_utime + usage.ru_stime, 1), "peak MiB": usage.ru_maxrss // 1024, **found}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--rows", type=int, default=1_280_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--kind", choices=["between", "around", "as-is"], default="between")
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--exact", type=int, default=160_000, help="rows for the exact search; 0: none")
    parser.add_argument("--folder", type=Path, help="keep everything here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kinset-neighbors-") as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        x = load(args.features, args.dim)
        rows = len(x) if args.kind == "as-is" else args.rows
        file, part = folder / "features.npy", folder / "part.npy"
        enlarge(x, rows, args.kind, file)
        search = f'k = {args.k}\nsearch = "approximate"\nrecall = {args.recall}'
        found = run(args.program, folder, "approximate", file, search)
        print(json.dumps({"rows": rows, "kind": args.kind, **found}), flush=True)
        if args.exact:
            some = min(args.exact, rows)
            np.save(part, np.load(file, mmap_mode="r")[:some])
            exact = run(args.program, folder, "exact", part, f"k = {args.k}")
            extrapolated = exact["cpu"] * (rows / some) ** 2
            print(json.dumps({"rows": some, **exact, "cpu of all": round(extrapolated), "share": round(found["cpu"] / extrapolated, 4)}), flush=True)


main()
