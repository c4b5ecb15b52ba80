"""Runs the smoke profiles as a user would, and checks what ran: cold, warm, after one changed setting, after kill -9.

    python3 tests/smoke.py target/release/kinset /tmp/smoke

Python's standard library is enough. Which stages a changed setting concerns is worked out here from the pipeline file alone,
without asking the engine.
"""

import json
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

program, scratch = str(Path(sys.argv[1]).resolve()), Path(sys.argv[2])
WARM_SECONDS = 0.2


def run(pipeline, store, *options, kill_after=None):
    """One run: its JSON and its seconds. None instead of JSON if it was killed before it ended."""
    command = [program, "run", str(pipeline), "--profile", "smoke", "--artifacts", str(store), "--json", *options]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, err = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        # It may have ended by itself meanwhile.
        out, err = process.communicate()
    seconds = time.monotonic() - start
    if process.returncode == -signal.SIGKILL:
        return None, seconds
    if process.returncode != 0:
        sys.exit(f"FAILED {' '.join(command)}: exit code {process.returncode}\n{err}")
    return json.loads(out), seconds


def check(what, found, wanted):
    if found != wanted:
        sys.exit(f"FAILED {what}\n  found  {found}\n  wanted {wanted}")


def contents(result):
    """What every output of every stage says, as digests."""
    return {stage["stage"]: stage["outputs"] for stage in result["stages"]}


def cone(pipeline, stage):
    """A stage and all that read from it, directly or not."""
    stages = tomllib.loads(pipeline.read_text())["stage"]
    reached, before = {stage}, set()
    while reached != before:
        before = set(reached)
        for name, table in stages.items():
            wires = [value for key, value in table.items() if key != "kind"]
            values = [v for value in wires for v in (value if isinstance(value, list) else [value])]
            if any(isinstance(v, str) and v.split(".")[0] in before for v in values):
                reached.add(name)
    return reached


def neighbors_of(pipeline):
    """The stage that mines neighbors: cheap, and much depends on it."""
    stages = tomllib.loads(pipeline.read_text())["stage"]
    return next(name for name, table in stages.items() if table["kind"] == "neighbors")


def smoke(pipeline):
    # Pipelines on the same images share their sources, and what is shared would be fresh: each has a store of its own. That of
    # the main one stays where the README's examples look.
    own = "" if pipeline.stem == "fashion-mini" else f"-{pipeline.stem}"
    store = scratch / f"artifacts{own}"
    cold, cold_seconds = run(pipeline, store)
    every = [stage["stage"] for stage in cold["stages"]]
    check("a first run runs every stage", sorted(cold["ran"]), sorted(every))
    print(f"  ok  cold: {len(every)} stages in {cold_seconds:.1f} s")

    times = []
    for _ in range(5):
        warm, seconds = run(pipeline, store)
        check("a second run runs nothing", warm["ran"], [])
        check("a second run says the same", contents(warm), contents(cold))
        times.append(seconds)
    print(f"  ok  warm: 0 stages ran, {min(times) * 1000:.0f} ms (best of {len(times)}; slowest {max(times) * 1000:.0f} ms)")
    if min(times) > WARM_SECONDS:
        sys.exit(f"FAILED a second run takes under {WARM_SECONDS} s")

    stage = neighbors_of(pipeline)
    changed, seconds = run(pipeline, store, "--set", f"stage.{stage}.k=7")
    check("a changed setting runs its cone", sorted(changed["ran"]), sorted(cone(pipeline, stage)))
    print(f"  ok  stage.{stage}.k=7: {', '.join(changed['ran'])} ran, {len(every) - len(changed['ran'])} were fresh, in {seconds:.1f} s")
    back, _ = run(pipeline, store)
    check("going back runs nothing", back["ran"], [])

    # Another store, one thread, a checkpoint after every step, and kills at growing intervals, the first well before the end.
    store, kills, delay = scratch / f"killed{own}", 0, cold_seconds / 4
    while True:
        options = ("--threads", "1", "--checkpoint-every", "0")
        result, _ = run(pipeline, store, *options, kill_after=delay if kills < 8 else None)
        if result:
            break
        kills, delay = kills + 1, delay * 1.4
    check("killed runs end as the others", contents(result), contents(cold))
    if kills == 0:
        print("  --  kill -9: it ended before it could be killed")
    else:
        print(f"  ok  kill -9: killed {kills} times, one thread, the same digests; the last run ran {len(result['ran'])} stages")


for pipeline in map(Path, ["pipelines/digits.toml", "pipelines/fashion-mini.toml", "pipelines/compare.toml"]):
    if pipeline.exists():
        print(pipeline)
        smoke(pipeline)
