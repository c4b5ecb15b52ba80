"""Golden numbers for NNM: the loss and its gradients by PyTorch's automatic differentiation, re-ranking by dense NumPy.

usage: python make.py > golden.json
Written from the formulas in methods/nnm.md; first it reproduces the numbers given there, which come from the authors' code.
"""
import json
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def agree(x, y):
    return F.binary_cross_entropy((x * y).sum(1).clamp(max=1.0), torch.ones(len(x)))


def contrast(x, y):
    m = F.normalize(x, dim=0).t() @ F.normalize(y, dim=0)
    return F.cross_entropy(m, torch.arange(x.shape[1]))


def loss(anchor, neighbor, second, nearest, bank, weight):
    p, n = anchor.softmax(1), neighbor.softmax(1)
    other = p if second is None else second.softmax(1)
    P, Q = torch.cat([p, other]), torch.cat([n, p[nearest]])
    m = P.mean(0).clamp(min=1e-8)
    h = -(m * m.log()).sum()
    c, d = agree(P, Q), contrast(P, Q)
    total, g = c + d - weight * h, None
    if bank is not None:
        S, T = torch.cat([P, Q]), torch.cat([bank] * 4)
        g = agree(S, T) + contrast(S, T)
        total = total + g
    return c, d, h, g, total


def table(rows, columns, f):
    return torch.tensor([[f(i, k) for k in range(columns)] for i in range(rows)])


def case(name, anchor, neighbor, second, nearest, bank, weight=5.0):
    leaves = [t.clone().requires_grad_(True) for t in (anchor, neighbor) + (() if second is None else (second,))]
    c, d, h, g, total = loss(leaves[0], leaves[1], leaves[2] if len(leaves) > 2 else None, nearest, bank, weight)
    total.backward()
    flat = lambda t: None if t is None else [float(f"{v:.12g}") for v in t.detach().flatten().tolist()]
    return {
        "name": name, "b": anchor.shape[0], "k": anchor.shape[1], "weight": weight, "nearest": nearest,
        "anchors": flat(anchor), "neighbors": flat(neighbor), "second": flat(second), "targets": flat(bank),
        "consistency": c.item(), "class": d.item(), "entropy": h.item(), "global": None if g is None else g.item(),
        "total": total.item(), "gradients": [flat(t.grad) for t in leaves],
    }


sin, cos = math.sin, math.cos
A = table(4, 3, lambda i, k: 2 * sin(1 + 0.7 * i + 1.3 * k))
N = table(4, 3, lambda i, k: 2 * cos(0.5 + 0.9 * i + 0.4 * k))
G = table(4, 3, lambda i, k: 1.5 * sin(0.3 + 1.1 * i + 0.8 * k))
bank = table(6, 3, lambda r, k: 3 * cos(0.2 + 0.6 * r + 1.7 * k)).softmax(1)[[5, 0, 3, 2]]
near = [2, 3, 0, 1]
cases = [case("second view", A, N, G, near, None), case("global", A, N, G, near, bank), case("figure", A, N, None, near, None)]
for found, wanted in [
    (cases[0]["consistency"], 0.95265032), (cases[0]["class"], 1.16166721), (cases[0]["entropy"], 0.94043987),
    (cases[0]["total"], -2.58788184), (cases[1]["global"], 1.42164589 + 1.08039520), (cases[1]["total"], -0.08584075),
    (cases[1]["gradients"][0][0], 0.1626501), (cases[2]["consistency"], 0.74244740), (cases[2]["class"], 1.07481568),
]:
    assert abs(found - wanted) < 2e-8 or abs(found - wanted) < 1e-7 and abs(wanted) < 0.2, (found, wanted)

rng = np.random.default_rng(5)
draw = lambda *shape: torch.tensor(np.round(rng.normal(size=shape) * 2, 2))
A, N, G = draw(9, 6), draw(9, 6), draw(9, 6)
near = [3, 0, 4, 7, 2, 8, 1, 3, 5]
bank = draw(9, 6).softmax(1)
cases += [
    case("larger", A, N, G, near, bank), case("larger, figure", A, N, None, near, bank, 2.0),
    case("sure", A * 20, A * 20 + N, A * 20 - G, near, (A * 10).softmax(1)),
]


def rerank(x, k1, k2):
    """Dense, by the rules of section 6.1."""
    n = len(x)
    cosine = x @ x.T
    order = [sorted(range(n), key=lambda j: (j != i, -cosine[i, j], j))[:k1] for i in range(n)]
    half = round(k1 / 2) + 1

    def reciprocal(i, k):
        return [j for j in order[i][:k] if i in order[j][:k]]

    V = np.zeros((n, n))
    for i in range(n):
        R = reciprocal(i, k1)
        grown = set(R)
        for j in R:
            small = reciprocal(j, half)
            if len(set(small) & set(R)) > 2 / 3 * len(small):
                grown |= set(small)
        grown = sorted(grown)
        w = np.exp(-(2 - 2 * cosine[i, grown]))
        V[i, grown] = w / w.sum()
    V = np.stack([V[order[i][:k2]].mean(0) for i in range(n)])
    m = np.minimum(V[:, None], V[None]).sum(2)
    return np.maximum(1 - m / (2 - m), 0)


angles = np.radians([0, 8, 15, 40, 47, 90, 97, 200])
d = rerank(np.stack([np.cos(angles), np.sin(angles)], 1), 4, 2)
for (i, j), wanted in {(0, 1): 0.199165, (0, 3): 0.809390, (1, 3): 0.725478, (3, 4): 0, (5, 7): 0.666667, (0, 5): 1}.items():
    assert abs(d[i, j] - wanted) < 1e-6, (i, j, d[i, j])

centres = rng.normal(size=(5, 4))
x = np.concatenate([c + 0.4 * rng.normal(size=(12, 4)) for c in centres]).astype(np.float32)
x = (x / np.linalg.norm(x.astype(float), axis=1, keepdims=True)).astype(np.float32)
short = lambda values: [float(f"{v:.9g}") for v in np.asarray(values, float).flatten()]
reranked = [
    {"k1": k1, "k2": k2, "distance": [round(v, 6) for v in rerank(x.astype(float), k1, k2).flatten().tolist()]} for k1, k2 in [(10, 3), (7, 1)]
]
json.dump({"loss": cases, "rows": short(x), "dim": 4, "rerank": reranked}, sys.stdout)
print()
