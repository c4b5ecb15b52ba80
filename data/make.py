#!/usr/bin/env python3
"""Makes the data sets that are committed beside this script: data/digits and data/fashion-mini.

    python data/make.py            # writes the files
    python data/make.py --check    # compares what the committed files hold with what it would write; writes nothing

Needs numpy, scikit-learn (for digits) and Fashion-MNIST's four published files (Debian: `apt install
dataset-fashion-mnist`; another place: FASHION_MNIST=DIR).

The bytes are reproducible: IDX has no clock in it, and the gzip wrapper is written here with time 0, no file name and
operating system "unknown". Only the deflate stream depends on the zlib that Python was built with, so `CONTENT` pins
the digests of what is inside, and `--check` compares that.
"""

import gzip
import hashlib
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
FASHION = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
TRAIN, TEST = 5000, 1000

# MD5 as published in Zalando's README, and the time in the gzip header of each published file. Debian's copies differ from
# the published ones in that header only (time moved, name removed), so with the header put back the MD5 must match.
PUBLISHED = {
    "train-images-idx3-ubyte.gz": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 1504176606),
    "train-labels-idx1-ubyte.gz": ("25c81989df183df01b3e8a0aad5dffbe", 1504176606),
    "t10k-images-idx3-ubyte.gz": ("bef4ecab320f06d8554ea6380940ec79", 1504176627),
    "t10k-labels-idx1-ubyte.gz": ("bb300cfdad3c16e7a12a480ee83cd310", 1504176627),
}

# SHA-256 of the unpacked IDX files.
CONTENT = {
    "digits/images-idx3-ubyte.gz": "e1c2722904516436861956f0c293a538b2c28f2e915f4d3944cacad175b8b732",
    "digits/labels-idx1-ubyte.gz": "ce71631c1f31ce56fa54f31d1d498fafacff59b001e6c30c4a5e29508aa277ad",
    "fashion-mini/train-images-idx3-ubyte.gz": "626b8bf8433327de7912bae1d0e4c70fdcca53de33970297bf9a2205500c574a",
    "fashion-mini/train-labels-idx1-ubyte.gz": "86cccad95ab36653e416733235fc8fbb50b9429417f4eb2feb35e0b9a294e83c",
    "fashion-mini/t10k-images-idx3-ubyte.gz": "7a6d8e07ea021ec5bc73135ebd0a5770799557ec6f8242d8749c4f32a3cf4643",
    "fashion-mini/t10k-labels-idx1-ubyte.gz": "b40abac7ec8228f434940f579deb7cf7b6e3103b5274cb91d1545771f5ef1c8b",
}


def idx(array):
    """An array of bytes as an IDX file: magic 0 0 8 rank, sizes as big-endian u32, values row by row."""
    assert array.dtype == np.uint8
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def pack(content):
    """gzip without a clock, a name or a system in its header (RFC 1952)."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    stream = deflate.compress(content) + deflate.flush()
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    return header + stream + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)


def as_published(packed, name, time):
    """The same deflate stream under the header that Zalando's file has."""
    stream = packed[10:]
    if packed[3] & 8:  # a name follows the header
        stream = stream[stream.index(b"\0") + 1 :]
    return struct.pack("<4BI2B", 0x1F, 0x8B, 8, 8, time, 0, 3) + name.removesuffix(".gz").encode() + b"\0" + stream


def digits():
    """UCI's test part, 1,797 x 8 x 8. The values 0-16 are stored times 15 (0-240), so that the files are ordinary gray
    images; a factor common to all pixels changes no k-means partition."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = found.images
    assert images.shape == (1797, 8, 8) and images.min() == 0 and images.max() == 16
    assert np.array_equal(images, np.rint(images))
    yield "digits/images-idx3-ubyte.gz", idx((images * 15).astype(np.uint8))
    yield "digits/labels-idx1-ubyte.gz", idx(found.target.astype(np.uint8))


def fashion():
    """The first images of each part of Fashion-MNIST, in the published order (which is shuffled by class)."""
    for name, (digest, time) in PUBLISHED.items():
        packed = (FASHION / name).read_bytes()
        if hashlib.md5(as_published(packed, name, time)).hexdigest() != digest:
            sys.exit(f"{FASHION / name}: not the published file")
        raw = gzip.decompress(packed)
        rank = raw[3]
        shape = struct.unpack_from(f">{rank}I", raw, 4)
        array = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
        yield f"fashion-mini/{name}", idx(array[: TRAIN if name.startswith("train") else TEST].copy())


def main():
    check = sys.argv[1:] == ["--check"]
    wrong = 0
    for name, content in [*digits(), *fashion()]:
        digest = hashlib.sha256(content).hexdigest()
        if CONTENT.get(name) != digest:
            wrong += 1
            print(f'wrong: "{name}": "{digest}",')
        path = HERE / name
        if check:
            same = path.is_file() and gzip.decompress(path.read_bytes()) == content
            wrong += not same
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(pack(content))
            same = True
        print(f"{'ok' if same else 'DIFFERS'}  {name}  {len(content)} bytes")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
