"""Waveform -> log-mel spectrogram: the constants of each front-end, and the transform in NumPy.

Conventions: a waveform is float32 in [-1, 1], shape (time,) or (batch, time), at the front-end's
``sample_rate``; features are float32, shape (mel, frame) or (batch, mel, frame). Frequencies are in Hz,
lengths in samples. The same transform in PyTorch is :mod:`earmark.models.log_mel`.
"""
