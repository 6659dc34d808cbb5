"""The ground-truth losses of the package: its denoising queries, its matching, its terms.

Shape letters: B images, N queries, D denoising queries, T boxes of one image.
"""

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...parallel import normaliser
from ..detr.criterion import BOXES
from .memory import TokenMemory
from .package import denoising_queries

if TYPE_CHECKING:
    from .detector import HuggingFaceDetector

_SUFFIX = re.compile(r"_(aux|dn)_\d+$")


def package_losses(
    detector: "HuggingFaceDetector", memory: TokenMemory, labels: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The weighted losses by the package's names, as its ``forward`` computes them in training.

    The package normalises by the number of boxes in a process, and not in all processes together as
    the original code does. Where a batch is trained in parts, it is that of the whole batch.

    Args:
        detector: whose losses these are.
        memory: of B images.
        labels: of each image ``class_labels``, (T,) int64, and ``boxes``, (T, 4) ``cxcywh`` in [0,
            1].
    """
    stock, ranking = detector.stock, detector.ranking(memory)
    content = ranking.of_tokens(ranking.features, ranking.selected).detach()
    own = ranking.of_tokens(ranking.boxes, ranking.selected)
    references, mask, denoising = own.detach(), None, None
    if detector.training and stock.config.num_denoising > 0:
        classes, boxes, mask, denoising = _denoising(detector, labels)
        if denoising is not None:
            content = torch.cat([classes, content], dim=1)
            references = torch.cat([boxes, references], dim=1)
    output = detector.decode_references(memory, content, references, mask)
    logits, boxes = output.intermediate_logits, output.intermediate_reference_points
    _, losses, _ = stock.loss_function(
        logits[:, -1],
        labels,
        detector.device,
        boxes[:, -1],
        stock.config,
        logits,
        boxes,
        enc_topk_logits=ranking.of_tokens(ranking.logits, ranking.selected),
        enc_topk_bboxes=own.sigmoid(),
        denoising_meta_values=denoising,
        **detector.member.further_outputs(output),
    )
    if denoising is None and detector.training and stock.config.num_denoising > 0:
        losses |= _no_denoising(detector, losses)
    # 1, except where the package has divided by the boxes of a part of the batch.
    boxes = sum(len(x["boxes"]) for x in labels)
    factor = max(boxes, 1) / boxes_of_batch(boxes, detector.device)
    return {name: factor * value for name, value in losses.items()}


def boxes_of_batch(boxes: int, device: torch.device) -> Tensor:
    """What the losses of images with so many ``boxes`` are divided by: these, at least 1, or what
    makes the mean over the parts of a batch that of the whole, see
    :func:`kddetr.parallel.normaliser`.
    """
    value = torch.full((), float(boxes), device=device)
    return normaliser(value, least=1, name=BOXES, of_each_process=True)


def _denoising(detector: "HuggingFaceDetector", labels: list[dict[str, Tensor]]) -> tuple[Any, ...]:
    """(B, D, C) content, (B, D, 4) logits of boxes, (D + N, D + N) mask and the package's record of
    what belongs together; all None where no image has a box.
    """
    model, config = detector.stock.model, detector.stock.config
    return denoising_queries(detector.stock)(
        targets=labels,
        num_classes=config.num_labels,
        num_queries=config.num_queries,
        class_embed=model.denoising_class_embed,
        num_denoising_queries=config.num_denoising,
        label_noise_ratio=config.label_noise_ratio,
        box_noise_scale=config.box_noise_scale,
    )


def _no_denoising(detector: "HuggingFaceDetector", losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses of 0 under the names that those of denoising queries have, where there are none.

    With several processes all must have the same losses, and every weight a gradient.
    """
    zero = 0 * detector.stock.model.denoising_class_embed.weight.sum()
    terms = dict.fromkeys(_SUFFIX.sub("", name) for name in losses)
    return {f"{term}_dn_{i}": zero for i in range(detector.num_layers) for term in terms}
