"""Training compared with the papers' codes: SCAN, self-label and NNM beside a transcription in PyTorch, seed by seed.

    python3 tests/parity/parity.py --kinset target/release/kinset [--seeds 10] [--only digits fashion-mini] [--folder DIR]

kinset runs `digits.toml` and `fashion-mini.toml` of this folder, its training stages once per seed. Then `transcription.py` trains
from the very same pictures, encoder and neighbors, with the settings that kinset wrote beside its results; self-label starts from
kinset's own classifier of that seed. Both sides draw random numbers of their own, so single runs differ. Means over seeds must agree
within chance: the 95 % intervals (Student's t) must overlap of ACC and NMI, of the chosen and of the last epoch, and of all that is
measured in the last epoch (training and validation losses). For self-label the interval of the difference, seed by seed, must hold 0
as well, which sees more. The losses of other epochs are shown side by side.

Before training, three things must be equal, not similar: the transcription's losses of what the authors' codes gave for the same
numbers, the encoder's features of all pictures, and the scores of kinset's classifiers when PyTorch applies them.

Exit code 1 if the sides disagree. Of two equal sides, about one row in two hundred does by chance: other seeds (--first 11) tell
chance from a fault. Needs PyTorch, NumPy, SciPy, pyarrow, safetensors and Pillow. Ten seeds take about 25 minutes of one core; to see
that both sides work, half a minute (only gross faults show):

    python3 tests/parity/parity.py --kinset target/release/kinset --only digits --profile smoke --seeds 3 --level 0.999
"""

import argparse
import copy
import io
import json
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment
from scipy.stats import t as student

import transcription as peer

HERE = Path(__file__).resolve().parent
TRAINED = ("scan", "nnm", "selflabel")


# ── Scores


def acc_nmi(found, wanted):
    """In percent: accuracy after the best one-to-one matching; mutual information over the mean of both entropies."""
    table = np.zeros((peer.K, peer.K))
    np.add.at(table, (found, wanted), 1)
    matched = table[linear_sum_assignment(table, maximize=True)].sum() / len(wanted)
    p = table / len(wanted)
    h = lambda p: -(p[p > 0] * np.log(p[p > 0])).sum()  # noqa: E731
    of_found, of_wanted = h(p.sum(1)), h(p.sum(0))
    return 100 * np.array([matched, (of_found + of_wanted - h(p)) / ((of_found + of_wanted) / 2)])


def scores_of(net, head, pictures, labels):
    net.eval()
    with torch.no_grad():
        parts = [net.cluster_head[head](net.backbone(part)).argmax(1) for part in pictures.still.split(500)]
    return acc_nmi(torch.cat(parts).numpy(), labels)


# ── kinset's results


