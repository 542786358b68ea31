"""Names of models -> model files: the registry, downloads, conversion.

Conventions: downloaded and converted files are in one cache folder. Published
models need no PyTorch; the conversion of other weights needs the extra "train".
"""
