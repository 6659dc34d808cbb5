r"""The memory and time of one training step of a config, on random images of a given size.

    python tools/step_memory.py --config-file configs/detectors/dino_r50.py --images 2 \
        train.amp.enabled=true model.checkpoint_activations=true

Prints the seconds, the peak memory, and the bytes that the forward pass keeps for the backward
pass. Those bytes, which can be measured on a CPU too, are most of what a GPU needs beside weights,
gradients and the state of the optimizer.
"""

import argparse
import contextlib
import resource
import sys
from collections.abc import Callable, Iterator

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn
from torch.utils import benchmark

from kddetr.engine import Trainer, build, load_config, require_sections, resolve_device
from kddetr.engine.precision import amp_dtype, dtype_name
from kddetr.errors import UsageError, exit_on_user_error

GIB = 2**30


def main() -> None:
    """Parse the command line, run the steps, print what they took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True)
    add("--images", type=positive, default=1, help="images in the batch (default 1)")
    add("--size", type=pixels, nargs=2, default=(800, 1333), metavar=("H", "W"))
    add("--boxes", type=positive, default=10, help="boxes per image (default 10)")
    add("--steps", type=positive, default=2, help="steps; the last is timed (default 2)")
    plain = "deformable attention in PyTorch, as if torch-ms-deform-attn were not installed"
    add("--plain", action="store_true", help=plain)
    add("overrides", nargs="*", help="key=value of the config")
    args = parser.parse_args()
    if args.plain:
        sys.modules["torch_ms_deform_attn"] = None  # importing it fails from here on
    cfg = load_config(args.config_file, args.overrides)
    require_sections(cfg, "model", "optimizer")
    device = resolve_device(cfg.train.device)
    torch.manual_seed(0)
    model = Trainer.build_model(cfg).to(device).train()
    optimizer = build(cfg.optimizer, params__model=model)
    batch = random_batch(args.images, tuple(args.size), args.boxes, model.num_classes)
    amp = amp_dtype(cfg.train.amp, device, model)

    before = peak(device)
    for _ in range(args.steps):
        started = benchmark.timer()  # it waits for the GPU
        kept = step(model, optimizer, batch, amp)
        seconds = benchmark.timer() - started
    fixed = sum(p.nbytes for p in model.parameters())
    fixed += 3 * sum(p.nbytes for p in trainable(model))  # gradients, and two states of AdamW
    print(
        f"{args.images} x {args.size[0]} x {args.size[1]} on {device}, {dtype_name(amp)}:\n"
        f"  a step                                {seconds:8.1f} s\n"
        f"  peak memory of the process            {peak(device) / GIB:8.2f} GiB"
        f" ({before / GIB:.2f} before the first step)\n"
        f"  kept for the backward pass            {kept / GIB:8.2f} GiB\n"
        f"  weights, gradients, AdamW's two       {fixed / GIB:8.2f} GiB"
    )


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained."""
    return [p for p in model.parameters() if p.requires_grad]


def random_batch(images: int, size: tuple[int, int], boxes: int, classes: int) -> list[dict]:
    """Images of random pixels, (height, width) = ``size``, with random boxes and classes."""
    height, width = size
    batch = []
    for i in range(images):
        low = torch.rand(boxes, 2) * 0.7
        corners = torch.cat([low, low + 0.05 + 0.25 * torch.rand(boxes, 2)], dim=1)
        scale = torch.tensor([width, height, width, height])
        pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        objects = Instances(size)
        objects.gt_boxes = Boxes(corners * scale)
        objects.gt_classes = torch.randint(0, classes, (boxes,))
        given = {"image_id": i, "height": height, "width": width}
        batch.append({"image": pixels, "instances": objects, **given})
    return batch


def step(model: nn.Module, optimizer, batch: list[dict], amp: torch.dtype | None) -> int:
    """Runs one training step; returns the bytes kept for its backward pass, without weights."""
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
        EventStorage(),  # heads of Detectron2 log figures to it
    ):
        total = sum(model(batch).values())
    kept = sum(storages.values())  # the backward pass may compute and keep activations again
    optimizer.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(trainable(model), 0.1)
    optimizer.step()
    return kept


def peak(device: torch.device) -> int:
    """The peak memory in bytes: of the CUDA allocator, or on a CPU of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def at_least(low: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number of at least ``low``."""

    def parse(text: str) -> int:
        if not text.lstrip("+-").isdecimal():
            raise argparse.ArgumentTypeError(f"{text} is not a whole number")
        if int(text) < low:
            raise argparse.ArgumentTypeError(f"{text} is less than {low}")
        return int(text)

    return parse


positive = at_least(1)
pixels = at_least(32)  # of smaller images the last features have one value, or none


@contextlib.contextmanager
def exit_when_out_of_memory() -> Iterator[None]:
    """:func:`kddetr.errors.exit_on_user_error`, which also counts a GPU's lack of memory."""
    with exit_on_user_error():
        try:
            yield
        except torch.OutOfMemoryError as error:
            reason = str(error).partition(". ")[0]
            raise UsageError(f"{reason}: use fewer or smaller images.") from error


if __name__ == "__main__":
    with exit_when_out_of_memory():
        main()
