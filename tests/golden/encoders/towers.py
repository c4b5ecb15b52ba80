"""Small random encoders in the names people publish them by, with the features PyTorch gives: `python towers.py` writes the files
and expected.json beside itself. Needs torch, torchvision, transformers, safetensors, numpy.

DINOv2 and CLIP are computed by transformers, ResNet-50 by torchvision. The files in the authors' own names hold the same numbers as
transformers', renamed here by rules written down apart from kinset's, so their features are the same.
"""

import json
import math
import pathlib
import re
import tempfile

import numpy as np
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig
from transformers import Dinov2WithRegistersModel, ResNetConfig, ResNetModel

HERE = pathlib.Path(__file__).parent
torch.manual_seed(20261122)
torch.set_num_threads(1)


def wave(shape, step=0.01, phase=0.0, scale=1.0):
    count = math.prod(shape)
    values = scale * np.sin(step * np.arange(count, dtype=np.float64) + phase)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def shaken(model):
    """Random numbers everywhere: what starts as 0 or 1 would hide a mistake."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 0:
                continue
            if p.dim() == 1:
                p.copy_(torch.randn_like(p) * 0.2 + (1.0 if name.endswith("weight") or "lambda" in name else 0.0))
            else:
                p.copy_(torch.randn_like(p) * (1.0 / math.sqrt(p[0].numel())))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(torch.randn_like(b) * 0.1)
            if name.endswith("running_var"):
                b.copy_(torch.rand_like(b) + 0.5)
    return model.eval()


def features(function, sizes):
    with torch.no_grad():
        found = []
        for size in sizes:
            values = function(wave((2, 3, size, size))).double().flatten().tolist()
            found.append({"size": size, "features": [float(f"{v:.8g}") for v in values]})
        return found


def packed(state):
    return {name: tensor.contiguous() for name, tensor in state.items() if tensor.is_floating_point()}


def published(model, file):
    """Saves a model of transformers as its files on the hub are; in memory some tensors have other names."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        state = packed(load_file(pathlib.Path(folder) / "model.safetensors"))
    save_file(state, HERE / file)
    return state


towers = []


def told(file, network, sizes, left_out):
    towers.append({"file": file, "network": network, "sizes": sizes, "left_out": left_out})


# DINOv2: positions of 5 x 5 patches of 4 px; shown the native size, fewer and more patches.
SIZES = [20, 12, 28]
for registers in [0, 4]:
    shape = dict(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=4, image_size=20, patch_size=4, layerscale_value=1.0
    )
    if registers:
        model = shaken(Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=registers, **shape)))
    else:
        model = shaken(Dinov2Model(Dinov2Config(**shape)))
    expected = features(lambda x: model(x).pooler_output, SIZES)
    name = "dinov2_reg" if registers else "dinov2"
    backbone = "dinov2_vits14_reg" if registers else "dinov2_vits14"
    network = {"backbone": backbone, "width": 16, "depth": 2, "heads": 2, "patch": 4, "grid": 5}
    state = published(model, f"{name}_hub.safetensors")
    assert "embeddings.mask_token" in state
    told(f"{name}_hub.safetensors", network, expected, 1)

    # In the authors' names, as torch.save leaves them.
    authors, qkv = {}, {}
    for key, tensor in state.items():
        key = key.removeprefix("embeddings.").replace("position_embeddings", "pos_embed")
        key = key.replace("patch_embeddings.projection", "patch_embed.proj").replace("encoder.layer.", "blocks.")
        key = key.replace("attention.output.dense", "attn.proj").replace("layernorm", "norm")
        key = re.sub(r"layer_scale(\d).lambda1", r"ls\1.gamma", key)
        third = re.fullmatch(r"(blocks\.\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)", key)
        if third:
            qkv.setdefault(f"{third[1]}.attn.qkv.{third[3]}", {})[third[2]] = tensor
        else:
            authors[key] = tensor
    for key, parts in qkv.items():
        authors[key] = torch.cat([parts["query"], parts["key"], parts["value"]])
    torch.save(authors, HERE / f"{name}_authors.pth")
    told(f"{name}_authors.pth", network, expected, 1)

# CLIP: positions of 4 x 4 patches of 4 px, and a text tower beside.
vision = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4)
text = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=11, max_position_embeddings=5)
model = shaken(CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=6)))


def image_features(x):
    seen = model.vision_model(pixel_values=x, interpolate_pos_encoding=True)
    return model.visual_projection(seen.pooler_output)


expected = features(image_features, [16, 8, 24])
network = {"backbone": "clip_vit_b32", "width": 16, "depth": 2, "heads": 2, "hidden": 32, "patch": 4, "grid": 4, "output": 6}
state = published(model, "clip_hub.safetensors")
beside = [key for key in state if not key.startswith(("vision_model.", "visual_projection."))]
told("clip_hub.safetensors", network, expected, len(beside))

