r"""The time that distillation points add to a training step of a student.

    python tools/adapter_cost.py --config configs/detectors/faster_rcnn_r50.py --points 600

Steps without and with points alternate in one process, so that other load of the machine slows both
kinds. On one thread of a CPU, other load does not count: the seconds are CPU time of the process.
The teacher's predictions are fixed numbers, so that only the student's part is measured: its
regions or queries at the points, their decoding, the distillation loss and its gradient. Weights
and pixels are random; statistics of frozen batch norms are those of the batch.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.utils import benchmark

from kddetr import KDDETR
from kddetr.boxes import xyxy_to_cxcywh
from kddetr.checkpoint import weight_owner
from kddetr.engine import Trainer, build, load_config, require_sections, resolve_device
from kddetr.errors import UsageError
from kddetr.losses import WeightedMeanLoss
from kddetr.points import AtAnswers, GeneralSampler, JointSampler, SpecificSampler, jittered
from kddetr.structures import Predictions, Queries
from step_memory import at_least, exit_when_out_of_memory, pixels, positive, random_batch

TARGET = 1.25
BOXES = 10  # objects per image


class FixedAnswers(nn.Module):
    """A teacher whose predictions are fixed, so that asking it takes no time.

    Its own queries and its predictions of ``points`` points lie around the objects, (B, M, 4)
    ``cxcywh`` in [0, 1], like those of a trained detector.
    """

    query_parts: Mapping[str, int] = {}

    def __init__(self, boxes: Tensor, points: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        near = boxes[:, torch.arange(points) % boxes.shape[1]]
        self.register_buffer("found", jittered(near, shift=0.2, scale=0.3))
        # Most points have low scores for all classes, a few have a high one.
        self.register_buffer("logits", 2 * torch.randn(*near.shape[:2], num_classes) - 4)

    def encode(self, inputs: list[dict]) -> None:
        """Does nothing: the predictions do not depend on the images."""

    def queries(self, memory: None) -> Queries:
        """Queries at every other predicted box."""
        return Queries(self.found[:, 1::2])

    def make_queries(self, memory: None, boxes: Tensor) -> Queries:
        """Queries at these boxes, the same for each image."""
        return Queries(boxes.to(self.found).expand(len(self.found), -1, -1))

    def random_queries(self, memory: None, images: int, count: int) -> Queries:
        """Not needed: the queries are boxes."""
        raise UsageError("The queries of a FixedAnswers are made of boxes: use make_queries.")

    def decode(self, memory: None, queries: Queries) -> Predictions:
        """The fixed predictions, (1, B, N, ...)."""
        return Predictions(self.logits[None], self.found[None])


@dataclass
class Cost:
    """The seconds of each step without and with points, and how often the student's backbone
    computed an image in a step with points."""

    plain: list[float]
    asked: list[float]
    backbone: float


def main() -> None:
    """Parse the command line, measure, print a report."""
    args = _arguments().parse_args()
    cfg = load_config(args.config, args.overrides)
    require_sections(cfg, "model")
    device = resolve_device(args.device)
    size = (args.height, args.width)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    student = Trainer.build_detector(cfg).to(device).train()
    batch = random_batch(args.images, size, BOXES, student.num_classes)
    with batch_statistics(student), torch.no_grad():
        student.encode(batch)
    teacher = built(args.teacher) if args.teacher else None
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
    if teacher is not None:
        teacher = teacher.to(device).eval()
        seconds = measure_teacher(teacher, batch, args.points, repeats=args.repeats, amp=amp)
        print(report_teacher(cost, *seconds))


def built(config: str) -> nn.Module:
    """The detector of a config that is to be the teacher."""
    cfg = load_config(config)
    require_sections(cfg, "model")
    teacher = build(cfg.model)
    if not hasattr(teacher, "encode"):
        raise UsageError(
            f"--teacher {config} builds a {type(teacher).__name__}, which cannot be asked: name the"
            " config of the teacher alone."
        )
    return teacher


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    config = "configs/detectors/faster_rcnn_r50.py"
    add("--config", default=config, help=f"config of a detector or a pair (default {config})")
    add("--points", type=positive, default=600, help="per image, half general (default 600)")
    add("--images", type=positive, default=1, help="images in the batch (default 1)")
    add("--height", type=pixels, default=800, help="of the images (default 800)")
    add("--width", type=pixels, default=1088, help="default 1088: a photograph of COCO, resized")
    add("--repeats", type=positive, default=5, help="pairs of steps (default 5)")
    add("--warmup", type=at_least(0), default=1, help="pairs that do not count (default 1)")
    add("--device", default="auto", help="default: a GPU where there is one")
    add("--threads", type=positive, default=1, help="threads of a CPU (default 1)")
    add("--amp", action="store_true", help="autocast to bfloat16")
    recipes = "ask the student at the boxes that the teacher predicts, as the recipes do"
    add("--at-answers", action="store_true", help=recipes)
    add("--teacher", metavar="CONFIG", help="also time this detector's encoding and decoding")
    add("overrides", nargs="*", help="key=value of the config")
    return parser


@contextmanager
def batch_statistics(model: nn.Module):
    """Inside, the frozen batch norms of a model take their statistics from each input.

    The statistics of a new frozen batch norm normalise nothing: with random weights, values would
    grow from layer to layer and give regions that a trained detector never has.
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
    """A distiller with :class:`FixedAnswers`: half general points, half specific points."""
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
    """Times alternating steps without and with points; the first ``warmup`` pairs do not count."""
    student, seen = distiller.student, []
    backbone = weight_owner(student).backbone
    handle = backbone.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    plain, asked = [], []
    for _ in range(warmup + repeats):
        plain.append(_step(student, batch, amp))
        seen.clear()
        asked.append(_step(distiller, batch, amp))
    handle.remove()
    return Cost(plain[warmup:], asked[warmup:], sum(seen) / len(batch))


