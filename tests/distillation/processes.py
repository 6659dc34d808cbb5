"""What each process of ``test_processes`` runs, in a module that all processes can import."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from kddetr.engine.distributed import wrap_for_processes
from kddetr.engine.step import StepTrainer
from kddetr.engine.watch import WatchHook
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from kddetr.teachers import RecordedTeacher
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller


class Case(NamedTuple):
    """One step of a distillation on two images.

    Attributes:
        family: of teacher and student.
        boxes: of each image; None: it has no labels.
        student: options of the student.
        recorded: whether the teacher is the record beside the results, of images 0 and 1.
    """

    family: str
    boxes: tuple[int | None, int | None]
    student: dict[str, Any]
    recorded: bool = False


def save_steps(folder: str, cases: list[Case]) -> None:
    """Save ``[(gradients, points, log), ...]``, one a case, as ``{processes}-{rank}.pth``, and
    what the functions below return as ``parts-...`` and ``stopped-{processes}-{rank}.pth``.
    """
    file = f"{comm.get_world_size()}-{comm.get_rank()}.pth"
    torch.save([one_step(case, Path(folder)) for case in cases], Path(folder) / file)
    torch.save(step_in_parts(), Path(folder) / f"parts-{file}")
    torch.save(step_without_teacher(), Path(folder) / f"stopped-{file}")


def one_step(
    case: Case, folder: Path
) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, float]]:
    """This process's gradients by name, after a watched step on its share of the images, its
    points, and what is logged of the gap.
    """
    if case.recorded:
        teacher = RecordedTeacher(path=str(folder / "record"))
    else:
        teacher = tiny_detector(case.family, seed=2, embed_dim=32)
    student = tiny_detector(case.family, seed=1, **case.student)
    model = tiny_distiller(student, teacher, sampler=SpecificSampler())
    wrapped = wrap_for_processes(
        model, torch.device("cpu"), find_unused_parameters=False, fp16_compression=False
    )
    rank, world = comm.get_rank(), comm.get_world_size()
    batch = tiny_batch(((40, 56), (40, 56)), boxes=case.boxes)
    for i, x in enumerate(batch):
        x |= {"file_name": str(folder / f"images/{i}.png"), "affine": np.eye(2, 3)}
    batch = batch[rank::world]
    with EventStorage() as storage:
        hook = WatchHook(model, 1, lambda loss: loss)
        hook.trainer = SimpleNamespace(iter=0, storage=storage)
        hook.before_step()
        sum(wrapped(batch).values()).backward()
        hook.after_step()
    logged = {name: value for name, (value, _) in storage.latest().items()}
    torch.manual_seed(rank)  # the trainer too seeds each process differently
    if not case.recorded:
        model.sampler = JointSampler([GeneralSampler(count=4), SpecificSampler()])
    points, _ = model.ask_teacher(batch, None)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return gradients, points.boxes, logged


def step_in_parts() -> dict[str, torch.Tensor]:
    """The gradients by name after a step of a distillation on four images, which every process
    takes in as many parts as there are processes.
    """
    student, teacher = tiny_detector("dab_detr", seed=1), tiny_detector("dino", seed=2)
    model = tiny_distiller(student, teacher, sampler=SpecificSampler())
    wrapped = wrap_for_processes(
        model, torch.device("cpu"), find_unused_parameters=False, fp16_compression=False
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run_step(wrapped, optimizer, accumulate=comm.get_world_size())
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def step_without_teacher() -> dict[str, torch.Tensor]:
    """The change of each weight in two steps after the end of a distillation with a projection."""
    student, teacher = tiny_detector("dino"), tiny_detector("dino", seed=2, embed_dim=32)
    model = tiny_distiller(student, teacher, weight_schedule=lambda where: 0.0)
    wrapped = wrap_for_processes(
        model, torch.device("cpu"), find_unused_parameters=False, fp16_compression=False
    )
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(2):  # the second one fails where a parameter had no gradient in the first
        run_step(wrapped, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1))
    return {n: p.detach() - before[n] for n, p in model.named_parameters()}


def run_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> None:
    """A step on this process's share of four images."""
    batch = tiny_batch(((40, 56),) * 4, boxes=(3, 1, None, 0))
    batch = batch[comm.get_rank() :: comm.get_world_size()]
    loader = iter(lambda: batch, None)
    trainer = StepTrainer(model=model, data_loader=loader, optimizer=optimizer, seed=0, **options)
    with EventStorage():
        trainer.run_step()
