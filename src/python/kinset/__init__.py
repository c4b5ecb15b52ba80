"""Runs kinset's pipelines and reads their tables.

    import kinset

    kinset.run("photos.toml", profile="smoke")
    groups = kinset.assignments("photos.toml")

The module starts the program ``kinset`` and reads the Parquet files that it wrote, nothing else. Labels are read by `labels` alone, and
scores by `scores`. Tables come as pandas data frames, or with ``as_="polars"`` or ``as_="pyarrow"`` as such; reading them needs pyarrow.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union

__all__ = [
    "Error", "Plan", "Report", "Run", "assignments", "features", "labels", "neighbors", "plan", "program", "report", "run", "scores", "table",
]

PathLike = Union[str, "os.PathLike[str]"]
Library = Literal["pandas", "pyarrow", "polars"]
FRESH, WORK, STOPPED = 0, 10, 75


class Error(Exception):
    """What kinset said instead of doing what it was asked."""

    #: What is wrong, and where.
    message: str
    #: What to do about it, where kinset knows.
    hint: str | None
    #: A name of the kind of fault that stays the same, such as ``pipeline::unknown-key``; empty where there is none.
    code: str
    #: The program's exit code: 2 command line, 3 pipeline file, 4 data, 5 a stage, 6 store, 7 machine, 70 a bug in kinset.
    exit_code: int

    def __init__(self, message: str, hint: str | None = None, code: str = "", exit_code: int = 1) -> None:
        super().__init__(message if hint is None else f"{message}\n\nhint: {hint}")
        self.message, self.hint, self.code, self.exit_code = message, hint, code, exit_code


def program() -> str:
    """The path of the program: ``$KINSET_BIN``, else the one that was installed with this module, else the one on the path."""
    if chosen := os.environ.get("KINSET_BIN"):
        return chosen
    here = Path(__file__).resolve().parents
    # An environment's scripts; those of `pip install --user`, of `--target`, and of `--prefix`.
    folders = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", f"{os.name}_user"), here[1] / "bin", here[4] / "bin"]
    for folder in map(Path, folders):
        if (folder / "kinset").is_file():
            return str(folder / "kinset")
    if found := shutil.which("kinset"):
        return found
    raise Error("cannot find the program `kinset`", "install the package `kinset`, or name the program in KINSET_BIN")


@dataclass(frozen=True)
class Run:
    """What a run did."""

    pipeline: str
    #: Names of the stages that ran; the others were up to date.
    ran: list[str]
    #: One entry for each stage: its kind, state, seconds and digests.
    stages: list[dict[str, Any]] = field(repr=False)
    #: The scores of each classifier, if the pipeline evaluates any.
    scores: list[dict[str, Any]] = field(repr=False)
    seconds: float
    #: The report's file, if one was written.
    report: Path | None

    def _repr_html_(self) -> str:
        shown = Report(self.report)._repr_html_() if self.report else ""
        return f"<p>{html.escape(self.pipeline)}: {len(self.ran)} of {len(self.stages)} stages ran, {self.seconds:.1f} s</p>{shown}"


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    pipeline: str
    #: One entry for each stage: its name, kind, state and the reason.
    stages: list[dict[str, Any]] = field(repr=False)

    @property
    def work(self) -> list[str]:
        """Names of the stages that a run would not find up to date."""
        return [stage["stage"] for stage in self.stages if stage["state"] != "fresh"]

    def _repr_html_(self) -> str:
        rows = (f"<tr>{''.join(f'<td>{html.escape(str(stage[key]))}</td>' for key in ('stage', 'kind', 'state', 'why'))}</tr>" for stage in self.stages)
        return f"<table><tr><th>stage</th><th>kind</th><th>state</th><th>why</th></tr>{''.join(rows)}</table>"


@dataclass(frozen=True)
class Report:
    """The page that a pipeline's results are shown on; a notebook shows it whole."""

    path: Path
    #: Pixels that a notebook gives it.
    height: int = 800

    def _repr_html_(self) -> str:
        # In a frame of its own, so that no style of one page reaches the other; it has all its pictures in it. Without a base its
        # links to sections would lead to the notebook's address.
        page = self.path.read_text(encoding="utf-8").replace("<head>", '<head><base href="about:srcdoc">', 1)
        page = html.escape(page)
        return f'<iframe srcdoc="{page}" width="100%" height="{self.height}" sandbox="allow-scripts allow-popups" style="border:0"></iframe>'


