"""The loader of the test images, which may put several of them into a batch.

The one of Detectron2 0.6 cannot.
"""

from collections.abc import Callable, Sequence

from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler
from torch.utils.data import DataLoader

from ..ranges import whole


def build_test_loader(
    *,
    dataset: Sequence[dict],
    mapper: Callable[[dict], dict],
    batch_size: int = 1,
    num_workers: int = 0,
) -> DataLoader:
    """Build the loader of the test images of this process, each once and in their order.

    Args:
        dataset: dataset dicts.
        mapper: turns a dict into a detector's input.
        batch_size: images of a batch. Detections do not depend on it beyond rounding; small images
            are detected faster in larger batches.
        num_workers: loading processes.

    Raises:
        ValueError: a number is out of range.
    """
    whole(1, batch_size=batch_size)
    whole(0, num_workers=num_workers)
    records = DatasetFromList(list(dataset), copy=False)
    return DataLoader(
        MapDataset(records, mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(records)),
        num_workers=num_workers,
        collate_fn=trivial_batch_collator,
    )
