"""Speed of kinset beside PyTorch, torchvision, FAISS and scikit-learn on this machine.

    just bench-peers [--only NAME …] [--quick] [--rounds N] [--threads N] [--wrap COMMAND] [--built FOLDER] [--json]

Builds ours, puts the others into a virtual environment, runs both sides in turn (A B A B A B) as processes of their own on the
same work with the same number of threads, and prints one table of ratios of medians. A peer that can run in several ways does so in
the first round, and the best goes on.

The environment lies in the user's cache folder, or where KINSET_BENCH_ENV says; one that is there is used as it is. pip's own
variables choose where its packages come from: PyTorch's CPU wheels are a tenth of the default ones and no slower.

`--wrap` goes in front of every measured process: `--wrap "taskset -c 0-3"`, or whatever keeps a shared machine quiet.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIECES = Path(__file__).resolve().parent / "pieces"
PACKAGES = {"torch": "torch", "torchvision": "torchvision", "faiss": "faiss-cpu", "sklearn": "scikit-learn", "PIL": "pillow"}
# Set on some machines for the sake of old libraries, and slowing current ones.
BLAS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


@dataclass
class Way:
    """One way a peer can do the work."""

    name: str
    piece: str
    settings: dict = field(default_factory=dict)
    # Variables of the environment: None is unset.
    variables: dict = field(default_factory=dict)


@dataclass
class Work:
    """A piece of work, ours and the peer's."""

    name: str
    what: str
    ours: str
    settings: dict
    quick: dict
    ways: list
    goal: float
    floor: float
    one_core: bool = False


def layouts(piece):
    return [Way("default", piece), Way("channels-last", piece, {"channels-last": 1})]


def threads_or_one(piece):
    # Steps this small can be slower on more threads.
    return [Way("all threads", piece), Way("one thread", piece, variables={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})]


def works():
    flat = [Way("flat", "faiss_knn")]
    if any(name in os.environ for name in BLAS):
        flat.append(Way("flat, OPENBLAS_* unset", "faiss_knn", variables=dict.fromkeys(BLAS)))
    # The OpenBLAS that FAISS ships does not know processors younger than itself and falls back to SSE3, five times slower.
    for flag, core in [("avx512dq", "SkylakeX"), ("avx2", "Haswell")]:
        if flag in flags():
            flat.append(Way(f"flat, {core} kernels", "faiss_knn", variables={BLAS[0]: core, BLAS[1]: None}))
            break
    yield Work(
        "simclr-64", "SimCLR step, ResNet-18 width 64, 32 px, 128 images, with views", "simclr",
        {"width": 64, "batch": 128, "steps": 3}, {"steps": 1}, layouts("torch_simclr"), 1.5, 1.1,
    )  # fmt: skip
    yield Work(
        "simclr-16", "SimCLR step, ResNet-18 width 16, 32 px, 256 images, with views", "simclr",
        {"width": 16, "batch": 256, "steps": 4}, {"steps": 2}, layouts("torch_simclr"), 1.5, 1.2,
    )  # fmt: skip
    for channels, side in [(64, 32), (128, 16), (256, 8), (512, 4)]:
        yield Work(
            f"conv-{channels}", f"convolution 3x3, {channels} channels, {side} px, 64 images, forward and gradients", "conv",
            {"channels": channels, "side": side, "repeats": 20}, {"repeats": 5}, layouts("torch_conv"), 1.0, 0.8,
        )  # fmt: skip
    for size, count in [(32, 1024), (96, 256)]:
        yield Work(
            f"views-{size}", f"SimCLR views, {size} px, one core", "views",
            {"size": size, "count": count, "repeats": 7}, {"repeats": 3},
            [Way("Pillow", "torchvision_views")], 10, 6, one_core=True,
        )  # fmt: skip
    yield Work(
        "knn", "exact 20 nearest of 60,000 x 128", "knn",
        {"rows": 60_000, "dim": 128, "k": 20}, {"rows": 20_000}, flat, 4, 2.5,
    )  # fmt: skip
    yield Work(
        "heads", "epoch of 5 SCAN heads on 60,000 x 529 cached features, with validation", "heads",
        {"rows": 60_000, "side": 23, "heads": 5, "epochs": 2}, {"epochs": 1}, threads_or_one("torch_heads"), 2, 1.2,
    )  # fmt: skip
    for network, name, what in [(0, "dinov2", "DINOv2 ViT-S/14"), (1, "clip", "CLIP ViT-B/32"), (2, "resnet50", "ResNet-50")]:
        ways = layouts("torch_frozen") if network == 2 else [Way("default", "torch_frozen")]
        yield Work(
            f"frozen-{name}", f"64 images of 224 px through frozen {what}", "frozen",
            {"network": network, "batch": 64, "repeats": 1}, {"batch": 8}, ways, 1.0, 0.8,
        )  # fmt: skip
    for clusters, restarts in [(10, 3), (100, 1)]:
        yield Work(
            f"kmeans-{clusters}", f"k-means, {clusters} clusters of 60,000 x 128, {restarts} x 20 iterations", "kmeans",
            {"clusters": clusters, "restarts": restarts}, {"rows": 20_000}, [Way("Lloyd", "sklearn_kmeans")], 1.0, 1.0,
        )  # fmt: skip


