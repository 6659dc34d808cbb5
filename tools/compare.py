r"""Compare two checkpoints at the same points: a table of the gap, and a picture of the points at
which they differ most.

    python tools/compare.py --config-file configs/quickstart/distilled.py \
        teacher output/quickstart/distilled/model_final.pth

A is asked at the points, as a teacher is, and B is compared with it. With the config of a
distillation, A is a checkpoint of its teacher, or the word "teacher" for the one that the config
names, and B is one of its student; the points are those of the config. With the config of a
detector, A and B are two checkpoints of it, or A is one of the detector of --config-of-a. Then, and
where the sampler of the config makes no points, these are 300 random boxes and A's own queries. The
images are the first test images of the config.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
import torch
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from kddetr import KDDETR
from kddetr.boxes import cxcywh_to_xyxy
from kddetr.checkpoint import WrapperState, load_pretrained, read_checkpoint
from kddetr.engine import Trainer, build, load_config, require_sections, resolve_device
from kddetr.engine.config.calls import walk
from kddetr.engine.evaluation.sets import by_evaluation_set, has_test_data
from kddetr.engine.watch import added_sums, compared, read_sums
from kddetr.errors import UsageError, exit_on_user_error
from kddetr.gap import gap_at_points, gap_means, gap_sums, gap_table
from kddetr.losses import ForegroundWeight, WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from kddetr.projection import ContentProjection
from kddetr.structures import Predictions, Queries
from kddetr.teachers import Vocabulary, trained_classes
from kddetr.visualization import detections_side_by_side

SHOWN_IMAGES, SHOWN_POINTS = 4, 5
COLOURS = 10  # of a picture's palette, after which they repeat
DEFAULT_POINTS = "300 random boxes and A's own queries"
COLUMNS = ("points (number, difference)", "A (number: class, score)", "B (number: class, score)")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, compare, print the table and write the files; an error of the user
    ends in exit code 2.
    """
    args = parse(argv)
    with exit_on_user_error():
        cfg = load_config(args.config_file, args.overrides)
        require_sections(cfg, "model", "dataloader")
        if not has_test_data(cfg):
            raise UsageError(
                f"{args.config_file} names no test data: set dataloader.test.dataset, or take the"
                " config of a run that was evaluated."
            )
        model = pair(cfg, args).to(resolve_device(cfg.train.device))
        part = next(iter(by_evaluation_set(cfg).values()))
        loader, asked = Trainer.build_test_loader(part), (args.images, cfg.train.seed)
        means, worst = table_and_differences(model, loader, *asked)
        if not means:
            print(f"The sampler of the config makes no points: they are {DEFAULT_POINTS} instead.")
            del model.sampler  # if it is a module, nothing else can be assigned in its place
            model.sampler = default_sampler()
            means, worst = table_and_differences(model, loader, *asked)
        print(gap_table(means))
        folder = Path(args.output)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gap.json").write_text(json.dumps(means, indent=1))
        if worst:
            print(draw(worst, trained_classes(model.student), folder / "differences.png"))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, help="config of B, or of a distillation")
    add("--config-of-a", metavar="CONFIG", help="config of A, where it is another detector")
    add("--images", type=int, default=100, help="how many test images (default 100)")
    add("--output", default="output/compare", metavar="DIR", help="folder of gap.json and picture")
    add("a", metavar="A", help='checkpoint that is asked, or "teacher"')
    add("b", metavar="B", help="checkpoint that is compared with it")
    add("overrides", nargs="*", help="key=value of --config-file")
    args = parser.parse_intermixed_args(argv)  # overrides may follow the options
    if args.images < 1:
        parser.error(f"--images {args.images} is not a whole number of at least 1")
    return args


def default_sampler() -> JointSampler:
    """The points where a config has none, see ``DEFAULT_POINTS``."""
    return JointSampler([GeneralSampler(), SpecificSampler()])


def table_and_differences(
    model: KDDETR, loader: Iterable[list[dict]], count: int, seed: int
) -> tuple[dict[str, dict[str, float]], list["Difference"]]:
    """The figures of the gap, and the few images whose points differ most; both are empty without
    points. See :func:`~kddetr.engine.watch.compared` for the arguments.
    """
    sums, worst = [], []
    for inputs, *predictions in compared(model, loader, count, seed=seed):
        sums.append(read_sums(gap_sums(*predictions)))
        worst = most_different([*worst, *differences(inputs, *predictions)])
    return gap_means(added_sums(sums)), worst


def pair(cfg: DictConfig, args: argparse.Namespace) -> KDDETR:
    """B as the student of A, at the points of the config where it has some."""
    student = load_pretrained(Trainer.build_detector(cfg), args.b)
    teacher = detector_a(cfg, args, trained_classes(student))
    node = cfg.model if "sampler" in cfg.model else {}
    placement = build(node["query_placement"]) if node.get("query_placement") else None
    parts = {
        "student": student,
        "teacher": teacher,
        "sampler": build(node["sampler"]) if node else default_sampler(),
        "loss": WeightedMeanLoss(student_layers="last"),
    }
    if placement is None and ContentProjection.between(teacher, student) is not None:
        state = read_checkpoint(args.b).get("wrapper") or {}
        # What B was trained with; its loss may have had weights too, which compare nothing here.
        if state := {k: v for k, v in state.items() if k.startswith("projection.")}:
            model = KDDETR(**parts)
            own = WrapperState(model)
            own.load_state_dict(own.state_dict() | state)
            return model
        print("A and B learn embeddings of different widths: B gets the boxes of A's queries only.")
        placement = boxes_only
    return KDDETR(**parts, query_placement=placement)


