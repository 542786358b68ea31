from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from earmark.frontend import FrontEnd
from earmark.record import Record

if TYPE_CHECKING:
    from earmark.models import Network

TOY_FRONT_END = FrontEnd(sample_rate=8000, n_fft=256, win_length=256, hop_length=160, n_mels=32, f_max=3900.0)
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings and goldens that lies beside the project and is never committed."""
    if not SHARED.is_dir():
        pytest.skip("no folder 'shared' beside the project: its recordings and goldens are not committed")
    return SHARED


@pytest.fixture(scope="session")
def record() -> Record:
    """The record of a small network with two labels; make variants of it with ``record.changed``."""
    return Record(
        name="toy",
        labels=("tone", "noise"),
        front_end=TOY_FRONT_END,
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


@pytest.fixture(scope="session")
def exported(record: Record, tmp_path_factory: pytest.TempPathFactory) -> tuple["Network", Path]:
    """A network whose answers depend on what it hears, and the model file that was exported from it."""
    from earmark.deploy.export import export_model

    network = lively_network(record)
    path = tmp_path_factory.mktemp("exported") / "toy.onnx"
    export_model(network, record, path)
    return network, path


def lively_network(record: Record) -> "Network":
    """A network of random weights of such sizes, and with such running statistics, that signals pass through."""
    import torch  # here, because most tests do without

    from earmark.models import create_model

    torch.manual_seed(0)
    network = create_model(record.architecture, num_classes=len(record.labels), **record.arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.kaiming_normal_(parameter)
        for _ in range(20):
            network(torch.randn(8, record.front_end.n_mels, 26))
    return network.eval()