def environment():
    """Python with the peers' packages."""
    given = os.environ.get("KINSET_BENCH_ENV")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(given) if given else cache / "kinset" / "bench-peers"
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"making {folder} with {', '.join(PACKAGES.values())}: some minutes")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES.values()]
        try:
            subprocess.run(install, check=True)
        except BaseException:
            # Half an environment would be taken for a whole one next time.
            shutil.rmtree(folder)
            raise
    check = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if not u.find_spec(n)])"
    missing = subprocess.run([python, "-c", check, *PACKAGES], check=True, capture_output=True, text=True).stdout.split()
    if missing:
        sys.exit(f"{folder} lacks {', '.join(PACKAGES[name] for name in missing)}: install them there")
    return str(python)


def build(folder):
    """Our two programs, copied: a build beside a long run must not change what is measured."""
    command = ["cargo", "build", "--release", "--bench", "peers", "--bin", "kinset", "--message-format", "json"]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    built = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    programs = {m["target"]["name"]: m["executable"] for m in built if m.get("executable")}
    return {name: shutil.copy(programs[name], Path(folder) / name) for name in ("peers", "kinset")}


def say(text):
    print(text, file=sys.stderr, flush=True)


def measure(command, threads, wrap, changed=None):
    """One process: what it answered, and its peak memory in MiB."""
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("RAYON", "OMP", "MKL", "OPENBLAS")}
    variables = {name: value for name, value in (os.environ | limits | (changed or {})).items() if value is not None}
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([*wrap, *map(str, command)], stdout=out, env=variables)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"exit code {process.returncode}: {shlex.join(map(str, command))}")
        out.seek(0)
        answer = json.loads(out.read().splitlines()[-1])
    # KiB on Linux, bytes on macOS.
    answer["peak_mib"] = usage.ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
    answer["median"] = statistics.median(answer["seconds"])
    return answer


def options(settings):
    return [part for name, value in settings.items() for part in (f"--{name}", value)]


def compare(work, programs, python, args):
    """A B A B A B; medians over the rounds."""
    threads = 1 if work.one_core else args.threads
    settings = work.settings | (work.quick if args.quick else {})
    ours, peers, ways = [], {way.name: [] for way in work.ways}, work.ways
    for _ in range(args.rounds):
        ours.append(measure([programs["peers"], work.ours, *options(settings)], threads, args.wrap))
        for way in ways:
            command = [python, PIECES / f"{way.piece}.py", *options(settings | way.settings)]
            peers[way.name].append(measure(command, threads, args.wrap, way.variables))
        ways = [min(ways, key=lambda way: peers[way.name][0]["median"])]
    middle = lambda runs, key: statistics.median(run[key] for run in runs)  # noqa: E731
    best = ways[0].name
    return {
        "name": work.name, "what": work.what, "threads": threads, "settings": settings, "goal": work.goal, "floor": work.floor,
        "unit": "x", "ours": middle(ours, "median"), "peer": middle(peers[best], "median"),
        "value": middle(peers[best], "median") / middle(ours, "median"),
        "program": ours[0]["program"], "peer_program": f"{peers[best][0]['program']} ({best})",
        "agrees": agreement(ours[0]["more"], peers[best][0]["more"]),
        "memory": [middle(ours, "peak_mib"), min(middle(runs, "peak_mib") for runs in peers.values())],
        "raw": {"ours": ours, "peers": peers},
    }  # fmt: skip


def agreement(ours, peer):
    """Did both sides find the same?"""
    if "sample" in ours:
        same = sum(len(set(a) & set(b)) for a, b in zip(ours["sample"], peer["sample"], strict=True))
        return f"{100 * same / sum(map(len, ours['sample'])):.2f} % of the neighbors are the same"
    if "inertia" in ours:
        return f"inertia {ours['inertia'] / peer['inertia']:.4f} of the peer's"
    return None


def memory(line):
    """The memory of a comparison as a line of its own. Fewer is better."""
    ours, peer = line["memory"]
    return line | {
        "name": "memory", "what": "peak memory of the first line", "goal": 1.0, "floor": 1.3, "unit": "of the peer's",
        "ours": ours, "peer": peer, "value": ours / peer, "agrees": None, "raw": None,
    }  # fmt: skip


