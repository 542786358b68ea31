"""Exports models: to other runtimes, as one file of several models, and in smaller forms.

Conventions: the outputs of an export are verified against the model before anything is written. All of it
needs the extra ``train``.
"""

# Loads ONNX Runtime without telemetry, before a module of this room imports ``onnxruntime.quantization``.
import earmark.model_file.onnx_runtime  # noqa: F401
