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
from pathlib import Path

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kddetr import KDDETR
from kddetr.checkpoint import WrapperState, load_pretrained, read_checkpoint
from kddetr.engine import Trainer, build, load_config, require_sections, resolve_device
from kddetr.engine.config.calls import walk
from kddetr.engine.evaluation.sets import by_evaluation_set, has_test_data
from kddetr.engine.watch import added_sums, compared, read_sums
from kddetr.errors import UsageError, exit_on_user_error
from kddetr.gap import gap_means, gap_sums, gap_table
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from kddetr.projection import ContentProjection
from kddetr.report.differences import (
    Difference,
    differences,
    draw_differences,
    most_different,
)
from kddetr.structures import Predictions, Queries
from kddetr.teachers import Vocabulary, trained_classes

DEFAULT_POINTS = "300 random boxes and A's own queries"


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
            print(
                draw_differences(worst, trained_classes(model.student), folder / "differences.png")
            )


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
) -> tuple[dict[str, dict[str, float]], list[Difference]]:
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


if __name__ == "__main__":
    main()
