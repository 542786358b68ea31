"""What a fit returns: something that computes logits of windows, and the graph that does the same.

Conventions: rows are those of a table; logits are float32 (row, class).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from earmark.custom.features import Base
from earmark.custom.graph_head import Layer, apply, with_classifier
from earmark.custom.table import Floats, Table
from earmark.model_file.info import ModelInfo

Mask = NDArray[np.bool_]


class Classifier(Protocol):
    """A classifier that was fitted."""

    def logits(self, rows: NDArray[np.int64]) -> Floats:
        """Computes the logits of rows of the table, all of them windows of clips as they are."""

    def graph(self, base: Base, info: ModelInfo) -> bytes:
        """Returns the graph, a serialised ModelProto, given the base and the info of the new model."""


Fitter = Callable[[Table, Mask], Classifier]
"""Fits a classifier to some clips of a table, (clip,)."""


class LayerClassifier:
    """Fully connected layers on the features of the base model."""

    def __init__(self, table: Table, layers: Sequence[Layer]) -> None:
        self.layers = layers
        self._table = table

    def logits(self, rows: NDArray[np.int64]) -> Floats:
        """Computes the logits of rows."""
        return apply(self.layers, self._table.features[rows])

    def graph(self, base: Base, info: ModelInfo) -> bytes:
        """Returns the graph of the base with these layers in place of its classifier."""
        return with_classifier(base.content, base.feature, self.layers)
