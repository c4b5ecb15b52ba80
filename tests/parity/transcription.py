"""SCAN's clustering stage, SCAN's self-label stage and NNM's training in PyTorch, from the papers and the facts of their codes.

Written for checking kinset, not for use: plain loops, one thread, PyTorch's own losses, optimizers and batch norm, Pillow's own
picture operations. Nothing here knows kinset but for the names of its settings (`s`), which are read from what it wrote.

W. Van Gansbeke et al., "SCAN: Learning to Classify Images without Labels", ECCV 2020 (arXiv 2005.12320).
Z. Dang et al., "Nearest Neighbor Matching for Deep Clustering", CVPR 2021.
"""

import copy
import random
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "golden/pretrained"))
from networks import ResNet  # noqa: E402

K = 10


# ── Networks


class Tiny(ResNet):
    """kinset's `resnet_tiny` with the `strided` stem: three stages of one block, the first convolution halves the map."""

    def __init__(self, width, channels):
        super().__init__("cifar", width, (1, 1, 1), channels=channels)
        self.conv1.stride = (2, 2)

    def forward(self, x):
        return self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))).mean((2, 3))


def backbone_of(architecture):
    if architecture["backbone"] == "pixels":
        pixels = nn.Flatten()
        pixels.dim = architecture["features"]
        return pixels
    assert (architecture["backbone"], architecture["stem"]) == ("resnet_tiny", "strided"), architecture
    return Tiny(architecture["width"], architecture["channels"])


class Classifier(nn.Module):
    """A backbone and heads, linear or with one hidden layer; PyTorch's default initial weights."""

    def __init__(self, backbone, heads, hidden):
        super().__init__()
        self.backbone = backbone
        dim = backbone.dim
        one = lambda: nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, K)) if hidden else nn.Linear(dim, K)  # noqa: E731
        self.cluster_head = nn.ModuleList([one() for _ in range(heads)])

    def logits(self, features):
        return [head(features) for head in self.cluster_head]


# ── What is read of images


class Pictures:
    """Gray pictures `[N, S, S]` of 8 bits, as tensors `[B, 1, S, S]`: plain, or in random views."""

    def __init__(self, pixels, normalization):
        self.pixels = pixels
        (self.mean,), (self.std,) = normalization["mean"], normalization["std"]
        self.still = self.tensor(pixels)

    def __len__(self):
        return len(self.pixels)

    def tensor(self, pixels):
        return ((torch.from_numpy(pixels).float() / 255 - self.mean) / self.std)[:, None]

    def plain(self, rows):
        return self.still[rows]

    def views(self, rows, recipe):
        if recipe["kind"] == "plain":
            return self.plain(rows)
        assert recipe["kind"] == "strong" and recipe["cutout_holes"] == 1, recipe
        batch = self.tensor(np.stack([strong(self.pixels[row], recipe) for row in rows.tolist()]))
        for view in batch:
            cutout(view, recipe["cutout"])
        return batch


def strong(pixels, recipe):
    """Flip, then operations out of fourteen, drawn with replacement, each with a magnitude of its own range."""
    image = Image.fromarray(pixels)
    if random.random() < recipe["flip"]:
        image = ImageOps.mirror(image)
    for _ in range(recipe["operations"]):
        image = random.choice(OPERATIONS)(image)
    return np.asarray(image)


def moved(coefficients):
    def change(image):
        v = random.uniform(-0.1, 0.1)
        return image.transform(image.size, Image.Transform.AFFINE, coefficients(v, *image.size), Image.Resampling.NEAREST)

    return change


def enhanced(kind):
    return lambda image: kind(image).enhance(random.uniform(0.05, 0.95))


