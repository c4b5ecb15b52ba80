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
import struct
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
    image.save(HERE / name, **options)
    note(name, expected, tolerance)


def write(name, content):
    (HERE / name).write_bytes(content)
    note(name)


def note(name, expected=None, tolerance=0):
    path = HERE / name
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
save("rgb.bmp", rgb)
save("gray.bmp", gray)
save("palette.bmp", palette)
save("bilevel.bmp", Image.fromarray(GRAY > 120))
bmp_alpha = np.dstack([RGB[..., ::-1], ALPHA])[::-1].tobytes()  # as later headers have it; Pillow writes none
masks = struct.pack("<IIII", 0xff0000, 0xff00, 0xff, 0xff000000)
head = struct.pack("<IiiHHIIiiII", 108, W, H, 1, 32, 3, len(bmp_alpha), 0, 0, 0, 0) + masks + bytes(108 - 56)
write("alpha.bmp", struct.pack("<2sIHHI", b"BM", 14 + len(head) + len(bmp_alpha), 0, 0, 14 + len(head)) + head + bmp_alpha)
save("palette.gif", palette)
save("interlaced.gif", palette, interlace=1)
save("transparent.gif", palette, transparency=2)
save("animated.gif", palette, save_all=True, append_images=[ImageOps.invert(rgb).quantize(8)], duration=100)
save("rgb.tif", rgb)
save("lzw.tif", rgb, compression="tiff_lzw")
save("deflate.tif", rgb, compression="tiff_adobe_deflate", tiffinfo={317: 2})
save("packbits.tif", gray, compression="packbits")
save("jpeg.tif", big, compression="jpeg", quality=95, tolerance=6)
save("gray16.tif", Image.fromarray(gray16), (gray16.astype(np.int64) + 128) // 257)
save("bilevel.tif", Image.fromarray(GRAY > 120), compression="group4")
save("palette.tif", palette, compression="tiff_lzw")
save("rgba.tif", Image.fromarray(np.dstack([RGB, ALPHA])))
save("multiplied.tif", Image.fromarray(np.dstack([RGB, ALPHA])).convert("RGBa").convert("RGBA"), tiffinfo={338: 1}, tolerance=1)
save("gray_alpha.tif", Image.merge("LA", [gray, Image.fromarray(ALPHA)]))
save("cmyk.tif", rgb.convert("CMYK"), tolerance=1)
save("turned.tif", rgb, tiffinfo={0x0112: 6})
save("pages.tif", rgb, np.asarray(rgb), save_all=True, append_images=[ImageOps.invert(rgb)], compression="tiff_lzw")

# The colors one after the other, and the other order of bytes: Pillow writes neither.
tags = [(256, 3, 1, W << 16), (257, 3, 1, H << 16), (258, 3, 3, 134), (259, 3, 1, 1 << 16), (262, 3, 1, 2 << 16), (273, 4, 3, 140),
        (277, 3, 1, 3 << 16), (278, 3, 1, H << 16), (279, 4, 3, 152), (284, 3, 1, 2 << 16)]
entries = b"".join(struct.pack(">HHII", *tag) for tag in tags)
values = struct.pack(">3H3I3I", 8, 8, 8, *(164 + W * H * i for i in range(3)), W * H, W * H, W * H)
planes = np.moveaxis(RGB, -1, 0).tobytes()
write("planes.tif", struct.pack(">2sHIH", b"MM", 42, 8, len(tags)) + entries + bytes(4) + values + planes)

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
