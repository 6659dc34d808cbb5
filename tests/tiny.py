"""Detectors and distillers of a few thousand weights, and batches of a few pixels."""

import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from kddetr import KDDETR
from kddetr.detectors import DetectionTransformer, TinyConvNet, dab_detr, deformable_detr, dino
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler

CLASSES = 3
FAMILIES = (
    "dab_detr",
    "deformable_detr_plain",
    "deformable_detr",
    "deformable_detr_two_stage",
    "dab_deformable_detr",
    "dino",
)


VARIANTS = {  # of deformable_detr, by family
    "deformable_detr_plain": "plain",
    "deformable_detr": "refine",
    "deformable_detr_two_stage": "two_stage",
    "dab_deformable_detr": "anchors",
}


def tiny_detector(family: str = "dab_detr", *, seed: int = 0, **options) -> DetectionTransformer:
    """A detector of the family whose every weight is random, heads and offsets too."""
    torch.manual_seed(seed)
    common = {
        "backbone": TinyConvNet(
            channels=[4, 6, 8],
            blocks=[0, 1, 0],
            out_features=["stage1", "stage2"],
            norm="FrozenBN",  # with batch statistics, an image would depend on its batch
        ),
        "num_classes": CLASSES,
        "num_queries": 6,
        "embed_dim": 16,
        "num_heads": 4,
        "feedforward_dim": 24,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "num_detections": 10,
        **options,
    }
    if family == "dab_detr":
        model = dab_detr(in_feature="stage2", **common)
    elif family == "dino":
        common = {"denoising_number": 5, **common}
        model = dino(in_features=["stage1", "stage2"], groups=4, **common)
    else:
        model = deformable_detr(
            in_features=["stage1", "stage2"],
            groups=4,
            variant=VARIANTS[family],
            **{"dropout": 0.0, **common},
        )
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.3)
    return model


def tiny_batch(
    sizes: tuple[tuple[int, int], ...] = ((40, 56), (48, 40)),
    *,
    boxes: tuple[int, ...] = (3, 2),
    seed: int = 0,
) -> list[dict]:
    """Random images.

    Args:
        sizes: (h, w) of each image.
        boxes: the number of random boxes of each image; None: it is unlabelled.
        seed: of pixels and boxes.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for i, ((height, width), count) in enumerate(zip(sizes, boxes, strict=True)):
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        x = {"image": image, "height": height, "width": width, "image_id": i}
        if count is not None:
            low = torch.rand(count, 2, generator=generator) * 0.5
            high = low + 0.2 + torch.rand(count, 2, generator=generator) * 0.3
            scale = torch.tensor([width, height, width, height])
            x["instances"] = Instances(
                (height, width),
                gt_boxes=Boxes(torch.cat([low, high], dim=1) * scale),
                gt_classes=torch.randint(0, CLASSES, (count,), generator=generator),
            )
        batch.append(x)
    return batch


def tiny_distiller(student: nn.Module, teacher: nn.Module, **options) -> KDDETR:
    """A distiller in training mode; by default with general and specific points."""
    defaults = {
        "sampler": JointSampler([GeneralSampler(count=4), SpecificSampler()]),
        "loss": WeightedMeanLoss(),
    }
    return KDDETR(student=student, teacher=teacher, **defaults | options).train()


def assert_same_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Check that two state dicts have the same names in the same order, and the same bits."""
    assert list(found) == list(expected)
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
