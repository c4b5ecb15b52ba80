"""Balanced selection from long-tailed pools: how many classes a tenth of the pool has in effect, by each way to pick.

    python tests/bench/curate.py target/release/kinset FEATURES [LABELS] [--shape power] [--seeds 1 2 3] [--set 'resamples = 5']
    python tests/bench/curate.py target/release/kinset --rows 1000000

FEATURES is a Parquet table with a column `embedding` and the class of each row in `label`, or LABELS is a table with that column in the
same order. Of it a pool is drawn whose classes are as frequent as 100 : 1, another class first with each seed: `power`, rank^-2, as
most collections of pictures have it, or `exponential`, equal steps. kinset sees the vectors alone; classes are counted here. Effective
number of classes: exp of the entropy. `balanced` is what a tenth of the pool could have at most. `--rows` measures minutes and memory of the
default on so many features of 256 numbers, drawn around a thousand centers as `near.py` does. Needs NumPy and pyarrow.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet

PICKS = ["random", "farthest", "flat", "hierarchical"]
STEEPEST = 100


def shares(shape, classes):
    ranks = numpy.arange(classes)
    if shape == "power":
        return (ranks + 1.0) ** -(numpy.log(STEEPEST) / numpy.log(classes))
    return STEEPEST ** -(ranks / (classes - 1))


def draw(labels, shape, seed):
    """Rows of a long-tailed pool, ascending."""
    random = numpy.random.default_rng(seed)
    classes = random.permutation(numpy.unique(labels))
    most = min((labels == label).sum() for label in classes)
    rows = []
    for label, share in zip(classes, shares(shape, len(classes))):
        here = numpy.flatnonzero(labels == label)
        rows.append(random.permutation(here)[: max(1, round(most * share))])
    return numpy.sort(numpy.concatenate(rows))


def effective(counts):
    shares = counts[counts > 0] / counts.sum()
    return float(numpy.exp(-(shares * numpy.log(shares)).sum()))


def balanced(counts, budget):
    """The most even counts that a budget can take of these."""
    low, high = 0, int(counts.max())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if numpy.minimum(counts, middle).sum() <= budget else (low, middle - 1)
    return numpy.minimum(counts, low).astype(float)


def measure(kinset, table, labels, seed, args, folder):
    rows = draw(labels, args.shape, seed)
    folder.mkdir(parents=True)
    names = pyarrow.array([f"{row:07}" for row in rows])
    pool = pyarrow.table({"id": names, "embedding": table.column("embedding").combine_chunks().take(rows)})
    pyarrow.parquet.write_table(pool, folder / "pool.parquet")
    text = f'name = "curate"\nseed = {seed}\ndevice = "cpu"\n[stage.pool]\nkind = "import_features"\nfile = "pool.parquet"\n'
    for pick in PICKS:
        more = "\n".join(args.set) if pick in ("flat", "hierarchical") else ""
        text += f'[stage.{pick}]\nkind = "curate"\npool = ["pool"]\npick = "{pick}"\n{more}\n'
    (folder / "p.toml").write_text(text)
    done = subprocess.run([kinset, "run", "p.toml", "--no-report"], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    here = dict(zip(rows.tolist(), labels[rows]))
    classes = numpy.unique(labels)
    count = lambda rows: numpy.array([sum(here[row] == label for row in rows) for label in classes])
    pool = count(rows.tolist())
    found = {"images": len(rows), "pool": effective(pool), "balanced": effective(balanced(pool, -(-len(rows) // 10)))}
    for pick in PICKS:
        taken = pyarrow.parquet.read_table(folder / f"artifacts/curate/{pick}/selection.parquet")
        found[pick] = effective(count([int(name) for name in taken.column("id").to_pylist()]))
        found[f"{pick} classes"] = int((count([int(name) for name in taken.column("id").to_pylist()]) > 0).sum())
    return found


def large(kinset, rows, args, folder):
    import near

    random = numpy.random.default_rng(1)
    blocks = (near.base("clumps", random, min(near.STEP, rows - first), 256) for first in range(0, rows, near.STEP))
    near.write(folder / "pool.parquet", blocks, 256)
    text = 'name = "curate"\nseed = 1\ndevice = "cpu"\n[stage.pool]\nkind = "import_features"\nfile = "pool.parquet"\n'
    more = "\n".join(args.set)
    (folder / "p.toml").write_text(f'{text}[stage.balanced]\nkind = "curate"\npool = ["pool"]\n{more}\n')
    for until in ["pool", "balanced"]:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
        done = subprocess.run([kinset, "run", "p.toml", "--until", until, "--no-report"], cwd=folder, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            sys.exit(f"exit {done.returncode}")
        seconds, after = time.time() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{until}: {seconds:.0f} s, {spent:.0f} s of CPU time, peak so far {after.ru_maxrss / 2**20:.2f} GiB", flush=True)
    taken = pyarrow.parquet.read_metadata(folder / "artifacts/curate/balanced/selection.parquet").num_rows
    print(f"{taken} of {rows} rows taken")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinset", type=Path)
    parser.add_argument("features", type=Path, nargs="?")
    parser.add_argument("labels", type=Path, nargs="?")
    parser.add_argument("--shape", choices=["power", "exponential"], default="power")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", action="append", default=[], help="a setting of `curate`, as it stands in a pipeline")
    parser.add_argument("--rows", type=int, help="instead of FEATURES")
    args = parser.parse_args()
    if args.rows:
        with tempfile.TemporaryDirectory() as scratch:
            large(args.kinset.resolve(), args.rows, args, Path(scratch))
        return
    if not args.features:
        parser.error("name FEATURES, or --rows")
    table = pyarrow.parquet.read_table(args.features)
    labels = numpy.array((pyarrow.parquet.read_table(args.labels) if args.labels else table).column("label").to_pylist())
    began = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        kinset = args.kinset.resolve()
        found = [measure(kinset, table, labels, seed, args, Path(scratch) / str(seed)) for seed in args.seeds]
    print(f"{args.features}, {args.shape}, {found[0]['images']} images, seeds {args.seeds}, {time.time() - began:.0f} s")
    for name in ["pool", *PICKS, "balanced"]:
        values = [one[name] for one in found]
        ratio = [one[name] / one["random"] for one in found]
        spread = f"{statistics.mean(values):.2f} ({min(values):.2f}–{max(values):.2f})"
        print(f"| {name} | {spread} | {statistics.mean(ratio):.2f} | {[one.get(f'{name} classes') for one in found]} |")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
