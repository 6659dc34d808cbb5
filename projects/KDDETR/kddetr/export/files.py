"""Writing exported detectors and running them, one function each for a format.

A file carries a card: strings by name, such as the class names as JSON.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from ..detectors.detr.sampling import sampled_by
from ..errors import UsageError
from .compare import Run
from .graph import INPUTS, DetectionGraph
from .square import SquareGraph
from .stock import StockGraph

Card = Mapping[str, str]
TensorGraph = DetectionGraph | SquareGraph
Graph = TensorGraph | StockGraph

LEAST_TORCH = {"onnx": "2.6", "torch": "2.6"}  # Dim.DYNAMIC; TorchScript needs nothing new
_CARD = "kddetr.json"  # the name of the card inside of a file of PyTorch
ENDINGS = {"onnx": ".onnx", "torch": ".pt2", "torchscript": ".ts"}


def export_file(
    graph: Graph, file: Path, form: str, inputs: Sequence[Tensor], card: Card, *, sampling: str
) -> None:
    """Write a detector, so that it runs for batches and images of any size.

    Args:
        graph: in evaluation mode.
        file: to write.
        form: one of ``FORMATS``.
        inputs: what the graph is traced with: images and sizes, at least two images.
        card: strings to write into the file, by name.
        sampling: the implementation of deformable attention, "gather" or "grid_sample".

    Raises:
        UsageError: a package is missing or too old, or the format cannot hold this detector.
    """
    _require_torch(form)
    if isinstance(graph, StockGraph) and form != "torchscript":
        raise UsageError(
            f"The format {form} holds detection transformers, and this is a model of Detectron2,"
            " whose code decides by the values of tensors: take --format torchscript."
        )
    _check_swin(graph, form, inputs)
    with sampled_by(sampling), torch.no_grad(), _quietly():
        FORMATS[form](graph, file, inputs, card)


def open_file(file: Path, form: str) -> tuple[Run, dict[str, str]]:
    """A function that runs an exported file on the CPU, and the file's card."""
    with _quietly():
        return _OPEN[form](file)


def _write_onnx(graph: TensorGraph, file: Path, inputs: Sequence[Tensor], card: Card) -> None:
    _require_onnx()
    program = torch.onnx.export(
        _exported(graph, inputs),
        input_names=list(INPUTS),
        output_names=list(graph.outputs),
        dynamo=True,
        verbose=False,
    )
    if hasattr(program, "rename_axes"):  # else PyTorch is old, and the axes keep names such as s77
        axes = zip(program.model.graph.inputs[0].shape, ("batch", "", "height", "width"))
        program.rename_axes({axis: name for axis, name in axes if not isinstance(axis, int)})
    program.model.metadata_props.update(card)
    program.save(str(file), external_data=False)


def _open_onnx(file: Path) -> tuple[Run, dict[str, str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> list[Tensor]:
        given = dict(zip(INPUTS, (t.numpy() for t in inputs), strict=True))
        return [torch.from_numpy(array) for array in session.run(None, given)]

    return run, dict(session.get_modelmeta().custom_metadata_map)


def _write_torch(graph: TensorGraph, file: Path, inputs: Sequence[Tensor], card: Card) -> None:
    program = _exported(graph, inputs)
    torch.export.save(program, str(file), extra_files={_CARD: json.dumps(dict(card))})


def _open_torch(file: Path) -> tuple[Run, dict[str, str]]:
    extra = {_CARD: ""}
    program = torch.export.load(str(file), extra_files=extra)
    return program.module(), json.loads(extra[_CARD])


def _write_torchscript(graph: Graph, file: Path, inputs: Sequence[Tensor], card: Card) -> None:
    traced = torch.jit.trace(graph, tuple(inputs), check_trace=False)
    extra = {_CARD: json.dumps(dict(card))}
    buffer = io.BytesIO()
    try:
        torch.jit.save(traced, buffer, _extra_files=extra)
    except RuntimeError as error:
        raise UsageError(
            "TorchScript cannot hold this detector, because a layer of it is a Python function"
            f" ({str(error).splitlines()[0]}): docs/export.md says which models it can hold."
        ) from error
    file.write_bytes(buffer.getvalue())


def _open_torchscript(file: Path) -> tuple[Run, dict[str, str]]:
    extra = {_CARD: ""}
    return torch.jit.load(str(file), _extra_files=extra), json.loads(extra[_CARD])


def _exported(graph: TensorGraph, inputs: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """The graph for any number of images, of any size that it takes."""
    shapes = graph.dynamic_shapes()
    return torch.export.export(graph, tuple(inputs), dynamic_shapes=shapes, strict=False)


def _require_torch(form: str) -> None:
    least = LEAST_TORCH.get(form)
    if least and TorchVersion(torch.__version__) < least:
        raise UsageError(
            f"The format {form} needs PyTorch {least} or newer, and this is {torch.__version__}:"
            " take --format torchscript, or update PyTorch."
        )


def _check_swin(graph: Graph, form: str, inputs: Sequence[Tensor]) -> None:
    """Refuse what PyTorch's exporter writes and cannot run.

    A Swin must be traced with more than one window in each direction of its coarsest map: PyTorch
    takes a number that is 1 for one that is always 1.
    """
    blocks = [m for m in graph.modules() if type(m).__name__ == "SwinTransformerBlock"]
    if not blocks or form == "torchscript":
        return
    if form == "torch":
        raise UsageError(
            "The format torch cannot hold a Swin, because PyTorch takes minutes or more to load it"
            " and refuses a batch of one image: take --format onnx."
        )
    stride = max(shape.stride for shape in graph.detector.backbone.output_shape().values())
    least = stride * max(*blocks[0].window_size) + 1
    if min(inputs[0].shape[-2:]) < least:
        raise UsageError(
            f"A Swin is exported with images of at least {least} pixels: set --image-size."
        )


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"Exporting to ONNX needs the package {error.name}, which is not installed:"
            " pip install -e .[export]"
        ) from error


class _quietly(warnings.catch_warnings):
    """Inside, the exporters' warnings about Python code and their deprecation are not shown."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        logging.getLogger("onnx_ir").setLevel(logging.ERROR)


FORMATS: dict[str, Callable[[nn.Module, Path, Sequence[Tensor], Card], None]] = {
    "onnx": _write_onnx,
    "torch": _write_torch,
    "torchscript": _write_torchscript,
}
_OPEN = {"onnx": _open_onnx, "torch": _open_torch, "torchscript": _open_torchscript}
