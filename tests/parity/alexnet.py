"""AND's AlexNet in PyTorch beside kinset's: reference numbers of both forms, and weights that travel there and back.

    python tests/parity/alexnet.py                    writes tests/golden/alexnet
    python tests/parity/alexnet.py check FOLDER       loads what kinset exported, strictly, and compares what it gives

FOLDER is what the test `alexnets_are_left_for_pytorch` leaves:

    KINSET_INTEROP_DIR=/tmp/interop cargo test --release -p kinset-model left_for_pytorch
    python tests/parity/alexnet.py check /tmp/interop/alexnet

Needs PyTorch. Weights and images are whole-number noise from a tensor's place and the flat index, so nothing random is shared with the
tests in Rust. Reference numbers are of float64; at full width they are some of many, for a small file.
"""

import json
import math
import sys
from pathlib import Path

import torch

tests = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(tests / "golden/pretrained"))
from networks import AlexNet  # noqa: E402
from weights import load  # noqa: E402

golden = tests / "golden/alexnet"
SIZES = {"cifar": 32, "imagenet": 224}
torch.set_num_threads(2)


def noise(count, place):
    """Numbers from -1 to 1 for the tensor at this place."""
    mask = 2**32 - 1
    x = ((torch.arange(count, dtype=torch.int64) + 1 + 1000003 * place) * 2654435761) & mask
    x = ((x ^ (x >> 16)) * 1812433253) & mask
    return (x ^ (x >> 13)).double() / 2**31 - 1


@torch.no_grad()
def fill(net):
    """Weights that keep the variance through ReLU, and statistics near those of the layers."""
    place = 0
    for name, tensor in net.state_dict().items():
        if not tensor.is_floating_point():
            continue
        values = noise(tensor.numel(), place).reshape(tensor.shape)
        if tensor.dim() > 1:
            values = values * math.sqrt(6 / math.prod(tensor.shape[1:]))
        elif name.endswith(("running_var", ".weight")):
            values = 1 + 0.1 * values
        else:
            values = 0.1 * values
        tensor.copy_(values)
        place += 1
    return net.eval()


def images(form, count=2):
    return noise(count * 3 * SIZES[form] ** 2, 1000).reshape(count, 3, SIZES[form], SIZES[form])


def numbers(tensor):
    return [float(f"{value:.9g}") for value in tensor.detach().double().flatten()]


def some(tensor):
    """Each 1/40 of a row's numbers, of both rows, and the sum of all."""
    rows = tensor.detach().flatten(1)
    step = max(1, rows.shape[1] // 40)
    return {"step": step, "values": numbers(rows[:, ::step]), "sum": float(rows.sum())}


def make():
    golden.mkdir(exist_ok=True)
    told = {"made by": "tests/parity/alexnet.py", "torch": torch.__version__, "forms": {}, "files": {}}
    for form, width, name in [("cifar", 64, None), ("imagenet", 64, None), ("cifar", 1, "cifar.ckpt"), ("imagenet", 1, "imagenet.pth")]:
        net = fill(AlexNet(form, width, 128 if name is None else 5).double())
        x = images(form)
        with torch.no_grad():
            entry = {"size": SIZES[form], "features": some(net(x)), "projection": numbers(net.project(x))}
            if name is None:
                entry["names"] = list(net.state_dict())
                entry["layers"] = {layer: some(made) for layer, made in net.layers(x).items()}
                told["forms"][form] = entry
                continue
        told["files"][name] = entry
        net = net.float()
        if name.endswith(".ckpt"):
            # AND's own checkpoints: the network of data-parallel training beside its session, in the stream of 2019.
            state = {f"module.{key}": tensor for key, tensor in net.state_dict().items()}
            what = {"net": state, "npc": {"params": torch.tensor([0.1, 0.5]), "memory": torch.zeros(4, 5)}, "acc": 0.5, "epoch": 3, "round": 1}
            torch.save(what, golden / name, _use_new_zipfile_serialization=False)
        else:
            torch.save(net.state_dict(), golden / name)
    told["train"] = train()
    (golden / "expected.json").write_text(json.dumps(told, indent=1) + "\n")


def train():
    """One pass in training mode: what comes out, the gradient of each parameter, the statistics after it."""
    net = fill(AlexNet("cifar", 2, 5).double()).train()
    projected = net.project(images("cifar", 6))
    (projected * noise(projected.numel(), 2000).reshape(projected.shape)).sum().backward()
    gradients = {name: numbers(parameter.grad.flatten()[:6]) for name, parameter in net.named_parameters()}
    statistics = {name: numbers(buffer[:6]) for name, buffer in net.named_buffers() if "running" in name}
    return {"projection": numbers(projected), "gradients": gradients, "statistics": statistics}


@torch.no_grad()
def check(folder):
    for case in json.loads((folder / "expected.json").read_text()):
        form, width = case["form"], case["width"]
        net = AlexNet(form, width, 5)
        net.load_state_dict(load(folder / f"{form}.safetensors"), strict=True)
        net = net.double().eval()
        for what, found in [("features", net(images(form))), ("projection", net.project(images(form)))]:
            wanted = torch.tensor(case[what], dtype=torch.float64)
            off = ((found.flatten() - wanted).abs() / wanted.abs().clamp(min=1)).max().item()
            if not off <= 1e-4:
                sys.exit(f"FAILED {form}: {what} are off by {off}")
            print(f"  ok  {form}, width {width}: {what} are off by {off:.1e}")


if sys.argv[1:2] == ["check"]:
    check(Path(sys.argv[2]))
else:
    make()
