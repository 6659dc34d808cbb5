"""The loader of the test images, which may put several of one size into a batch.

The one of Detectron2 0.6 cannot.
"""

import itertools
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
        mapper: turns a dict into a detector's input; images of one size have to get one size.
        batch_size: the most images of a batch: consecutive ones whose dicts state the same
            ``height`` and ``width``. Many detectors, such as those of Detectron2, answer otherwise
            for a padded image; so detections do not depend on the batches beyond rounding. Small
            images are detected faster in larger batches.
        num_workers: loading processes.

    Raises:
        ValueError: a number is out of range.
    """
    whole(1, batch_size=batch_size)
    whole(0, num_workers=num_workers)
    records = DatasetFromList(list(dataset), copy=False)
    sizes = [(x.get("height"), x.get("width")) for x in dataset]
    batches = []
    for size, same in itertools.groupby(InferenceSampler(len(records)), lambda i: sizes[i]):
        indices, most = list(same), 1 if None in size else batch_size
        batches += [indices[i : i + most] for i in range(0, len(indices), most)]
    return DataLoader(
        MapDataset(records, mapper),
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=trivial_batch_collator,
    )
