#!/usr/bin/env python
r"""Measure from which token a query at a given box should take its content.

    python tools/query_content.py --weights output/realtime/alone/model_final.pth

For a trained detector of the RT-DETR line. It is asked on test images, at three kinds of boxes,
with content that is chosen in three ways; docs/realtime.md explains the table.
"""

import argparse
from pathlib import Path

import kddetr  # noqa: F401

# isort: split
import torch
from torch import Tensor

from kddetr.boxes import box_iou
from kddetr.checkpoint import Checkpointer, local_file
from kddetr.detectors import HuggingFaceDetector
from kddetr.detectors.detr.matcher import target_of
from kddetr.detectors.hf.content import CONTENTS
from kddetr.engine import Trainer, build, load_config
from kddetr.errors import UsageError, exit_on_user_error
from kddetr.predictions import LAST
from kddetr.structures import Predictions, Queries

ZEROS = "zeros"
SHIFT = 0.2  # of an object's size, by which its box is moved and scaled


def measure(args: argparse.Namespace) -> None:
    """Ask the detector and print the table."""
    config = args.config_file or str(Path(local_file(args.weights)).parent / "config.yaml")
    cfg = load_config(config, args.overrides)
    detector = Trainer.build_detector(cfg).eval()
    if not isinstance(detector, HuggingFaceDetector):
        raise UsageError(f"A {type(detector).__name__} has no such content: take an RT-DETR.")
    Checkpointer(detector).load(args.weights, strict=True)
    cfg.dataloader.test.mapper.is_train = True  # with the objects
    rows: dict[tuple[str, str], list[Tensor]] = {}
    torch.manual_seed(0)
    with torch.inference_mode():
        for i, batch in enumerate(build(cfg.dataloader.test)):
            if i >= args.batches:
                break
            for key, values in asked(detector, batch).items():
                rows.setdefault(key, []).append(values)
    for (boxes, content), values in rows.items():
        shares = torch.cat(values, dim=1).mean(1)
        print(f"| {boxes} | {content} | {' | '.join(f'{x:.3f}' for x in shares.tolist())} |")


def asked(detector: HuggingFaceDetector, batch: list[dict]) -> dict[tuple[str, str], Tensor]:
    """By kind of boxes and way of content: (2, M) figures of the queries at them."""
    memory = detector.encode(batch)
    own = detector.queries(memory)
    wanted = detector.decode(memory, own, layers=LAST)
    targets = [target_of(x["instances"], detector.device) for x in batch]
    objects = torch.nn.utils.rnn.pad_sequence([t.boxes for t in targets], batch_first=True)
    moved = objects.clone()
    moved[..., :2] += SHIFT * (2 * torch.rand_like(objects[..., :2]) - 1) * objects[..., 2:]
    moved[..., 2:] *= 1 + SHIFT * (2 * torch.rand_like(objects[..., 2:]) - 1)
    found = {}
    for content in (*CONTENTS, ZEROS):
        at_own = predicted(detector, memory, own.boxes, content)
        found["own queries", content] = differences(at_own, wanted)
        for name, boxes in (("objects", objects), ("objects, moved", moved)):
            at_objects = predicted(detector, memory, boxes, content)
            found[name, content] = correct(at_objects, targets)
    return found


def predicted(detector: HuggingFaceDetector, memory, boxes: Tensor, content: str) -> Predictions:
    """The last layer's predictions at boxes (B, N, 4) with content of one kind."""
    if content == ZEROS:
        queries = Queries(boxes, content=boxes.new_zeros(*boxes.shape[:2], memory.tokens.shape[2]))
    else:
        detector.content = content
        queries = detector.make_queries(memory, boxes)
    return detector.decode(memory, queries, layers=LAST)


def differences(found: Predictions, wanted: Predictions) -> Tensor:
    """(2, B * N): the largest difference of a class probability, and 1 - IoU of the boxes."""
    scores = (found.logits[-1].sigmoid() - wanted.logits[-1].sigmoid()).abs().amax(-1)
    return torch.stack([scores, 1 - box_iou(found.boxes[-1], wanted.boxes[-1])]).flatten(1)


def correct(found: Predictions, targets: list) -> Tensor:
    """(2, T): the probability of the object's class, and the IoU with its box."""
    columns = []
    for i, target in enumerate(targets):
        count = len(target.labels)
        scores = found.logits[-1, i, :count].sigmoid().gather(1, target.labels[:, None])[:, 0]
        columns.append(torch.stack([scores, box_iou(found.boxes[-1, i, :count], target.boxes)]))
    return torch.cat(columns, dim=1)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and measure; an error of the user ends in exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--weights", required=True, metavar="FILE", help="the checkpoint")
    add("--config-file", metavar="CONFIG", help="default: config.yaml beside the weights")
    add("--batches", type=int, default=25, help="of test images (default 25)")
    add("overrides", nargs="*", help="key=value of the config")
    with exit_on_user_error():
        measure(parser.parse_args(argv))


if __name__ == "__main__":
    main()
