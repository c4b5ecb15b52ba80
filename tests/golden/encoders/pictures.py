"""What Pillow makes of a few pictures with BICUBIC: `python pictures.py` writes bicubic.json beside itself."""

import json
import pathlib

import numpy as np
import PIL
from PIL import Image


def value(i):
    return 255 if (i // 5) % 3 == 0 else (i * i * 37 + i * 91) % 256 * ((i // 7) % 2)


cases = []
for width, height, channels, to_width, to_height in [
    (7, 5, 1, 12, 9),
    (7, 5, 3, 16, 11),
    (28, 28, 1, 20, 20),
    (40, 30, 3, 16, 12),
    (33, 50, 1, 8, 13),
    (64, 9, 3, 10, 9),
    (9, 64, 1, 9, 10),
    (50, 50, 1, 7, 7),
]:
    data = np.array([value(i) for i in range(width * height * channels)], dtype=np.uint8)
    shape = (height, width) if channels == 1 else (height, width, channels)
    picture = Image.fromarray(data.reshape(shape)).resize((to_width, to_height), Image.BICUBIC)
    cases.append(
        {
            "width": width,
            "height": height,
            "channels": channels,
            "to_width": to_width,
            "to_height": to_height,
            "bytes": np.asarray(picture).reshape(-1).tolist(),
        }
    )
golden = {"made_by": "tests/golden/encoders/pictures.py", "pillow": PIL.__version__, "cases": cases}
path = pathlib.Path(__file__).parent / "bicubic.json"
path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
