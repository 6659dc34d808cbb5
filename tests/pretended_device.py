"""A device that exists only by name: its tensors live on the CPU, and every operation for which the
host would have to wait for a real device is counted.

It stands in for a GPU where there is none. A tensor of the device is a wrapper around a CPU tensor;
each operation is computed on the CPU, with real values, and its result is wrapped again.
"""

import collections
import contextlib
import traceback
from typing import Any

import torch
import torchvision  # noqa: F401  (registers its operations)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

DEVICE = torch.device("cuda", 0)
torch._C._ensureCUDADeviceGuardSet()  # what PyTorch's own fake tensors do where CUDA is missing
aten = torch.ops.aten
READS = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}
# The size of the result depends on values.
OF_UNKNOWN_SIZE = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    torch.ops.torchvision.nms.default,
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class OnDevice(torch.Tensor):
    """A tensor that says it is on the pretended device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        found = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=held.requires_grad,
        )
        found.held = held.detach()
        return found

    def __repr__(self) -> str:
        return f"OnDevice({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None) -> Any:
        return compute(func, args, kwargs or {}, None)


class CountsWaits(TorchDispatchMode):
    """Inside, counts by place in this project why the host waits for the device.

    Args:
        everywhere: tensors on the CPU count as if they were on the device. This is for a backward
            pass, which PyTorch does not run for a device that does not exist.

    Attributes:
        waits: (reason, file:line) and how often.
    """

    def __init__(self, *, everywhere: bool = False) -> None:
        self.everywhere = everywhere
        # As for PyTorch's fake tensors, making a tensor does not start CUDA.
        super().__init__(_dispatch_key=None)
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE
        self.waits: collections.Counter[tuple[str, str]] = collections.Counter()

    def __enter__(self) -> "CountsWaits":
        # Without the kernels that only a GPU has.
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        self._stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._stack.close()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        return compute(func, args, kwargs or {}, self)

    def note(self, reason: str) -> None:
        frames = [f for f in traceback.extract_stack() if "pretended_device" not in f.filename]
        frames = [f for f in frames if "/torch/" not in f.filename]
        own = [f for f in frames if "/kddetr/" in f.filename and "/returned" not in f.filename]
        last = (own or frames)[-1]
        self.waits[reason, f"{last.filename.rpartition('/')[2]}:{last.lineno}"] += 1


def compute(func: Any, args: tuple, kwargs: dict, mode: CountsWaits | None) -> Any:
    """The result of an operation, on the device where one of its tensors is or shall be."""
    if func in (aten._pin_memory.default, aten.is_pinned.default):
        return args[0] if func is aten._pin_memory.default else False
    tensors: list[Tensor] = []
    tree_map_only(Tensor, tensors.append, (args, kwargs))
    wanted = kwargs.get("device")
    on_device = any(isinstance(t, OnDevice) for t in tensors)
    to_device = on_device if wanted is None else torch.device(wanted).type == DEVICE.type
    if mode is not None and (reason := why(func, args, kwargs, to_device, mode.everywhere)):
        mode.note(reason)
    args, kwargs = tree_map_only(OnDevice, lambda t: t.held, (args, kwargs))
    if wanted is not None:
        kwargs["device"] = "cpu"
    result = func(*args, **kwargs)
    if on_device and func._schema.is_mutable and func._schema.name.endswith("_"):
        return None if result is None else tensors[0]  # an operation on a list returns nothing
    is_value = func in READS or not to_device
    return result if is_value else tree_map_only(Tensor, OnDevice, result)


def why(func: Any, args: tuple, kwargs: dict, to_device: bool, everywhere: bool) -> str | None:
    """Why the host would wait: for a value, for a size, or for a copy; None: it would not."""

    def is_there(x: Any) -> bool:
        return isinstance(x, OnDevice) or (everywhere and isinstance(x, Tensor))

    if func is aten._to_copy.default:
        if is_there(args[0]) and not to_device and not everywhere:
            return "copy to the host"
        if to_device and not is_there(args[0]) and not kwargs.get("non_blocking"):
            return "copy to the device"
        return None
    if func is aten.copy_.default and is_there(args[0]) != is_there(args[1]):
        if is_there(args[1]):
            return "copy to the host"
        # A number without dimensions is handed to the kernel.
        return "copy to the device" if args[1].dim() and not any(args[2:]) else None
    if not any(is_there(x) for x in args):
        return None
    if func in READS:
        return "value"
    if func in INDEXING:
        index = [t for t in args[1] if t is not None]
        if any(t.dtype in (torch.bool, torch.uint8) for t in index):
            return "size"
        return None if all(is_there(t) for t in index) else "copy to the device"
    if func is aten.repeat_interleave.Tensor:
        return "size" if kwargs.get("output_size") is None else None
    return "size" if func in OF_UNKNOWN_SIZE else None


def to_pretended_device(module: nn.Module) -> nn.Module:
    """The module with its weights and buffers moved there."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = OnDevice(parameter.detach())
                part._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnDevice(buffer)
    return module
