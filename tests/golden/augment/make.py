"""Golden checksums of Pillow's pixel operations: `python make.py` writes golden.json beside itself.

Each case: a picture (made from a formula, so that Rust can make it too), an operation, its arguments, the shape
of the result and the CRC-32 of its raw bytes. torchvision's color jitter and crops are thin wrappers of these
calls; what they do beyond a call is spelled out here.
"""

import json
import random
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageOps

BILINEAR, AFFINE = Image.Resampling.BILINEAR, Image.Transform.AFFINE


def picture(texture, width, height, channels):
    """uint8 [height, width, channels], from integers only."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    y, x, c = y.astype(np.uint32), x.astype(np.uint32), c.astype(np.uint32)
    if texture == "stripes":
        value = 37 * y + 53 * x + 91 * c + x * y
    elif texture == "smooth":
        value = 40 + (2 * y + 3 * x + 50 * c) * (1 + c) // 4 % 150
    else:  # noise: a hash of the position
        value = (y * 7919 + x * 104729 + c * 1299709 + 12345) * np.uint32(2654435761)
        value = ((value ^ (value >> 15)) * np.uint32(2246822519)) >> 13
    return (value & 255).astype(np.uint8)


def hue(image, shift):
    h, s, v = image.convert("HSV").split()
    h = Image.fromarray(np.asarray(h) + np.uint8(shift))
    return Image.merge("HSV", (h, s, v)).convert("RGB")


OPS = {
    "resize": lambda im, l, t, w, h, ow, oh: im.crop((l, t, l + w, t + h)).resize((ow, oh), BILINEAR),
    "autocontrast": lambda im: ImageOps.autocontrast(im),
    "equalize": lambda im: ImageOps.equalize(im),
    "rotate": lambda im, v: im.rotate(v),
    "solarize": lambda im, v: ImageOps.solarize(im, v),
    "posterize": lambda im, v: ImageOps.posterize(im, v),
    "saturation": lambda im, v: ImageEnhance.Color(im).enhance(v),
    "contrast": lambda im, v: ImageEnhance.Contrast(im).enhance(v),
    "brightness": lambda im, v: ImageEnhance.Brightness(im).enhance(v),
    "sharpness": lambda im, v: ImageEnhance.Sharpness(im).enhance(v),
    "shear_x": lambda im, v: im.transform(im.size, AFFINE, (1, v, 0, 0, 1, 0)),
    "shear_y": lambda im, v: im.transform(im.size, AFFINE, (1, 0, 0, v, 1, 0)),
    "translate_x": lambda im, v: im.transform(im.size, AFFINE, (1, 0, v * im.size[0], 0, 1, 0)),
    "translate_y": lambda im, v: im.transform(im.size, AFFINE, (1, 0, 0, 0, 1, v * im.size[1])),
    "gray": lambda im: im.convert("L").convert(im.mode),
    "hue": hue,
}


def arguments(op, width, height, rng):
    if op == "resize":
        w, h = rng.randint(1, width), rng.randint(1, height)
        left, top = rng.randint(0, width - w), rng.randint(0, height - h)
        out = rng.choice([(width, height), (32, 32), (28, 28), (rng.randint(1, 99), rng.randint(1, 99))])
        return [left, top, w, h, *out]
    if op in ("autocontrast", "equalize", "gray"):
        return []
    if op == "rotate":
        return [rng.choice([rng.uniform(-30, 30), rng.uniform(-180, 180), rng.choice([0, 30, -30, 45, 90, 180, 270])])]
    if op == "solarize":
        return [rng.uniform(0, 256)]
    if op == "posterize":
        return [rng.randint(1, 8)]
    if op in ("saturation", "contrast", "brightness", "sharpness"):
        return [rng.choice([rng.uniform(0.05, 0.95), rng.uniform(0.6, 1.4), rng.uniform(0, 3), 0.0, 1.0])]
    if op == "hue":
        return [rng.randint(0, 255)]
    return [rng.choice([rng.uniform(-0.1, 0.1), rng.uniform(-0.5, 0.5)])]


def main():
    rng = random.Random(20261121)
    cases = []
    shapes = [(28, 28, 1), (32, 32, 3), (37, 53, 3), (53, 37, 1), (96, 96, 3), (2, 3, 3), (9, 1, 1), (131, 7, 3)]
    for op, function in OPS.items():
        for width, height, channels in shapes:
            if op == "hue" and channels == 1:
                continue
            for texture in ("stripes", "smooth", "noise"):
                for _ in range(8 if op == "resize" else 4 if op in ("rotate", "contrast", "saturation") else 2):
                    args = arguments(op, width, height, rng)
                    data = picture(texture, width, height, channels)
                    image = Image.fromarray(data if channels == 3 else data[:, :, 0])
                    result = function(image, *args)
                    crc = zlib.crc32(result.tobytes())
                    cases.append([texture, [width, height, channels], op, args, list(result.size), f"{crc:08x}"])
                    if not args:
                        break
    head = {"made_by": "tests/golden/augment/make.py", "pillow": PIL.__version__, "numpy": np.__version__}
    color = np.arange(1 << 24, dtype=np.uint32)
    every = np.stack([color >> 16, color >> 8 & 255, color & 255], -1).astype(np.uint8).reshape(4096, 4096, 3)
    to_hsv, from_hsv = Image.fromarray(every).convert("HSV"), Image.frombytes("HSV", (4096, 4096), every.tobytes())
    head["every_color_to_hsv"] = f"{zlib.crc32(to_hsv.tobytes()):08x}"
    head["every_hsv_to_color"] = f"{zlib.crc32(from_hsv.convert('RGB').tobytes()):08x}"
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = json.dumps(head)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
    Path(__file__).with_name("golden.json").write_text(text)
    print(len(cases), "cases")


main()
