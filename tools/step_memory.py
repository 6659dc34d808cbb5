r"""Does a training step fit? One step of a config on images of a given size, with random pixels.

    python tools/step_memory.py --config-file configs/detectors/dino_r50.py --images 2 \
        train.amp.enabled=true model.checkpoint_activations=true

Prints the seconds, the peak memory, and what the step keeps for its backward pass: on a CPU too
that is most of what a GPU will be asked for beside weights, gradients and the optimizer's state.
"""

import argparse
import resource
import sys
import time

import quiet  # noqa: F401  (before what warns)
import torch
from comparison import positive
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn
from training_runs import one_sentence

from kddetr.engine import build, load_config, resolve_device

GIB = 2**30


def main() -> None:
    """Parse the command line, run the steps, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--images", type=positive, default=1, help="in the batch (default 1)")
    parser.add_argument("--size", type=positive, nargs=2, default=(800, 1333), metavar=("H", "W"))
    parser.add_argument("--boxes", type=positive, default=10, help="an image (default 10)")
    parser.add_argument("--steps", type=positive, default=2, help="the last is timed (default 2)")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="deformable attention in plain PyTorch, as without torch-ms-deform-attn",
    )
    parser.add_argument("overrides", nargs="*", help="key=value of the config")
    args = parser.parse_args()
    if args.plain:
        sys.modules["torch_ms_deform_attn"] = None  # importing it fails from here on
    cfg = load_config(args.config_file, args.overrides)
    device = resolve_device(cfg.train.device)
    torch.manual_seed(0)
    model = build(cfg.model).to(device).train()
    optimizer = build(cfg.optimizer, params__model=model)
    batch = random_batch(args.images, tuple(args.size), args.boxes, model.num_classes)
    amp = getattr(torch, cfg.train.amp.dtype) if cfg.train.amp.enabled else None

    before = peak(device)
    for _ in range(args.steps):
        started = time.perf_counter()
        kept = step(model, optimizer, batch, amp)
        seconds = time.perf_counter() - started
    fixed = sum(p.numel() * p.element_size() for p in model.parameters())
    fixed += sum(2 * p.numel() * p.element_size() for p in trainable(model))
    fixed += sum(p.numel() * p.element_size() for p in trainable(model))
    print(
        f"{args.images} x {args.size[0]} x {args.size[1]} on {device},"
        f" {cfg.train.amp.dtype if amp else 'float32'}:\n"
        f"  a step                                {seconds:8.1f} s\n"
        f"  peak memory of the process            {peak(device) / GIB:8.2f} GiB"
        f" ({before / GIB:.2f} before the first step)\n"
        f"  kept for the backward pass            {kept / GIB:8.2f} GiB\n"
        f"  weights, gradients, AdamW's two       {fixed / GIB:8.2f} GiB"
    )


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that are trained."""
    return [p for p in model.parameters() if p.requires_grad]


def random_batch(images: int, size: tuple[int, int], boxes: int, classes: int) -> list[dict]:
    """Labelled images of random pixels."""
    height, width = size
    batch = []
    for i in range(images):
        low = torch.rand(boxes, 2) * 0.7
        corners = torch.cat([low, low + 0.05 + 0.25 * torch.rand(boxes, 2)], dim=1)
        scale = torch.tensor([width, height, width, height])
        batch.append(
            {
                "image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8),
                "image_id": i,
                "height": height,
                "width": width,
                "instances": Instances(
                    size,
                    gt_boxes=Boxes(corners * scale),
                    gt_classes=torch.randint(0, classes, (boxes,)),
                ),
            }
        )
    return batch


def step(model: nn.Module, optimizer, batch: list[dict], amp: torch.dtype | None) -> int:
    """One update; returns the bytes that the forward pass kept for the backward pass."""
    storages: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    kind = next(model.parameters()).device.type
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast(kind, dtype=amp, enabled=amp is not None),
        EventStorage(),  # heads of Detectron2 note figures in it
    ):
        total = sum(model(batch).values())
    kept = sum(storages.values())  # before the backward pass computes anything again
    optimizer.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(trainable(model), 0.1)
    optimizer.step()
    if kind == "cuda":
        torch.cuda.synchronize()
    return kept


def peak(device: torch.device) -> int:
    """Bytes: of the CUDA allocator, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    with one_sentence():
        main()
