"""Files of weights as the authors of SCAN, NNM, RUC, AND and MoCo save them, small, and what their networks make of two images.

usage: python make.py            writes *.pth.tar, ruc.t7, and.ckpt, bad_*.pkl and expected.json beside itself

The containers are those that PyTorch writes: its zip, and with `legacy` the stream of 2019 that the authors' files are. Weights and
images are formulas (`fill`, `wave`), so nothing random is needed. Features are of PyTorch in float32, evaluation mode.
"""
import json, math, os, pathlib
import numpy as np
import torch
import torch.nn.functional as F
from networks import And, Clustering, Contrastive, Moco, ResNet

torch.set_num_threads(1)
here = pathlib.Path(__file__).parent


def wave(shape, step, phase=0.0, scale=1.0):
    """scale * sin(step * flat index + phase)"""
    return (scale * torch.sin(step * torch.arange(math.prod(shape), dtype=torch.float64) + phase)).reshape(shape).float()


@torch.no_grad()
def fill(net, turn=0):
    """Every float tensor of a state dict from its place k and the flat index j (the formula of the SCAN fixtures)."""
    k = turn
    for name, t in net.state_dict().items():
        if not t.is_floating_point():
            t.fill_(7)
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
    return net.eval()


def data_parallel(net):
    """Names as `nn.DataParallel` saves them."""
    return type(net.state_dict())(("module." + name, tensor) for name, tensor in net.state_dict().items())


def save(name, what, legacy):
    torch.save(what, here / name, _use_new_zipfile_serialization=not legacy)


def numbers(tensor):
    return [float(f"{v:.8g}") for v in tensor.detach().double().flatten()]


expected = {}


@torch.no_grad()
def expect(name, size, channels=3, **outputs):
    expected[name] = {"size": size, "channels": channels, **{what: numbers(make(wave([2, channels, size, size], 0.01))) for what, make in outputs.items()}}


# -- SCAN's SimCLR on CIFAR: a bare state dict, in both containers
net = fill(Contrastive(ResNet("cifar", 2), 5))
save("scan_pretext.pth.tar", net.state_dict(), legacy=True)
save("scan_pretext_zip.pth.tar", net.state_dict(), legacy=False)
for name in ["scan_pretext.pth.tar", "scan_pretext_zip.pth.tar"]:
    expect(name, 32, features=net.backbone, projection=net)

# -- SCAN's clustering stage, NNM's result: the best head is a NumPy scalar
net = fill(Clustering(ResNet("stl", 2), 4, 3))
save("scan_model.pth.tar", {"model": net.state_dict(), "head": np.int64(2)}, legacy=True)
expect("scan_model.pth.tar", 96, features=net.backbone, logits=lambda x: net(x)[2])

# -- their checkpoints: `module.`, an optimizer that has moved, NumPy floats, arrays
net = fill(Clustering(ResNet("cifar", 1), 3, 2), 1)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, weight_decay=1e-4)
sum(out.sum() for out in net(wave([2, 3, 32, 32], 0.01))).backward()
optimizer.step()
fill(net, 1)
save(
    "nnm_checkpoint.pth.tar",
    {
        "optimizer": optimizer.state_dict(),
        "model": data_parallel(net),
        "epoch": 5,
        "best_loss": np.float64(-1.5),
        "best_acc": 0.25,
        "best_loss_head": np.int64(1),
        "clustering_results": [np.zeros((2, 3), np.float32), torch.zeros(2, 3)],
    },
    legacy=False,
)
expect("nnm_checkpoint.pth.tar", 32, features=net.backbone, logits=lambda x: net(x)[1])

# -- RUC: two networks
one, two = (fill(Clustering(ResNet("cifar", 1), 3, 1), turn) for turn in (2, 3))
save("ruc.t7", {"net1": data_parallel(one), "net2": data_parallel(two)}, legacy=True)
expect("ruc.t7", 32, features=two.backbone, logits=lambda x: two(x)[0])

# -- a self-label file of SCAN's, but for gray images
net = fill(Clustering(ResNet("cifar", 1, channels=1), 3, 1), 4)
save("gray.pth.tar", net.state_dict(), legacy=True)
expect("gray.pth.tar", 32, channels=1, features=net.backbone, logits=lambda x: net(x)[0])

# -- AND: a network beside its bank and its session
net = fill(And(1, 5))
save(
    "and.ckpt",
    {
        "net": data_parallel(net),
        "optimizer": torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9, nesterov=True).state_dict(),
        "ANs_discovery": {"samples_num": torch.tensor(4), "position": torch.arange(4), "entropy": torch.zeros(4)},
        "npc": {"params": torch.tensor([0.1, 0.5]), "memory": torch.zeros(4, 5)},
        "acc": 0.5,
        "epoch": 3,
        "round": 1,
        "session": "20190101-000000",
    },
    legacy=True,
)
expect("and.ckpt", 32, features=lambda x: ResNet.forward(net, x), projection=lambda x: F.normalize(net.linear(ResNet.forward(net, x)), dim=1))

# -- MoCo v2 on ImageNet: ResNet-50, query and key encoder
net = fill(Moco(1, 3))
save("moco.pth.tar", {"epoch": 800, "arch": "resnet50", "state_dict": data_parallel(net)}, legacy=True)
q = net.encoder_q
expect("moco.pth.tar", 64, features=q, projection=lambda x: F.normalize(q.fc(q(x)), dim=1))

(here / "expected.json").write_text(json.dumps({"made by": "tests/golden/pretrained/make.py", "torch": torch.__version__, "numpy": np.__version__, "files": expected}, indent=1) + "\n")


# -- files that nobody should run
class Call:
    def __init__(self, function, *arguments):
        self.how = (function, arguments)

    def __reduce__(self):
        return self.how


save("bad_system.pth", {"model": net.encoder_q.conv1.weight.detach(), "then": Call(os.system, "touch /tmp/was-here")}, legacy=False)
save("bad_eval.pth", Call(eval, "1 + 1"), legacy=True)
print({path.name: path.stat().st_size for path in sorted(here.iterdir())})
