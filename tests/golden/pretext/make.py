"""Reference numbers for the losses of MoCo and BYOL, made with PyTorch in float64 from the papers' formulas.

usage: python make.py            writes moco.json and byol.json beside itself

Inputs are formulas, so nothing random is shared with the Rust tests: see `fill` and `wave`.
"""
import json, math, pathlib, torch
from torch import nn
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
here = pathlib.Path(__file__).parent
about = {"made by": "tests/golden/pretext/make.py", "torch": torch.__version__}


def wave(shape, step, phase=0.0, scale=1.0):
    """scale * sin(step * flat index + phase)"""
    return scale * torch.sin(step * torch.arange(math.prod(shape), dtype=torch.float64) + phase).reshape(shape)


def rows(shape, step, phase):
    """Unit rows."""
    return F.normalize(wave(shape, step, phase), dim=1)


def fill(net):
    """As tests/golden/model/make.py."""
    k = 0
    for name, t in net.state_dict().items():
        if not t.is_floating_point():
            continue
        j = torch.arange(t.numel(), dtype=torch.float64)
        if t.dim() == 2:
            v = torch.sin(0.7 * j + k) / math.sqrt(t.shape[1])
        elif name.endswith("running_var") or name.endswith("1.weight"):
            v = 1 + 0.1 * torch.sin(0.37 * j + k)
        else:
            v = 0.1 * torch.sin(0.53 * j + k)
        t.copy_(v.reshape(t.shape))
        k += 1


def write(name, data):
    (here / name).write_text(json.dumps({**about, **data}, indent=1) + "\n")


# -- MoCo, equation 1: cross-entropy over one positive and K negatives, the positive being class 0
cases = []
for temperature in (0.07, 0.2):
    q = rows([4, 3], 0.9, 0.3).requires_grad_()
    keys, queue = rows([4, 3], 0.8, 0.5), rows([6, 3], 1.7, 1.1)
    logits = torch.cat([(q * keys).sum(1, keepdim=True), q @ queue.T], 1) / temperature
    loss = F.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
    loss.backward()
    cases.append({
        "temperature": temperature, "loss": loss.item(), "gradient": q.grad.flatten().tolist(),
        "first": (logits.argmax(1) == 0).double().mean().item(),
    })
write("moco.json", {"cases": cases})

# -- BYOL, equation 2, both ways round: the squared distance of unit vectors
online = [wave([4, 3], 0.9, 0.3, 2.0).requires_grad_(), wave([4, 3], 1.3, 0.1, 0.5).requires_grad_()]
target = [wave([4, 3], 0.8, 0.5, 3.0), wave([4, 3], 1.7, 1.1, 0.7)]


def distance(p, z):
    return (F.normalize(p, dim=1) - F.normalize(z, dim=1)).pow(2).sum(1).mean()


loss = distance(online[0], target[1]) + distance(online[1], target[0])
loss.backward()
# -- how far apart unit rows are: 1 if they fill all directions evenly, 0 if they are one
unit = F.normalize(target[0], dim=1)
spread = unit.std(0, unbiased=False).pow(2).sum().sqrt()

# -- a head with batch norm
head = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
with torch.no_grad():
    fill(head)
x = wave([5, 3], 0.9, 0.2, 1.5).requires_grad_()
y = head(x)
(y * wave([5, 3], 1.1, 0.4)).sum().backward()
trained = {
    "output": y.flatten().tolist(), "gradient": x.grad.flatten().tolist(),
    "parameters": {name: p.grad.flatten().tolist() for name, p in head.named_parameters()},
}
head.eval()
write("byol.json", {
    "loss": loss.item(), "gradients": [p.grad.flatten().tolist() for p in online], "spread": spread.item(),
    # Section 3.3: 1 - (1 - base) (cos(pi k / K) + 1) / 2
    "decay": [{"base": b, "step": k, "steps": n, "value": 1 - (1 - b) * (math.cos(math.pi * k / n) + 1) / 2}
              for b in (0.99, 0.996) for k, n in ((0, 100), (1, 100), (50, 100), (99, 100))],
    "head": {**trained, "eval": head(x).flatten().tolist()},
})
