"""Golden numbers of RUC: `python make.py` writes views.json and step.json beside itself.

views.json: checksums of Pillow's bytes for the fourteen operations at the level the authors' settings come to, and for the
gray square. The strengths are computed here from the formulas of the specification, not copied from Rust.

step.json: targets, mixed targets and losses of one training step from fixed logits, by PyTorch in double precision, written
with its own operations and autograd.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

HERE = Path(__file__).parent
AFFINE = Image.Transform.AFFINE


def picture(texture, width, height, channels):
    """uint8 [height, width, channels], from integers only; as in ../augment/make.py."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    y, x, c = y.astype(np.uint32), x.astype(np.uint32), c.astype(np.uint32)
    if texture == "stripes":
        value = 37 * y + 53 * x + 91 * c + x * y
    elif texture == "smooth":
        value = 40 + (2 * y + 3 * x + 50 * c) * (1 + c) // 4 % 150
    else:
        value = (y * 7919 + x * 104729 + c * 1299709 + 12345) * np.uint32(2654435761)
        value = ((value ^ (value >> 15)) * np.uint32(2246822519)) >> 13
    value = (value & 255).astype(np.uint8)
    return Image.fromarray(value if channels == 3 else value[:, :, 0])


def real(level, most, bias):
    return float(level) * most / 10 + bias


def whole(level, most, bias):
    return int(real(level, most, 0)) + bias


LEVEL = 1
FACTOR = real(LEVEL, 0.99, 0.01)
SHARE = real(LEVEL, 0.3, -0.3)

# Name, operation on an image and a sign; the alphabet of the specification's table, sign +1 is the formula's own.
OPS = [
    ("auto_contrast", lambda im, s: ImageOps.autocontrast(im)),
    ("brightness", lambda im, s: ImageEnhance.Brightness(im).enhance(FACTOR)),
    ("color", lambda im, s: ImageEnhance.Color(im).enhance(FACTOR)),
    ("contrast", lambda im, s: ImageEnhance.Contrast(im).enhance(FACTOR)),
    ("equalize", lambda im, s: ImageOps.equalize(im)),
    ("identity", lambda im, s: im),
    ("posterize", lambda im, s: ImageOps.posterize(im, whole(LEVEL, 1, 8))),
    ("rotate", lambda im, s: im.rotate(s * whole(LEVEL, 45, -45))),
    ("sharpness", lambda im, s: ImageEnhance.Sharpness(im).enhance(FACTOR)),
    ("shear_x", lambda im, s: im.transform(im.size, AFFINE, (1, s * SHARE, 0, 0, 1, 0))),
    ("shear_y", lambda im, s: im.transform(im.size, AFFINE, (1, 0, 0, s * SHARE, 1, 0))),
    ("solarize", lambda im, s: ImageOps.solarize(im, 256 - whole(LEVEL, 256, 0))),
    ("translate_x", lambda im, s: im.transform(im.size, AFFINE, (1, 0, int(s * SHARE * im.size[0]), 0, 1, 0))),
    ("translate_y", lambda im, s: im.transform(im.size, AFFINE, (1, 0, 0, 0, 1, int(s * SHARE * im.size[1])))),
]


