"""Writes `mobile.onnx` and `tokens.onnx`, small encoders as exporters spell them out, and what onnxruntime makes of pictures.

    pip install onnx onnxruntime numpy        # made with onnx 1.23.2, onnxruntime 1.32.0
    python tests/golden/onnx/encoders.py
"""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

here = Path(__file__).parent
rng = np.random.default_rng(5)


class Net:
    def __init__(self):
        self.nodes, self.numbers, self.count = [], [], 0

    def name(self):
        self.count += 1
        return f"/made/{self.count}"

    def const(self, values, dtype=np.float32):
        name = self.name()
        self.numbers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weight(self, *shape, scale=0.4):
        return self.const(rng.normal(size=shape) * scale)

    def op(self, kind, *inputs, outputs=1, **settings):
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **settings))
        return names[0] if outputs == 1 else names

    def inner(self, value):
        """A number as `torch.onnx.export` writes it: a node."""
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def save(self, file, shape, outputs, opset):
        for name, (made, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [made], [name]))
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, (_, sides) in outputs.items()],
            self.numbers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 8
        onnx.checker.check_model(model, full_check=True)
        (here / file).write_bytes(model.SerializeToString(deterministic=True))


def mobile():
    n = Net()
    x = n.op("Div", n.op("Sub", "pixels", n.const([[[0.5]], [[0.4]], [[0.3]]])), n.const(0.25))
    x = n.op("Conv", x, n.weight(8, 3, 3, 3), n.weight(8), kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    x = n.op("Clip", x, n.const(0.0), n.const(6.0))
    x = n.op("Conv", x, n.weight(8, 1, 3, 3), n.weight(8), group=8, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    norm = [n.const(np.abs(rng.normal(size=8)) + 0.2), n.weight(8), n.weight(8), n.const(np.abs(rng.normal(size=8)) + 0.2)]
    x = n.op("HardSwish", n.op("BatchNormalization", x, *norm, epsilon=1e-3))
    # Squeeze and excite.
    s = n.op("GlobalAveragePool", x)
    s = n.op("Relu", n.op("Conv", s, n.weight(4, 8, 1, 1), n.weight(4), kernel_shape=[1, 1]))
    s = n.op("HardSigmoid", n.op("Conv", s, n.weight(8, 4, 1, 1), n.weight(8), kernel_shape=[1, 1]), alpha=1 / 6, beta=0.5)
    x = n.op("Mul", x, s)
    y = n.op("Conv", x, n.weight(8, 4, 3, 3), kernel_shape=[3, 3], group=2, pads=[1, 1, 1, 1])
    x = n.op("LeakyRelu", n.op("Add", x, y), alpha=0.1)
    x = n.op("Conv", x, n.weight(8, 8, 3, 3), kernel_shape=[3, 3], dilations=[2, 2], pads=[2, 2, 2, 2])
    x = n.op("Conv", x, n.weight(6, 8, 2, 2), kernel_shape=[2, 2], auto_pad="SAME_UPPER")
    wide = n.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    mean = n.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = n.op("Concat", wide, mean, axis=1)
    x = n.op("Resize", x, "", n.const([1, 1, 2, 2]), mode="linear", coordinate_transformation_mode="half_pixel")
    x = n.op("Mul", x, n.op("Sigmoid", x))
    x = n.op("ReduceMean", x, axes=[2, 3], keepdims=0)
    logits = n.op("Gemm", x, n.weight(5, 12), n.weight(5), transB=1)
    n.save("mobile.onnx", ["batch", 3, 17, 17], {"logits": (logits, ["batch", 5]), "embedding": (x, ["batch", 12])}, 17)


def tokens():
    n, d, heads = Net(), 8, 2
    x = n.op("Conv", "pixels", n.weight(d, 3, 4, 4), n.weight(d), kernel_shape=[4, 4], strides=[4, 4])
    shape = n.op("Shape", x)
    ends = [n.inner(np.array([2], np.int64)), n.inner(np.array([np.iinfo(np.int64).max], np.int64)), n.inner(np.array([0], np.int64))]
    sides = n.op("Slice", shape, *ends)
    batch = n.op("Unsqueeze", n.op("Gather", n.op("Shape", "pixels"), n.inner(np.int64(0))), n.inner(np.array([0], np.int64)))
    flat = n.op("Concat", batch, n.inner(np.array([d], np.int64)), n.inner(np.array([-1], np.int64)), axis=0)
    x = n.op("Transpose", n.op("Reshape", x, flat), perm=[0, 2, 1])
    # A class token for each picture, as `expand` is exported.
    to = n.op("Concat", batch, n.inner(np.array([-1, -1], np.int64)), axis=0)
    ones = n.op("ConstantOfShape", n.op("Shape", to), value=numpy_helper.from_array(np.array([1], np.int64)))
    minus = n.op("Equal", to, n.op("Mul", ones, n.inner(np.int64(-1))))
    token = n.op("Expand", n.weight(1, 1, d), n.op("Where", minus, ones, to))
    x = n.op("Concat", token, x, axis=1)
    # Positions of a grid of 5 for one of 3, which does not depend on the picture but for its shape.
    size = n.op("Concat", n.inner(np.array([1, d], np.int64)), n.op("Cast", n.op("Cast", sides, to=1), to=7), axis=0)
    places = n.op(
        "Resize", n.weight(1, d, 5, 5), "", "", size,
        mode="cubic", cubic_coeff_a=-0.75, coordinate_transformation_mode="half_pixel", nearest_mode="floor",
    )
    places = n.op("Reshape", n.op("Transpose", places, perm=[0, 2, 3, 1]), n.inner(np.array([1, -1, d], np.int64)))
    x = n.op("Add", x, n.op("Concat", n.weight(1, 1, d), places, axis=1))

    def norm(x):
        centred = n.op("Sub", x, n.op("ReduceMean", x, axes=[-1]))
        variance = n.op("ReduceMean", n.op("Pow", centred, n.inner(np.float32(2))), axes=[-1])
        unit = n.op("Div", centred, n.op("Sqrt", n.op("Add", variance, n.inner(np.float32(1e-6)))))
        return n.op("Add", n.op("Mul", unit, n.weight(d)), n.weight(d))

    y = n.op("Add", n.op("MatMul", norm(x), n.weight(d, 3 * d)), n.weight(3 * d))
    split = lambda x: n.op("Transpose", n.op("Reshape", x, n.inner(np.array([0, 0, heads, d // heads], np.int64))), perm=[0, 2, 1, 3])
    q, k, v = [split(part) for part in n.op("Split", y, n.inner(np.array([d] * 3, np.int64)), outputs=3, axis=-1)]
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 1, 3, 2]))
    root = n.op("Sqrt", n.op("Cast", n.op("Gather", n.op("Shape", q), n.inner(np.int64(-1))), to=1))
    y = n.op("MatMul", n.op("Softmax", n.op("Div", scores, root), axis=-1), v)
    y = n.op("Reshape", n.op("Transpose", y, perm=[0, 2, 1, 3]), n.inner(np.array([0, 0, d], np.int64)))
    x = n.op("Add", x, n.op("MatMul", y, n.weight(d, d)))
    y = n.op("Add", n.op("MatMul", norm(x), n.weight(d, 16)), n.weight(16))
    erf = n.op("Add", n.op("Erf", n.op("Div", y, n.inner(np.float32(2**0.5)))), n.inner(np.float32(1)))
    y = n.op("Mul", n.op("Mul", y, erf), n.inner(np.float32(0.5)))
    x = norm(n.op("Add", x, n.op("MatMul", y, n.weight(16, d))))
    n.save("tokens.onnx", ["batch", 3, "height", "width"], {"last_hidden_state": (x, ["batch", "tokens", d])}, 14)


mobile()
tokens()
expected = {}
for file, side in [("mobile", 17), ("tokens", 12)]:
    # `wave` of the tests, with values 0 to 1.
    x = np.sin(np.arange(3 * 3 * side * side) * 0.013 + 0.2).astype(np.float32).reshape(3, 3, side, side) / 2 + 0.5
    session = onnxruntime.InferenceSession(here / f"{file}.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    expected[file] = {
        name: {"shape": list(y.shape), "values": [float(v) for v in y.ravel()]} for name, y in zip(names, session.run(names, {"pixels": x}))
    }
(here / "encoders.json").write_text(json.dumps(expected) + "\n")
