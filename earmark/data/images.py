"""Images in the place of log-mels, to train on before any sound is heard.

Conventions: an image becomes one channel of grey in the shape of a log-mel, (mel, frame): black is silence,
white an energy of 1, on the front-end's scale. An image is (height, width) in the same order, top row first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from earmark.data.dataset import Batch
from earmark.data.manifest import Clip, targets
from earmark.errors import DataError, ModelError, extra
from earmark.features.front_end import FrontEnd

Floats = NDArray[np.float32]
Box = tuple[float, float, float, float]

_LEAST_AREA = 0.25
_WIDEST = 4 / 3
_ATTEMPTS = 10


class ImageDataset(Dataset[Batch]):
    """Images and targets of clips, in the place of :class:`~earmark.data.dataset.ClipDataset`.

    Args:
        clips: Whose paths are images.
        labels: One per class.
        front_end: Whose log-mels they stand for.
        frames: Of such a log-mel.
    """

    def __init__(
        self, clips: Sequence[Clip], labels: Sequence[str], *, front_end: FrontEnd, frames: int
    ) -> None:
        self.clips = list(clips)
        self.targets = torch.from_numpy(targets(clips, labels))
        self.front_end = front_end
        self.frames = frames

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """One image, cut and mirrored by a generator of its own.

        Args:
            key: Position of the clip, and the seed of the cut.

        Returns:
            Features (mel, frame) and targets (class,).

        Raises:
            DataError: If the image cannot be read.
        """
        index, seed = key
        features = read_image(self.clips[index].path, self.front_end, self.frames, seed)
        return torch.from_numpy(features), self.targets[index]

    def reason(self, index: int) -> str:
        """Why an image cannot be read."""
        return f"{self.clips[index].path}: cannot be read as an image"


def image_features(clips: Iterable[Clip], front_end: FrontEnd, frames: int) -> Iterator[tuple[int, Floats]]:
    """Images to judge by, in the place of :func:`earmark.evaluation.network_predictions.clip_windows`.

    Yields:
        Position of the clip, and its features (mel, frame).
    """
    for index, clip in enumerate(clips):
        yield index, read_image(clip.path, front_end, frames)


def read_image(path: Path, front_end: FrontEnd, frames: int, seed: int | None = None) -> Floats:
    """Reads an image as if it were a log-mel.

    Args:
        path: The image.
        front_end: Says how many bands there are, and what silence and an energy of 1 are.
        frames: Wanted.
        seed: Of a random cut (a quarter to all of the area, 3:4 to 4:3) that is mirrored half of the time, as
            in training; None: the largest piece in the middle with the log-mel's own proportions.

    Returns:
        float32, shape (mel, frame).

    Raises:
        DataError: If it is missing or no image.
        ModelError: If the front-end has no floor, so that silence is no number.
        MissingExtraError: If Pillow is not installed.
    """
    if front_end.floor == 0:
        raise ModelError("images need a front-end with a floor: black is what silence is")
    with extra("reading images", "image"):
        from PIL import Image
    size = frames, front_end.n_mels
    try:
        with Image.open(path) as image:
            grey = image.convert("L")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error})") from None
    generator = None if seed is None else np.random.default_rng(seed)
    box = _middle(grey.size, size) if generator is None else _random(grey.size, generator)
    pixels = np.asarray(grey.resize(size, Image.Resampling.BILINEAR, box), np.float32) / np.float32(255)
    if generator is not None and generator.random() < 0.5:
        pixels = pixels[:, ::-1]
    silence, loud = np.float32(front_end.silence), np.float32(front_end.mask_value)
    return np.ascontiguousarray(silence + (loud - silence) * pixels)


def _middle(image: tuple[int, int], wanted: tuple[int, int]) -> Box:
    """Left, top, right and bottom of the largest piece in the middle with the wanted proportions."""
    scale = min(image[0] / wanted[0], image[1] / wanted[1])
    width, height = wanted[0] * scale, wanted[1] * scale
    left, top = (image[0] - width) / 2, (image[1] - height) / 2
    return left, top, left + width, top + height


def _random(image: tuple[int, int], generator: np.random.Generator) -> Box:
    """A random piece, stretched to whatever is wanted; all of the image where none fits."""
    for _ in range(_ATTEMPTS):
        area = image[0] * image[1] * generator.uniform(_LEAST_AREA, 1)
        ratio = np.exp(generator.uniform(-np.log(_WIDEST), np.log(_WIDEST)))
        width, height = float((area * ratio) ** 0.5), float((area / ratio) ** 0.5)
        left, top = generator.random(2)
        if width <= image[0] and height <= image[1]:
            left, top = float(left * (image[0] - width)), float(top * (image[1] - height))
            return left, top, left + width, top + height
    return 0, 0, *image
