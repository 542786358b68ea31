"""Computes the features of examples with the base model, and keeps them by content.

Conventions: windows, decoding and front-end are those of :class:`earmark.Tagger`, so a clip has the same
windows here and in ``earmark tag``. Features are float32, (window, feature). The cache has a file for each
clip, named by the SHA-256 of the audio file, its region, its variant and the base model.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earmark.audio import load_piece, open_audio
from earmark.custom.augment import vary
from earmark.custom.example import Example
from earmark.custom.graph_head import feature_name, with_feature_output
from earmark.data.manifest import file_hash
from earmark.errors import AudioError, EarmarkError, ModelError, contained
from earmark.hub import registry
from earmark.hub.pull import pull
from earmark.inference.engines import Session, open_engine
from earmark.inference.feature_extractor import FeatureExtractor
from earmark.inference.tagger import Tagger
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file

if TYPE_CHECKING:
    from earmark.hub.download import Progress

Floats = NDArray[np.float32]
MAX_WINDOWS = 720
"""Windows of a clip that are kept: an hour of 5 s each."""
FULL_SCALE = 0.999
"""Absolute value from which a sample counts as clipped, if its neighbour does too."""
TOLERANCE_S = 0.1
"""How far a region may reach beyond the end of its recording."""
_STATISTICS = 4
AHEAD = 4
"""Clips per worker that are submitted ahead, so that memory does not grow with their number."""


@dataclass(frozen=True)
class Clip:
    """What is known about the sound of an example.

    Attributes:
        features: float32, (window, feature).
        digest: SHA-256 of the content: of the file, and the region within it.
        duration_s: In seconds.
        peak: Highest absolute sample.
        rms: Root mean square of the samples.
        clipped: Share of the samples at full scale, where several follow each other.
    """

    features: Floats
    digest: str
    duration_s: float
    peak: float
    rms: float
    clipped: float


@dataclass(frozen=True)
class Base:
    """The base model: its file, and a tagger whose embedding is the features.

    Attributes:
        content: The model file.
        info: Its model info.
        feature: Name of the features in the graph.
        tagger: Returns the features of windows as their embeddings.
        mark: Identifies the model in the cache.
    """

    content: bytes
    info: ModelInfo
    feature: str
    tagger: Tagger
    mark: str


class _FeatureSession:
    """Runs a graph whose output "embedding" is the features."""

    def __init__(self, session: Session, feature: str) -> None:
        self._session, self._feature = session, feature

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        """Computes the named outputs."""
        wanted = [self._feature if name == "embedding" else name for name in names]
        return self._session.run(wanted, inputs)


def open_base(model: str | os.PathLike[str] | None, progress: Progress | None = None) -> Base:
    """Opens a base model, downloaded first if it is a published one.

    Args:
        model: A name or the path of a model file; None: the default model.
        progress: As for :func:`earmark.load`.

    Raises:
        ModelError: If it cannot be opened, or is a checkpoint.
    """
    if model is not None and Path(model).suffix == ".safetensors":
        raise ModelError(f"{os.fspath(model)}: the base must be a model file (.onnx): export the checkpoint")
    known = None if registry.lookup(model) else registry.published().get(os.fspath(model or ""))
    if known and known.labels:
        pull(known.name, progress=progress)
    path = registry.find(model)
    content, info = read_model_file(path)
    feature = feature_name(content)
    session = open_engine(with_feature_output(content, feature), path, threads=1)
    # The features' length is that of the session's answer; the tagger does not check it.
    tagger = Tagger(_FeatureSession(session, feature), info)
    return Base(content, info, feature, tagger, hashlib.sha256(content).hexdigest())


def extract(
    base: Base,
    examples: Sequence[Example],
    *,
    variant: int = 0,
    seed: int = 0,
    cache: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Iterator[Clip | EarmarkError]:
    """Computes features of examples, several at once.

    Args:
        base: The base model.
        examples: The examples.
        variant: 0: the clips as they are; above: a variation of that number.
        seed: Of the variations.
        cache: Whether the cache is used.
        workers: Threads; None: one per core.
        progress: Called with the number of clips done and of all.

    Yields:
        For each example, in order, its clip, or the error if it cannot be read.
    """
    folder = registry.cache_folder() / "features" / base.mark[:16] if cache else None

    def one(example: Example) -> Clip | EarmarkError:
        try:
            return _clip(base, example, folder, variant, seed)
        except Exception as error:
            return contained(error, example.name)

    count = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(count) as pool:
        for done, clip in enumerate(_ordered(pool, one, examples, count * AHEAD), start=1):
            progress(done, len(examples))
            yield clip


def _ordered(
    pool: ThreadPoolExecutor,
    function: Callable[[Example], Clip | EarmarkError],
    examples: Iterable[Example],
    ahead: int,
) -> Iterator[Clip | EarmarkError]:
    waiting: deque[Future[Clip | EarmarkError]] = deque()
    for example in examples:
        waiting.append(pool.submit(function, example))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _clip(base: Base, example: Example, folder: Path | None, variant: int, seed: int) -> Clip:
    region = "" if example.end_s is None else f" {example.start_s!r} {example.end_s!r}"
    try:
        digest = file_hash(example.path) + region
    except OSError as error:
        raise AudioError(f"{example.path}: {error.strerror}") from None
    key = hashlib.sha256(f"{digest} {variant} {seed if variant else 0}".encode()).hexdigest()
    path = folder / key[:2] / f"{key}.npy" if folder else None
    stored = None if path is None else _stored(path)
    if stored is None:
        stored = _computed(base, example, variant, seed, digest)
        if path is not None:
            _store(path, stored)
    values = stored[0, :_STATISTICS].tolist()
    return Clip(stored[1:], digest, *values)


def _stored(path: Path) -> Floats | None:
    """A row of statistics, then those of windows; None where there is no such file, or it is damaged."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    usable = found.ndim == 2 and len(found) > 1 and found.dtype == np.float32
    return np.asarray(found, np.float32) if usable else None


