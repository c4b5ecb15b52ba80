"""Installs a wheel as a user would, and runs a pipeline through the module in it.

    python tests/wheel.py kinset-….whl FOLDER

Needs pandas, Polars and pyarrow; the wheel goes into an environment without them first.
"""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

wheel, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
pipeline, environment = "pipelines/fashion-mini.toml", work / "environment"
for name in ("KINSET_BIN", "PYTHONPATH"):
    os.environ.pop(name, None)


def check(what, found, wanted=True):
    if found != wanted:
        sys.exit(f"FAILED {what}\n  found  {found}\n  wanted {wanted}")


def said(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    check(f"{' '.join(map(str, command))}: exit code\n{done.stdout}\n{done.stderr}", done.returncode, 0)
    return done.stdout


# The program and the module are both in it, and nothing else is.
names = zipfile.ZipFile(wheel).namelist()
strangers = [n for n in names if not n.startswith("kinset/") and ".dist-info/" not in n and not n.endswith(".data/scripts/kinset")]
check("the wheel holds the module, the program and their description alone", strangers, [])
check("the module says that it has types", "kinset/py.typed" in names)
check("the licenses are in it", sorted(Path(n).name for n in names if "/licenses/" in n), ["LICENSE-APACHE", "LICENSE-MIT"])
venv.create(environment, with_pip=True)
python, program = environment / "bin" / "python", environment / "bin" / "kinset"
said(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index", wheel)
check("--help of the installed program", said(program, "--help").startswith("Sort images"))
version = said(program, "--version").split()[1]
check("the wheel has the program's version", wheel.name.split("-")[1], version)
place = work / "cache"
place.mkdir()
none = said(program, "cache", "status", "--url", f"file://{place}", "--artifacts", work / "none")
check("the wheel's program asks caches", none, f"0 results are here and in `file://{place}`, 0 only here, 0 only there\n")
print(f"  ok  {wheel.name}, {wheel.stat().st_size / 1e6:.0f} MB: installed, {program.name} {version}")

# Without pandas: it runs, and says what reading needs.
bare = f"""
import kinset
ran = kinset.run({pipeline!r}, profile="smoke", artifacts={str(work / "artifacts")!r})
assert "cluster" in ran.ran and ran.report.is_file(), ran
try:
    kinset.assignments({pipeline!r}, artifacts={str(work / "artifacts")!r})
except ImportError as error:
    print(kinset.program(), error)
"""
check("the empty environment's answer", said(python, "-c", bare).strip(), f"{program} reading tables needs pyarrow: pip install 'kinset[pandas]'")
print("  ok  an empty environment: the smoke run, and what reading tables needs")

# With them, from another environment: the program is found beside the module.
sys.path.insert(0, str(next((environment / "lib").glob("python*/site-packages"))))
import kinset  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import polars as pl  # noqa: E402
import pyarrow as pa  # noqa: E402

check("the module is the wheel's", kinset.__file__.startswith(str(environment)))
check("the program is found beside it", kinset.program(), str(program))
options = dict(profile="smoke", artifacts=work / "artifacts")
again = kinset.run(pipeline, quiet=True, **options)
check("a second run does nothing", again.ran, [])
check("a plan of it has no work", kinset.plan(pipeline, **options).work, [])
changed = kinset.plan(pipeline, set={"stage.heads.optimizer": {"lr": 0.01}, "stage.heads.heads": 3}, **options)
check("changed settings are work", changed.work[0], "heads")
check("its table", "<td>heads</td>" in changed._repr_html_())
groups = kinset.assignments(pipeline, **options)
check("assignments in pandas", (type(groups), len(groups), groups["cluster"].between(0, 9).all()), (pd.DataFrame, 400, True))
near = kinset.neighbors(pipeline, as_="polars", **options)
check("neighbors in Polars", (type(near), near["neighbor"].dtype), (pl.DataFrame, pl.Array(pl.UInt32, 20)))
vectors = kinset.features(pipeline, "features", as_="pyarrow", **options)
check("features in pyarrow", (type(vectors), vectors["embedding"].type.list_size), (pa.Table, 128))
lengths = np.linalg.norm(np.stack(vectors["embedding"].to_pandas()), axis=1)
check("features have unit length", np.allclose(lengths, 1, atol=1e-5))
check("no label is in a table", [c for t in (groups, near, vectors.to_pandas()) for c in t.columns if "label" in c or "class" in c], [])
check("labels where they are asked for", sorted(kinset.labels(pipeline, "data.train", **options)["label"].unique()), list(range(10)))
scores = kinset.scores(pipeline, **options).set_index(["stage", "measured"])
check("scores are those of the run", scores.loc[("scores_test", "cluster"), "acc"], next(
    score["row"]["acc"] for score in again.scores if score["judge"] == "scores_test" and score["stage"] == "cluster"))
check("a curve", set(kinset.table(pipeline, "pretext", "curve", **options)["name"]) >= {"loss", "lr"})
view = kinset.report(pipeline, **options)._repr_html_()
check("the report in a notebook", view.startswith('<iframe srcdoc="&lt;!') and "about:srcdoc" in view and "fashion-mini" in view and "<script" not in view)
print("  ok  tables in pandas, Polars and pyarrow, the report, a plan")


def error(call):
    try:
        call()
    except kinset.Error as error:
        return error
    sys.exit("FAILED it was no error")


mistyped = error(lambda: kinset.run(pipeline, set={"stage.heads.epoch": 1}, quiet=True, **options))
check("a mistyped setting", (mistyped.code, mistyped.exit_code), ("pipeline::unknown-key", 3))
check("its message and its hint", "unknown key `epoch` in stage `heads`" in mistyped.message and "^" in mistyped.message and "epochs" in str(mistyped.hint or mistyped))
failed = error(lambda: kinset.run(pipeline, set={"stage.kmeans_features.clusters": 5000}, quiet=True, **options))
check("a stage that fails", (failed.code, failed.exit_code, "only 400 images" in failed.message, bool(failed.hint)), ("stage::too-few-images", 4, True, True))
check("no such file", error(lambda: kinset.plan(work / "none.toml")).code, "pipeline::no-file")
check("several tables", "pixel_features" in error(lambda: kinset.features(pipeline, **options)).hint)
check("no results", "run the pipeline first" in error(lambda: kinset.assignments(pipeline, artifacts=work / "nowhere")).hint)
print("  ok  errors have the message, the hint, the code and the exit code")

# Ctrl-C typed at a terminal: the program keeps its progress, the module raises, and nothing goes on behind their backs.
long = f"""
import kinset
try:
    kinset.run({pipeline!r}, set={{"stage.pretext.epochs": 4000}}, until=["pretext"], artifacts={str(work / "stopped")!r})
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
child, screen = pty.fork()
if child == 0:
    os.execv(python, [str(python), "-c", long])
text, typed, begun = b"", False, time.monotonic()
while time.monotonic() - begun < 60:
    if select.select([screen], [], [], 0.1)[0]:
        try:
            part = os.read(screen, 1 << 16)
        except OSError:
            break
        if not part:
            break
        text += part
    if not typed and b"steps" in text:
        os.write(screen, b"\x03")
        typed = True
else:
    os.kill(child, signal.SIGKILL)
check(f"the interrupted process ends well\n{text.decode(errors='replace')[-2000:]}", os.waitpid(child, 0)[1], 0)
check("Ctrl-C was typed while a bar was drawn, and is a KeyboardInterrupt", typed and b"interrupted\r\n" in text)
rest = kinset.plan(pipeline, set={"stage.pretext.epochs": 4000}, artifacts=work / "stopped")
check("what was done is kept", next(stage["why"] for stage in rest.stages if stage["stage"] == "pretext"), "interrupted; will resume")
print("  ok  Ctrl-C at a terminal: bars, a checkpoint, KeyboardInterrupt")
shutil.rmtree(environment)
