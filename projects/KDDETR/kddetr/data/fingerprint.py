"""A data set in a few figures: how many images and boxes it has, and a fingerprint of them."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

from .entries import is_left_out


def data_card(records: Sequence[dict]) -> dict[str, Any]:
    """What a model card says about a data set.

    The fingerprint depends on the images' names without their folders, and on their boxes and
    classes in their order; so it is the same wherever the images lie.

    Args:
        records: dataset dicts.

    Returns:
        ``images``, ``boxes`` (those that are trained on) and ``fingerprint``, a BLAKE2b digest.
    """
    digest, boxes = hashlib.blake2b(digest_size=16), 0
    for record in records:
        kept = [x for x in record.get("annotations", ()) if not is_left_out(x)]
        boxes += len(kept)
        facts = [(x.get("category_id"), [float(v) for v in x.get("bbox", ())]) for x in kept]
        name = os.path.basename(record.get("file_name", ""))
        digest.update(repr((name, "annotations" in record, facts)).encode())
    return {"images": len(records), "boxes": boxes, "fingerprint": digest.hexdigest()}
