"""Compares the filters of a snapshot with the teacher's: a student is to hold weights of its own.

    python recipes/general/similarity.py --teacher mn04_as_mAP_432.pt runs/general/1/snapshot_0001000.pt

For each layer whose filters have the same size in both networks (the first convolution and the depthwise
ones), the mean over the student's filters of the largest absolute cosine with any of
the teacher's, beside the same for a student with random weights. 1 means copies.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from stages import NUM_CLASSES, TEACHER_WIDTH, WIDTH
from torch import Tensor, nn

from earmark.errors import EarmarkError
from earmark.models.registry import create_model
from earmark.models.weights import build_with_weights, read_state_dict


def spatial_filters(network: nn.Module) -> list[Tensor]:
    """The filters of every convolution of one input channel per filter: shape (channel, size)."""
    return [
        module.weight.detach().flatten(1)
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and module.weight.shape[1] == 1 and module.kernel_size != (1, 1)
    ]


def best_cosine(filters: Tensor, others: Tensor) -> float:
    """Mean over filters of the largest absolute cosine with any other."""
    normed, others = (nn.functional.normalize(rows, dim=1) for rows in (filters, others))
    return float((normed @ others.T).abs().max(1).values.mean())


def student_network(snapshot: Path) -> Any:
    """The network of a snapshot."""
    tensors = torch.load(snapshot, map_location="cpu", weights_only=True)["ema"]
    tensors = {name: one.float() if one.is_floating_point() else one for name, one in tensors.items()}
    return build_with_weights("mobilenet", {"width": WIDTH}, NUM_CLASSES, tensors)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--teacher", type=Path, required=True, help="published weights of mn04_as")
    args = parser.parse_args()
    try:
        published = read_state_dict(args.teacher)
        teacher = build_with_weights("mobilenet", {"width": TEACHER_WIDTH}, NUM_CLASSES, published)
        student = student_network(args.snapshot)
    except (EarmarkError, OSError) as error:
        print(f"similarity.py: {error}", file=sys.stderr)
        return 1
    torch.manual_seed(0)
    random = create_model("mobilenet", width=WIDTH, num_classes=NUM_CLASSES)
    print("| layer | filters | size | student | random weights |\n| --- | --- | --- | --- | --- |")
    rows = zip(*(spatial_filters(network) for network in (student, teacher, random)), strict=True)
    for number, (own, theirs, other) in enumerate(rows):
        cosines = f"{best_cosine(own, theirs):.2f} | {best_cosine(other, theirs):.2f}"
        print(f"| {number} | {len(own)} | {own.shape[1]} | {cosines} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
