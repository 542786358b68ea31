"""Names of models -> model files: the registry, downloads, conversion.

Conventions: downloaded and converted files are in one cache folder. Conversion needs the extra "train".
"""
