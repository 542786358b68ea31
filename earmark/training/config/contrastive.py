"""The table ``contrastive`` of a recipe: pretraining on clips without labels.

Conventions: as for the other tables; whatever needs labels is refused beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from earmark.model_file.info import LONGEST_WINDOW_S
from earmark.training.config.section import Count, Positive, Section


class Contrastive(Section):
    """Contrastive pretraining, in place of labels; ``augment`` applies to one of the two crops."""

    kind: Literal["cola", "simclr"]
    """Bilinear similarity of anchors and positives (COLA), or cosine similarity of all crops (SimCLR)."""
    crop_s: Annotated[float, Field(gt=0, le=LONGEST_WINDOW_S)]
    """Length of the two random crops of each window."""
    projection_size: Count = 512
    """Channels of the projection that is compared."""
    temperature: Positive = 0.1
    """For simclr: divides the cosine similarities."""


def contrastive_problem(recipe: Any) -> str | None:
    """What of a recipe with a table ``contrastive`` does not fit it; None: everything does."""
    found: Mapping[str, bool] = {
        "learns without labels: set labelled = false for each of data.sources": any(
            source.labelled for source in recipe.data.sources
        ),
        "has no classes: remove data.labels": recipe.data.labels is not None,
        "has one run: name at most one fold in data.folds": len(recipe.data.folds) > 1,
        "learns without a teacher: remove [teacher]": bool(recipe.teacher),
        "is for sound, and the clips are images": recipe.data.is_images,
        "crops by itself: replace augment.crop_s by contrastive.crop_s": bool(recipe.augment.crop_s),
        "trains the backbone: optimizer.backbone_lr_scale must be above 0": (
            recipe.optimizer.backbone_lr_scale == 0
        ),
        "compares a clip with others: optimizer.batch_size must be at least 2": (
            recipe.optimizer.batch_size < 2
        ),
        "has no scores to choose a threshold by: remove evaluation.negative_manifests": bool(
            recipe.evaluation.negative_manifests
        ),
        "has no scores to calibrate: remove evaluation.calibration": (
            recipe.evaluation.calibration is not None
        ),
    }
    problem = next((text for text, is_found in found.items() if is_found), None)
    return None if problem is None else f"contrastive pretraining {problem}"
