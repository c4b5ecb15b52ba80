"""Near-duplicates in many features: minutes and memory of `near_duplicates`, beside the matrix products alone, and whether all are found.

    python tests/bench/near.py target/release/kinset [--rows 1000000] [--dim 256] [--copies 0.05] [--kind clumps] [--work FOLDER] [--kill 60]

Features are drawn: `noise` without structure, or `clumps` around a thousand centers that lie in a part of all directions, as an encoder's do.
A share of the rows are near copies of others, with cosines of 0.985 and more; all others of `noise` are far apart, so that the answer is
known. A test set of 2,000 rows holds 40 copies of rows of the pool. `--kill` ends the first run by SIGKILL after so many seconds; the second
goes on. The products alone are NumPy's, of 4,096 rows with all, times as many as there are pairs; `cargo bench --bench peers -- gemm` has those
of kinset's own kernel. Needs NumPy and pyarrow.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet

STEP = 50_000
TEST, LEAKED = 2000, 40
PIPELINE = """
name = "near"
device = "cpu"
[stage.pool]
kind = "import_features"
file = "pool.parquet"
[stage.test]
kind = "import_features"
file = "test.parquet"
[stage.near]
kind = "near_duplicates"
pool = ["pool"]
held_out = ["test"]
similarity = 0.98
"""


def unit(rows):
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def base(kind, random, count, dim):
    if kind == "noise":
        return unit(random.standard_normal((count, dim), dtype=numpy.float32))
    shape = numpy.random.default_rng(7)
    centers = shape.standard_normal((1000, dim), dtype=numpy.float32) * (numpy.arange(1, dim + 1, dtype=numpy.float32) ** -0.5)
    noise = random.standard_normal((count, dim), dtype=numpy.float32) * (numpy.arange(1, dim + 1, dtype=numpy.float32) ** -0.5)
    return unit(centers[random.integers(0, 1000, count)] + 0.7 * noise)


def near(random, rows):
    """Copies with a cosine of about 0.99."""
    noise = random.standard_normal(rows.shape, dtype=numpy.float32)
    return unit(rows + unit(noise) * 0.14 * random.random((len(rows), 1), dtype=numpy.float32))


def write(path, blocks, dim):
    schema = pyarrow.schema([("id", pyarrow.string()), ("embedding", pyarrow.list_(pyarrow.float32(), dim))])
    first = 0
    with pyarrow.parquet.ParquetWriter(path, schema, compression="none") as writer:
        for rows in blocks:
            vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.astype(numpy.float32).ravel()), dim)
            ids = pyarrow.array([f"{path.stem}{row:08}" for row in range(first, first + len(rows))])
            writer.write_table(pyarrow.table([ids, vectors], schema=schema))
            first += len(rows)


def make(folder, args):
    """Every block repeats rows of its own first half, so that no more than a block is held."""
    random = numpy.random.default_rng(1)
    kept = []

    def blocks():
        for first in range(0, args.rows, STEP):
            count = min(STEP, args.rows - first)
            copies = int(count * args.copies)
            rows = base(args.kind, random, count - copies, args.dim)
            kept.append(rows[:LEAKED])
            yield numpy.concatenate([rows, near(random, rows[:copies])])

    write(folder / "pool.parquet", blocks(), args.dim)
    leaked = near(random, numpy.concatenate(kept)[random.permutation(sum(map(len, kept)))[:LEAKED]])
    write(folder / "test.parquet", [numpy.concatenate([leaked, base(args.kind, random, TEST - LEAKED, args.dim)])], args.dim)
    (folder / "near.toml").write_text(PIPELINE)
    return sum(int(min(STEP, args.rows - first) * args.copies) for first in range(0, args.rows, STEP))


def peak(pid, stop, found):
    """The largest resident memory of a process, in bytes."""
    while not stop.is_set():
        try:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    found[0] = max(found[0], 1024 * int(line.split()[1]))
        except OSError:
            pass
        stop.wait(0.5)


def run(kinset, folder, stage, kill=None):
    started, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [kinset, "run", "near.toml", "--until", stage, "--no-report"], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    stop, found = threading.Event(), [0]
    watch = threading.Thread(target=peak, args=(process.pid, stop, found))
    watch.start()
    if kill:
        threading.Timer(kill, lambda: process.poll() is None and os.kill(process.pid, signal.SIGKILL)).start()
    said = process.communicate()[1]
    stop.set()
    watch.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if process.returncode != 0 and not kill:
        sys.exit(said)
    lines = [line for line in said.splitlines() if " near: " in line or line.lstrip().startswith("near: ") or "resuming" in line]
    return time.time() - started, cpu, found[0], lines


def products(args):
    """Seconds of all products of the pool with itself, each pair once, from some thousand rows; wall clock and CPU."""
    random = numpy.random.default_rng(2)
    a, b = base("noise", random, 4096, args.dim), base("noise", random, 65_536, args.dim)
    out = numpy.empty((len(a), len(b)), dtype=numpy.float32)
    numpy.matmul(a, b.T, out=out)
    started, cpu = time.time(), time.process_time()
    for _ in range(5):
        numpy.matmul(a, b.T, out=out)
    pairs = args.rows * (args.rows - 1) / 2 / (5 * len(a) * len(b))
    return pairs * (time.time() - started), pairs * (time.process_time() - cpu)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinset", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--copies", type=float, default=0.05)
    parser.add_argument("--kind", choices=["noise", "clumps"], default="clumps")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--kill", type=float)
    args = parser.parse_args()
    kinset = args.kinset.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        copies = make(folder, args)
        run(kinset, folder, "test")
        print(f"{args.rows} x {args.dim}, {args.kind}, {copies} near copies, load {os.getloadavg()[0]:.1f}", flush=True)
        if args.kill:
            wall, cpu, memory, _ = run(kinset, folder, "near", args.kill)
            print(f"killed after {wall:.0f} s ({cpu:.0f} s of CPU)", flush=True)
        wall, cpu, memory, lines = run(kinset, folder, "near")
        print("\n".join(lines))
        gemm = products(args)
        print(f"near_duplicates: {wall:.0f} s, {cpu:.0f} s of CPU, peak {memory / 2**30:.2f} GiB, load {os.getloadavg()[0]:.1f}")
        print(f"products alone:  {gemm[0]:.0f} s, {gemm[1]:.0f} s of CPU; ratio of CPU {cpu / gemm[1]:.2f}")
        summary = json.loads(next((folder / "artifacts/near/near").glob("summary.json")).read_text())["content"]
        pool, share = summary["sets"][0], summary["shared"][0]
        assert args.kind != "noise" or pool["repeats"] == copies, f"{pool['repeats']} found of {copies}"
        assert pool["repeats"] >= copies and share["images"] >= LEAKED, (pool, share)


if __name__ == "__main__":
    main()
