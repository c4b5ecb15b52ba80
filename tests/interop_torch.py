"""Loads exported weights into PyTorch networks with the names of the authors' code, strictly, and compares what they give.

    KINSET_INTEROP_DIR=/tmp/interop cargo test --release --lib left_for_pytorch
    python tests/interop_torch.py /tmp/interop/torch

Needs PyTorch and nothing else.
"""

import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent / "golden/pretrained"))
from networks import Clustering, Contrastive, ResNet  # noqa: E402
from weights import load  # noqa: E402

folder = Path(sys.argv[1])
torch.set_num_threads(1)
checks = 0


def wave(shape):
    return torch.sin(0.01 * torch.arange(math.prod(shape), dtype=torch.float64)).reshape(shape).float()


def near(what, found, wanted):
    global checks
    checks += 1
    found, wanted = found.detach().flatten(), torch.tensor(wanted)
    off = ((found - wanted).abs() / wanted.abs().clamp(min=1)).max().item() if found.shape == wanted.shape else math.inf
    if not off <= 1e-4:
        sys.exit(f"FAILED {what}: off by {off}")
    print(f"  ok  {what}: off by {off:.1e}")


print("PyTorch", torch.__version__)
with torch.no_grad():
    for case in json.loads((folder / "expected.json").read_text()):
        name, size = case["name"], case["size"]
        deep = {"blocks": (3, 4, 6, 3), "thick": True} if name == "imagenet" else {}
        images = wave([2, 3, size, size])
        encoder = Contrastive(ResNet(name, 2, **deep), 5)
        encoder.load_state_dict(load(folder / f"{name}-encoder.safetensors"), strict=True)
        encoder.eval()
        near(f"{name}: features", encoder.backbone(images), case["features"])
        near(f"{name}: projection", F.normalize(encoder.contrastive_head(encoder.backbone(images)), dim=1), case["projection"])
        classifier = Clustering(ResNet(name, 2, **deep), 4, 2)
        classifier.load_state_dict(load(folder / f"{name}-classifier.safetensors"), strict=True)
        classifier.eval()
        near(f"{name}: logits of both heads", torch.cat(classifier(images), 1), case["logits"])
print(f"{checks} checks passed")
