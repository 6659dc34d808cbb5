"""What each process of a test in ``test_huggingface`` runs."""

from pathlib import Path

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from kddetr.engine.distributed import wrap_for_processes
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller
from tests.tiny_huggingface import tiny_huggingface


def save_step(folder: str, member: str) -> None:
    """Save names of losses and gradients of a step in which only the first process has labels."""
    rank = comm.get_rank()
    model = tiny_distiller(tiny_huggingface(member, seed=1), tiny_detector("dab_detr", seed=2))
    wrapped = wrap_for_processes(
        model, torch.device("cpu"), find_unused_parameters=False, fp16_compression=False
    )
    with EventStorage():
        losses = wrapped(tiny_batch(boxes=(3, 2) if rank == 0 else (0, None), seed=rank))
        sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    torch.save((sorted(losses), gradients), Path(folder) / f"{member}-{rank}.pth")
