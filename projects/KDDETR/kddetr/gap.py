"""The gap: how far a student's predictions are from its teacher's at the same points.

A distillation loss depends on its weights, its temperature and its reduction. The figures here do
not. They do depend on the points, so they can be compared between runs with the same sampler, query
placement and seed.

Shape letters: B images, N points, K classes.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .boxes import box_iou
from .losses import BinaryCrossEntropy, ForegroundWeight
from .structures import Predictions, Queries

FIGURES = {
    "agreement": "share of the points with the same most likely class",
    "iou": "mean IoU of the two boxes",
    "kl": "mean KL divergence of the classes, in nats",
}
FOREGROUND = "_fg"  # ends the name of a mean that is weighted by the teacher's certainty

_divergence = BinaryCrossEntropy(weight=1.0, temperature=1.0)


def gap_at_points(student: Predictions, teacher: Predictions) -> dict[str, Tensor]:
    """The three figures at every point, each (B, N), of the last layers and without a gradient.

    - ``agreement``: 1 where the most likely class is the same, otherwise 0.
    - ``iou``: of the two boxes, in [0, 1]. Of a detector with a box for every class, the box of the
      teacher's class, as in the losses.
    - ``kl``: the divergence KL(teacher || student) of every class's sigmoid at temperature 1, at
      least 0, in nats, summed over the classes. Sigmoids are what the detectors here give as
      scores, and a softmax of a single class would say nothing.

    Args:
        student, teacher: predictions of any layers at the same points; the last ones count.
    """
    student, teacher = student.last().detach(), teacher.last().detach()
    best = teacher.logits[-1].argmax(-1)
    student, teacher = student.of_classes(best), teacher.of_classes(best)
    classes = teacher.logits.shape[-1]
    return {
        "agreement": (student.logits[-1].argmax(-1) == best).float(),
        "iou": box_iou(student.boxes[-1].float(), teacher.boxes[-1].float()),
        # That loss is the same divergence, averaged over the classes.
        "kl": classes * _divergence(student, teacher)[-1].clamp(min=0),
    }


def gap_sums(student: Predictions, teacher: Predictions, points: Queries) -> dict[str, Tensor]:
    """Sums of the figures over the points, by group of points; sums of batches can be added.

    Args:
        student, teacher: see :func:`gap_at_points`.
        points: of the predictions; only their groups are read.

    Returns:
        (2, 4) for each group. The columns are agreement, IoU, KL and the number of points, the
        second row is weighted by :class:`~kddetr.losses.ForegroundWeight`. Points that a recorded
        teacher has not answered count 0.
    """
    figures = gap_at_points(student, teacher)
    columns = torch.stack([*figures.values(), torch.ones_like(figures["iou"])])
    weights = ForegroundWeight()(teacher)
    plain = torch.ones_like(weights)
    if teacher.answered is not None:
        answered = teacher.answered[-1]
        weights, plain = weights * answered, plain * answered
    table = torch.stack([plain, weights])[:, None] * columns  # (2, 4, B, N)
    sizes = list(points.groups.values())
    return {
        name: part.sum((2, 3))
        for name, part in zip(points.groups, table.split(sizes, dim=-1), strict=True)
    }


def gap_means(sums: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, dict[str, float]]:
    """The figures of each group: ``agreement``, ``iou``, ``kl``, and ``agreement_fg``, ``iou_fg``,
    ``kl_fg``, weighted by foreground.

    Args:
        sums: (2, 4) for each group, see :func:`gap_sums`, added up over batches and processes; a
            group without points is left out.
    """
    means: dict[str, dict[str, float]] = {}
    for group, rows in sums.items():
        for ending, (*summed, weight) in zip(("", FOREGROUND), rows, strict=True):
            if weight:
                values = (float(value / weight) for value in summed)
                named = zip((name + ending for name in FIGURES), values, strict=True)
                means.setdefault(group, {}).update(named)
    return means


def gap_table(means: Mapping[str, Mapping[str, float]]) -> str:
    """The figures of :func:`gap_means` as a Markdown table, one row for each group of points."""
    names = [name + ending for ending in ("", FOREGROUND) for name in FIGURES]
    lines = [f"| points | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for group, values in means.items():
        cells = (f"{values[name]:.4f}" if name in values else "" for name in names)
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return "\n".join(lines)
