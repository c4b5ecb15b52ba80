"""Images through a frozen encoder in PyTorch: ViT-S/14 as DINOv2 has it, ViT-B/32 as CLIP, torchvision's ResNet-50."""

import ground
import torch
import torch.nn.functional as F
import torchvision

args = ground.settings(network=0, batch=64, repeats=1, channels_last=0)
torch.set_num_threads(ground.THREADS)
torch.manual_seed(0)
SIZE = 224


def weights(*shape):
    return torch.empty(shape).normal_(std=0.02)


def block(width):
    hidden = 4 * width
    shapes = {
        "norm1": [(width,), (width,)], "qkv": [(3 * width, width), (3 * width,)], "out": [(width, width), (width,)],
        "norm2": [(width,), (width,)], "up": [(hidden, width), (hidden,)], "down": [(width, hidden), (width,)],
        "scales": [(width,), (width,)],
    }  # fmt: skip
    return {name: [weights(*shape) for shape in two] for name, two in shapes.items()}


class Transformer:
    def __init__(self, width, heads, patch, clip):
        self.width, self.heads, self.patch, self.clip = width, heads, patch, clip
        self.patches, self.patch_bias = weights(width, 3, patch, patch), None if clip else weights(width)
        self.token, self.positions = weights(1, 1, width), weights(1, 1 + (SIZE // patch) ** 2, width)
        self.before, self.after = [weights(width), weights(width)], [weights(width), weights(width)]
        self.blocks = [block(width) for _ in range(12)]
        self.projection = weights(512, width)

    def norm(self, x, two):
        return F.layer_norm(x, (self.width,), *two, 1e-5 if self.clip else 1e-6)

    def __call__(self, images):
        B = len(images)
        x = F.conv2d(images, self.patches, self.patch_bias, stride=self.patch).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(B, -1, -1), x], 1) + self.positions
        if self.clip:
            x = self.norm(x, self.before)
        T = x.shape[1]
        for b in self.blocks:
            qkv = F.linear(self.norm(x, b["norm1"]), *b["qkv"]).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            taken = F.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(B, T, self.width)
            taken = F.linear(taken, *b["out"])
            x = x + (taken if self.clip else taken * b["scales"][0])
            h = F.linear(self.norm(x, b["norm2"]), *b["up"])
            h = F.linear(h * torch.sigmoid(1.702 * h) if self.clip else F.gelu(h), *b["down"])
            x = x + (h if self.clip else h * b["scales"][1])
        x = self.norm(x[:, 0], self.after)
        return F.linear(x, self.projection) if self.clip else x


def residual():
    net = torchvision.models.resnet50(weights=None).eval()
    net.fc = torch.nn.Identity()
    return net


layout = torch.channels_last if args.channels_last else torch.contiguous_format
net = [lambda: Transformer(384, 6, 14, False), lambda: Transformer(768, 12, 32, True), residual][args.network]()
if args.channels_last:
    net = net.to(memory_format=layout)
images = torch.from_numpy(ground.bells(args.batch, 3, SIZE, SIZE)).contiguous(memory_format=layout)
with torch.inference_mode():
    ground.answer(f"torch {torch.__version__}", ground.repeated(args.repeats, lambda: net(images)), images=args.batch)