def measure_teacher(
    teacher: nn.Module, batch: list[dict], points: int, *, repeats: int, amp: torch.dtype | None
) -> tuple[float, float]:
    """The median seconds of encoding the images, and of decoding that many points."""
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
    """The seconds of forward pass, losses and backward pass."""
    device = next(model.parameters()).device

    def run() -> None:
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            total = sum(model(batch).values())
        total.backward()

    with EventStorage():  # heads of Detectron2 log figures to it
        _, seconds = _timed(run, device)
    model.zero_grad(set_to_none=True)
    return seconds


def _timed(function: Callable, device: torch.device) -> tuple:
    """What a function returns, and its seconds: CPU time of one thread, otherwise wall time."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else benchmark.timer  # which waits for the GPU
    started = clock()
    value = function()
    return value, clock() - started


def report(cost: Cost) -> str:
    """The measured times, and their ratio beside the target."""
    ratio = statistics.median(cost.asked) / statistics.median(cost.plain)
    pairs = [asked / plain for asked, plain in zip(cost.asked, cost.plain, strict=True)]
    return (
        f"  plain step              {_seconds(cost.plain)}\n"
        f"  with the points         {_seconds(cost.asked)}\n"
        f"  ratio of the medians    {ratio:.3f} (target: at most {TARGET})\n"
        f"  ratio of a pair         {min(pairs):.3f} to {max(pairs):.3f},"
        f" median {statistics.median(pairs):.3f}, {len(pairs)} pairs\n"
        f"  backbone runs an image  {cost.backbone:g} (must be 1)"
    )


def report_teacher(cost: Cost, encode: float, decode: float) -> str:
    """The seconds of a teacher, and its share of a whole distillation step."""
    whole = statistics.median(cost.asked) + encode + decode
    return (
        f"  teacher encodes         {encode:8.3f} s, {100 * encode / whole:.0f} % of the whole\n"
        f"  teacher decodes         {decode:8.3f} s, {100 * decode / whole:.0f} % of the whole"
    )


def _seconds(times: Sequence[float]) -> str:
    return f"{statistics.median(times):8.3f} s ({min(times):.3f} to {max(times):.3f})"


if __name__ == "__main__":
    with exit_when_out_of_memory():
        main()