def run(
    pipeline: PathLike,
    *,
    profile: str | None = None,
    set: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str | None = None,
    only: Iterable[str] = (),
    until: Iterable[str] = (),
    force: bool = False,
    threads: int | None = None,
    artifacts: PathLike | None = None,
    data: PathLike | None = None,
    quiet: bool = False,
) -> Run:
    """Runs what is missing or out of date.

    ``set`` overrides settings, ``{"stage.pretext.epochs": 5}``; ``only`` and ``until`` choose stages. Progress goes to standard error
    unless ``quiet``. Ctrl-C stops the run at a checkpoint, from which the next one resumes, and raises KeyboardInterrupt.
    """
    options = _options(profile, set, seed, device, artifacts, data)
    options += [f"--only={stage}" for stage in only] + [f"--until={stage}" for stage in until] + ["--force"] * force
    options += [] if threads is None else [f"--threads={threads}"]
    said = _ask(["run", os.fspath(pipeline), *options, "--json"], quiet=quiet)
    report = said["report"]
    return Run(said["pipeline"], said["ran"], said["stages"], said["scores"], said["seconds"], Path(report) if report else None)


def plan(
    pipeline: PathLike,
    *,
    profile: str | None = None,
    set: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str | None = None,
    artifacts: PathLike | None = None,
    data: PathLike | None = None,
) -> Plan:
    """What `run` with the same options would do, and why."""
    said = _ask(["plan", os.fspath(pipeline), *_options(profile, set, seed, device, artifacts, data), "--json"], fine=(FRESH, WORK))
    return Plan(said["pipeline"], said["stages"])


def assignments(pipeline: PathLike, stage: str | None = None, *, as_: Library = "pandas", **options: Any) -> Any:
    """Cluster, confidence, entropy and second choice of each image; of the only stage that predicts, or of this one."""
    return _kind(pipeline, stage, ("predict",), "assignments", as_, options)


def features(pipeline: PathLike, stage: str | None = None, *, as_: Library = "pandas", **options: Any) -> Any:
    """The embedding of each image; of the only stage that writes features, or of this one."""
    return _kind(pipeline, stage, ("embed", "import_features"), "features", as_, options)


def neighbors(pipeline: PathLike, stage: str | None = None, *, as_: Library = "pandas", **options: Any) -> Any:
    """The nearest neighbors of each image, with similarities; of the only stage that finds them, or of this one."""
    return _kind(pipeline, stage, ("neighbors",), "neighbors", as_, options)


def labels(pipeline: PathLike, source: str | None = None, *, as_: Library = "pandas", **options: Any) -> Any:
    """The labels of the only source, or of this one (``"data.train"``). Nothing else in this module reads labels."""
    return _kind(pipeline, source, ("ingest",), "labels", as_, options)


def table(pipeline: PathLike, stage: str, name: str, *, as_: Library = "pandas", **options: Any) -> Any:
    """A stage's table by its file's name: ``table(p, "pretext", "curve")``."""
    return _kind(pipeline, stage, (), name, as_, options)


