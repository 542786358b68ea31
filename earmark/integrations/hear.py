"""The interface of the HEAR benchmark: one vector per clip, and one every 50 ms.

    from earmark.integrations import hear

    model = hear.load_model("mn10_as")
    scenes = hear.get_scene_embeddings(audio, model)
    embeddings, timestamps_ms = hear.get_timestamp_embeddings(audio, model)

Source: Turian et al., arXiv:2203.03022, and its common interface; golden efficientat/hear.

Conventions: audio is float in [-1, 1], shape (clip, time), at ``model.sample_rate``, an array of NumPy or a
tensor of PyTorch; outputs are of the same kind. A clip up to one window long is processed as a whole, without
padding. Longer ones are cut into windows that are centred on their times: both ends are padded by half a
window of reflected signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from earmark.audio import pad
from earmark.errors import AudioError, ModelError
from earmark.inference.pooling import pool_windows
from earmark.inference.tagger import Tagger

Floats = NDArray[np.float32]

SAMPLE_RATES = (16_000, 22_050, 32_000, 44_100, 48_000)
"""Sample rates of HEAR's audio in Hz."""
TIMESTAMP_HOP_S = 0.05
TIMESTAMP_WINDOW_S = 0.16
SCENE_HOPS_PER_WINDOW = 4
_WINDOWS_PER_CHUNK = 8
"""Windows whose log-mels are computed in one call, so that they share frames."""


class HearModel(Protocol):
    """The attributes of a model that HEAR's programs read."""

    sample_rate: int
    scene_embedding_size: int
    timestamp_embedding_size: int


@dataclass(frozen=True, eq=False)
class Embedder:
    """A model as this interface uses it.

    Args:
        sample_rate: Sample rate in Hz.
        scene_embedding_size: Channels of the embedding of a clip.
        timestamp_embedding_size: Channels of the embedding of a timestamp.
        embed: From a waveform (time,), first samples and a length to embeddings (window, channel).
        min_samples: Length of the shortest window in samples.
        window_s: Length of the windows of scenes in seconds.
        timestamp_window_s: Length of the windows of timestamps in seconds.
    """

    sample_rate: int
    scene_embedding_size: int
    timestamp_embedding_size: int
    embed: Callable[[Floats, Sequence[int], int], Floats]
    min_samples: int
    window_s: float = 10.0
    timestamp_window_s: float = TIMESTAMP_WINDOW_S


def load_model(
    model_file_path: str = "", *, stages: Sequence[str] | None = None, pool: str = "mean", device: str = "cpu"
) -> HearModel:
    """Opens a model.

    Args:
        model_file_path: Path of a model file or checkpoint, or name of a model; empty: the default model.
        stages: Stages of the network that make up the embedding, as for
            :func:`earmark.inference.stages.load_stages`; they run in PyTorch on the CPU. None: for a
            published mn the stages that its authors chose for HEAR (arXiv:2305.19294), for others the
            embedding of :meth:`earmark.Tagger.embed`.
        pool: How feature maps of stages become vectors.
        device: As for :func:`earmark.load`, without stages.

    Returns:
        The model; a ``torch.nn.Module`` if PyTorch is installed, which HEAR's programs require.

    Raises:
        ModelError: If the model is unknown or damaged, has no such stage, its sample rate is not one of
            HEAR's, or the device is not available.
        MissingExtraError: If there are stages and PyTorch is not installed.
    """
    from earmark.hub.registry import published
    from earmark.inference.load import load
    from earmark.inference.stages import load_stages

    known = published().get(model_file_path)
    if stages is None and not (known and known.architecture.startswith("mn")):
        return of_tagger(load(model_file_path or None, device=device))
    if device != "cpu":
        raise ModelError(f"stages of a network are computed on the CPU, got device {device!r}: omit it")
    return of_tagger(load_stages(model_file_path, stages or (), pool))


def of_tagger(tagger: Tagger, *, timestamp_window_s: float = TIMESTAMP_WINDOW_S) -> HearModel:
    """Returns the model of a tagger, such as one of :func:`earmark.inference.stages.load_stages`.

    Args:
        tagger: Provides the embedding.
        timestamp_window_s: Length of the window around each timestamp in seconds.

    Returns:
        As :func:`load_model`.

    Raises:
        ModelError: If the sample rate of the tagger is not one of HEAR's.
    """
    info = tagger.info
    rate, size = tagger.sample_rate, info.embedding_size
    if rate not in SAMPLE_RATES:
        raise ModelError(
            f"{info.name}: the sample rate must be {', '.join(map(str, SAMPLE_RATES))} Hz, got {rate}: "
            "choose another model"
        )
    shortest = info.front_end.min_samples
    return _as_module(
        Embedder(rate, size, size, tagger.embed_windows, shortest, info.window_s, timestamp_window_s)
    )


