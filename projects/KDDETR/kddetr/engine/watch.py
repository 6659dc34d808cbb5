"""Watching a distillation: how far the student is from its teacher, and how strong the distillation
is beside the student's own task.

Training is the same with it and without it, bit for bit: it draws no random numbers and leaves
gradients and statistics alone.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.evaluation.evaluator import inference_context
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from ..errors import UserError
from ..gap import gap_means, gap_sums, gap_table
from ..structures import Predictions, Queries
from ..teachers import RecordedTeacher
from .evaluation.sets import by_evaluation_set
from .seeding import seed_everything

if TYPE_CHECKING:
    from .trainer import Trainer

_log = logging.getLogger(__name__)
RATIO = "gradient_ratio"
GAP_PREFIXES = ("gap_", "gap/")  # of the names of the gap in a step, and in an evaluation
_STREAM = 3  # of the random numbers of the points of an evaluation; a step has streams 0 and 1


@runtime_checkable
class Watchable(Protocol):
    """A distiller, as far as it is watched; see :class:`~kddetr.KDDETR`."""

    student: Any
    teacher: Any
    weight: float
    observer: Any

    def predict_at_points(
        self, inputs: list[dict[str, Any]], memory: Any
    ) -> tuple[Predictions, Predictions, Queries]:
        """The predictions of student and teacher, and the points."""


def watched(model: nn.Module) -> Watchable | None:
    """The model where it is a distiller that asks a teacher; otherwise None."""
    return model if isinstance(model, Watchable) and model.weight else None


def watch_hooks(trainer: "Trainer") -> list[HookBase]:
    """The hook that logs the gap, where the model of a trainer is watched in training."""
    model, period = watched(trainer.unwrapped), trainer.cfg.train.watch_period
    if model is None or not period:
        return []
    return [WatchHook(model, period, lambda loss: trainer._trainer.grad_scaler.scale(loss))]


class WatchHook(HookBase):
    """Logs the gap and the gradient ratio of every ``period``-th iteration.

    ``gap_{group}/{figure}`` is what :func:`~kddetr.gap.gap_means` returns, of the points of all
    processes. ``gradient_ratio`` is the norm of the gradient of the distillation losses over that
    of the student's own losses, with respect to the student's weights and before clipping; the mean
    of the processes, each with its own images. It is left out where it is no finite number, such as
    for images without labels, whose own losses have no gradient.

    Args:
        model: the distiller.
        period: iterations, at least 1.
        scale: multiplies both losses, so that their gradients do not underflow in float16.
    """

    def __init__(self, model: Watchable, period: int, scale: Callable[[Tensor], Tensor]):
        self._model = model
        self._period = period
        self._scale = scale
        self._seen: list[dict[str, Tensor]] = []  # of each part of the batch

    def before_step(self) -> None:
        self._seen = []
        self._model.observer = self._observe if self._due() else None

    def after_step(self) -> None:
        if not self._due():
            return
        self._model.observer = None
        of_processes = comm.gather([read_sums(seen) for seen in self._seen])
        self._seen = []
        if not comm.is_main_process():
            return
        gathered = [sums for parts in of_processes for sums in parts]
        ratios = [sums.pop(RATIO) for sums in gathered if RATIO in sums]
        finite = [float(ratio) for ratio in ratios if np.isfinite(ratio)]
        found = {RATIO: float(np.mean(finite))} if finite else {}
        for group, figures in gap_means(added_sums(gathered)).items():
            found |= {f"gap_{group}/{name}": value for name, value in figures.items()}
        found = {name: value for name, value in found.items() if math.isfinite(value)}
        self.trainer.storage.put_scalars(**found, smoothing_hint=False)

    def _due(self) -> bool:
        return (self.trainer.iter + 1) % self._period == 0

    def _observe(
        self,
        losses: Mapping[str, Tensor],
        distilled: Mapping[str, Tensor],
        student: Predictions,
        teacher: Predictions,
        points: Queries,
    ) -> None:
        """Compute what is logged, on the device; it is read when the step is over."""
        weights = [p for p in self._model.student.parameters() if p.requires_grad]
        with torch.autocast(weights[0].device.type, enabled=False):
            seen = {**gap_sums(student, teacher, points)}
        ratio = gradient_ratio(distilled, losses, weights, self._scale)
        if ratio is not None:
            seen[RATIO] = ratio
        self._seen.append(seen)


def gradient_ratio(
    distilled: Mapping[str, Tensor],
    losses: Mapping[str, Tensor],
    weights: list[nn.Parameter],
    scale: Callable[[Tensor], Tensor],
) -> Tensor | None:
    """The norm of the gradient of some losses over that of others, a scalar on the device; None
    where one of the two has no gradient. The graph stays for the backward pass of the step.

    Args:
        distilled: the losses of the distillation, weighted.
        losses: those of the student's own task.
        weights: with respect to which the gradients are.
        scale: multiplies both, so that their gradients do not underflow in float16.
    """
    with torch.autocast(weights[0].device.type, enabled=False):
        norms = [_gradient_norm(part, weights, scale) for part in (distilled, losses)]
    return None if norms[0] is None or norms[1] is None else norms[0] / norms[1]


def _gradient_norm(
    losses: Mapping[str, Tensor], weights: list[nn.Parameter], scale: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """The L2 norm of the gradient of a sum of losses, a scalar; None where it has none.

    The gradients are not those of the step: they are computed beside them and thrown away.
    """
    if not any(loss.requires_grad for loss in losses.values()):
        return None
    total = scale(sum(losses.values()))
    gradients = torch.autograd.grad(total, weights, retain_graph=True, allow_unused=True)
    return nn.utils.get_total_norm([g for g in gradients if g is not None])


def read_sums(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Small tensors as float64 arrays, read from the device all at once."""
    if not tensors:
        return {}
    flat = torch.cat([t.detach().float().flatten() for t in tensors.values()]).cpu().double()
    parts = flat.split([t.numel() for t in tensors.values()])
    return {
        name: part.view(t.shape).numpy()
        for (name, t), part in zip(tensors.items(), parts, strict=True)
    }


