"""A model file is an ONNX model with its model info, and any damage to it is detected."""

import hashlib
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import toy

from earmark.errors import ModelError
from earmark.model_file.info import INFO_VERSION
from earmark.model_file.onnx_file import (
    HASH_KEY,
    INFO_KEY,
    attach_info,
    read_info,
    read_model_file,
    read_weights,
)
from earmark.model_file.protobuf import encode

SHAPES = {"log_mel": ["batch", 32, "frame"], "logits": ["batch", 2], "embedding": ["batch", 96]}
"""As the model info of the tests describes them."""


def graph(
    shapes=SHAPES, element=onnx.TensorProto.FLOAT, nodes=(), inputs=("log_mel",), **parts
) -> onnx.ModelProto:
    """A small graph that declares an input and outputs."""
    values = {
        name: onnx.helper.make_tensor_value_info(name, element, shape) for name, shape in shapes.items()
    }
    return onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes
            or [
                onnx.helper.make_node("Identity", ["log_mel"], [name])
                for name in shapes
                if name not in inputs
            ],
            "graph",
            [values[name] for name in inputs],
            [value for name, value in values.items() if name not in inputs],
            **parts,
        ),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )


GRAPH = graph().SerializeToString()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "toy.onnx"


def refusal(path, content: bytes) -> str:
    """The error message about a file: one line that names it."""
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_model_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def file_with(text: str) -> bytes:
    """A small model file with any text in place of the model info; its hash is valid."""
    return attach_info(GRAPH, SimpleNamespace(to_json=lambda: text))


def test_the_info_is_read_back(path, info):
    path.write_bytes(attach_info(GRAPH, info))
    content, found = read_model_file(path)
    assert content == path.read_bytes()
    assert found == info == read_info(path)


@pytest.mark.parametrize("length", [1, 127, 128, 16_383, 16_384, 70_000])
def test_an_info_of_any_length_is_read_back(path, info, length):
    long = info.changed(card="ü" * length)
    path.write_bytes(attach_info(GRAPH, long))
    assert read_info(path) == long


def test_the_hash_covers_graph_and_info(info):
    content = attach_info(GRAPH, info)
    body, entry = content[:-84], content[-84:]
    assert body.startswith(GRAPH)
    assert info.to_json().encode() in body
    assert entry[-64:] == hashlib.sha256(body).hexdigest().encode()


def test_onnx_reads_info_and_hash_as_metadata(info):
    content = attach_info(GRAPH, info)
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    digest = hashlib.sha256(content[:-84]).hexdigest()
    assert metadata == {INFO_KEY.decode(): info.to_json(), HASH_KEY.decode(): digest}


def test_a_graph_with_metadata_of_its_own_keeps_it(path, info):
    model = onnx.load_model_from_string(GRAPH)
    model.metadata_props.add(key="author", value="someone")
    path.write_bytes(attach_info(model.SerializeToString(), info))
    assert read_info(path) == info
    assert onnx.load(path).metadata_props[0].value == "someone"


def test_a_changed_byte_is_detected(path, info):
    content = attach_info(GRAPH, info.changed(card=""))
    for position in (*range(0, len(content), 5), *range(len(content) - 84, len(content))):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        refusal(path, bytes(damaged))


def test_a_truncated_file_is_detected(path, info):
    content = attach_info(GRAPH, info.changed(card=""))
    for length in (*range(0, len(content), 5), *range(len(content) - 84, len(content))):
        refusal(path, content[:length])


def test_extra_bytes_are_detected(path, info):
    content = attach_info(GRAPH, info)
    refusal(path, content + b"\0")
    refusal(path, b"\0" + content)
    refusal(path, content + content[-84:])


@pytest.mark.parametrize("content", [b"", b"not ONNX" * 100, b"\x89PNG\r\n\x1a\n" * 50, bytes(1000), GRAPH])
def test_other_files_are_refused(path, content):
    assert "not a complete model file" in refusal(path, content)


def test_a_model_of_a_newer_earmark_asks_for_an_upgrade(path, info):
    text = info.to_json().replace(f'"version": {INFO_VERSION}', f'"version": {INFO_VERSION + 1}')
    assert "upgrade earmark" in refusal(path, file_with(text))


@pytest.mark.parametrize("text", ["", "{}", "[]", "no JSON", '{"version": 1}'])
def test_an_invalid_info_is_refused(path, text):
    assert "metadata" in refusal(path, file_with(text))


def test_a_model_without_info_is_refused(path):
    model = onnx.load_model_from_string(GRAPH)
    digest = hashlib.sha256(GRAPH).hexdigest()
    model.metadata_props.add(key=HASH_KEY.decode(), value=digest)
    content = GRAPH + model.SerializeToString()[-84:]
    assert "no model info" in refusal(path, content)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"none\.onnx"):
        read_info(tmp_path / "none.onnx")
    with pytest.raises(ModelError):
        read_info(tmp_path)