class Results:
    """What kinset left of a pipeline."""

    def __init__(self, toml, folder):
        self.spec = tomllib.loads(toml.read_text())
        self.folder = folder / self.spec["name"]
        (self.scores_stage,) = (name for name, stage in self.spec["stage"].items() if stage["kind"] == "evaluate")
        self.repeated = [name for name, stage in self.spec["stage"].items() if stage["kind"] in TRAINED]

    def stage(self, name, seed):
        return self.folder / (f"{name}@{seed}" if name in [*self.repeated, self.scores_stage] else name)

    def table(self, name, file, column, seed=None):
        values = pq.read_table(self.stage(name, seed) / file)[column].combine_chunks()
        width = getattr(values.type, "list_size", None)
        return values.flatten().to_numpy().reshape(-1, width) if width else values.to_numpy(zero_copy_only=False)

    def pictures(self, source, card):
        images = pq.read_table(self.folder / source / "images.parquet")["image"].to_pylist()
        return peer.Pictures(np.stack([np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in images]), card["normalization"])

    def labels(self, source):
        return self.table(source, "labels.parquet", "label")

    def settings(self, name, seed):
        return json.loads((self.stage(name, seed) / "stage.json").read_text())["manifest"]["settings"]

    def encoder(self, name):
        folder = self.folder / name
        card = json.loads((folder / "encoder.json").read_text())["content"]
        backbone = peer.backbone_of(card["architecture"])
        tensors = load_file(folder / "encoder.safetensors")
        own = {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
        own |= {key: torch.tensor(0) for key in backbone.state_dict() if key.endswith("num_batches_tracked")}
        backbone.load_state_dict(own)
        return backbone, card

    def classifier(self, name, seed, last=""):
        """With all its heads; and which of them counts."""
        folder = self.stage(name, seed)
        card = json.loads((folder / f"{last}classifier.json").read_text())["content"]
        net = peer.Classifier(peer.backbone_of(card["encoder"]["architecture"]), card["heads"], card.get("hidden"))
        tensors = load_file(folder / f"{last}classifier.safetensors")
        tensors |= load_file(folder / f"{last}classifier-encoder.safetensors")
        tensors |= {key: torch.tensor(0) for key in net.state_dict() if key.endswith("num_batches_tracked")}
        net.load_state_dict(tensors)
        return net, card

    def scores(self, seed):
        """ACC and NMI in percent by `STAGE` and `STAGE.last`."""
        rows = json.loads((self.stage(self.scores_stage, seed) / "scores.json").read_text())["content"]["rows"]
        names = self.spec["stage"][self.scores_stage]["classifiers"]
        return {name: 100 * np.array([row["acc"], row["nmi"]]) for name, row in zip(names, rows)}

    def curve(self, name, seed):
        """Per epoch what was measured."""
        epochs = {}
        for point in pq.read_table(self.stage(name, seed) / "curve.parquet").to_pylist():
            epochs.setdefault(point["step"], {})[point["name"]] = point["value"]
        return [epochs[step] for step in sorted(epochs)]


# ── Both sides


def check_features(results):
    """Where kinset stored features of a backbone as they are, PyTorch must find them too."""
    for name, stage in results.spec["stage"].items():
        if stage["kind"] == "embed" and stage.get("layer") == "backbone" and not stage["normalize"]:
            backbone, card = results.encoder(stage["encoder"])
            pictures = results.pictures(stage["images"], card)
            backbone.eval()
            with torch.no_grad():
                found = torch.cat([backbone(part) for part in pictures.still.split(500)]).numpy()
            off = np.abs(found - results.table(name, "features.parquet", "embedding")).max()
            if not off < 1e-4:
                sys.exit(f"the features of `{name}` are not those of PyTorch: off by {off}")
            print(f"features of `{name}`: off by {off:.0e}")


def check_scores(results, seed, test):
    """kinset's classifiers, applied by PyTorch and scored here, must have the scores that kinset gave them."""
    for name, wanted in results.scores(seed).items():
        stage, _, last = name.partition(".")
        net, card = results.classifier(stage, seed, f"{last}-" if last else "")
        off = np.abs(scores_of(net, card["head"], *test(card["encoder"])) - wanted).max()
        # A picture that both sides find equally near to two clusters may go either way.
        if not off < 0.25:
            sys.exit(f"`{name}` of seed {seed}: kinset's scores and those of its weights in PyTorch differ by {off:.2f} points")


def transcribed(results, name, seed, test):
    """Trains one stage by the transcription: scores by `STAGE` and `STAGE.last`, and the curve."""
    stage, s = results.spec["stage"][name], results.settings(name, seed)
    torch.manual_seed(seed)
    peer.random.seed(seed)
    if stage["kind"] == "selflabel":
        net, card = results.classifier(stage["classifier"], seed)
        net.cluster_head = torch.nn.ModuleList([net.cluster_head[card["head"]]])
        card = card["encoder"]
        run = peer.selflabel(net, results.pictures(stage["images"], card), s)
        scores = {name: scores_of(*run.last, *test(card))}
    else:
        backbone, card = results.encoder(stage["encoder"])
        net = peer.Classifier(copy.deepcopy(backbone), s["heads"], s.get("hidden"))
        table = torch.from_numpy(results.table(stage["neighbors"], "neighbors.parquet", "neighbor").astype(np.int64))
        run = getattr(peer, stage["kind"])(net, results.pictures(stage["images"], card), table, s)
        scores = {name: scores_of(*run.best, *test(card)), f"{name}.last": scores_of(*run.last, *test(card))}
    return scores, run.curve


# ── Comparison


class Interval:
    """The mean over seeds and half the width of its interval."""

    level = 0.95

    def __init__(self, values, level=None):
        values = np.asarray(values, float)
        self.mean = values.mean()
        self.half = student.ppf((1 + (level or self.level)) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))

    def meets(self, other):
        # Rounding alone parts values that are the same in all seeds.
        return abs(self.mean - other.mean) <= self.half + other.half + 1e-6

    def show(self, digits, sign=""):
        return f"{self.mean:{sign}.{digits}f} ± {self.half:.{digits}f}"


def judged(ours, theirs, paired):
    """Intervals of both sides and of the difference, and whether the sides agree. Where both start from the same, seed by seed, the
    differences themselves must have an interval around 0, of a level that fails as rarely as two intervals that lie apart."""
    a, b, by = Interval(ours), Interval(theirs), np.subtract(ours, theirs)
    if paired:
        strict = Interval(by, 1 - (1 - Interval.level) / 10)
        return a, b, Interval(by), a.meets(b) and abs(strict.mean) <= strict.half + 1e-6
    found = Interval(by)
    found.half = np.hypot(a.half, b.half)
    return a, b, found, a.meets(b)


