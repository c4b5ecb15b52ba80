"""What all pieces share: the numbers of `ground.rs`, repetition, and the line of JSON."""

import argparse
import json
import os
import sys
import time

import numpy as np

THREADS = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count())


def settings(**defaults):
    """The defaults, overruled by `--NAME VALUE`."""
    parser = argparse.ArgumentParser()
    for name, value in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    return parser.parse_args()


def mixed(places):
    """SplitMix64 at these places of its sequence."""
    z = (places.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def bells(*shape):
    """Near to standard normal, float32."""
    count = int(np.prod(shape))
    out = np.empty(count, np.float32)
    # Piece by piece: 64-bit intermediates of everything at once would be most of the memory of a run.
    for start in range(0, count, 1 << 20):
        bits = mixed(np.arange(start, min(start + (1 << 20), count)))
        total = sum(((bits >> np.uint64(16 * part)) & np.uint64(0xFFFF)).astype(np.int64) for part in range(4))
        out[start : start + (1 << 20)] = (total - 131070).astype(np.float32) * np.float32(1.0 / 37837.23)
    return out.reshape(shape)


def unit_rows(rows, dim):
    """Rows of unit length."""
    values = bells(rows, dim)
    lengths = np.sqrt(np.einsum("nd,nd->n", values, values, dtype=np.float64))
    return (values / lengths[:, None]).astype(np.float32)


def pictures(count, size, channels):
    """Square pictures of noise, uint8."""
    shape = (count, size, size, channels)
    return mixed(np.arange(int(np.prod(shape)))).astype(np.uint8).reshape(shape)


def repeated(times, work):
    """Seconds of each repetition after one that does not count."""
    work()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def answer(program, seconds, **more):
    json.dump({"program": program, "seconds": seconds, "more": more}, sys.stdout)
    print()
