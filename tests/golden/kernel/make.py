"""Golden numbers of PyTorch for the CPU kernels: a small network's operations, outputs and gradients.

usage: python make.py > torch.json
Inputs are drawn here and stored, rounded to eighths so that they are short and exact.
"""
import json
import torch
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)


def draw(*shape):
    return (torch.randn(shape) * 8).round() / 8


def flat(t):
    return {"shape": list(t.shape), "values": [float(f"{v:.8g}") for v in t.detach().flatten().tolist()]}


def case(name, f, inputs):
    leaves = [t.clone().requires_grad_(True) for t in inputs]
    y = f(*leaves)
    r = draw(*y.shape)
    (y * r).sum().backward()
    return {"name": name, "inputs": [flat(t) for t in inputs], "output": flat(y), "cotangent": flat(r), "gradients": [flat(t.grad) for t in leaves]}


def norm(x, gamma, beta):
    return F.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-5)


cases = [
    case("conv 3 1 1", lambda x, w: F.conv2d(x, w, None, 1, 1), [draw(2, 3, 5, 4), draw(4, 3, 3, 3)]),
    case("conv 3 2 1", lambda x, w: F.conv2d(x, w, None, 2, 1), [draw(2, 3, 5, 4), draw(4, 3, 3, 3)]),
    case("conv 1 2 0", lambda x, w: F.conv2d(x, w, None, 2, 0), [draw(2, 3, 5, 4), draw(4, 3, 1, 1)]),
    case("conv 7 2 3", lambda x, w: F.conv2d(x, w, None, 2, 3), [draw(1, 2, 8, 6), draw(2, 2, 7, 7)]),
    case("norm relu", lambda x, g, b: F.relu(norm(x, g, b)), [draw(3, 2, 3, 4), draw(2), draw(2)]),
    case("norm add relu", lambda x, g, b, r: F.relu(norm(x, g, b) + r), [draw(3, 2, 3, 4), draw(2), draw(2), draw(3, 2, 3, 4)]),
    # Eighths rectified: many ties.
    case("max 3 2 1", lambda x: F.max_pool2d(x.relu(), 3, 2, 1), [draw(2, 2, 6, 5)]),
    case("normalize", lambda x: F.normalize(x, dim=1), [draw(4, 5)]),
]
# Running statistics after one training step, momentum 0.1.
x, mean, variance = draw(3, 2, 3, 4), torch.zeros(2), torch.ones(2)
F.batch_norm(x, mean, variance, training=True, momentum=0.1)
running = {"input": flat(x), "mean": flat(mean), "variance": flat(variance)}
print(json.dumps({"torch": torch.__version__, "cases": cases, "running": running}, separators=(",", ":")))
