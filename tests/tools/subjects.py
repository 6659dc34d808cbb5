"""Subjects of the benchmark that are made of tiny detectors."""

import torch
from torch import nn

from benchmarking.batches import Batch
from benchmarking.subject import Subject
from kddetr.engine.step import StepTrainer
from kddetr.preflight.still import Given
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller


class FixedSource:
    """Always the same batch."""

    name, loads = "tiny images", False

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def next(self) -> Batch:
        return self.batch


def subject_of(student: nn.Module, teacher: nn.Module | None = None, batch: Batch = ()) -> Subject:
    """The student alone, or distilled from the teacher."""
    given = Given()

    def trainer(model: nn.Module) -> StepTrainer:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
        return StepTrainer(model=model, data_loader=given, optimizer=optimizer, seed=0)

    distiller = None if teacher is None else tiny_distiller(student, teacher)
    return Subject(
        student=student.train(),
        distiller=distiller,
        given=given,
        plain=trainer(student),
        distilling=None if distiller is None else trainer(distiller),
        source=FixedSource(batch or tiny_batch()),
        device=torch.device("cpu"),
        amp=None,
    )


def tiny_pair(family: str = "dab_detr") -> Subject:
    """A tiny student with a tiny teacher of the same family."""
    return subject_of(tiny_detector(family), tiny_detector(family, seed=1))
