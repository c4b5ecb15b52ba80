"""Files of weights that kinset exports, read by hand: safetensors, so that PyTorch alone is needed."""

import json
import struct

import torch


def load(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    kinds = {"F32": torch.float32, "I64": torch.int64}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = torch.frombuffer(bytearray(body[begin:end]), dtype=kinds[entry["dtype"]]).reshape(entry["shape"])
    return tensors
