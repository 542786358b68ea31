"""What a model carries besides its weights, and the file that holds both.

Conventions: one :class:`~earmark.model_file.info.ModelInfo` describes a model everywhere; in files it is
JSON. Damaged or newer files raise a :class:`~earmark.errors.ModelError`. Reading a file needs neither PyTorch
nor ONNX Runtime.
"""