OPERATIONS = [
    lambda image: image,
    ImageOps.autocontrast,
    ImageOps.equalize,
    lambda image: image.rotate(random.uniform(-30, 30)),
    lambda image: ImageOps.solarize(image, random.uniform(0, 256)),
    enhanced(ImageEnhance.Color),
    enhanced(ImageEnhance.Contrast),
    enhanced(ImageEnhance.Brightness),
    enhanced(ImageEnhance.Sharpness),
    moved(lambda v, w, h: (1, v, 0, 0, 1, 0)),
    moved(lambda v, w, h: (1, 0, 0, v, 1, 0)),
    moved(lambda v, w, h: (1, 0, v * w, 0, 1, 0)),
    moved(lambda v, w, h: (1, 0, 0, 0, 1, v * h)),
    lambda image: ImageOps.posterize(image, int(random.uniform(4, 8))),
]


def cutout(view, length):
    """A square of the mean color about a random pixel; its side is random, its half a whole number."""
    half = random.randint(1, length) // 2
    height, width = view.shape[1:]
    y, x = random.randrange(height), random.randrange(width)
    view[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = 0


# ── Losses, in nats; `p` and `q` are probabilities `[B, K]`


def consistency(p, q):
    """mean −ln⟨p_i, q_i⟩, as binary cross-entropy against 1."""
    agreement = (p * q).sum(1).clamp(max=1)
    return F.binary_cross_entropy(agreement, torch.ones_like(agreement))


def entropy(p):
    mean = p.mean(0).clamp(min=1e-8)
    return -(mean * mean.log()).sum()


def class_contrast(p, q):
    """Cross-entropy over the cosines of columns of p with columns of q."""
    cosines = F.normalize(p, dim=0).T @ F.normalize(q, dim=0)
    return F.cross_entropy(cosines, torch.arange(len(cosines)))


def scan_parts(p, q, weight):
    """Of one head: anchors and neighbors."""
    parts = {"consistency": consistency(p, q), "entropy": entropy(p)}
    return {"loss": parts["consistency"] - weight * parts["entropy"], **parts}


def nnm_parts(anchor, partner, second, near, targets, weight):
    """Of one head; `loss` is without what the whole set adds, `global`, which needs targets."""
    ours, theirs = torch.cat([anchor, second]), torch.cat([partner, anchor[near]])
    parts = {"consistency": consistency(ours, theirs), "class": class_contrast(ours, theirs), "entropy": entropy(ours)}
    parts = {"loss": parts["consistency"] + parts["class"] - weight * parts["entropy"], **parts}
    if targets is not None:
        everything, fourfold = torch.cat([ours, theirs]), targets.repeat(4, 1)
        parts["global"] = consistency(everything, fourfold) + class_contrast(everything, fourfold)
    return parts


def sure_answers(p, threshold):
    """Which rows are sure, and of what."""
    sure, target = p.max(1)
    return sure > threshold, target


def selflabel_loss(logits, target):
    """Cross-entropy; every class that is there weighs the same."""
    counts = torch.bincount(target, minlength=logits.shape[1])
    return F.cross_entropy(logits, target, torch.where(counts > 0, len(target) / counts.clamp(min=1), 1.0).to(logits.dtype))


def mean_of_heads(parts):
    return {name: float(np.mean([part[name].item() for part in parts])) for name in parts[0]}


def check_losses():
    """What the authors' codes give for these waves (run once, and written down)."""
    i, c = torch.meshgrid(torch.arange(6.0, dtype=torch.float64), torch.arange(5.0, dtype=torch.float64), indexing="ij")
    p, q = (2 * torch.cos(1.1 * i + 0.9 * c)).softmax(1), (2 * torch.sin(0.8 * i - 0.6 * c + 0.3)).softmax(1)
    found = list(scan_parts(p, q, 5).values())
    kept, target = sure_answers((3 * torch.sin(0.9 * i * (c + 1) + 0.2 * c)).softmax(1), 0.5)
    found.append(selflabel_loss((3 * torch.cos(1.7 * i + 1.3 * c))[kept], target[kept]))
    wanted = [-6.1532998, 1.7948785, 1.5896356, 3.6659248]
    i, k = i[:4, :3], c[:4, :3]
    anchor, partner = 2 * torch.sin(1 + 0.7 * i + 1.3 * k), 2 * torch.cos(0.5 + 0.9 * i + 0.4 * k)
    second = 1.5 * torch.sin(0.3 + 1.1 * i + 0.8 * k)
    r, k = torch.meshgrid(torch.arange(6.0, dtype=torch.float64), torch.arange(3.0, dtype=torch.float64), indexing="ij")
    targets = (3 * torch.cos(0.2 + 0.6 * r + 1.7 * k)).softmax(1)[[5, 0, 3, 2]]
    anchor.requires_grad_()
    parts = nnm_parts(anchor.softmax(1), partner.softmax(1), second.softmax(1), torch.tensor([2, 3, 0, 1]), targets, 5)
    (gradient,) = torch.autograd.grad(parts["loss"] + parts["global"], anchor)
    found += [*parts.values(), *gradient[0]]
    wanted += [-2.58788184, 0.95265032, 1.16166721, 0.94043987, 1.42164589 + 1.08039520, 0.1626501, -0.0849736, -0.0776765]
    for value, number in zip(found, wanted, strict=True):
        assert abs(value.item() - number) < 1e-6, (value.item(), number)


def nearest_other(features):
    """The second nearest row of each; the nearest is the row itself. Squared Euclidean distance."""
    squares = features.square().sum(1)
    return (squares[:, None] + squares - 2 * features @ features.T).topk(2, largest=False).indices[:, 1]


# ── What the trainings share


class Run:
    """A network on pictures, and the order and random draws of its training."""

    def __init__(self, net, pictures, s):
        self.net, self.pictures, self.s = net, pictures, s
        self.still = s.get("update") == "heads"
        if self.still:
            assert s["augment"]["kind"] == "plain"
            self.features_of_all = self.plain_features()
        moved = net.cluster_head.parameters() if self.still else net.parameters()
        assert s.get("include_self", True) and s.get("validate_every", 1) == 1
        o = s["optimizer"]
        assert o["kind"] == "adam" and s["schedule"]["kind"] == "constant" and s["schedule"]["warm_up"] == 0
        self.adam = torch.optim.Adam(moved, o["lr"], weight_decay=o["weight_decay"])
        self.curve = []

    def plain_features(self):
        self.net.eval()
        with torch.no_grad():
            return torch.cat([self.net.backbone(part) for part in self.pictures.still.split(500)])

    def batches(self, drop_last):
        parts = torch.randperm(len(self.pictures)).split(self.s["batch"])
        return parts[:-1] if drop_last and len(parts[-1]) < self.s["batch"] else parts

    def features(self, rows):
        """Of one view each, with their batch's own statistics; of plain pictures if the encoder is frozen."""
        return self.features_of_all[rows] if self.still else self.net.backbone(self.pictures.views(rows, self.s["augment"]))

    def probabilities(self, rows):
        return [logits.softmax(1) for logits in self.net.logits(self.features(rows))]

    def step(self, loss):
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

    def validate(self, table, with_classes):
        """Per head: agreement with itself and the first neighbors, all plain; the entropy counts once."""
        self.net.eval()
        candidates = table[:, : 1 + self.s["validation_neighbors"]]
        found = []
        with torch.no_grad():
            for logits in self.net.logits(self.features_of_all if self.still else self.plain_features()):
                p = logits.softmax(1)
                agreement = (p[:, None] * p[candidates]).sum(2)
                parts = [-agreement.log().mean().item(), entropy(p).item()]
                found.append(parts[0] - parts[1] + (class_contrast(p, p).item() if with_classes else 0))
        return found

    def close(self, parts, losses):
        """Ends an epoch: its means, and the state if no validation loss was lower."""
        head = int(np.argmin(losses))
        self.curve.append({name: float(np.mean([p[name] for p in parts if name in p])) for name in parts[-1]} | {"val_loss": losses[head]})
        self.last = (self.net, head)
        if len(self.curve) == 1 or losses[head] < self.lowest:
            self.lowest, self.best = losses[head], (copy.deepcopy(self.net), head)


def neighbors_with_self(table):
    return torch.cat([torch.arange(len(table))[:, None], table], 1)


def drawn(candidates, rows):
    """One of its candidates for each row, itself among them."""
    return candidates[rows, torch.randint(candidates.shape[1], (len(rows),))]


# ── The three trainings


def scan(net, pictures, table, s):
    run = Run(net, pictures, s)
    candidates = neighbors_with_self(table[:, : s.get("num_neighbors")])
    for _ in range(s["epochs"]):
        net.train(not run.still)
        shown = []
        for rows in run.batches(drop_last=True):
            anchors, partners = run.probabilities(rows), run.probabilities(drawn(candidates, rows))
            parts = [scan_parts(p, q, s["entropy_weight"]) for p, q in zip(anchors, partners)]
            # The sum, so that each head has its full gradient; shown is the mean.
            run.step(sum(part["loss"] for part in parts))
            shown.append(mean_of_heads(parts))
        run.close(shown, run.validate(neighbors_with_self(table), with_classes=False))
    return run


def nnm(net, pictures, table, s):
    run = Run(net, pictures, s)
    assert s["second_view"] and s["class_weight"] == 1 and s["warm_up"] == 1
    candidates = neighbors_with_self(table[:, : s["num_neighbors"]])
    bank = None
    for _ in range(s["epochs"]):
        net.train(not run.still)
        shown = []
        for rows in run.batches(drop_last=False):
            features = run.features(rows)
            near = nearest_other(features.detach())
            partners, seconds = run.probabilities(drawn(candidates, rows)), run.probabilities(rows)
            parts = [
                nnm_parts(logits.softmax(1), partners[head], seconds[head], near, bank and bank[head][rows], s["entropy_weight"])
                for head, logits in enumerate(net.logits(features))
            ]
            run.step(sum(part["loss"] + part.get("global", 0) for part in parts))
            shown.append(mean_of_heads(parts))
        bank = answers_of_neighbors(run)
        run.close(shown, run.validate(neighbors_with_self(table), with_classes=True))
    return run


def answers_of_neighbors(run):
    """What the network says of the nearest image of each in the whole set. The authors' code visits the set in random order, and
    leaves the rows in that order (`permuted`); the paper means each image's own (`aligned`)."""
    s = run.s
    assert s["global"] in ("permuted", "aligned")
    visited = torch.randperm(len(run.pictures)) if s["global"] == "permuted" else torch.arange(len(run.pictures))
    recipe = s["augment"] if s["global_views"] == "augmented" else {"kind": "plain"}
    run.net.eval()
    with torch.no_grad():
        if run.still:
            features = run.features_of_all[visited]
        else:
            features = torch.cat([run.net.backbone(run.pictures.views(rows, recipe)) for rows in visited.split(500)])
        near = nearest_other(features)
        return [logits.softmax(1)[near] for logits in run.net.logits(features)]


def selflabel(net, pictures, s):
    """From a classifier of one head; the last epoch is the result."""
    run = Run(net, pictures, s)
    assert s["threshold"] == "fixed" and s["class_balancing"] and "ema_alpha" not in s
    for _ in range(s["epochs"]):
        net.train()
        shown = []
        for rows in run.batches(drop_last=True):
            # The answers come under the statistics of their own batch, which also moves the running ones.
            with torch.no_grad():
                answers = net.logits(net.backbone(pictures.plain(rows)))[0].softmax(1)
            kept, target = sure_answers(answers, s["confidence_threshold"])
            part = {"loss": 0.0, "confident": kept.float().mean().item()}
            if kept.any():
                changed = net.logits(net.backbone(pictures.views(rows, s["augment"])))[0]
                loss = selflabel_loss(changed[kept], target[kept])
                run.step(loss)
                part["loss"] = loss.item()
            shown.append(part)
        run.close(shown, [0.0])
    return run
