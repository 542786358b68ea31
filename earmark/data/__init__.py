"""Clips on disk and the batches that training reads: manifests, corpora, packs, datasets, augmentation.

Conventions: a clip is a row of a manifest (:class:`~earmark.data.manifest.Clip`); waveforms are mono float32
(time,), targets float32 (clip, class): 0, 1, or NaN where unknown.
"""
