r"""What distillation points cost a student: its own training step beside the same step with points.

    python tools/adapter_cost.py --config configs/detectors/faster_rcnn_r50.py --points 600

Both kinds of step are taken in turn, in one process, so that whatever else the machine does falls
on both; on one thread of a CPU it is not counted at all: the seconds are those of the process.
The teacher has answered already (fixed numbers), so that what is added is the student's own:
regions or queries at the points, their decoding, the distillation loss and its gradient. Weights
and pixels are random; statistics of frozen batch norms are those of the batch.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import quiet  # noqa: F401  (before what warns)
import torch
from comparison import positive
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils.events import EventStorage
from step_memory import random_batch
from torch import Tensor, nn
from training_runs import one_sentence

from kddetr import KDDETR
from kddetr.boxes import xyxy_to_cxcywh
from kddetr.checkpoint import weight_owner
from kddetr.engine import Trainer, build, load_config, resolve_device
from kddetr.losses import WeightedMeanLoss
from kddetr.points import AtAnswers, GeneralSampler, JointSampler, SpecificSampler, jittered
from kddetr.structures import Predictions, Queries, QueryableDetector

TARGET = 1.25
BOXES = 10  # an image


class FixedAnswers(nn.Module):
    """A teacher that has answered already.

    Its own queries and all its answers lie around the objects, as a trained detector's do.

    Args:
        boxes: (B, M, 4) ``cxcywh``, the objects of each image.
        points: N, how many it will be asked.
        num_classes: K.
    """

    query_parts: Mapping[str, int] = {}

    def __init__(self, boxes: Tensor, points: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        near = boxes[:, torch.arange(points) % boxes.shape[1]]
        self.register_buffer("found", jittered(near, shift=0.2, scale=0.3))
        # Most points see nothing; a few are sure.
        self.register_buffer("logits", 2 * torch.randn(*near.shape[:2], num_classes) - 4)

    def encode(self, inputs: list[dict]) -> None:
        """Nothing is looked at."""

    def queries(self, memory: None) -> Queries:
        """Every other of the places where its answers are."""
        return Queries(self.found[:, 1::2])

    def make_queries(self, memory: None, boxes: Tensor) -> Queries:
        """The boxes."""
        return Queries(boxes.to(self.found).expand(len(self.found), -1, -1))

    def decode(self, memory: None, queries: Queries) -> Predictions:
        """What it has said, (1, B, N, ...)."""
        return Predictions(self.logits[None], self.found[None])


@dataclass
class Cost:
    """Seconds of steps taken in turn, and how often the student's backbone saw an image."""

    plain: list[float]
    asked: list[float]
    backbone: float

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return statistics.median(self.asked) / statistics.median(self.plain)

    @property
    def pairs(self) -> list[float]:
        """Ratios of neighbouring steps, sorted."""
        return sorted(a / p for a, p in zip(self.asked, self.plain, strict=True))


def main() -> None:
    """Parse the command line, measure, report."""
    args = _arguments().parse_args()
    cfg = load_config(args.config, args.overrides)
    device = resolve_device(args.device)
    size = (args.height, args.width)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    student = Trainer.build_detector(cfg).to(device).train()
    batch = random_batch(args.images, size, BOXES, student.num_classes)
    with batch_statistics(student), torch.no_grad():
        student.encode(batch)
    distiller = asking(student, batch, args.points, at_answers=args.at_answers).to(device).train()
    amp = torch.bfloat16 if args.amp else None
    cost = measure(distiller, batch, repeats=args.repeats, warmup=args.warmup, amp=amp)
    threads = "" if device.type == "cuda" else f", {args.threads} thread(s)"
    print(
        f"{args.config}: {args.images} x {size[0]} x {size[1]} on {device}{threads},"
        f" {'bfloat16' if amp else 'float32'}, asked at {args.points}"
        f" {'of the answers' if args.at_answers else 'points'}, torch {torch.__version__}"
    )
    print(report(cost))
    if args.teacher:
        teacher = build(load_config(args.teacher).model).to(device).eval()
        seconds = measure_teacher(teacher, batch, args.points, repeats=args.repeats, amp=amp)
        print(report_teacher(cost, *seconds))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", default="configs/detectors/faster_rcnn_r50.py", help="of a detector or a pair")
    add("--points", type=positive, default=600, help="an image, half of them general (default 600)")
    add("--images", type=positive, default=1, help="in the batch (default 1)")
    add("--height", type=positive, default=800, help="of the images (default 800)")
    add("--width", type=positive, default=1088, help="default 1088: a photograph of COCO, resized")
    add("--repeats", type=positive, default=5, help="pairs of steps (default 5)")
    add("--warmup", type=positive, default=1, help="pairs before them (default 1)")
    add("--device", default="auto", help="default: a GPU where there is one")
    add("--threads", type=positive, default=1, help="of a CPU (default 1)")
    add("--amp", action="store_true", help="autocast to bfloat16")
    add(
        "--at-answers",
        action="store_true",
        help="ask the student at all the teacher's answers, as the recipes do, not at the points",
    )
    add("--teacher", metavar="CONFIG", help="also time this detector's encoding and decoding")
    add("overrides", nargs="*", help="key=value of the config")
    return parser