def compare(results, ours, theirs):
    """Prints the tables; says which intervals lie apart."""
    apart = []

    def row(label, digits, pair):
        stage = label.split()[0].split(".")[0]
        a, b, by, agree = judged(*pair, results.spec["stage"][stage]["kind"] == "selflabel")
        if not agree:
            apart.append(f"{results.spec['name']}: {label}: {a.show(digits)} and {b.show(digits)}")
        print(f"| {label} | {a.show(digits)} | {b.show(digits)} | {by.show(digits, '+')} | {'yes' if agree else '**no**'} |")

    print("\n| | kinset | PyTorch | difference | agree |\n|---|---|---|---|---|")
    for name in ours[0][0]:
        for at, metric in enumerate(("ACC", "NMI")):
            row(f"{name} {metric}", 1, [[scores[name][at] for scores, _ in side] for side in (ours, theirs)])
    for stage in results.repeated:
        for measured in theirs[0][1][stage][-1]:
            if measured in ours[0][1][stage][-1]:
                row(f"{stage} {measured}, last epoch", 4, [[curves[stage][-1][measured] for _, curves in side] for side in (ours, theirs)])

    for stage in results.repeated:
        epochs = len(theirs[0][1][stage])
        names = [measured for measured in theirs[0][1][stage][-1] if measured in ours[0][1][stage][-1]]
        shown = sorted({e for e in (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40, 50) if e < epochs} | {epochs})
        print(f"\n{stage}, mean over seeds, kinset / PyTorch; ! where the intervals lie apart")
        print("| epoch | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
        far = count = 0
        for epoch in range(1, epochs + 1):
            cells = []
            for measured in names:
                pair = [[curves[stage][epoch - 1].get(measured) for _, curves in side] for side in (ours, theirs)]
                if None in pair[0] + pair[1]:
                    cells.append("–")
                    continue
                a, b = map(Interval, pair)
                count, far = count + 1, far + (not a.meets(b))
                cells.append(f"{a.mean:.4f} / {b.mean:.4f}{'' if a.meets(b) else ' !'}")
            if epoch in shown:
                print(f"| {epoch} | " + " | ".join(cells) + " |")
        print(f"apart: {far} of {count} values of all epochs")
    return apart


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinset", type=Path, required=True, help="the program")
    parser.add_argument("--seeds", type=int, default=10, help="how many, at least 2")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--only", nargs="+", default=["digits", "fashion-mini"], choices=["digits", "fashion-mini"])
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals")
    parser.add_argument("--profile", help="of the pipelines")
    parser.add_argument("--folder", type=Path, help="keep kinset's results here, and take what is here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    peer.check_losses()
    Interval.level = args.level
    print(f"PyTorch {torch.__version__}, {args.seeds} seeds from {args.first}; ± is half of a {args.level:.1%} interval of the mean")
    apart, seeds = [], list(range(args.first, args.first + args.seeds))
    with tempfile.TemporaryDirectory(prefix="kinset-parity-") as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        for case in args.only:
            toml = HERE / f"{case}.toml"
            command = [args.kinset.resolve(), "run", toml, "--artifacts", folder, "--data", HERE.parents[1] / "data"]
            command += ["--no-report", "--json", "--set", f"repeat.seeds={seeds}"]
            command += ["--profile", args.profile] if args.profile else []
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            if done.returncode != 0:
                sys.exit(f"kinset failed with exit code {done.returncode}:\n{done.stderr}")
            results = Results(toml, folder)
            print(f"\n# {results.spec['name']}\n")
            source = results.spec["stage"][results.scores_stage]["images"]
            held = {}

            def test(card):
                if not held:
                    held["pictures"], held["labels"] = results.pictures(source, card), results.labels(source)
                return held["pictures"], held["labels"]

            check_features(results)
            ours, theirs = [], []
            for seed in seeds:
                check_scores(results, seed, test)
                ours.append((results.scores(seed), {name: results.curve(name, seed) for name in results.repeated}))
                scores, curves, spent = {}, {}, []
                for name in results.repeated:
                    start = time.process_time()
                    found, curves[name] = transcribed(results, name, seed, test)
                    scores |= found
                    spent.append(f"{name} {time.process_time() - start:.0f} s")
                theirs.append((scores, curves))
                print(f"seed {seed}: CPU time of PyTorch: {', '.join(spent)}", file=sys.stderr, flush=True)
            apart += compare(results, ours, theirs)
    print("\nBoth sides agree." if not apart else "\nApart by more than chance:\n" + "\n".join(f"- {line}" for line in apart))
    sys.exit(bool(apart))


main()
