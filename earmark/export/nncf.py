"""Quantises graphs with NNCF, in the layout that is fastest in OpenVINO; ONNX Runtime runs them as well.

Conventions: NNCF (extra ``openvino``) is imported where it is used. Its output and telemetry are disabled,
and so are activation ranges per channel, which ONNX Runtime does not support.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from earmark.errors import extra


def nncf_graph(
    model: ModelProto, float_nodes: Sequence[str], inputs: Sequence[Mapping[str, NDArray[np.float32]]]
) -> bytes:
    """Quantises a graph.

    Args:
        model: In float32, with named nodes; it is not changed.
        float_nodes: Names of the nodes that stay in float.
        inputs: Inputs of the graph, window by window, for the ranges.

    Returns:
        The serialised QDQ graph.

    Raises:
        MissingExtraError: If NNCF is not installed.
    """
    with _silence(), extra("int8 for OpenVINO", "openvino"):
        import nncf
        from nncf.quantization.advanced_parameters import QuantizationParameters

        per_tensor = QuantizationParameters(per_channel=False)
        quantized = nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(names=list(float_nodes), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_quantization_params=per_tensor
            ),
        )
    quantized.producer_name, quantized.producer_version = "earmark", ""
    del quantized.metadata_props[:]
    return bytes(quantized.SerializeToString())


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    level, before = logging.root.manager.disable, os.environ.get("NNCF_DEV")
    logging.disable(logging.WARNING)
    os.environ["NNCF_DEV"] = "1"  # disables telemetry
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
        os.environ.pop("NNCF_DEV") if before is None else os.environ.update(NNCF_DEV=before)
