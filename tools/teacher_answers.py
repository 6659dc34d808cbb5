#!/usr/bin/env python
r"""What a teacher's answers hold: how many points are about an object, and how right they are.

    python tools/teacher_answers.py configs/quickstart/distilled.py \
        configs/quickstart/anchors_distilled_from_dino.py

Each config is one of a distillation. Its teacher is asked at the points of its sampler, on the
first validation images, and the answers are compared with the labels; docs/evidence.md has the
table and what it shows.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
import torch
from torch import Tensor

from kddetr.boxes import box_iou
from kddetr.checkpoint import atomic_write
from kddetr.detectors.detr.matcher import Target, target_of
from kddetr.engine import Trainer, build, load_config, require_sections
from kddetr.engine.watch import compared
from kddetr.errors import UsageError, exit_on_user_error
from kddetr.losses import ForegroundWeight
from kddetr.structures import Predictions

FIGURES = {  # and the heads of their columns
    "weight": "weight of a point",  # mean foreground weight
    "effective": "points that count",  # (sum of weights)^2 / sum of squares / points
    "right": "weight on right answers",  # its share; right: class, and an IoU of at least 0.5
    "found": "objects found",  # share of the objects with a right answer
    "iou": "IoU of right answers",  # mean, with their object, by weight
    "near": "IoU with the point",  # mean, of an answer with the box of its point, by weight
    "second": "second class over first",  # ratio of their probabilities, by weight
}
LEAST_IOU = 0.5


def measure(config: str, images: int) -> dict[str, dict[str, float]]:
    """The figures of a config's teacher, by group of points: means over the images.

    Args:
        config: of a distillation, with labelled test data.
        images: how many of them.

    Raises:
        UsageError: the config has no teacher.
    """
    cfg = load_config(config)
    require_sections(cfg, "model", "dataloader")
    if "teacher" not in cfg.model:
        raise UsageError(f"{config} has no teacher: name the config of a distillation.")
    cfg.dataloader.test.mapper.is_train = True  # with the objects
    model, loader = Trainer.build_model(cfg).eval(), build(cfg.dataloader.test)
    rows: dict[str, list[Tensor]] = {}
    for inputs, _, answers, points in compared(model, loader, images, seed=0):
        targets = [target_of(x["instances"], answers.boxes.device) for x in inputs]
        asked = points.boxes.expand_as(answers.boxes[-1]).split([*points.groups.values()], dim=1)
        parts = answers.split(points.groups).items()
        for (name, part), boxes in zip(parts, asked, strict=True):
            rows.setdefault(name, []).extend(figures(part, boxes, targets))
    return {
        name: dict(zip(FIGURES, torch.stack(values).nanmean(0).tolist(), strict=True))
        for name, values in rows.items()
    }


def figures(answers: Predictions, asked: Tensor, targets: list[Target]) -> list[Tensor]:
    """Of each image the :data:`FIGURES`; NaN where an image has no object, or no right answer.

    Args:
        answers: of the teacher.
        asked: (B, N, 4) the boxes of the points, ``cxcywh``.
        targets: the objects of each image.
    """
    found = []
    near = box_iou(answers.boxes[-1], asked)
    weights = ForegroundWeight()(answers)
    scores, labels = answers.logits[-1].sigmoid().sort(dim=-1, descending=True)
    second = scores[..., 1:2].sum(-1) / scores[..., 0]  # 0 where there is only one class
    for i, target in enumerate(targets):
        weight = weights[i]
        iou = box_iou(answers.boxes[-1, i, :, None], target.boxes[None])  # (N, T)
        right = (iou >= LEAST_IOU) & (labels[i, :, :1] == target.labels)
        of_right = weight * right.any(1)
        found.append(
            torch.stack(
                [
                    weight.mean(),
                    weight.sum() ** 2 / weight.square().sum() / len(weight),
                    of_right.sum() / weight.sum(),
                    right.any(0).float().mean(),
                    (weight * (iou * right).sum(1)).sum() / (weight * right.sum(1)).sum(),
                    (weight * near[i]).sum() / weight.sum(),
                    (weight * second[i]).sum() / weight.sum(),
                ]
            )
        )
    return found


def table(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The figures as a Markdown table, a row for each group of points and teacher; empty where
    there are none.
    """
    lines = [["points", "config of the teacher", *FIGURES.values()], ["---"] * (2 + len(FIGURES))]
    for name in dict.fromkeys(name for groups in measured.values() for name in groups):
        for config, groups in measured.items():
            if values := groups.get(name):
                figures = (f"{values[key]:.3f}" for key in FIGURES)
                lines.append([name, f"`{Path(config).stem}`", *figures])
    if len(lines) == 2:
        return ""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, measure, and print the table; an error of the user ends in exit
    code 2.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("configs", nargs="+", metavar="CONFIG", help="config of a distillation")
    add("--images", type=int, default=200, help="how many images (default %(default)s)")
    add("--output", default="", metavar="FILE", help="JSON file of the figures")
    args = parser.parse_args(argv)
    with exit_on_user_error():
        measured = {config: measure(config, args.images) for config in args.configs}
        print(table(measured))
        if args.output:
            text = json.dumps(measured, indent=1).encode()
            atomic_write(args.output, lambda stream: stream.write(text))


if __name__ == "__main__":
    main()