authors, qkv = {key: state[key] for key in ["logit_scale"]}, {}
authors["positional_embedding"] = torch.zeros(5, 8)
authors["token_embedding.weight"] = torch.zeros(11, 8)
authors["transformer.resblocks.0.ln_1.weight"] = torch.zeros(8)
authors["text_projection"] = torch.zeros(8, 6)
beside = len(authors)
for key, tensor in state.items():
    if key == "visual_projection.weight":
        authors["visual.proj"] = tensor.t().contiguous()
    if not key.startswith("vision_model."):
        continue
    key = key.removeprefix("vision_model.").replace("embeddings.class_embedding", "class_embedding")
    key = key.replace("embeddings.position_embedding.weight", "positional_embedding")
    key = key.replace("embeddings.patch_embedding", "conv1").replace("pre_layrnorm", "ln_pre").replace("post_layernorm", "ln_post")
    key = key.replace("encoder.layers.", "transformer.resblocks.").replace("layer_norm", "ln_").replace("self_attn.out_proj", "attn.out_proj")
    key = key.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
    third = re.fullmatch(r"(transformer\.resblocks\.\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", key)
    if third:
        qkv.setdefault(f"visual.{third[1]}.attn.in_proj_{third[3]}", {})[third[2]] = tensor
    else:
        authors[f"visual.{key}"] = tensor
for key, parts in qkv.items():
    authors[key] = torch.cat([parts["q"], parts["k"], parts["v"]])
save_file(packed(authors), HERE / "clip_authors.safetensors")
told("clip_authors.safetensors", network, expected, beside)

# ResNet-50 of torchvision: a 64th of its width, three classes on top.
WIDTH = 1
torch.manual_seed(5)


class Narrow(torchvision.models.ResNet):
    """torchvision's code with another first width: its stages are 64, 128, 256 and 512 wide by name."""

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        return super()._make_layer(block, planes // 64 * WIDTH, blocks, stride, dilate)

    def __init__(self):
        super().__init__(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3], num_classes=3)


def narrow():
    import torch.nn as nn

    model = torchvision.models.ResNet.__new__(Narrow)
    nn.Module.__init__(model)
    model._norm_layer, model.inplanes, model.dilation, model.groups, model.base_width = nn.BatchNorm2d, WIDTH, 1, 1, 64
    model.conv1 = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
    model.bn1, model.relu, model.maxpool = nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
    block = torchvision.models.resnet.Bottleneck
    for stage, (planes, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        setattr(model, f"layer{stage + 1}", model._make_layer(block, planes, blocks, stride=1 if stage == 0 else 2))
    model.avgpool, model.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(512 // 64 * WIDTH * 4, 3)
    return model


model = shaken(narrow())


def pooled(x):
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    x = model.layer4(model.layer3(model.layer2(model.layer1(x))))
    return model.avgpool(x).flatten(1)


network = {"backbone": "resnet50", "width": WIDTH}
expected = features(pooled, [64, 45])
torch.save(model.state_dict(), HERE / "resnet50.pth")
counters = [key for key in model.state_dict() if key.endswith("num_batches_tracked")]
told("resnet50.pth", network, expected, len(counters) + 2)
save_file(packed(model.state_dict()), HERE / "resnet50.safetensors")
told("resnet50.safetensors", network, expected, 2)

# The same network of transformers.
config = ResNetConfig(embedding_size=WIDTH, hidden_sizes=[4 * WIDTH, 8 * WIDTH, 16 * WIDTH, 32 * WIDTH], depths=[3, 4, 6, 3])
model = shaken(ResNetModel(config))
expected = features(lambda x: model(x).pooler_output.flatten(1), [64])
published(model, "resnet50_hub.safetensors")
told("resnet50_hub.safetensors", network, expected, 0)

# Positions alone.
positions = []
for start, to, antialias in [(5, 3, False), (5, 7, False), (37, 16, False), (5, 3, True), (5, 7, True), (9, 4, True), (2, 1, False)]:
    learned = wave((start * start, 3), 0.7, 0.2).reshape(1, start, start, 3).permute(0, 3, 1, 2)
    found = torch.nn.functional.interpolate(learned, size=(to, to), mode="bicubic", align_corners=False, antialias=antialias)
    values = found.permute(0, 2, 3, 1).double().flatten().tolist()
    positions.append({"from": start, "to": to, "antialias": antialias, "values": [float(f"{v:.8g}") for v in values]})

made = {"torch": torch.__version__, "torchvision": torchvision.__version__, "transformers": transformers.__version__}
golden = {"made_by": "tests/golden/encoders/towers.py", **made, "towers": towers, "positions": positions}
(HERE / "expected.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
