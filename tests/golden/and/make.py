"""Golden numbers of AND: `python make.py` writes augment.json, loss.json and clusters.json beside itself.

augment.json: the sides of windows by the older law of random resized crop, spelled out from the specification, and chains of
crop, jitter and gray through Pillow. loss.json: loss, gradient, bank, entropies, neighbors and weighted votes by torch in f64.
clusters.json: silhouettes by scikit-learn, eigenvalues of normalised Laplacians by numpy.
"""

import json
import math
import random
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score
from sklearn.neighbors import kneighbors_graph

HERE = Path(__file__).parent


def picture(texture, width, height, channels):
    """As in ../augment/make.py."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    y, x, c = y.astype(np.uint32), x.astype(np.uint32), c.astype(np.uint32)
    if texture == "stripes":
        value = 37 * y + 53 * x + 91 * c + x * y
    elif texture == "smooth":
        value = 40 + (2 * y + 3 * x + 50 * c) * (1 + c) // 4 % 150
    else:
        value = (y * 7919 + x * 104729 + c * 1299709 + 12345) * np.uint32(2654435761)
        value = ((value ^ (value >> 15)) * np.uint32(2246822519)) >> 13
    return (value & 255).astype(np.uint8)


def sides(area, aspect, swap):
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return [h, w] if swap and 0.75 <= h / w <= 4 / 3 else [w, h]


def apply(image, name, amount):
    if name == "brightness":
        return ImageEnhance.Brightness(image).enhance(amount)
    if name == "contrast":
        return ImageEnhance.Contrast(image).enhance(amount)
    if image.mode == "L":
        return image
    if name == "saturation":
        return ImageEnhance.Color(image).enhance(amount)
    if name == "gray":
        return image.convert("L").convert("RGB")
    h, s, v = image.convert("HSV").split()
    h = (np.asarray(h).astype(int) + int(amount * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(h.astype(np.uint8)), s, v)).convert("RGB")


def augment():
    rng = random.Random(20261121)
    cut = []
    for _ in range(240):
        area, aspect = rng.uniform(0.2, 1) * rng.choice([32 * 32, 28 * 28, 96 * 64]), rng.uniform(0.75, 4 / 3)
        swap = rng.random() < 0.5
        cut.append([area, aspect, swap, sides(area, aspect, swap)])
    chains = []
    for width, height, channels in [(28, 28, 1), (32, 32, 3), (37, 53, 3), (8, 8, 1)]:
        for texture in ("stripes", "smooth", "noise"):
            for _ in range(6):
                w, h = rng.randint(4, width), rng.randint(4, height)
                left, top = rng.randint(0, width - w), rng.randint(0, height - h)
                steps = [[name, rng.uniform(0.6, 1.4)] for name in ("brightness", "contrast", "saturation")]
                steps.append(["hue", rng.uniform(-0.4, 0.4)])
                rng.shuffle(steps)
                if rng.random() < 0.3:
                    steps.append(["gray", 0.0])
                data = picture(texture, width, height, channels)
                image = Image.fromarray(data if channels == 3 else data[:, :, 0])
                image = image.crop((left, top, left + w, top + h)).resize((32, 32), Image.Resampling.BILINEAR)
                for name, amount in steps:
                    image = apply(image, name, amount)
                crc = f"{zlib.crc32(image.tobytes()):08x}"
                chains.append([texture, [width, height, channels], [left, top, w, h], steps, crc])
    return {"sides": cut, "chains": chains}


def wave(rows, dim, phase):
    """Unit rows from a formula, so that Rust can make them too."""
    x = np.array([[math.sin(phase + 0.7 * i + 1.3 * d + 0.21 * i * d) for d in range(dim)] for i in range(rows)])
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def loss():
    n, dim, k, temperature, momentum = 40, 6, 3, 0.1, 0.5
    bank = torch.tensor(wave(n, dim, 0.3))
    similarity = bank @ bank.T
    p = torch.softmax(similarity / temperature, 1)
    entropy = -(p * p.log()).sum(1)
    anchors = torch.argsort(entropy)[:10]
    others = similarity.clone()
    others.fill_diagonal_(-1)
    neighbors = others.topk(k, 1).indices[anchors]
    rank = {int(a): r for r, a in enumerate(anchors)}
    batch = [int(anchors[0]), 7, int(anchors[4]), 21, 33]
    x = torch.tensor(wave(5, dim, 1.9), requires_grad=True)
    q = torch.softmax(x @ bank.T / temperature, 1)
    total = 0
    for row, i in enumerate(batch):
        positive = q[row, i] + (q[row, neighbors[rank[i]]].sum() if i in rank else 0)
        total = total - positive.log()
    total = total / len(batch)
    total.backward()
    moved = momentum * bank[batch] + (1 - momentum) * x.detach()
    moved = moved / moved.norm(dim=1, keepdim=True)
    # Weighted votes: 30 queries, 200 of 240 rows vote.
    rows, queries = wave(240, dim, 0.9), wave(30, dim, 2.2)
    labels = [(i * i + i // 7) % 5 for i in range(240)]
    best = torch.tensor(queries @ rows.T).topk(200, 1)
    votes = torch.zeros(30, 5, dtype=torch.float64)
    votes.scatter_add_(1, torch.tensor(labels)[best.indices], (best.values / temperature).exp())
    return {
        "entropy": entropy.tolist(),
        "anchors": anchors.tolist(),
        "neighbors": neighbors.tolist(),
        "batch": batch,
        "loss": float(total.detach()),
        "gradient": x.grad.tolist(),
        "moved": moved.tolist(),
        "labels": labels,
        "votes": votes.argmax(1).tolist(),
        "margin": float((votes.topk(2, 1).values / votes.sum(1, keepdim=True)).diff(dim=1).abs().min()),
    }


def clusters():
    rows = wave(60, 4, 0.5) + np.array([[(i % 3) * (d == 0) * 1.5 for d in range(4)] for i in range(60)])
    rows = rows.astype(np.float32)
    cases, labelings = [], []
    for k in (2, 3, 5, 9):
        labels = [(i * 7 + i // 4) % k for i in range(60)]
        fitted = KMeans(k, n_init=3, random_state=k).fit_predict(rows)
        for said in (labels, [int(l) for l in fitted]):
            cases.append([said, float(silhouette_score(rows.astype(np.float64), said))])
            labelings.append(said)
    labelings = labelings[1::2]
    pairs = [(a, b) for i, a in enumerate(labelings) for b in labelings[:i]]
    graph = kneighbors_graph(rows, 5).toarray()
    graph = (graph + graph.T) / 2
    degree = graph.sum(1)
    laplacian = np.eye(60) - graph / np.sqrt(degree[:, None] * degree[None])
    return {
        "silhouettes": cases,
        "labelings": labelings,
        "ari": float(np.mean([adjusted_rand_score(a, b) for a, b in pairs])),
        "nmi": float(np.mean([normalized_mutual_info_score(a, b) for a, b in pairs])),
        "eigenvalues": np.linalg.eigvalsh(laplacian).tolist(),
    }


for name, make in (("augment", augment), ("loss", loss), ("clusters", clusters)):
    lines = [f'"{key}": {json.dumps(value)}' for key, value in make().items()]
    (HERE / f"{name}.json").write_text("{" + ",\n".join(lines) + "}\n")
