"""ONNX Runtime, imported with its telemetry off; every module of earmark takes it from here.

Conventions: its builds collect usage data from version 1.31 on: they write a device identifier and a database
under ``~/.cache/Microsoft`` and look up the collector's address. ``ORT_DISABLE_TELEMETRY`` is read while the
library loads, so it is set during the import only; the environment of other libraries and of child processes
stays as it was. Where a program imported ONNX Runtime before earmark, its choice stands.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "ORT_DISABLE_TELEMETRY"


@contextmanager
def _without_telemetry() -> Iterator[None]:
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


with _without_telemetry():
    import onnxruntime

__all__ = ["onnxruntime"]
