"""Reading pictures at scale: a folder of JPEG files beside Pillow.

    python tests/bench/ingest.py target/release/kinset /tmp/ingest [--files 100000] [--rounds 2]

Needs Pillow and numpy. The folder is made once (120 × 90 pixels, quality 90, smooth noise) and used again. `kinset` reads every
file, checks that every picture is whole (all codes of a JPEG's usual forms are read, and nothing is made of them), hashes it and
writes `images.parquet`; Pillow, in as many processes as there are cores, reads and decodes and keeps nothing. Peak memory is that
of the largest process.
"""

import argparse
import os
import subprocess
import sys
import time
from multiprocessing import Pool
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("program")
parser.add_argument("folder", type=Path)
parser.add_argument("--files", type=int, default=100_000)
parser.add_argument("--rounds", type=int, default=2)
args = parser.parse_args()
program, folder = str(Path(args.program).resolve()), args.folder
pictures = folder / f"pictures-{args.files}"


def make(number):
    import numpy as np
    from PIL import Image

    path = pictures / f"{number // 1000:03}" / f"{number:06}.jpg"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((120, 90), Image.BICUBIC).save(path, quality=90)
    return path.stat().st_size


def decode(path):
    from PIL import Image

    with Image.open(path) as picture:
        picture.convert("RGB").load()


def measured(command):
    """Seconds of wall clock, peak memory in MiB, standard output."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command}\n{err}")
    return time.monotonic() - start, usage.ru_maxrss / 1024, out


if __name__ == "__main__":
    with Pool() as pool:
        total = sum(pool.imap_unordered(make, range(args.files), 500))
    print(f"{args.files} JPEG files, {total / 2**20:.0f} MiB")
    paths = sorted(pictures.rglob("*.jpg"))
    pipeline = folder / "ingest.toml"
    pipeline.write_text(f'name = "ingest"\n[data.images]\ndataset = "folder"\nroot = "{pictures.resolve()}"\n')
    for number in range(args.rounds):
        start = time.monotonic()
        with Pool() as pool:
            for _ in pool.imap_unordered(decode, paths, 500):
                pass
        pillow = time.monotonic() - start
        store = folder / f"store-{os.getpid()}-{number}"
        ours, memory, _ = measured([program, "run", str(pipeline), "--artifacts", str(store), "--json"])
        print(
            f"folder: Pillow {pillow:.1f} s ({len(paths) / pillow:.0f}/s), kinset {ours:.1f} s ({len(paths) / ours:.0f}/s), "
            f"{pillow / ours:.2f}x, peak {memory:.0f} MiB"
        )
        images = store / "ingest" / "data.images" / "images.parquet"
        print(f"images.parquet: {images.stat().st_size / 2**20:.0f} MiB")
        subprocess.run(["rm", "-rf", str(store)], check=True)