def rerun(programs, python, folder, args):
    """A finished pipeline again: nothing runs. Fewer milliseconds are better."""
    pipeline, rounds = ROOT / "pipelines" / "fashion-mini.toml", []
    for _ in range(args.rounds):
        command = [python, PIECES / "rerun.py", programs["kinset"], pipeline, Path(folder) / "artifacts", 10]
        rounds.append(measure(command, args.threads, args.wrap))
    seconds = statistics.median(run["median"] for run in rounds)
    return {
        "name": "rerun", "what": "complete re-run of a finished pipeline (fashion-mini, smoke)", "threads": args.threads,
        "goal": 50, "floor": 200, "unit": "ms", "ours": seconds, "peer": None, "value": 1000 * seconds,
        "program": None, "peer_program": "-", "agrees": None, "raw": {"ours": rounds},
    }  # fmt: skip


def verdict(line):
    """The goal is reached, only the floor, or neither."""
    falling = line["unit"] != "x"
    reached = lambda bar: line["value"] <= bar if falling else line["value"] >= bar  # noqa: E731
    return "goal" if reached(line["goal"]) else "floor" if reached(line["floor"]) else "MISSED"


def shown(line):
    number = lambda value: f"{value:.3g}" if value < 100 else f"{value:.0f}"  # noqa: E731
    seconds = lambda value: "-" if value is None else f"{1000 * value:,.1f} ms" if value < 1 else f"{value:.2f} s"  # noqa: E731
    if line["name"] == "memory":
        seconds = lambda value: f"{value:,.0f} MiB"  # noqa: E731
    than = "≥" if line["unit"] == "x" else "≤"
    unit = {"x": "×", "ms": " ms"}.get(line["unit"], "×")
    bars = f"{than} {number(line['goal'])} ({number(line['floor'])})"
    return [
        line["what"], seconds(line["ours"]), seconds(line["peer"]), line["peer_program"], number(line["value"]) + unit, bars, verdict(line),
    ]  # fmt: skip


def table(lines):
    head = ["work", "kinset", "peer", "peer, best way", "ratio", "goal (floor)", "reached"]
    rows = [head, *map(shown, lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    text = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"  # noqa: E731
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    notes = [f"{line['name']}: {line['agrees']}" for line in lines if line["agrees"]]
    return "\n".join([text(head), rule, *map(text, rows[1:]), "", *notes])


def cpuinfo(key):
    """What Linux says of its processors, one value for each."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key]


def flags():
    return (cpuinfo("flags") or [""])[0].split()


def processor():
    names = cpuinfo("model name")
    if not names:
        return platform.processor() or platform.machine()
    # Virtual machines hide the name, but not family and model.
    family, model = cpuinfo("cpu family")[:1], cpuinfo("model")[:1]
    return f"{names[0]} (family {', '.join(family)}, model {', '.join(model)}), {len(names)} cores"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="lines whose name begins so")
    parser.add_argument("--quick", action="store_true", help="one round of less work: does it run?")
    parser.add_argument("--rounds", type=int, help="times each side runs (3)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    parser.add_argument("--wrap", type=shlex.split, default=[], metavar="COMMAND", help="goes in front of each measured process")
    parser.add_argument("--built", type=Path, metavar="FOLDER", help="our `peers` and `kinset` lie here already: build nothing")
    parser.add_argument("--json", action="store_true", help="everything that was measured, as JSON")
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 3)
    chosen = lambda name: not args.only or any(name.startswith(only) for only in args.only)  # noqa: E731

    python, lines, failed = environment(), [], []
    with tempfile.TemporaryDirectory(prefix="kinset-bench-") as folder:
        programs = {name: args.built / name for name in ("peers", "kinset")} if args.built else build(folder)
        for work in works():
            # The first line's memory is a line too.
            wanted = chosen(work.name) or (work.name == "simclr-64" and chosen("memory"))
            if not wanted:
                continue
            say(f"{work.name}: {work.what}")
            try:
                line = compare(work, programs, python, args)
            except RuntimeError as error:
                say(f"  failed: {error}")
                failed.append(work.name)
                continue
            say("  " + " | ".join(shown(line)[1:]))
            lines.append(line)
            if work.name == "simclr-64":
                lines.append(memory(line))
        if chosen("rerun"):
            say("rerun")
            lines.append(rerun(programs, python, folder, args))
    facts = {
        "date": time.strftime("%Y-%m-%d"), "processor": processor(), "threads": args.threads, "rounds": args.rounds, "quick": args.quick,
        "python": platform.python_version(), "failed": failed,
    }  # fmt: skip
    if args.json:
        print(json.dumps(facts | {"lines": [line | {"reached": verdict(line)} for line in lines]}, indent=1))
    else:
        print(f"{facts['date']}, {facts['processor']}, {args.threads} threads, medians of {args.rounds} rounds{', quick' if args.quick else ''}\n")
        print(table(lines))
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


main()
