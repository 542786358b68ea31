"""Nodes of a graph, against onnx's own reading of it."""

import onnx
from onnx import TensorProto, helper

from earmark.model_file.graph_nodes import graph_nodes


def graph() -> onnx.GraphProto:
    """A sum, and a condition whose branches are graphs of their own."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    branches = {
        name: helper.make_graph(
            [helper.make_node(operator, ["x"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])],
        )
        for name, operator in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    nodes = [
        helper.make_node("Add", ["x", "x"], ["sum"]),
        helper.make_node("If", ["condition"], ["chosen"], **branches),
        helper.make_node("Clip", ["chosen", "", "sum"], ["logits"]),
    ]
    return helper.make_graph(nodes, "graph", [value], [])


def test_nodes_are_those_that_onnx_reads() -> None:
    written = graph()
    found = graph_nodes(written.SerializeToString())
    assert [(one.operator, list(one.inputs), list(one.outputs)) for one in found] == [
        (one.op_type, list(one.input), list(one.output)) for one in written.node
    ]
    assert [one.has_subgraph for one in found] == [False, True, False]
    assert onnx.GraphProto.FromString(b"".join(one.encoded for one in found)).node == written.node


def test_an_output_gets_another_name() -> None:
    nodes = graph_nodes(graph().SerializeToString())
    assert nodes[0].renamed("logits", "other") == nodes[0]
    renamed = nodes[2].renamed("logits", "other")
    [read] = onnx.GraphProto.FromString(renamed.encoded).node
    assert (list(read.input), list(read.output)) == (["chosen", "", "sum"], ["other"])
    assert (renamed.inputs, renamed.outputs) == (nodes[2].inputs, ("other",))
