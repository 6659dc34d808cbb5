"""What each process of ``test_processes`` does; importable under one name by all of them."""

from pathlib import Path

import torch
from detectron2.utils import comm

from kddetr import KDDETR
from kddetr.engine.distributed import wrap_for_processes
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from tests.tiny import tiny_batch, tiny_detector


def distiller(sampler, family: str, student: dict) -> KDDETR:
    return KDDETR(
        student=tiny_detector(family, seed=1, **student),
        teacher=tiny_detector(family, seed=2, embed_dim=32),
        sampler=sampler,
        loss=WeightedMeanLoss(),
    ).train()


def gradients(folder: str, boxes: tuple, family: str, student: dict) -> None:
    """Save the gradients of one step on this process's share of two images, and the points.

    ``boxes`` of each image; None: it has no labels. ``student``: options of the student.
    """
    model = distiller(SpecificSampler(), family, student)
    wrapped = wrap_for_processes(
        model, torch.device("cpu"), find_unused_parameters=False, fp16_compression=False
    )
    rank, world = comm.get_rank(), comm.get_world_size()
    batch = tiny_batch(((40, 56), (40, 56)), boxes=boxes)[rank::world]
    sum(wrapped(batch).values()).backward()
    torch.manual_seed(rank)  # the trainer's seeding also tells processes apart
    model.sampler = JointSampler([GeneralSampler(count=4), SpecificSampler()])
    points, _ = model.ask_teacher(batch, None)
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    torch.save((found, points.boxes), Path(folder) / f"{world}-{rank}.pth")
