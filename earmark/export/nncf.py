"""A graph in 8 bits as OpenVINO computes it quickest, by NNCF; ONNX Runtime runs it as well.

Conventions: NNCF (the extra ``openvino``) is loaded where it is used. It is kept from printing, from the
network, and from ranges for each channel of an activation, which ONNX Runtime does not know.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from earmark.errors import extra


def nncf_graph(
    model: ModelProto, in_float: Sequence[str], feeds: Sequence[dict[str, NDArray[np.float32]]]
) -> bytes:
    """Quantises a graph.

    Args:
        model: Of float32, whose nodes have names; it is left as it is.
        in_float: Names of nodes that are to stay in float.
        feeds: What the graph is given, window by window; ranges are measured on them.

    Returns:
        The serialised QDQ graph.

    Raises:
        MissingExtraError: If NNCF is not installed.
    """
    with _silent(), extra("int8 for OpenVINO", "openvino"):
        import nncf
        from nncf.quantization.advanced_parameters import QuantizationParameters

        whole = QuantizationParameters(per_channel=False)
        made = nncf.quantize(
            model,
            nncf.Dataset(list(feeds)),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(names=list(in_float), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_quantization_params=whole),
        )
    made.producer_name, made.producer_version = "earmark", ""
    del made.metadata_props[:]
    return bytes(made.SerializeToString())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    level, before = logging.root.manager.disable, os.environ.get("NNCF_DEV")
    logging.disable(logging.WARNING)
    os.environ["NNCF_DEV"] = "1"  # sends nothing home
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
        os.environ.pop("NNCF_DEV") if before is None else os.environ.update(NNCF_DEV=before)