def views():
    changes, squares = [], []
    for shape in [(28, 28, 1), (32, 32, 3), (96, 96, 3), (37, 53, 3)]:
        for texture in ("stripes", "smooth", "noise"):
            for index, (_, function) in enumerate(OPS):
                for mirrored in (False, True):
                    result = function(picture(texture, *shape), -1 if mirrored else 1)
                    changes.append([texture, list(shape), index, mirrored, f"{zlib.crc32(result.tobytes()):08x}"])
        width, height, channels = shape
        for left, top in [(0, 0), (3, 7), (width - 17, 2), (width - 16, height - 9), (5, height - 9), (width - 9, height - 17)]:
            image = picture("noise", *shape)
            right, bottom = int(min(width, left + 16)), int(min(height, top + 16))
            ImageDraw.Draw(image).rectangle((left, top, right, bottom), (127, 127, 127) if channels == 3 else 127)
            squares.append(["noise", list(shape), [left, top], f"{zlib.crc32(image.tobytes()):08x}"])
    head = {"made_by": "tests/golden/ruc/make.py", "pillow": PIL.__version__, "names": [name for name, _ in OPS]}
    body = ",\n".join(json.dumps(case) for case in changes)
    rest = ",\n".join(json.dumps(case) for case in squares)
    text = json.dumps(head)[:-1] + ', "changes": [\n' + body + '\n], "squares": [\n' + rest + "\n]}\n"
    (HERE / "views.json").write_text(text)
    print(len(changes), "changes,", len(squares), "squares")


def wave(rows, columns, step, phase, scale):
    at = torch.arange(rows * columns, dtype=torch.float64)
    return (scale * torch.sin(step * at + phase)).reshape(rows, columns)


def step():
    rows, classes, temperature, share, ramp, weight, epsilon = 7, 4, 0.5, 0.64, 0.3, 25.0, 0.5
    clean = torch.tensor([True, False, True, True, False, True, False])
    label = torch.tensor([2, 0, 1, 3, 1, 2, 0])
    trust = torch.linspace(0, 1, rows, dtype=torch.float64)
    sharp = lambda p: p ** (1 / temperature) / (p ** (1 / temperature)).sum(1, keepdim=True)
    own2, own3 = wave(rows, classes, 0.7, 0.1, 2), wave(rows, classes, 0.9, 0.4, 2)
    peer1, peer2, peer3 = (wave(rows, classes, s, p, 2) for s, p in [(1.1, 0.2), (1.3, 0.5), (1.7, 0.3)])
    one_hot = torch.nn.functional.one_hot(label, classes).double()
    refined = sharp((1 - trust[:, None]) * one_hot + trust[:, None] * peer1.softmax(1))[clean]
    guessed = sharp((own2.softmax(1) + own3.softmax(1) + peer2.softmax(1) + peer3.softmax(1)) / 4)[~clean]
    targets = torch.cat([refined, refined, guessed, guessed])
    order = torch.tensor([(5 * i + 3) % (2 * rows) for i in range(2 * rows)])
    assert sorted(order.tolist()) == list(range(2 * rows))
    mixed = share * targets + (1 - share) * targets[order]
    z = wave(2 * rows, classes, 0.37, 0.8, 1.5).requires_grad_()
    strong = wave(rows, classes, 0.53, 0.6, 1.5).requires_grad_()
    edge = 2 * int(clean.sum())
    labeled = -(mixed[:edge] * z[:edge].log_softmax(1)).sum(1).mean()
    unlabeled = weight * ramp * ((z[edge:].softmax(1) - mixed[edge:]) ** 2).mean()
    smooth = torch.full((int(clean.sum()), classes), epsilon / (classes - 1), dtype=torch.float64)
    smooth.scatter_(1, label[clean][:, None], 1 - epsilon)
    smoothing = -(smooth * strong[clean].log_softmax(1)).sum(1).mean()
    total = labeled + unlabeled + smoothing
    total.backward()
    flat = lambda t: [float(f"{v:.10g}") for v in t.detach().flatten().tolist()]
    golden = {
        "made_by": "tests/golden/ruc/make.py",
        "torch": torch.__version__,
        "refined": flat(refined),
        "guessed": flat(guessed),
        "mixed": flat(mixed),
        "labeled": labeled.item(),
        "unlabeled": unlabeled.item(),
        "smoothing": smoothing.item(),
        "gradient_z": flat(z.grad),
        "gradient_strong": flat(strong.grad),
    }
    (HERE / "step.json").write_text(json.dumps(golden, indent=1) + "\n")
    print({k: v for k, v in golden.items() if isinstance(v, float)})


views()
step()
