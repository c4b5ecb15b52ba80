"""Runs the guide: every block of shell and Python in it, in order, on a small folder of pictures.

    python tests/guide.py src/guide.md target/release/kinset FOLDER

Commands on a pipeline get the profile `smoke`, where it takes seconds what takes minutes. Needs pandas, DuckDB, Polars, Pillow,
onnxruntime and Hugging Face's `datasets`.
"""

import gzip
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

from PIL import Image

text, program, folder = Path(sys.argv[1]).read_text(), Path(sys.argv[2]).resolve(), Path(sys.argv[3])
data = Path(__file__).resolve().parent.parent / "data" / "fashion-mini"
blocks = re.findall(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
if len({kind for kind, _ in blocks}) != 2:
    sys.exit("FAILED the guide has no shell or no Python")


def idx(name, header):
    raw = gzip.open(data / name).read()
    return raw[header:], struct.unpack(">I", raw[4:8])[0]


photos = folder / "my" / "photos"
pixels, count = idx("train-images-idx3-ubyte.gz", 16)
for row in range(min(count, 120)):
    file = photos / "ab"[row % 2] / f"{row:03} “{row}”.{'jpg' if row % 3 else 'png'}"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.frombytes("L", (28, 28), pixels[row * 784 : (row + 1) * 784]).save(file)

# A `kinset` that is quick: whoever names the pipeline gets its smoke profile.
bin = folder / "bin"
bin.mkdir()
shim = bin / "kinset"
shim.write_text(
    f"""#!/bin/sh
case "$1 $*" in
    init*|gc*|*--profile*) exec '{program}' "$@" ;;
    *photos.toml*) command=$1; shift; exec '{program}' "$command" --profile smoke "$@" ;;
    *) exec '{program}' "$@" ;;
esac
"""
)
shim.chmod(0o755)
environment = dict(os.environ, PATH=f"{bin.resolve()}:{os.environ['PATH']}", HF_DATASETS_OFFLINE="1")
os.environ["HF_DATASETS_OFFLINE"] = "1"
# The Python module, as it is in the repository.
os.environ["KINSET_BIN"] = str(shim.resolve())
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src" / "python"))
os.chdir(folder)
for number, (kind, block) in enumerate(blocks, 1):
    if kind == "sh":
        done = subprocess.run(["sh", "-e", "-c", block], env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"FAILED guide, block {number}\n{block}\n{done.stdout}\n{done.stderr}")
    else:
        exec(compile(block, f"guide, block {number}", "exec"), {})
    print(f"  ok  guide, block {number} ({kind})")
files = sum(1 for file in Path("sorted").rglob("*") if file.is_file() and not file.name.startswith("."))
if files != min(count, 120):
    sys.exit(f"FAILED {files} pictures are in the folders of clusters")