def get_scene_embeddings(audio: Any, model: HearModel) -> Any:
    """Computes one embedding per clip: of the whole clip or, above one window, the mean over windows.

    Source: golden efficientat/hear, entries ``*__scene_*``.

    Args:
        audio: Shape (clip, time), at least one sample.
        model: From :func:`load_model`.

    Returns:
        float32, shape (clip, model.scene_embedding_size).

    Raises:
        AudioError: If the audio has another shape, no samples, or NaN or infinite samples.
    """
    embedder, clips = _embedder(model), _checked(audio)
    window = round(embedder.window_s * embedder.sample_rate)
    if clips.shape[1] > window:
        hop = window / SCENE_HOPS_PER_WINDOW
        vectors = np.stack(
            [pool_windows(_embed_centred(embedder, clip, window, hop), "mean") for clip in clips]
        )
    else:
        padded = [pad(clip, embedder.min_samples, "repeat") for clip in clips]
        vectors = np.concatenate([embedder.embed(clip, [0], len(clip)) for clip in padded])
    return _like(audio, vectors)


def get_timestamp_embeddings(audio: Any, model: HearModel) -> tuple[Any, Any]:
    """Computes an embedding every 50 ms, each of the window around its time.

    Source: golden efficientat/hear, entries ``*__ts_emb`` and ``*__ts_ms``.

    Args:
        audio: Shape (clip, time), at least one sample.
        model: From :func:`load_model`.

    Returns:
        Embeddings, float32, shape (clip, timestamp, model.timestamp_embedding_size), and timestamps in
        milliseconds from the start of the clip, float32, shape (clip, timestamp); the first is 0, none is
        past the end of the clip.

    Raises:
        AudioError: As for :func:`get_scene_embeddings`.
    """
    embedder, clips = _embedder(model), _checked(audio)
    window = max(round(embedder.timestamp_window_s * embedder.sample_rate), embedder.min_samples)
    hop = TIMESTAMP_HOP_S * embedder.sample_rate
    vectors = np.stack([_embed_centred(embedder, clip, window, hop) for clip in clips])
    times_ms = np.arange(vectors.shape[1], dtype=np.float32) * np.float32(1000 * TIMESTAMP_HOP_S)
    return _like(audio, vectors), _like(audio, np.tile(times_ms, (len(clips), 1)))


def _embed_centred(embedder: Embedder, clip: Floats, window: int, hop: float) -> Floats:
    """Embeddings of windows centred on 0, hop, 2 hop, ... up to the end of the clip: (window, channel)."""
    padded = np.pad(clip, (window // 2, window - window // 2), mode="reflect")
    starts = [round(number * hop) for number in range(int(len(clip) / hop) + 1)]
    chunks = (
        starts[first : first + _WINDOWS_PER_CHUNK] for first in range(0, len(starts), _WINDOWS_PER_CHUNK)
    )
    return np.concatenate([embedder.embed(padded, chunk, window) for chunk in chunks])


def _as_module(embedder: Embedder) -> HearModel:
    """Wraps a model in the module that HEAR's programs require, if PyTorch is installed."""
    try:
        from torch import nn
    except ModuleNotFoundError:
        return cast(HearModel, embedder)
    module: Any = nn.Module()
    module.embedder = embedder
    for name in HearModel.__annotations__:
        setattr(module, name, getattr(embedder, name))
    wrapped: HearModel = module
    return wrapped


def _embedder(model: HearModel) -> Embedder:
    embedder = getattr(model, "embedder", model)
    if not isinstance(embedder, Embedder):
        raise ModelError(
            f"the model must be one of earmark.integrations.hear.load_model, got {type(model).__name__}"
        )
    return embedder


def _checked(audio: Any) -> Floats:
    values = np.asarray(audio.detach().cpu() if hasattr(audio, "detach") else audio)
    if values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise AudioError(
            f"audio must be float in [-1, 1], shape (clip, time), got {values.dtype}, shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise AudioError("audio must be finite, got samples that are NaN or infinite: leave out such clips")
    return np.ascontiguousarray(values, np.float32)


def _like(audio: Any, values: Floats) -> Any:
    """The values as a tensor if the audio is one."""
    return audio.new_tensor(values).float() if hasattr(audio, "new_tensor") else values
