"""Hard pseudo-labels: a teacher's confident answers as if they were ground truth.

They are the usual alternative to distilling from a recorded teacher: what is left of an answer is
one class and one box.
"""

from typing import Any

import torch
from torchvision.ops import batched_nms

from ..boxes import cxcywh_to_xyxy
from ..data.mapper import clipped
from ..errors import UsageError
from ..ranges import fraction
from .record import Record

DUPLICATE = 0.7  # two answers of one class with a larger IoU are one object


def pseudo_labels(record: Record, *, threshold: float) -> dict[str, Any]:
    """A document in COCO's format about the images of a record that were not labelled.

    Of each answer its most likely class counts. Of answers of one class whose boxes have an IoU
    above 0.7, only the most confident one is kept.

    Args:
        record: of the teacher.
        threshold: the least probability of a class.

    Returns:
        ``images``, with file names relative to the ``image_root`` of the record's card,
        ``annotations`` and ``categories``, whose ids are 1 to K in the order of the record.

    Raises:
        ValueError: the threshold is not from 0 to 1.
        UsageError: all images of the record were labelled.
    """
    fraction(threshold=threshold)
    images: list[dict] = []
    notes: list[dict] = []
    for image, answers in record:
        if image.labeled:
            continue
        height, width = image.size
        entry = {"id": len(images) + 1, "file_name": image.file_name}
        images.append(entry | {"height": height, "width": width})
        scores, classes = answers.logits[:, 0].float().sigmoid(), answers.classes[:, 0].long()
        scale = torch.tensor([width, height, width, height])
        boxes, inside = clipped((cxcywh_to_xyxy(answers.boxes) * scale).numpy(), image.size)
        sure = torch.from_numpy(inside) & (scores >= threshold)
        kept = sure.nonzero().flatten()
        corners = torch.from_numpy(boxes).float()[kept]
        kept = kept[batched_nms(corners, scores[kept], classes[kept], DUPLICATE)]
        for i in kept.tolist():
            x0, y0, x1, y1 = boxes[i].tolist()
            note = {"id": len(notes) + 1, "image_id": len(images), "iscrowd": 0}
            note |= {"category_id": int(classes[i]) + 1, "score": round(float(scores[i]), 4)}
            notes.append(note | {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)})
    if not images:
        raise UsageError(
            f"All images of the record {record.folder} were labelled, so none is left for"
            " pseudo-labels: record the teacher over images without labels."
        )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(record.classes)]
    return {"images": images, "annotations": notes, "categories": categories}