def added_sums(parts: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The sums of several batches or processes, added up by group."""
    total: dict[str, np.ndarray] = {}
    for sums in parts:
        for group, rows in sums.items():
            total[group] = total[group] + rows if group in total else rows
    return total


def with_gap(trainer: "Trainer", results: dict[str, Any]) -> dict[str, Any]:
    """The results of an evaluation, and beside them the gap on the first test images.

    Args:
        trainer: whose model has just been evaluated.
        results: nested, on the main process; of several test sets by the name of each.

    Returns:
        the results, with ``gap`` among those of every test set where the model is watched: the
        figures under names such as ``general/iou``. A recorded teacher does not know the test
        images, and is left out.
    """
    model, count = watched(trainer.unwrapped), trainer.cfg.train.watch_images
    if model is None or not count:
        return results
    if any(isinstance(part, RecordedTeacher) for part in model.teacher.modules()):
        _log.info("No gap on the test images, because the record has the training images only.")
        return results
    results = dict(results or {})
    for name, part in by_evaluation_set(trainer.cfg).items():
        loader = trainer.build_test_loader(part)
        means = gap_on_images(model, loader, count, seed=trainer.cfg.train.seed)
        if not means:
            continue
        where = f" of {name}" if name else ""
        _log.info("The gap to the teacher on %d images%s:\n%s", count, where, gap_table(means))
        own = results.setdefault(name, {}) if name else results
        own["gap"] = {
            f"{group}/{figure}": value
            for group, figures in means.items()
            for figure, value in figures.items()
        }
    return results


def gap_on_images(
    model: Watchable, loader: Iterable[list[dict]], count: int, *, seed: int
) -> dict[str, dict[str, float]]:
    """The gap on the first images of a loader, see :func:`compared`.

    Returns:
        see :func:`~kddetr.gap.gap_means`; empty on all processes but the main one, and where the
        teacher cannot be asked about these images, with a warning.
    """
    sums: dict[str, np.ndarray] | None = None
    try:
        found = compared(model, loader, count, seed=seed)
        sums = added_sums(read_sums(gap_sums(*predictions)) for _, *predictions in found)
    except UserError as error:  # a teacher may not know these images; the training may go on
        _log.warning("The gap is not computed on the test images: %s", error)
    gathered = comm.gather(sums)
    if not comm.is_main_process() or any(part is None for part in gathered):
        return {}
    return gap_means(added_sums(gathered))


@torch.no_grad()
def compared(
    model: Watchable, loader: Iterable[list[dict]], count: int, *, seed: int
) -> Iterator[tuple[list[dict], Predictions, Predictions, Queries]]:
    """The first images of a loader, the predictions of student and teacher at points that are the
    same at every call, and these points, batch by batch.

    What the sampler and the query placement log is thrown away: these are no images of the
    training, and outside of a training there is no log.

    Args:
        model: the distiller; the student is asked in evaluation mode.
        loader: batches of this process's share of the images.
        count: the number of images, over all processes; fewer where there are fewer.
        seed: of the points.
    """
    rank, world = comm.get_rank(), comm.get_world_size()
    left = count // world + (rank < count % world)
    seed_everything(seed, rank, _STREAM)
    with inference_context(model.student):
        for batch in loader if left else ():
            inputs = batch[:left]
            with EventStorage():  # closed before the caller goes on, which may log
                found = model.predict_at_points(inputs, model.student.encode(inputs))
            yield inputs, *found
            left -= len(inputs)
            if not left:
                break
