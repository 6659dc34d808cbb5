"""A detector, a distiller, a loader and a data set so small that training takes a second."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from kddetr.engine import CocoEvaluator, parameter_groups, step_schedule, train_defaults

SIZE, CLASSES, IMAGES = 32, 3, 6


class ToyDetector(nn.Module):
    """Classifies the four quarters of an image; it has BatchNorm, LayerNorm and dropout."""

    def __init__(
        self,
        num_classes: int = CLASSES,
        width: int = 8,
        poison: int = -1,
        kill: int = -1,
        stop: int = -1,
    ):
        super().__init__()
        self.num_classes = num_classes
        # The steps at which the loss is NaN, the process dies, the last process is asked to stop.
        self.poison, self.kill, self.stop = poison, kill, stop
        self.steps = 0
        self.backbone = nn.Sequential(
            nn.Conv2d(3, width, 3, 4, 1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, num_classes))

    def logits(self, batch: list[dict]) -> torch.Tensor:
        weight = self.backbone[0].weight
        images = (
            torch.stack([item["image"] for item in batch]).to(weight.device, weight.dtype) / 255
        )
        features = nn.functional.adaptive_avg_pool2d(self.backbone(images), 2).flatten(2)
        return self.head(self.norm(features.transpose(1, 2)))

    def forward(self, batch: list[dict]):
        logits = self.logits(batch)
        if self.training:
            truth = torch.stack([item["quarters"] for item in batch]).to(logits.device)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), truth.flatten())
            noise = 1e-3 * torch.randn((), device=logits.device)
            if self.steps == self.poison:
                loss = loss * float("nan")
            if self.steps == self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.steps == self.stop and comm.get_rank() == comm.get_world_size() - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            self.steps += 1
            return {"loss_class": loss, "loss_noise": (noise * logits).mean()}
        return [{"instances": self.detections(item, scores)} for item, scores in zip(batch, logits)]

    def detections(self, item: dict, logits: torch.Tensor) -> Instances:
        half = SIZE / 2
        corners = torch.tensor([[0, 0], [half, 0], [0, half], [half, half]])
        scores, classes = logits.softmax(-1).max(-1)
        found = Instances((item["height"], item["width"]))
        found.pred_boxes = Boxes(torch.cat([corners, corners + half], 1))
        found.scores, found.pred_classes = scores.cpu(), classes.cpu()
        return found


class ToyDistiller(nn.Module):
    """A wrapper of a detector with weights and a group of losses of its own, like a distiller."""

    def __init__(self, student: nn.Module, teacher: nn.Module | None = None):
        super().__init__()
        self.student = student
        self.projection = nn.Linear(CLASSES, CLASSES)
        self._teacher = [teacher]

    @property
    def deployable(self) -> nn.Module:
        return self.student

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        losses = self.student(batch)
        gap = self.projection(self.student.logits(batch)).square().mean()
        return {**losses, "kd_general/class": gap, "kd_general/box": 0.5 * gap}


class ToyLoader:
    """Batches of generated images that depend on the iteration only."""

    def __init__(self, total_batch_size: int = 4, seed: int = 0):
        self.total_batch_size = total_batch_size
        self.seed = seed
        self.start_iteration = 0

    def __iter__(self):
        iteration = self.start_iteration
        while True:
            rng = np.random.default_rng([self.seed, iteration])
            yield [toy_sample(rng) for _ in range(self.total_batch_size)]
            iteration += 1


class ToyTestLoader:
    """The images of :func:`write_dataset`, one a batch, distributed over the processes."""

    def __init__(self, images: int = IMAGES):
        share = range(images)[comm.get_rank() :: comm.get_world_size()]
        self.indices = list(share)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self):
        for index in self.indices:
            yield [toy_sample(np.random.default_rng([99, index]), index + 1)]


def toy_sample(rng: np.random.Generator, image_id: int = 0) -> dict:
    """An image whose quarters have the colour of their class, with noise."""
    quarters = rng.integers(0, CLASSES, 4)
    image = rng.integers(0, 80, (3, SIZE, SIZE))
    for position, label in enumerate(quarters):
        row, column = divmod(position, 2)
        half = SIZE // 2
        image[label, row * half : (row + 1) * half, column * half : (column + 1) * half] += 150
    return {
        "image": torch.as_tensor(image.astype(np.uint8)),
        "quarters": torch.as_tensor(quarters),
        "height": SIZE,
        "width": SIZE,
        "image_id": image_id,
        "file_name": f"toy_{image_id}.png",
    }


def write_dataset(folder: Path, name: str = "engine_toy", images: int = IMAGES) -> str:
    """Write and register the test images in COCO's format, with category ids 1, 5 and 9."""
    folder.mkdir(parents=True, exist_ok=True)
    ids, half, annotations = (1, 5, 9), SIZE // 2, []
    for index in range(images):
        sample = toy_sample(np.random.default_rng([99, index]), index + 1)
        Image.fromarray(sample["image"].permute(1, 2, 0).numpy()).save(
            folder / f"toy_{index + 1}.png"
        )
        for position, label in enumerate(sample["quarters"].tolist()):
            row, column = divmod(position, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": ids[label],
                    "bbox": [column * half, row * half, half, half],
                    "area": half * half,
                    "iscrowd": 0,
                }
            )
    document = {
        "info": {},
        "images": [
            {"id": i + 1, "file_name": f"toy_{i + 1}.png", "height": SIZE, "width": SIZE}
            for i in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class{i}"} for i in ids],
    }
    (folder / "toy.json").write_text(json.dumps(document))
    if name in DatasetCatalog.list():
        from detectron2.data import MetadataCatalog

        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_coco_instances(name, {}, str(folder / "toy.json"), str(folder))
    return name


def toy_config(
    folder: Path, dataset: str = "engine_toy", *, distil: bool = False, **train
) -> DictConfig:
    """A complete config; ``train`` overrides keys of that section."""
    model = L(ToyDetector)(num_classes=CLASSES)
    if distil:
        model = L(ToyDistiller)(student=model)
    cfg = OmegaConf.create(
        {
            "train": train_defaults(),
            "model": model,
            "optimizer": L(torch.optim.AdamW)(
                params=L(parameter_groups)(base_lr="${..lr}", lr_factors={"backbone": 0.5}),
                lr=0.02,
                betas=[0.9, 0.99],
                weight_decay=1e-4,
            ),
            "lr_multiplier": L(step_schedule)(max_iter="${train.max_iter}", milestones=[0.5]),
            "dataloader": {
                "train": L(ToyLoader)(total_batch_size=4),
                "test": L(ToyTestLoader)(),
                "evaluator": L(CocoEvaluator)(dataset_name=dataset),
            },
        },
        flags={"allow_objects": True},
    )
    defaults = {"output_dir": str(folder / "run"), "device": "cpu", "max_iter": 12, "log_period": 4}
    cfg.train = OmegaConf.merge(cfg.train, defaults, {"checkpointer": {"period": 3}}, train)
    return cfg


CONFIG_FILE = '''"""The toy as a config file."""

import sys

sys.path.insert(0, {here!r})

from pathlib import Path

import engine_toy

engine_toy.write_dataset(Path({data!r}))
_cfg = engine_toy.toy_config(Path({folder!r}), distil={distil})
model, optimizer, lr_multiplier = _cfg.model, _cfg.optimizer, _cfg.lr_multiplier
dataloader, train = _cfg.dataloader, _cfg.train
'''


def write_config(folder: Path, *, distil: bool = False) -> str:
    """Write the toy as a config file that every process can load."""
    path = folder / "toy_config.py"
    here = str(Path(__file__).parent)
    text = CONFIG_FILE.format(
        here=here, data=str(folder / "data"), folder=str(folder), distil=distil
    )
    path.write_text(text)
    return str(path)