class TestARealModel:
    def test_its_info_is_read_back(self, exported, info):
        assert read_info(exported[1]) == info

    def test_onnx_and_onnx_runtime_read_its_metadata(self, exported, info):
        content, _ = read_model_file(exported[1])
        expected = {
            INFO_KEY.decode(): info.to_json(),
            HASH_KEY.decode(): hashlib.sha256(content[:-84]).hexdigest(),
        }
        model = onnx.load(exported[1])
        onnx.checker.check_model(model, full_check=True)
        assert {entry.key: entry.value for entry in model.metadata_props} == expected
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        assert session.get_modelmeta().custom_metadata_map == expected

    def test_its_weights_are_read(self, exported):
        content, _ = read_model_file(exported[1])
        stored = onnx.load(exported[1]).graph.initializer
        expected = {
            entry.name: onnx.numpy_helper.to_array(entry)
            for entry in stored
            if entry.name.startswith("class")
        }
        found = read_weights(content, "class")
        assert len(found) == len(expected) > 1
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values.ravel())
        assert not read_weights(content, "no such")

    def test_a_changed_byte_is_detected(self, exported, path):
        content = exported[1].read_bytes()
        for position in range(0, len(content), len(content) // 40):
            damaged = bytearray(content)
            damaged[position] ^= 0x10
            assert "damaged" in refusal(path, bytes(damaged))


def external(name: str) -> onnx.TensorProto:
    """A tensor whose values are the bytes of another file."""
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    return tensor


def nested(tensor: onnx.TensorProto) -> onnx.NodeProto:
    """A node with a graph inside that has this tensor as a constant."""
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    return onnx.helper.make_node("If", ["log_mel"], ["logits"], then_branch=branch, else_branch=branch)


def sparse(tensor: onnx.TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=tensor, indices=onnx.numpy_helper.from_array(np.arange(2)), dims=[2])


def function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = graph()
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    model.functions.add(name="f", domain="d").node.append(constant)
    return model


@pytest.mark.parametrize(
    "model",
    [
        graph(initializer=[external("w")]),
        graph(nodes=[nested(external("w"))]),
        graph(sparse_initializer=[sparse(external("w"))]),
        function(external("w")),
    ],
    ids=["initializer", "branch", "sparse", "function"],
)
def test_weights_in_other_files_are_refused(path, info, model):
    assert "keeps 'w' in another file" in refusal(path, attach_info(model.SerializeToString(), info))


def test_a_graph_of_two_parts_is_refused(path, info):
    assert "one graph" in refusal(path, attach_info(GRAPH + GRAPH, info))


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ("tone", "noise", "rain")},
        {"labels": ("tone",), "threshold": 0.5},
        {"embedding_size": 95},
        {"front_end": toy.FRONT_END.from_dict(toy.FRONT_END.to_dict() | {"n_mels": 33})},
    ],
    ids=["more labels", "fewer labels", "embedding", "n_mels"],
)
def test_an_info_of_another_graph_is_refused(path, info, changes):
    assert "the model info describes" in refusal(path, attach_info(GRAPH, info.changed(**changes)))


@pytest.mark.parametrize(
    "model",
    [
        graph(element=onnx.TensorProto.DOUBLE),
        graph(SHAPES | {"log_mel": ["batch", 32, 7]}),
        graph(SHAPES | {"log_mel": [1, 1, 32, "frame"]}),
        graph(SHAPES | {"x": ["batch"]}, inputs=("log_mel", "x")),
        graph({"waveform": ["batch", "time"]} | SHAPES, inputs=("waveform", "log_mel")),
        graph(
            {"mel": SHAPES["log_mel"]} | {name: SHAPES[name] for name in ("logits", "embedding")},
            inputs=("mel",),
        ),
        graph({name: SHAPES[name] for name in ("log_mel", "logits")}),
        graph(SHAPES | {"logits": [2]}),
        graph(SHAPES | {"logits": ["batch", "frame", 2]}),
    ],
)
def test_another_graph_than_the_info_describes_is_refused(path, info, model):
    assert "the model info describes" in refusal(path, attach_info(model.SerializeToString(), info))


@pytest.mark.parametrize(
    "model", [graph(SHAPES | {"log_mel": [1, 32, 25]}), graph(SHAPES | {"logits": ["a", "b"]})]
)
def test_lengths_may_be_fixed_or_open(path, info, model):
    path.write_bytes(attach_info(model.SerializeToString(), info))
    assert read_info(path) == info


@pytest.mark.parametrize("tail", [b"\x0b", b"\x0a\x7f", b"\x08" + b"\xff" * 12, b"\x0d\0"])
def test_malformed_fields_are_refused(path, info, tail):
    """A wire type of long ago, a length beyond the end, a number without one, half a fixed value."""
    model = onnx.load_model_from_string(GRAPH)
    content = GRAPH + encode(7, model.graph.SerializeToString()[:0] + tail)
    refusal(path, attach_info(content, info))


def test_an_info_that_json_readers_take_differently_is_refused(path, info):
    text = info.to_json()
    for broken in (
        text.replace('"window_s": 0.5', '"window_s": NaN'),
        text.replace('"window_s": 0.5', '"window_s": 1e999'),
        text.replace('"window_s": 0.5', '"window_s": 0.5, "window_s": 0.6'),
        text.replace('"window_s": 0.5', '"window_s": 600.5'),
        text.replace('"tone"', '"\\ud800"', 1),
        text.replace('"arguments": {', '"arguments": ' + "[" * 100_000),
    ):
        assert broken != text
        refusal(path, file_with(broken))