def scores(pipeline: PathLike, *, as_: Library = "pandas", **options: Any) -> Any:
    """The scores of each classifier that the pipeline has measured by labels, under the names of the pipeline.

    One row for each stage that measures (``stage``), what it measured (``measured``) and on which images, with a column for each setting that
    varies.
    """
    _arrow(as_)
    rows: list[dict[str, Any]] = []
    for stage in _status(pipeline, options):
        file = Path(stage["folder"] or os.devnull) / "scores.csv"
        if stage["kind"] in ("evaluate", "knn_eval", "linear_eval") and file.is_file():
            _doubt(stage)
            with file.open(newline="", encoding="utf-8") as lines:
                rows += [{"stage": stage["stage"], **row} for row in csv.DictReader(lines)]
    if not rows:
        raise Error(f"`{os.fspath(pipeline)}` has no scores", "a stage of the kind `evaluate` measures classifiers; run the pipeline first")
    words, counts = {"stage", "measured", "images"}, {"seed", "count", "clusters", "classes"}
    columns: dict[str, list[Any]] = {name: [row[name] or None for row in rows] for name in rows[0]}
    # Settings that vary stand between the seed and the counts, and may have any values.
    names = list(columns)
    settings = names[names.index("seed") + 1 : names.index("count")]
    for name in (name for name in names if name not in words):
        for kind in (int, float) if name in settings else (int,) if name in counts else (float,):
            with contextlib.suppress(ValueError) if name in settings else contextlib.nullcontext():
                columns[name] = [None if value is None else kind(value) for value in columns[name]]
                break
    return _as(_arrow(as_).table(columns), as_)


def report(pipeline: PathLike, *, height: int = 800, **options: Any) -> Report:
    """Writes the report of the latest results anew; a notebook shows it, ``height`` pixels high."""
    _start(["report", os.fspath(pipeline), *_options(**options)], quiet=True)
    folders = [Path(stage["folder"]).parent for stage in _status(pipeline, options) if stage["folder"]]
    return Report(folders[0] / "report.html", height)


def _options(
    profile: str | None = None,
    set: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str | None = None,
    artifacts: PathLike | None = None,
    data: PathLike | None = None,
) -> list[str]:
    """What most commands take, as it is typed."""
    options = [option for key, value in (set or {}).items() for option in ("--set", f"{key}={_toml(value)}")]
    named = {"profile": profile, "seed": seed, "device": device, "artifacts": artifacts, "data": data}
    for name, value in named.items():
        if value is not None:
            options += [f"--{name}", os.fspath(value) if isinstance(value, os.PathLike) else str(value)]
    return options


