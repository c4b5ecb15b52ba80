"""The networks of SCAN, NNM, RUC, AND and MoCo, and AND's AlexNet, written from their papers; tensors are called as in their authors' files."""
import torch
from torch import nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, inputs, width, stride, thick, way):
        super().__init__()
        outputs = width * (4 if thick else 1)
        sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)] if thick else [(inputs, width, 3, stride), (width, width, 3, 1)]
        self.count = len(sizes)
        for i, (a, b, kernel, step) in enumerate(sizes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.way = way
        around = nn.Sequential()
        if stride != 1 or inputs != outputs:
            around = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        setattr(self, way, around)

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count:
                y = F.relu(y)
        return F.relu(y + getattr(self, self.way)(x))


class ResNet(nn.Module):
    """He et al. 2016, with a stem for images of 32, 96 or 224 pixels."""

    def __init__(self, stem, width, blocks=(2, 2, 2, 2), thick=False, channels=3):
        super().__init__()
        self.stem = stem
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage, count in enumerate(blocks):
            layers = []
            for block in range(count):
                outputs = width << stage
                layers.append(Block(inputs, outputs, 2 if stage and not block else 1, thick, "downsample" if stem == "imagenet" else "shortcut"))
                inputs = outputs * (4 if thick else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.dim = inputs

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if self.stem == "stl":
            x = F.max_pool2d(x, 2, 2, 1)
        if self.stem == "imagenet":
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


def mlp(d, p):
    return nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, p))


class Contrastive(nn.Module):
    def __init__(self, backbone, p):
        super().__init__()
        self.backbone = backbone
        self.contrastive_head = mlp(backbone.dim, p)

    def forward(self, x):
        return F.normalize(self.contrastive_head(self.backbone(x)), dim=1)


class Clustering(nn.Module):
    def __init__(self, backbone, k, heads):
        super().__init__()
        self.backbone = backbone
        self.cluster_head = nn.ModuleList([nn.Linear(backbone.dim, k) for _ in range(heads)])

    def forward(self, x):
        f = self.backbone(x)
        return [head(f) for head in self.cluster_head]


class Moco(nn.Module):
    """What MoCo v2 trains: a query encoder, whose `fc` is the head; a key encoder; a queue."""

    def __init__(self, width, p):
        super().__init__()
        self.encoder_q, self.encoder_k = (ResNet("imagenet", width, (3, 4, 6, 3), thick=True) for _ in range(2))
        self.encoder_q.fc, self.encoder_k.fc = (mlp(self.encoder_q.dim, p) for _ in range(2))
        self.register_buffer("queue", torch.zeros(p, 4))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))


class And(ResNet):
    def __init__(self, width, p):
        super().__init__("cifar", width)
        self.linear = nn.Linear(self.dim, p)


class AlexNet(nn.Module):
    """Krizhevsky 2014 with batch norm after each layer, for 32 pixels (`cifar`) or 224 (`imagenet`); AND's projection at the end."""

    def __init__(self, form, width, p, channels=3):
        super().__init__()
        large = form == "imagenet"
        kernels = [(11, 4, 2), (5, 1, 2)] if large else [(3, 1, 1)] * 2
        widths = [width * times for times in (1, 3, 6, 4, 4)]
        layers, inputs = [], channels
        for number, (outputs, (kernel, stride, padding)) in enumerate(zip(widths, kernels + [(3, 1, 1)] * 3), 1):
            layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs), nn.ReLU()]
            if number in (1, 2, 5):
                layers.append(nn.MaxPool2d(3 if large else 2, 2))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.dim, sides = (64 * width, 6) if large else (16 * width, 4)
        self.fc1, self.fc2 = (
            nn.Sequential(nn.Linear(inputs, self.dim), nn.BatchNorm1d(self.dim), nn.ReLU())
            for inputs in (widths[-1] * sides**2, self.dim)
        )
        self.projection = nn.Sequential(nn.Linear(self.dim, p))

    def layers(self, x):
        """What each layer makes of images, by name; of a convolution before the pooling."""
        made, number = {}, 0
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                number += 1
                made[f"conv{number}"] = x
        made["fc1"] = self.fc1(x.flatten(1))
        made["fc2"] = self.fc2(made["fc1"])
        return made

    def forward(self, x):
        return self.layers(x)["fc2"]

    def project(self, x):
        return F.normalize(self.projection(self(x)), dim=1)
