"""Packs: the clips of a manifest in few large files, for reading at the speed of training.

Conventions: a pack is a folder with ``pack.json`` (what it is), ``clips.csv`` (a manifest of what it holds),
``bad.csv`` (what was left out, and why) and the clips: mono, 16 bit, all of one sample rate, as shards
(``000000.tar`` in WebDataset's layout), as arrays (``000000.npy``, to be mapped into memory), each with its
index beside it, or as one HDF5 file in the layout of PaSST and EfficientAT. Files are written whole or not at
all. A clip of a pack is a :class:`~earmark.data.manifest.Clip` whose ``member`` is its place in the file.
"""
