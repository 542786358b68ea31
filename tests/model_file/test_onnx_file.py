"""A model file is an ONNX model with its model info, and any damage to it is detected."""

import hashlib
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

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

GRAPH = onnx.helper.make_model(
    onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["log_mel"], ["logits"])],
        "graph",
        [onnx.helper.make_tensor_value_info("log_mel", onnx.TensorProto.FLOAT, ["batch"])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch"])],
    ),
    opset_imports=[onnx.helper.make_opsetid("", 20)],
    ir_version=10,
).SerializeToString()


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
