"""Equalising leaves the outputs of a graph as they are, and balances the ranges of channels."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from earmark.export.equalize import equalize


def conv(name: str, given: str, made: str, weights: str, groups: int = 1) -> onnx.NodeProto:
    pads = [1, 1, 1, 1] if groups > 1 else [0, 0, 0, 0]
    return helper.make_node(
        "Conv", [given, weights, f"{weights}.bias"], [made], name, group=groups, pads=pads
    )


def graph() -> onnx.ModelProto:
    """Mixing, two filters side by side that are summed, ReLU, pooling, mixing; then a residual sum."""
    draw = np.random.default_rng(0)
    shapes = {"mix": (6, 3, 1, 1), "left": (6, 1, 3, 3), "right": (6, 1, 3, 3), "last": (4, 6, 1, 1)}
    shapes["more"] = (4, 4, 1, 1)
    tensors = []
    for name, shape in shapes.items():
        spread = 10.0 ** np.linspace(-1, 1, shape[0])
        values = draw.standard_normal(shape) * spread.reshape(-1, 1, 1, 1)
        tensors.append(numpy_helper.from_array(values.astype(np.float32), name))
        tensors.append(numpy_helper.from_array(spread.astype(np.float32), f"{name}.bias"))
    nodes = [
        conv("a", "given", "mixed", "mix"),
        conv("b", "mixed", "one", "left", 6),
        conv("c", "mixed", "two", "right", 6),
        helper.make_node("Add", ["one", "two"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["positive"]),
        helper.make_node("AveragePool", ["positive"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("d", "pooled", "narrow", "last"),
        conv("e", "narrow", "wide", "more"),
        helper.make_node("Add", ["narrow", "wide"], ["answer"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, None, None])
        for name, channels in (("given", 3), ("answer", 4))
    ]
    made = helper.make_graph(nodes, "toy", ends[:1], ends[1:], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


GIVEN = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)


def outputs(model: onnx.ModelProto, *names: str) -> list[np.ndarray]:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != "answer")
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names), {"given": GIVEN})


def test_outputs_stay_and_ranges_are_balanced() -> None:
    model = graph()

    def ranges(names):
        return {
            name: np.abs(got).max((0, 2, 3)) for name, got in zip(names, outputs(model, *names), strict=True)
        }

    [expected] = outputs(model, "answer")
    before = ranges(["mixed", "one"])
    assert equalize(model, ranges) == 2, "the residual sum has two inputs, and is not changed"
    np.testing.assert_allclose(outputs(model, "answer")[0], expected, rtol=1e-4, atol=1e-3)
    after = ranges(["mixed", "one"])
    np.testing.assert_allclose(after["mixed"], 1, rtol=1e-5)
    assert np.ptp(np.log(after["one"])) < 0.7 * np.ptp(np.log(before["one"]))


def test_shared_weights_are_not_changed() -> None:
    model = graph()
    model.graph.node[2].input[1] = "left"  # both filters have the same weights now
    kept = {tensor.name: tensor.raw_data for tensor in model.graph.initializer}
    assert equalize(model, lambda names: {name: np.ones(4, np.float32) for name in names}) == 0
    assert all(tensor.raw_data == kept[tensor.name] for tensor in model.graph.initializer)
