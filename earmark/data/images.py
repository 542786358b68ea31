"""Images as log-mels, for pretraining.

Conventions: an image becomes one grey channel in the shape of a log-mel, (mel, frame): black is silence,
white an energy of 1, on the front-end's scale. An image is (height, width) in the same order, top row first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from earmark.data.dataset import Batch
from earmark.data.manifest import Clip, targets
from earmark.data.read_clip import read_each
from earmark.errors import DataError, ModelError, contained, extra
from earmark.features.front_end import FrontEnd

Floats = NDArray[np.float32]
Box = tuple[float, float, float, float]

_MIN_AREA = 0.25
_MAX_RATIO = 4 / 3
_ATTEMPTS = 10


class ImageDataset(Dataset[Batch]):
    """Images and targets of clips, instead of :class:`~earmark.data.dataset.ClipDataset`.

    Args:
        clips: Clips whose paths are images.
        labels: One per class.
        front_end: Of the log-mels that they replace.
        frames: Of such a log-mel.
        tolerant: Return NaN for an image that cannot be read.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: Sequence[str],
        *,
        front_end: FrontEnd,
        frames: int,
        tolerant: bool = False,
    ) -> None:
        self.clips = list(clips)
        self.targets = torch.from_numpy(targets(clips, labels))
        self.front_end = front_end
        self.frames = frames
        self.tolerant = tolerant

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """A random crop of an image.

        Args:
            key: Index of the clip, and the seed of the crop.

        Returns:
            Features (mel, frame) and targets (class,).

        Raises:
            EarmarkError: If the image cannot be read, unless ``tolerant``.
        """
        index, seed = key
        try:
            features = read_image(self.clips[index].path, self.front_end, self.frames, seed)
        except Exception as error:
            if not self.tolerant:
                raise contained(error, str(self.clips[index].path)) from None
            return self.unreadable(index)
        return torch.from_numpy(features), self.targets[index]

    def unreadable(self, index: int) -> Batch:
        """NaN and the targets of an image, where it cannot be read."""
        return torch.full((self.front_end.n_mels, self.frames), torch.nan), self.targets[index]

    def reason(self, index: int) -> str:
        """The reason why an image cannot be read; it is read again."""
        try:
            read_image(self.clips[index].path, self.front_end, self.frames)
        except Exception as error:
            return str(contained(error, str(self.clips[index].path)))
        return f"{self.clips[index].path}: could not be read before, but can be now"


def image_features(
    clips: Iterable[Clip],
    front_end: FrontEnd,
    frames: int,
    on_error: Callable[[int, str], object] | None = None,
) -> Iterator[tuple[int, Floats]]:
    """Images for an evaluation, as :func:`earmark.evaluation.network_predictions.clip_windows` for clips.

    Yields:
        Index of the clip, and its features (mel, frame).
    """
    return read_each(clips, lambda clip: read_image(clip.path, front_end, frames), on_error)


def read_image(path: Path, front_end: FrontEnd, frames: int, seed: int | None = None) -> Floats:
    """Reads an image as a log-mel.

    Args:
        path: The image.
        front_end: Number of mel bands, and values of silence and an energy of 1.
        frames: Of the log-mel.
        seed: Of a random crop (a quarter to all of the area, 3:4 to 4:3), mirrored half of the time, as in
            training; None: the largest centre crop with the log-mel's proportions.

    Returns:
        float32, shape (mel, frame).

    Raises:
        DataError: If the file is missing or not an image.
        ModelError: If the front-end has no floor.
        MissingExtraError: If Pillow is not installed.
    """
    if front_end.floor == 0:
        raise ModelError("images need a front-end with a floor, the value of black")
    with extra("reading images", "image"):
        from PIL import Image
    size = frames, front_end.n_mels
    try:
        with Image.open(path) as image:
            grey = image.convert("L")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error})") from None
    generator = None if seed is None else np.random.default_rng(seed)
    box = _center_crop(grey.size, size) if generator is None else _random_crop(grey.size, generator)
    pixels = np.asarray(grey.resize(size, Image.Resampling.BILINEAR, box), np.float32) / np.float32(255)
    if generator is not None and generator.random() < 0.5:
        pixels = pixels[:, ::-1]
    silence, loud = np.float32(front_end.silence), np.float32(front_end.mask_value)
    return np.ascontiguousarray(silence + (loud - silence) * pixels)


def _center_crop(image: tuple[int, int], size: tuple[int, int]) -> Box:
    """Left, top, right and bottom of the largest centre crop with the proportions of a size."""
    scale = min(image[0] / size[0], image[1] / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = (image[0] - width) / 2, (image[1] - height) / 2
    return left, top, left + width, top + height


def _random_crop(image: tuple[int, int], generator: np.random.Generator) -> Box:
    """A random crop; the whole image where none fits."""
    for _ in range(_ATTEMPTS):
        area = image[0] * image[1] * generator.uniform(_MIN_AREA, 1)
        ratio = np.exp(generator.uniform(-np.log(_MAX_RATIO), np.log(_MAX_RATIO)))
        width, height = float((area * ratio) ** 0.5), float((area / ratio) ** 0.5)
        left, top = generator.random(2)
        if width <= image[0] and height <= image[1]:
            left, top = float(left * (image[0] - width)), float(top * (image[1] - height))
            return left, top, left + width, top + height
    return 0, 0, *image
