"""Seconds of complete re-runs of a finished pipeline: the whole process, from start to exit."""

import subprocess
import sys
from pathlib import Path

import ground

program, pipeline, store, times = *sys.argv[1:4], int(sys.argv[4])
data = Path(pipeline).parent.parent / "data"
command = [program, "run", pipeline, "--data", data, "--profile", "smoke", "--artifacts", store, "--json"]


def run():
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


# The first run, which does the work, does not count.
ground.answer("kinset", ground.repeated(times, run))
