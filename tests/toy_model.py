"""A network that hears tones and noise, and the ONNX graph that was exported from it, which takes seconds.

``python tests/toy_model.py`` writes both into ``tests/golden`` again; tests read them there.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import toy

from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info

if TYPE_CHECKING:  # most tests do without PyTorch
    from earmark.models import Network

GOLDEN = Path(__file__).with_name("golden")
INFO = ModelInfo(
    name="toy",
    labels=("tone", "noise"),
    front_end=toy.FRONT_END,
    task="multi_label",
    architecture="mn01",
    arguments={"norm_momentum": 0.2},
    window_s=0.5,
    padding="repeat",
    embedding_size=96,
    threshold=0.5,
    description="tones and noise",
    license="MIT",
    source="a test",
    metrics={"accuracy": 0.75, "per_class": {"tone": 1}},
    provenance={"seed": 0},
    card="# toy\n\nhört Töne\n",
)


def toy_network(folder: Path = GOLDEN) -> "Network":
    from safetensors.torch import load_file

    from earmark.models import create_model

    network = create_model(INFO.architecture, num_classes=len(INFO.labels), **INFO.arguments)
    network.load_state_dict(load_file(folder / "toy.safetensors"))
    return network.eval()


def toy_content(info: ModelInfo = INFO, folder: Path = GOLDEN) -> bytes:
    """The content of a model file with the network's graph."""
    return attach_info((folder / "toy.onnx").read_bytes(), info)


def write(folder: Path) -> None:
    from safetensors.torch import save_file

    from earmark.models.onnx_graph import network_to_onnx

    network = toy.lively_network(INFO).half()  # which halves the file
    save_file(network.state_dict(), folder / "toy.safetensors")
    network = toy_network(folder)
    (folder / "toy.onnx").write_bytes(network_to_onnx(network, INFO).SerializeToString())


if __name__ == "__main__":
    write(GOLDEN)
