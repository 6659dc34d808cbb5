"""The random weights with which a detector of the package ``transformers`` begins.

The package is made for trained weights, and what it draws instead hardly learns: all weights of its
encoder and decoder are near 0 (normal, of deviation ``initializer_range``, 0.01), and in RT-DETR
and RT-DETRv2 so are the scales of the batch norms, so that the image is lost on its way to the
decoder. The original code of the line begins with PyTorch's own values, scales of 1 among them.
"""

from collections.abc import Iterator

from torch import nn

_LAYERS = (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.Embedding)


def initialize(stock: nn.Module) -> None:
    """Draw the weights of a new model as the original code does, in place.

    Layers with weights begin with PyTorch's values. What the package begins in a way of its own
    keeps it: deformable attention, the last layers of the heads, gates. The encoder's boxes begin
    at their anchors. The backbone is a model of its own in the package, and stays as it is.

    Args:
        stock: the package's model, without weights of a file.
    """
    own = list(_without_backbone(stock, stock.config.model_type))
    for module in own:
        if isinstance(module, _LAYERS):
            module.reset_parameters()
    for module in own:
        if not isinstance(module, _LAYERS):
            stock._init_weights(module)  # the package's hook for the values of one module
    if embedding := getattr(stock.model, "denoising_class_embed", None):
        embedding.reset_parameters()  # once more, because the hook draws smaller values
    last = stock.model.enc_bbox_head.layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def _without_backbone(module: nn.Module, kind: str) -> Iterator[nn.Module]:
    """A module and all in it, but for models of another type than ``kind``."""
    yield module
    for child in module.children():
        if getattr(getattr(child, "config", None), "model_type", kind) == kind:
            yield from _without_backbone(child, kind)
