"""Reference numbers for networks and optimizers, made with PyTorch in float64.

usage: python make.py            writes batch_norm.json and trajectory.json beside itself

Weights and inputs are formulas, so nothing random is shared with the Rust tests: see `fill` and `wave`.
"""
import json, math, pathlib, torch
from torch import nn
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
here = pathlib.Path(__file__).parent
about = {"made by": "tests/golden/model/make.py", "torch": torch.__version__}


def wave(shape, step, phase=0.0, scale=1.0):
    """scale * sin(step * flat index + phase)"""
    return scale * torch.sin(step * torch.arange(math.prod(shape), dtype=torch.float64) + phase).reshape(shape)


def fill(net):
    """Every float tensor of a state dict from its place k and the flat index j (the formula of the SCAN fixtures)."""
    k = 0
    for name, t in net.state_dict().items():
        if not t.is_floating_point():
            continue
        j = torch.arange(t.numel(), dtype=torch.float64)
        if t.dim() == 4:
            v = 0.5 * torch.sin(0.7 * j + k) / math.sqrt(math.prod(t.shape[1:]))
        elif t.dim() == 2:
            v = torch.sin(0.7 * j + k) / math.sqrt(t.shape[1])
        elif name.endswith("running_var") or name.endswith(".weight"):
            v = 1 + 0.1 * torch.sin(0.37 * j + k)
        else:
            v = 0.1 * torch.sin(0.53 * j + k)
        t.copy_(v.reshape(t.shape))
        k += 1


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class Tiny(nn.Module):
    """kinset's resnet_tiny: 3x3 stem, three stages of one basic block."""

    def __init__(self, width, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(Block(width, width, 1))
        self.layer2 = nn.Sequential(Block(width, 2 * width, 2))
        self.layer3 = nn.Sequential(Block(2 * width, 4 * width, 2))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


class Net(nn.Module):
    def __init__(self, width, channels, dim):
        super().__init__()
        self.backbone = Tiny(width, channels)
        d = 4 * width
        self.contrastive_head = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, dim))

    def forward(self, x):
        return F.normalize(self.contrastive_head(self.backbone(x)), dim=1)


def write(name, data):
    (here / name).write_text(json.dumps({**about, **data}, indent=1) + "\n")


# -- one train step of batch norm, then the same in eval mode
bn = nn.BatchNorm2d(3)
with torch.no_grad():
    bn.weight.copy_(wave([3], 0.9, 1.0))
    bn.bias.copy_(wave([3], 1.3, 0.2))
    bn.running_mean.copy_(wave([3], 0.4, 0.5))
    bn.running_var.copy_(1 + 0.5 * wave([3], 0.8))
x = (wave([2, 3, 2, 2], 1.7, 0.3, 2.0) + 0.5).requires_grad_()
r = wave([2, 3, 2, 2], 0.6, 0.1)
y = bn(x)
(y * r).sum().backward()
train = {
    "output": y.flatten().tolist(), "running_mean": bn.running_mean.tolist(), "running_var": bn.running_var.tolist(),
    "gradient_input": x.grad.flatten().tolist(), "gradient_weight": bn.weight.grad.tolist(), "gradient_bias": bn.bias.grad.tolist(),
}
bn.eval()
write("batch_norm.json", {"train": train, "eval": {"output": bn(x).flatten().tolist()}})

# -- a few steps of a whole network
SHAPE, WIDTH, DIM, STEPS, RATE = [4, 1, 8, 8], 4, 5, 6, 0.002


def walk(make):
    net = Net(WIDTH, 1, DIM)
    with torch.no_grad():
        fill(net)
    net.train()
    optimizer = make(net.parameters())
    losses = []
    for s in range(STEPS):
        optimizer.zero_grad()
        loss = (net(wave(SHAPE, 0.05 + 0.01 * s)) * wave([SHAPE[0], DIM], 1.1, 0.4)).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    state = {k: v for k, v in net.state_dict().items() if v.is_floating_point()}
    net.eval()
    return {
        "losses": losses, "names": list(state), "sums": [v.sum().item() for v in state.values()],
        "squares": [(v * v).sum().item() for v in state.values()], "eval_row_1": net(wave(SHAPE, 0.05))[1].tolist(),
    }


write("trajectory.json", {
    "sgd_nesterov": walk(lambda p: torch.optim.SGD(p, RATE, momentum=0.9, nesterov=True, weight_decay=1e-3)),
    "sgd": walk(lambda p: torch.optim.SGD(p, RATE, momentum=0.9, weight_decay=1e-3)),
    "adam": walk(lambda p: torch.optim.Adam(p, 1e-3, weight_decay=1e-3)),
})