def boxes_only(points: Queries, answers: Predictions) -> Queries:
    """A query placement: the boxes of the points, without the teacher's embeddings."""
    return points.boxes_only()


def detector_a(cfg: DictConfig, args: argparse.Namespace, wanted: Sequence[str]) -> nn.Module:
    """A, with B's classes where both files say their classes."""
    if not args.config_of_a and "teacher" in cfg.model:
        node = cfg.model.teacher
        if args.a != "teacher":
            OmegaConf.update(node, checkpoint_key(node), args.a)
        return build(node)
    if args.a == "teacher":
        raise UsageError(
            "The word teacher means the one of --config-file: with --config-of-a, name A's file."
            if args.config_of_a
            else "The config has no teacher: name A's checkpoint."
        )
    if args.config_of_a:
        cfg = load_config(args.config_of_a, [])
        require_sections(cfg, "model")
    detector = load_pretrained(Trainer.build_detector(cfg), args.a)
    classes = trained_classes(detector)
    if classes and wanted and list(classes) != list(wanted):
        return Vocabulary(detector=detector, classes=list(classes), wanted=list(wanted))
    return detector


def checkpoint_key(teacher: DictConfig) -> str:
    """The key of the one checkpoint that a teacher is read from."""
    tree = OmegaConf.to_container(teacher, resolve=True)
    keys = [key for key, _ in walk(tree) if key.endswith("checkpoint")]
    if not keys:
        raise UsageError(
            "The teacher of the config is read from no checkpoint: write the word teacher instead"
            " of A's file."
        )
    if len(keys) > 1:
        raise UsageError(
            f"The teacher of the config is read from {len(keys)} checkpoints, {', '.join(keys)}:"
            " write the word teacher instead of A's file, and name other files with overrides,"
            f" model.teacher.{keys[0]}=FILE."
        )
    return keys[0]


@dataclass(frozen=True)
class Difference:
    """The points of one image at which A and B differ most.

    Attributes:
        image: (H, W, 3) uint8.
        name: of the image.
        size: (n,) how much they differ, from 0 to 1, the largest first.
        places: (n, 4) boxes of the points; None where they have no sizes.
        answers: of A and of B, each (n, 4) boxes, (n,) scores and (n,) classes.
    """

    image: Any
    name: str
    size: Tensor
    places: Tensor | None
    answers: list[tuple[Tensor, Tensor, Tensor]]


def differences(
    inputs: list[dict], student: Predictions, teacher: Predictions, points: Queries
) -> list[Difference]:
    """The most different points of each image.

    Two predictions differ by the largest difference of a class's probability, or by 1 - IoU times
    the foreground weight, whichever is larger.
    """
    iou = gap_at_points(student, teacher)["iou"]
    asked = [p.logits[-1].float().sigmoid() for p in (teacher, student)]  # each (B, N, K)
    apart = torch.maximum(
        (asked[0] - asked[1]).abs().amax(-1), (1 - iou) * ForegroundWeight()(teacher)
    )
    found = []
    for i, x in enumerate(inputs):
        size, order = apart[i].topk(min(SHOWN_POINTS, apart.shape[1]))
        answers = []
        for p, probabilities in zip((teacher, student), asked, strict=True):
            scores, classes = probabilities[i, order].max(-1)
            answers.append((p.boxes[-1, i, order].cpu(), scores.cpu(), classes.cpu()))
        boxes = points.boxes[i, order].cpu() if points.boxes.shape[-1] == 4 else None
        image = x["image"].permute(1, 2, 0).cpu().numpy()
        name = Path(str(x.get("file_name", x.get("image_id", "")))).stem
        found.append(Difference(image, name, size.cpu(), boxes, answers))
    return found


def most_different(found: list[Difference]) -> list[Difference]:
    """The few images whose points differ most."""
    with_points = [one for one in found if len(one.size)]
    return sorted(with_points, key=lambda one: -float(one.size.sum()))[:SHOWN_IMAGES]


def draw(worst: list[Difference], names: Sequence[str], path: Path) -> Path:
    """Draws each image three times: with the points, with A's and with B's predictions there.

    The points of an image are numbered, and each has one colour in all three.
    """
    labels, columns = [], {name: [] for name in COLUMNS}
    for one in worst:
        numbers = [str(i + 1) for i in range(len(one.size))]
        seen = [] if one.places is None else [(one.places, one.size, None)]
        for column, (boxes, scores, classes) in zip(
            COLUMNS[len(COLUMNS) - len(seen) - 2 :], [*seen, *one.answers], strict=True
        ):
            texts = numbers
            if classes is not None:
                known = [names[c] if names else str(int(c)) for c in classes]
                texts = [f"{number}: {name}" for number, name in zip(numbers, known, strict=True)]
            height, width = one.image.shape[:2]
            scale = torch.tensor([width, height, width, height])
            drawn = Instances((height, width))
            drawn.pred_boxes = Boxes(cxcywh_to_xyxy(boxes.float()) * scale)
            drawn.scores = scores
            drawn.pred_classes = len(labels) + torch.arange(len(texts))
            columns[column].append(drawn)
            labels += texts + [""] * (COLOURS - len(texts))
    columns = {name: column for name, column in columns.items() if column}
    return detections_side_by_side(
        [one.image for one in worst],
        columns,
        class_names=labels,
        path=path,
        score_threshold=0.0,
        titles=[one.name for one in worst],
    )


if __name__ == "__main__":
    main()
