"""Writes `tiny.onnx` with the `onnx` package: one of each message that `src/model/onnx/messages.rs` declares.

    pip install onnx numpy        # made with onnx 1.23.2
    python tests/golden/onnx/make.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

gemm = helper.make_node("Gemm", ["features", "weight"], ["product"], name="gemm", alpha=0.5, transA=0, transB=1)
length = helper.make_node("ReduceL2", ["product"], ["length"], name="length", axes=[1])
reshape = helper.make_node("Reshape", ["length", "shape"], ["answer"], name="reshape")
graph = helper.make_graph(
    [gemm, length, reshape],
    "tiny",
    [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3], "what goes in")],
    [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["rows", 2], "what comes out")],
    [
        numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "weight"),
        numpy_helper.from_array(np.array([-1, 2], np.int64), "shape"),
    ],
)
model = helper.make_model(
    graph, producer_name="a test", producer_version="1", ir_version=8, opset_imports=[helper.make_opsetid("", 17)], doc_string="a test"
)
helper.set_model_props(model, {"key": "value"})
onnx.checker.check_model(model, full_check=True)
(Path(__file__).parent / "tiny.onnx").write_bytes(model.SerializeToString(deterministic=True))