def _store(path: Path, values: Floats) -> None:
    file = io.BytesIO()
    np.save(file, values)
    write_atomically(path, file.getvalue())


def log_mels(base: Base, example: Example) -> Iterator[Floats]:
    """Computes the inputs of the network for the windows of an example, as many as :func:`extract` does.

    Raises:
        AudioError: If the clip cannot be read.
    """
    info = base.info
    length = info.num_samples(info.window_s)
    with _opened(base, example) as (rate, blocks):
        groups = FeatureExtractor(info.front_end).stream(blocks, rate, length, length, info.padding)
        for window in islice(chain.from_iterable(groups), MAX_WINDOWS):
            yield window.features


@contextmanager
def _opened(base: Base, example: Example) -> Iterator[tuple[int, Iterator[Floats]]]:
    """Sample rate and blocks of an example."""
    if example.end_s is not None:
        rate = base.tagger.sample_rate
        yield rate, iter([read_region(example, rate)])
        return
    with open_audio(str(example.path)) as stream:
        yield stream.sample_rate, stream.blocks()


def _computed(base: Base, example: Example, variant: int, seed: int, digest: str) -> Floats:
    with _opened(base, example) as (rate, blocks):
        levels = _Levels(rate)
        sound: Iterable[Floats] = levels.measured(blocks)
        if variant:
            rng = np.random.default_rng([seed, variant, int(digest[:8], 16)])
            sound = [vary(np.concatenate(list(sound)), rate, variant, rng)]
        windows = base.tagger.stream(sound, rate)
        features = np.stack([window.embedding for window in islice(windows, MAX_WINDOWS)])
    rows = np.zeros((len(features) + 1, features.shape[1]), np.float32)
    rows[0, :_STATISTICS], rows[1:] = levels.values(), features
    return rows


def read_region(example: Example, rate: int) -> Floats:
    """Reads the samples of a region, float32 (time,), at a sample rate.

    Raises:
        AudioError: If the recording ends before the region does, or cannot be read.
    """
    assert example.end_s is not None
    length, first = max(1, round((example.end_s - example.start_s) * rate)), round(example.start_s * rate)
    slack = round(TOLERANCE_S * rate)

    def place(excess: int) -> int:
        if first > excess + slack:
            raise AudioError(f"{example.name}: the recording ends before this region does")
        return min(first, excess)

    waveform, _ = load_piece(str(example.path), rate, length, place)
    if len(waveform) < length:
        place(0)
    return waveform


class _Levels:
    """Levels of a sound, measured while it is read."""

    def __init__(self, rate: int) -> None:
        self._rate, self._samples, self._clipped = rate, 0, 0
        self._peak = self._energy = 0.0

    def measured(self, blocks: Iterable[Floats]) -> Iterator[Floats]:
        """Yields the blocks as they are."""
        for block in blocks:
            loud = np.abs(block)
            full = loud >= FULL_SCALE
            self._samples += block.size
            self._peak = max(self._peak, float(loud.max()))
            self._energy += float(np.dot(block, block))
            self._clipped += int((full[1:] & full[:-1]).sum())
            yield block

    def values(self) -> tuple[float, float, float, float]:
        """Duration in seconds, peak, root mean square, and share of clipped samples."""
        count = max(1, self._samples)
        return self._samples / self._rate, self._peak, (self._energy / count) ** 0.5, self._clipped / count