def _toml(value: Any) -> str:
    """A value as TOML writes it; JSON's texts, numbers and flags are TOML's."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, (str, bool, int, float)):
        raise TypeError(f"a setting is a text, a number, a flag, a list or a table, not {type(value).__name__}")
    return json.dumps(value, ensure_ascii=False)


def _status(pipeline: PathLike, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = _ask(["status", os.fspath(pipeline), *_options(**options), "--json"], quiet=True)["stages"]
    return stages


def _kind(pipeline: PathLike, stage: str | None, kinds: tuple[str, ...], name: str, as_: Library, options: Mapping[str, Any]) -> Any:
    """Reads the table `name` of a stage, or of the only stage of these kinds that has one."""
    arrow = _arrow(as_)
    stages = _status(pipeline, options)
    # A stage that has no result has no folder.
    file = {entry["stage"]: Path(entry["folder"] or os.devnull) / f"{name}.parquet" for entry in stages}
    found = [entry for entry in stages if (entry["stage"] == stage if stage is not None else entry["kind"] in kinds)]
    written = [entry for entry in found if file[entry["stage"]].is_file()]
    if stage is not None and not found:
        raise Error(f"`{os.fspath(pipeline)}` has no stage `{stage}`", f"it has {', '.join(file)}")
    if not written:
        what = f"stage `{stage}`" if stage is not None else f"`{os.fspath(pipeline)}`"
        raise Error(f"{what} has no table `{name}`", "run the pipeline first, and name the folder of its results with `artifacts`")
    if len(written) > 1:
        raise Error(f"several stages have a table `{name}`", f"name one: {', '.join(entry['stage'] for entry in written)}")
    _doubt(written[0])
    return _as(arrow.parquet.read_table(file[written[0]["stage"]]), as_)


def _doubt(stage: Mapping[str, Any]) -> None:
    if stage["state"] != "fresh":
        warnings.warn(f"the result of `{stage['stage']}` is not that of these settings: {stage['why']}", stacklevel=4)


def _arrow(as_: str) -> Any:
    if as_ not in ("pandas", "pyarrow", "polars"):
        raise ValueError(f"as_ is 'pandas', 'polars' or 'pyarrow', not {as_!r}")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"reading tables needs pyarrow: pip install 'kinset[{as_}]'") from error
    return pyarrow


def _as(arrow: Any, as_: str) -> Any:
    if as_ == "pandas":
        return arrow.to_pandas()
    if as_ == "polars":
        import polars

        return polars.from_arrow(arrow)
    return arrow


def _ask(arguments: list[str], *, quiet: bool = True, fine: tuple[int, ...] = (0,)) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(_start(arguments, quiet=quiet, fine=fine))
    return answer


def _start(arguments: list[str], *, quiet: bool, fine: tuple[int, ...] = (0,)) -> str:
    """Starts the program, passes on what it says on standard error, and returns what it answers on standard output."""
    terminal = not quiet and sys.stderr is not None and sys.stderr.isatty()
    listening, saying = _terminal() if terminal else os.pipe()
    # A group of its own, so that Ctrl-C in a terminal reaches it once, through us: a second signal would end it without a checkpoint.
    group: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
    try:
        child = subprocess.Popen([program(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=saying, **group)
    except BaseException:
        os.close(listening)
        raise
    finally:
        os.close(saying)
    said, answer = bytearray(), bytearray()
    readers = [
        threading.Thread(target=_listen, args=(listening, said, not quiet)),
        threading.Thread(target=lambda: answer.extend(child.stdout.read() if child.stdout else b"")),
    ]
    interrupted = False
    with child:
        for reader in readers:
            reader.start()
        while True:
            try:
                child.wait()
                for reader in readers:
                    reader.join()
                break
            except KeyboardInterrupt:
                # It ends with its checkpoint written, within two seconds; the second one ends it at once.
                interrupted = True
                child.send_signal(signal.SIGINT)
    if interrupted:
        raise KeyboardInterrupt
    if child.returncode not in fine:
        raise _error(child.returncode, said.decode(errors="replace"), bytes(answer))
    return answer.decode()


def _terminal() -> tuple[int, int]:
    """A terminal as wide as ours, so that the program draws its bars there: where to read, and where it writes."""
    import pty

    listening, saying = pty.openpty()
    try:
        import fcntl
        import termios

        fcntl.ioctl(saying, termios.TIOCSWINSZ, fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, b"\0" * 8))
    except (OSError, ValueError):
        pass  # of unknown width, then
    return listening, saying


def _listen(source: int, said: bytearray, aloud: bool) -> None:
    """Keeps what is said, and repeats it on our standard error if it is to be heard."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with open(source, "rb", buffering=0) as stream:
        while True:
            try:
                part = stream.read(1 << 16)
            except OSError:  # a terminal whose other end has closed
                part = b""
            said += part
            del said[: -(1 << 20)]
            if aloud and sys.stderr is not None and (text := decoder.decode(part, final=not part)):
                sys.stderr.write(text)
                sys.stderr.flush()
            if not part:
                return


def _error(exit_code: int, said: str, answer: bytes) -> Error:
    """What went wrong: as the answer has it where a stage failed, else as it was said."""
    try:
        stages = json.loads(answer)["stages"]
    except (ValueError, KeyError, TypeError):
        stages = []
    for stage in stages:
        if isinstance(stage, dict) and stage.get("error"):
            error = stage["error"]
            return Error(f"stage `{stage['stage']}`: {error['message']}", error["hint"], error["code"], exit_code)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said).replace("\r\n", "\n")
    faults = re.split(r"^error(?:\[([\w:-]+)\])?: ", plain, maxsplit=1, flags=re.MULTILINE)
    code, text = (faults[1] or "", faults[2]) if len(faults) == 3 else ("", plain)
    # Below a place in a file it is the last line of the frame. Several faults have each their own, which stay with them.
    parts = re.split(r"^(?:hint:| *= (?:hint|help):) ", text, flags=re.MULTILINE)
    if len(parts) == 2 and "\nerror" not in text:
        return Error(parts[0].rstrip(" |\n"), parts[1].strip(), code, exit_code)
    return Error(text.strip(), None, code, exit_code)
