"""The interface of the HEAR benchmark: one vector a clip, and one every 50 ms.

    from earmark.integrations import hear

    model = hear.load_model("mn10_as")
    scenes = hear.get_scene_embeddings(audio, model)
    embeddings, timestamps_ms = hear.get_timestamp_embeddings(audio, model)

Source: Turian et al., arXiv:2203.03022, and its common interface; golden efficientat/hear.

Conventions: audio is float in [-1, 1], shape (clip, time), at ``model.sample_rate``, NumPy's or PyTorch's;
answers are of the same kind. A clip up to a window is heard whole, without padding. Longer ones are cut into
windows of which each is centred on its time: half a window is added at both ends by reflection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from earmark.audio import pad
from earmark.errors import AudioError, ModelError
from earmark.inference.tagger import Tagger

Floats = NDArray[np.float32]

SAMPLE_RATES = (16_000, 22_050, 32_000, 44_100, 48_000)
"""In Hz, those that HEAR has audio at."""
TIMESTAMP_HOP_S = 0.05
TIMESTAMP_WINDOW_S = 0.16
SCENE_HOPS_PER_WINDOW = 4
_TOGETHER = 8
"""Windows whose log-mels are computed together, so that they share frames, and are in memory together."""


class HearModel(Protocol):
    """What HEAR's programs ask of a model."""

    sample_rate: int
    scene_embedding_size: int
    timestamp_embedding_size: int


@dataclass(frozen=True, eq=False)
class Embedder:
    """A model as this interface uses it.

    Args:
        sample_rate: In Hz.
        scene_embedding_size: Values of a clip's vector.
        timestamp_embedding_size: Values of a time's vector.
        embed: (waveform (time,), first samples, length) to the windows' vectors, (window, value).
        min_samples: The shortest window, in samples.
        window_s: Of scenes, in seconds.
        timestamp_window_s: Of timestamps, in seconds.
    """

    sample_rate: int
    scene_embedding_size: int
    timestamp_embedding_size: int
    embed: Callable[[Floats, Sequence[int], int], Floats]
    min_samples: int
    window_s: float = 10.0
    timestamp_window_s: float = TIMESTAMP_WINDOW_S


def load_model(model_file_path: str = "") -> HearModel:
    """Opens a model; its embedding is that of :meth:`earmark.Tagger.embed`.

    Args:
        model_file_path: A model file, a model's name, or nothing for the default model.

    Returns:
        The model; a ``torch.nn.Module`` where PyTorch is installed, since HEAR's programs ask for one.

    Raises:
        ModelError: If the model is unknown or damaged, or its sample rate is none of HEAR's.
    """
    from earmark.inference.load import load

    return of_tagger(load(model_file_path or None))


def of_tagger(tagger: Tagger, *, timestamp_window_s: float = TIMESTAMP_WINDOW_S) -> HearModel:
    """The model of a tagger, such as one of :func:`earmark.inference.stages.load_stages`.

    Args:
        tagger: Its embedding is used.
        timestamp_window_s: Length of the window around each timestamp, in seconds.

    Returns:
        As :func:`load_model`.

    Raises:
        ModelError: If the tagger's sample rate is none of HEAR's.
    """
    info = tagger.info
    rate, size = tagger.sample_rate, info.embedding_size
    if rate not in SAMPLE_RATES:
        raise ModelError(
            f"{info.name} hears at {rate} Hz, HEAR has {', '.join(map(str, SAMPLE_RATES))}: "
            "take another model"
        )
    shortest = info.front_end.min_samples
    return _as_module(
        Embedder(rate, size, size, tagger.embed_windows, shortest, info.window_s, timestamp_window_s)
    )


def get_scene_embeddings(audio: Any, model: HearModel) -> Any:
    """One vector for each clip: of the clip as a whole or, above a window, the mean over windows.

    Source: golden efficientat/hear, entries ``*__scene_*``.

    Args:
        audio: Shape (clip, time), at least one sample.
        model: From :func:`load_model`.

    Returns:
        float32, shape (clip, model.scene_embedding_size).

    Raises:
        AudioError: If the audio has another shape, or holds no samples, NaN or infinite ones.
    """
    embedder, clips = _embedder(model), _checked(audio)
    window = round(embedder.window_s * embedder.sample_rate)
    if clips.shape[1] > window:
        hop = window / SCENE_HOPS_PER_WINDOW
        vectors = np.stack([_embed_centred(embedder, clip, window, hop).mean(0) for clip in clips])
    else:
        padded = [pad(clip, embedder.min_samples, "repeat") for clip in clips]
        vectors = np.concatenate([embedder.embed(clip, [0], len(clip)) for clip in padded])
    return _like(audio, vectors)


def get_timestamp_embeddings(audio: Any, model: HearModel) -> tuple[Any, Any]:
    """Vectors of each clip every 50 ms, each from the window around its time.

    Source: golden efficientat/hear, entries ``*__ts_emb`` and ``*__ts_ms``.

    Args:
        audio: Shape (clip, time), at least one sample.
        model: From :func:`load_model`.

    Returns:
        Embeddings, float32, shape (clip, timestamp, model.timestamp_embedding_size), and the timestamps from
        the clip's start in milliseconds, float32, shape (clip, timestamp); the first is 0, none is past the
        clip's end.

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
    """Vectors of the windows centred on 0, hop, 2 hop, ... up to the clip's end: (window, value)."""
    padded = np.pad(clip, (window // 2, window - window // 2), mode="reflect")
    starts = [round(number * hop) for number in range(int(len(clip) / hop) + 1)]
    blocks = (starts[first : first + _TOGETHER] for first in range(0, len(starts), _TOGETHER))
    return np.concatenate([embedder.embed(padded, block, window) for block in blocks])


def _as_module(embedder: Embedder) -> HearModel:
    """Dresses a model as the module that HEAR's programs insist on, where PyTorch is installed."""
    try:
        from torch import nn
    except ModuleNotFoundError:
        return cast(HearModel, embedder)
    module: Any = nn.Module()
    module.embedder = embedder
    for name in HearModel.__annotations__:
        setattr(module, name, getattr(embedder, name))
    dressed: HearModel = module
    return dressed


def _embedder(model: HearModel) -> Embedder:
    embedder = getattr(model, "embedder", model)
    if not isinstance(embedder, Embedder):
        raise ModelError("this is no model of earmark.integrations.hear: load_model gives one")
    return embedder


def _checked(audio: Any) -> Floats:
    values = np.asarray(audio.detach().cpu() if hasattr(audio, "detach") else audio)
    if values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise AudioError(
            f"audio must be numbers in [-1, 1] of shape (clip, time), not {values.dtype} {values.shape}"
        )
    if not np.isfinite(values).all():
        raise AudioError("the audio holds samples that are NaN or infinite: mend or leave out such clips")
    return np.ascontiguousarray(values, np.float32)


def _like(audio: Any, values: Floats) -> Any:
    """The values as a tensor where the audio is one."""
    return audio.new_tensor(values).float() if hasattr(audio, "new_tensor") else values
