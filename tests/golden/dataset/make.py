#!/usr/bin/env python3
"""Small image files of every kind that `dataset/guarded_decode.rs` reads, the pixels Pillow sees in them, and a Parquet file of some.

    python tests/golden/dataset/make.py

`pixels.json` holds per file: width, height, channels, the largest difference allowed per value (0 for lossless formats; JPEG
decoders may round differently), and the values that `convert("RGB")` gives, for gray files `convert("L")`, turned as the EXIF
data say, over white where transparent; 16 bits are rounded to 8, where Pillow would clip. Made with the versions named in
`pixels.json`.
"""

import io
import json
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps, features

HERE = Path(__file__).resolve().parent
W, H = 6, 4
y, x = np.mgrid[0:H, 0:W]
RGB = np.stack([40 * x + 5, 60 * y + 3, 255 - 20 * x - 20 * y], -1).astype(np.uint8)
GRAY = (40 * x + 11 * y).astype(np.uint8)
ALPHA = np.where((x + y) % 3 == 0, 0, np.where((x + y) % 3 == 1, 100, 255)).astype(np.uint8)
golden = {"made with": {"Pillow": PIL.__version__, "numpy": np.__version__, "libjpeg-turbo": features.version("libjpeg_turbo"),
                        "webp": features.version("webp")}}


def shown(image):
    image = ImageOps.exif_transpose(image)
    gray = image.mode in ("L", "LA", "1")
    if not image.has_transparency_data:
        return np.asarray(image.convert("L" if gray else "RGB"))
    values = np.asarray(image.convert("LA" if gray else "RGBA")).astype(int)
    over = (values[..., :-1] * values[..., -1:] + 255 * (255 - values[..., -1:]) + 127) // 255
    return over[..., 0] if gray else over


def save(name, image, expected=None, tolerance=0, **options):
    path = HERE / name
    image.save(path, **options)
    if expected is None:
        with Image.open(path) as again:
            expected = shown(again)
    height, width = expected.shape[:2]
    golden[name] = {"width": width, "height": height, "channels": 1 if expected.ndim == 2 else 3, "tolerance": tolerance,
                    "values": np.asarray(expected).reshape(-1).tolist()}


rgb, gray = Image.fromarray(RGB), Image.fromarray(GRAY)
save("rgb.png", rgb)
save("gray.png", gray)
save("rgba.png", Image.fromarray(np.dstack([RGB, ALPHA])))
save("gray_alpha.png", Image.merge("LA", [gray, Image.fromarray(ALPHA)]))
save("bilevel.png", Image.fromarray(GRAY > 120))
gray16 = (GRAY.astype(np.uint32) * 257 + (x * 40)).clip(0, 65535).astype(np.uint16)
save("gray16.png", Image.fromarray(gray16), (gray16.astype(np.int64) + 128) // 257)
palette = rgb.quantize(8)
save("palette.png", palette)
save("palette_transparent.png", palette, transparency=2)
save("png_inside.jpg", rgb, format="PNG")  # a PNG whose name says JPEG
exif = Image.Exif()
exif[0x0112] = 6
big = rgb.resize((24, 16), Image.Resampling.BICUBIC)
save("turned.jpg", big, tolerance=4, exif=exif, quality=95, subsampling=0)
save("turned.png", rgb, exif=exif)
save("turned.webp", rgb, exif=exif, lossless=True)
save("gray.jpg", gray.resize((24, 16)), tolerance=2, quality=95)
save("progressive.jpg", big, tolerance=4, progressive=True, quality=95, subsampling=0)
save("subsampled.jpg", big, tolerance=12, quality=95, subsampling=2)
save("restarts.jpg", big, tolerance=8, quality=90, subsampling=1, restart_marker_blocks=1, optimize=True)
save("cmyk.jpg", big.convert("CMYK"), tolerance=4, quality=95)
save("lossless.webp", rgb, lossless=True)
save("lossless_alpha.webp", Image.fromarray(np.dstack([RGB, ALPHA])), lossless=True, exact=True)
save("lossy.webp", big, tolerance=3, quality=90)
save("animated.webp", rgb, np.asarray(rgb), save_all=True, append_images=[ImageOps.invert(rgb)], lossless=True, duration=100)

# Hugging Face's layout as their library writes it with pyarrow: struct column, ClassLabel names in the schema metadata, -1 for
# an image without a label.
names = ["rgb.png", "gray.png", "cmyk.jpg", "lossy.webp"]
table = pa.table(
    {"image": pa.array([{"bytes": (HERE / name).read_bytes(), "path": name} for name in names],
                       pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
     "label": pa.array([1, 0, 1, -1], pa.int64()), "fine_label": pa.array([5, 3, 4, 5], pa.int64())},
    metadata={"huggingface": json.dumps({"info": {"features": {
        "image": {"_type": "Image"}, "label": {"names": ["gray", "color"], "_type": "ClassLabel"},
        "fine_label": {"dtype": "int64", "_type": "Value"}}}})})
pq.write_table(table, HERE / "huggingface.parquet")
golden["made with"]["pyarrow"] = pa.__version__
(HERE / "pixels.json").write_text(json.dumps(golden, separators=(",", ":")).replace('},"', '},\n"') + "\n")
