"""The nodes of a graph.

Source: the messages of onnx.proto3 (https://github.com/onnx/onnx).

Conventions: a node is kept as it is encoded, beside the names that it reads and writes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from earmark.model_file.protobuf import encode, fields, find

NODE = 1
"""Number of the field of a graph that holds its nodes."""
_INPUT, _OUTPUT, _OPERATOR, _ATTRIBUTE = 1, 2, 4, 5  # of NodeProto
_SUBGRAPHS = (6, 11)  # of AttributeProto


@dataclass(frozen=True)
class GraphNode:
    """A node.

    Args:
        operator: Its kind.
        inputs: Names of the values that it reads; "" where an optional one is missing.
        outputs: Names of the values that it writes.
        encoded: The field of the graph that holds it.
        has_subgraph: Whether it has graphs of its own, which may read any value.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    encoded: bytes
    has_subgraph: bool

    def renamed(self, old: str, new: str) -> GraphNode:
        """Returns the node with another name of one output."""
        if old not in self.outputs:
            return self
        changed = [
            encode(_OUTPUT, new.encode())
            if part.number == _OUTPUT and bytes(part.value) == old.encode()
            else bytes(part.encoded)
            for part in fields(find(self.encoded, NODE))
        ]
        outputs = tuple(new if name == old else name for name in self.outputs)
        return replace(self, outputs=outputs, encoded=encode(NODE, b"".join(changed)))


def graph_nodes(graph: bytes | memoryview) -> list[GraphNode]:
    """Returns the nodes of a serialised GraphProto, in its order."""
    return [_parse(field.value, field.encoded) for field in fields(graph) if field.number == NODE]


def _parse(message: memoryview, encoded: memoryview) -> GraphNode:
    texts: dict[int, list[str]] = {_INPUT: [], _OUTPUT: [], _OPERATOR: []}
    has_subgraph = False
    for part in fields(message):
        if part.number in texts:
            texts[part.number].append(bytes(part.value).decode())
        elif part.number == _ATTRIBUTE:
            has_subgraph |= any(one.number in _SUBGRAPHS for one in fields(part.value))
    operator = (texts[_OPERATOR] or [""])[0]
    return GraphNode(operator, tuple(texts[_INPUT]), tuple(texts[_OUTPUT]), bytes(encoded), has_subgraph)
