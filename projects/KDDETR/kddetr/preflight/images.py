"""The images on which teacher and student are judged before a training: a random sample, and the
detections in them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from ..data import build_test_loader
from ..engine import build
from ..engine.checks import labeled_names
from ..engine.evaluation.ground_truth import GroundTruth
from ..engine.evaluation.sets import by_evaluation_set, evaluation_sets, has_test_data

Detect = Callable[[list[dict[str, Any]]], list[dict[str, Instances]]]
MOST_RECORDS = 2000  # of the training data, of which labelled ones are taken


@dataclass(frozen=True)
class JudgedImages:
    """Labelled images, and how they are read.

    Attributes:
        records: dataset dicts, in a random order that is the same at every call.
        mapper: makes a detector's input from one.
        truth: the objects in all of them.
        kind: "validation" or "training".
        evaluated: how many images an evaluation judges, of all test sets; 0: none.
        batch_size, num_workers, max_dets: as in the config's evaluation.
    """

    records: Sequence[dict]
    mapper: Callable[[dict], dict]
    truth: GroundTruth
    kind: str
    evaluated: int = 0
    batch_size: int = 1
    num_workers: int = 0
    max_dets: int = 100

    def loader(self, count: int) -> DataLoader:
        """This process's share of the first ``count`` images, those of one size side by side."""
        chosen = sorted(self.records[:count], key=lambda x: (x.get("height"), x.get("width")))
        return build_test_loader(
            dataset=chosen,
            mapper=self.mapper,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
        )

    def ids(self, count: int) -> list[Any]:
        """The ids of these images."""
        return [x["image_id"] for x in self.records[:count]]


def validation_images(cfg: DictConfig) -> JudgedImages | None:
    """The (first) test set of a config; None where it has none with a data set and a mapper."""
    if not has_test_data(cfg):
        return None
    part, *others = by_evaluation_set(cfg).values()
    loader, evaluator = part.dataloader.test, part.dataloader.evaluator
    if not OmegaConf.is_dict(loader) or "dataset" not in loader or "mapper" not in loader:
        return None
    names = evaluation_sets(part)
    if len(names) != 1:
        return None
    records = build(loader.dataset)
    order = np.random.default_rng(0).permutation(len(records))
    return JudgedImages(
        [records[i] for i in order],
        build(loader.mapper),
        GroundTruth(names[0]),
        "validation",
        len(records) + sum(len(build(other.dataloader.test.dataset)) for other in others),
        loader.get("batch_size") or 1,
        loader.get("num_workers") or 0,
        (evaluator.get("max_dets_per_image") if OmegaConf.is_dict(evaluator) else None) or 100,
    )


def training_images(cfg: DictConfig, records: Sequence[dict]) -> JudgedImages | None:
    """The labelled training images, read as for testing; None where they are of several data sets,
    or it is not known how test images are read.
    """
    names, mapper = labeled_names(cfg), OmegaConf.select(cfg, "dataloader.test.mapper")
    if len(names) != 1 or mapper is None:
        return None
    order = np.random.default_rng(0).permutation(len(records))[:MOST_RECORDS]
    labelled = [x for x in (records[i] for i in order) if "annotations" in x]
    return JudgedImages(labelled, build(mapper), GroundTruth(names[0]), "training")


@torch.no_grad()
def detections_of(detect: Detect, loader: Iterable[list[dict]]) -> list[dict[str, Any]]:
    """The detections in the images of a loader, in COCO's form with classes from 0, gathered from
    all processes.
    """
    found = []
    for batch in loader:
        for x, output in zip(batch, detect(batch), strict=True):
            instances = output["instances"].to("cpu")
            found += instances_to_coco_json(instances, x["image_id"])
    return [one for part in comm.all_gather(found) for one in part]