@contextmanager
def batch_statistics(model: nn.Module):
    """Inside, a frozen batch norm takes its statistics from what it is given.

    With a fresh one's, which normalise nothing, random weights would give numbers that grow from
    layer to layer, and regions that a trained detector never has.
    """

    def take(norm: FrozenBatchNorm2d, given: tuple[Tensor]) -> None:
        norm.running_mean.copy_(given[0].mean((0, 2, 3)))
        norm.running_var.copy_(given[0].var((0, 2, 3)))

    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    handles = [norm.register_forward_pre_hook(take) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def asking(student: nn.Module, batch: list[dict], points: int, *, at_answers: bool) -> KDDETR:
    """The student beside a teacher that has answered: half general points, half specific ones."""
    boxes = []
    for x in batch:
        height, width = x["image"].shape[-2:]
        scale = torch.tensor([width, height, width, height])
        boxes.append(xyxy_to_cxcywh(x["instances"].gt_boxes.tensor / scale))
    general, specific = GeneralSampler(count=points - points // 2), SpecificSampler()
    return KDDETR(
        student=student,
        teacher=FixedAnswers(torch.stack(boxes), points, student.num_classes),
        sampler=JointSampler([general, specific] if points > 1 else [general]),
        loss=WeightedMeanLoss(),
        query_placement=AtAnswers() if at_answers else None,
    )


def measure(
    distiller: KDDETR, batch: list[dict], *, repeats: int, warmup: int, amp: torch.dtype | None
) -> Cost:
    """Plain and asked steps in turn, the first ``warmup`` pairs not counted."""
    student, seen = distiller.student, []
    backbone = weight_owner(student).backbone
    handle = backbone.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    cost = Cost([], [], 0.0)
    for _ in range(warmup + repeats):
        cost.plain.append(_step(student, batch, amp))
        seen.clear()
        cost.asked.append(_step(distiller, batch, amp))
    handle.remove()
    return Cost(cost.plain[warmup:], cost.asked[warmup:], sum(seen) / len(batch))


def measure_teacher(
    teacher: QueryableDetector,
    batch: list[dict],
    points: int,
    *,
    repeats: int,
    amp: torch.dtype | None,
) -> tuple[float, float]:
    """Median seconds of encoding the images, and of decoding that many points."""
    device = next(teacher.parameters()).device
    boxes = torch.rand(len(batch), points, 4) * 0.5 + 0.25
    seconds = []
    with torch.no_grad(), torch.autocast(device.type, dtype=amp, enabled=amp is not None):
        for _ in range(1 + repeats):
            memory, encode = _timed(lambda: teacher.encode(batch), device)
            queries = teacher.make_queries(memory, boxes)
            _, decode = _timed(lambda m=memory, q=queries: teacher.decode(m, q), device)
            seconds.append((encode, decode))
    encodes, decodes = zip(*seconds[1:], strict=True)
    return statistics.median(encodes), statistics.median(decodes)


def _step(model: nn.Module, batch: list[dict], amp: torch.dtype | None) -> float:
    """Seconds of forward pass, losses and backward pass."""
    device = next(model.parameters()).device

    def run() -> None:
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            total = sum(model(batch).values())
        total.backward()

    with EventStorage():  # heads of Detectron2 note figures in it
        _, seconds = _timed(run, device)
    model.zero_grad(set_to_none=True)
    return seconds


def _timed(function: Callable, device: torch.device) -> tuple:
    """What it returns, and seconds: of a process of one thread alone, else on the wall's clock."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    _wait(device)
    started = clock()
    value = function()
    _wait(device)
    return value, clock() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(cost: Cost) -> str:
    """What was measured beside what is aimed at."""
    pairs = cost.pairs
    return (
        f"  plain step              {_seconds(cost.plain)}\n"
        f"  with the points         {_seconds(cost.asked)}\n"
        f"  ratio of the medians    {cost.ratio:.3f} (target: at most {TARGET})\n"
        f"  ratio of a pair         {pairs[0]:.3f} to {pairs[-1]:.3f},"
        f" median {statistics.median(pairs):.3f}, {len(pairs)} pairs\n"
        f"  backbone runs an image  {cost.backbone:g} (must be 1)"
    )


def report_teacher(cost: Cost, encode: float, decode: float) -> str:
    """A teacher's part of a whole step."""
    whole = statistics.median(cost.asked) + encode + decode
    return (
        f"  teacher encodes         {encode:8.3f} s, {100 * encode / whole:.0f} % of the whole\n"
        f"  teacher decodes         {decode:8.3f} s, {100 * decode / whole:.0f} % of the whole"
    )


def _seconds(times: Sequence[float]) -> str:
    return f"{statistics.median(times):8.3f} s ({min(times):.3f} to {max(times):.3f})"


if __name__ == "__main__":
    with one_sentence():
        main()
