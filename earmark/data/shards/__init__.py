"""Packs: the clips of a manifest in few large files, which training reads fast.

Conventions: a pack is a folder with ``pack.json`` (its description), ``clips.csv`` (the manifest of its
clips), ``bad.csv`` (skipped clips, with reasons) and the clips: mono, 16 bit, all at one sample rate, as
shards (``000000.tar`` in WebDataset's layout), as arrays (``000000.npy``, memory-mapped), each with an index
file, or as one HDF5 file in the layout of PaSST and EfficientAT. Files are written whole or not at all. A
clip of a pack is a :class:`~earmark.data.manifest.Clip` whose ``member`` is its index in the file.
"""
