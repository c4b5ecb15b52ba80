"""Steps of SimCLR with ResNet-18 in PyTorch: torchvision's views, one-sided loss, SGD."""

import ground
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import nn
from torchvision_views import recipe

args = ground.settings(width=64, batch=128, size=32, steps=3, channels_last=0)
torch.set_num_threads(ground.THREADS)
torch.manual_seed(0)


class Block(torchvision.models.resnet.BasicBlock):
    """torchvision's own insists on 64 channels only in the network's constructor."""


def backbone(width):
    net = torchvision.models.ResNet(Block, [2, 2, 2, 2])
    net.inplanes = width
    net.conv1, net.bn1, net.maxpool = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.Identity()
    for stage in range(4):
        layer = net._make_layer(Block, width << stage, 2, stride=1 if stage == 0 else 2)
        setattr(net, f"layer{stage + 1}", layer)
    net.fc = nn.Identity()
    return net, 8 * width


layout = torch.channels_last if args.channels_last else torch.contiguous_format
body, features = backbone(args.width)
head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, 128))
model = nn.Sequential(body, head).to(memory_format=layout)
optimizer = torch.optim.SGD(model.parameters(), 0.4, momentum=0.9, weight_decay=1e-4)
raw, view = ground.pictures(args.batch, args.size, 3), recipe(args.size)


def step():
    images = [Image.fromarray(pixels) for pixels in raw]
    views = torch.stack([view(image) for _ in range(2) for image in images]).contiguous(memory_format=layout)
    z = F.normalize(model(views), dim=1)
    n = args.batch
    similarity = z[:n] @ z.T / 0.1
    similarity = similarity.masked_fill(torch.eye(n, 2 * n, dtype=torch.bool), float("-inf"))
    loss = F.cross_entropy(similarity, torch.arange(n) + n)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return np.float32(loss.item())


ground.answer(f"torch {torch.__version__}", ground.repeated(args.steps, step), images=args.batch)
