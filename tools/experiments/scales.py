"""How large the experiments are: as docs/evidence.md shows them, on a GPU, or tiny."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig, OmegaConf

from kddetr.quickstart import (
    QuickstartSpec,
    make_quickstart_data,
    quickstart_root,
    register_quickstart,
)

from . import ROOT
from .lines import Experiment, Line, Tuning


@dataclass(frozen=True)
class Scale:
    """A size of all experiments.

    Attributes:
        name: of the file of results.
        output: the folder of the runs.
        spec: of the bundled data; None: as the quickstart has it, and where it has it.
        overrides: of every config.
        student, teacher: values of the detectors, where they have such a key.
        for_larger: overrides of the configs whose trained detector is made larger by these values.
        teacher_line: trains the teacher, which the quickstart has for its own size only.
        longer: factor of the iterations.
        longest: the most iterations of a training.
        most: the most seeds of a line, and values of a tuning.
        without: parts that this scale does not have.
        around: seconds of a run before and after its steps, on an idle machine.
    """

    name: str
    output: Path
    spec: QuickstartSpec | None = None
    overrides: tuple[str, ...] = ()
    student: Mapping[str, str] = field(default_factory=dict)
    teacher: Mapping[str, str] = field(default_factory=dict)
    for_larger: tuple[str, ...] = ()
    teacher_line: Line | None = None
    longer: int = 1
    longest: int = 1_000_000
    most: int = 100
    without: tuple[str, ...] = ()
    around: float = 30.0

    def iterations(self, experiment: Experiment, line: Line) -> int:
        """Iterations of a line of an experiment."""
        return min((line.iterations or experiment.iterations) * self.longer, self.longest)

    def seeds(self, experiment: Experiment, line: Line) -> range:
        """Seeds of a line of an experiment."""
        return range(min(line.seeds or experiment.seeds, self.most))

    def values(self, tuning: Tuning) -> Sequence[float]:
        """The values of a tuning that are tried."""
        return tuning.values[: self.most]

    def fitting(self, config: str, overrides: Sequence[str]) -> list[str]:
        """The overrides of this scale that a config has a place for, and those of a line. At most
        half of the training images are labelled by number.
        """
        if self.spec is None:
            return [*self.overrides, *overrides]
        model, found = _model(config), list(self.overrides)
        if "student" in model:
            larger = _existing("model.student", model.student, self.student)
            if key := teacher_key(config):
                detector = OmegaConf.select(model, f"{key}.model")
                found += _existing(f"model.{key}.model", detector, self.teacher)
        else:
            is_teacher = self.teacher_line is not None and config == self.teacher_line.config
            larger = _existing("model", model, self.teacher if is_teacher else self.student)
        found += [*larger, *(self.for_larger if larger else ()), *overrides]
        key, most = "dataloader.train.dataset.count=", self.spec.images[0] // 2
        numbers = [int(x.removeprefix(key)) for x in overrides if x.startswith(key)]
        return [*found, *(f"{key}{most}" for number in numbers if number > most)]

    def needs_teacher(self, config: str) -> bool:
        """Whether the teacher of a config is the bundled one, which this scale has to train."""
        if self.teacher_line is None:
            return False
        key = teacher_key(config)
        return bool(key) and OmegaConf.select(_model(config), key).checkpoint.startswith(
            "kddetr://"
        )

    def use_data(self) -> None:
        """Make the data of this scale, and let the registered data sets read it."""
        folder = quickstart_root() if self.spec is None else self.output / "data" / "quickstart"
        make_quickstart_data(folder, spec=self.spec, progress=False)
        # The trainings are processes of their own, which read this variable in another folder.
        os.environ["DETECTRON2_DATASETS"] = str(folder.parent.resolve())
        for name in [name for name in DatasetCatalog.list() if name.startswith("quickstart_")]:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        register_quickstart(folder)


@cache
def _model(config: str) -> DictConfig:
    return LazyConfig.load(str(ROOT / config)).model


def teacher_key(config: str) -> str:
    """Where a config's model has the detector and the file of its teacher: in a wrapper or not;
    empty where there is no such teacher.
    """
    for key in ("teacher.detector", "teacher"):
        if OmegaConf.select(_model(config), f"{key}.checkpoint"):
            return key
    return ""


def _existing(prefix: str, node: DictConfig, values: Mapping[str, str]) -> list[str]:
    """The overrides for the keys that the detector has."""
    there = [key for key in values if OmegaConf.select(node, key) is not None]
    return [f"{prefix}.{key}={values[key]}" for key in there]


CPU = Scale("cpu", ROOT / "output" / "evidence" / "cpu")

# A pair with about five times the parameters, on images with four times the pixels.
_TEACHER = {
    "backbone.channels": "[48,96,192]",
    "embed_dim": "192",
    "num_heads": "8",
    "feedforward_dim": "768",
}
_STUDENT = {
    "backbone.channels": "[32,64,128]",
    "embed_dim": "128",
    "num_heads": "8",
    "feedforward_dim": "512",
}
GPU = Scale(
    "gpu",
    ROOT / "output" / "evidence" / "gpu",
    QuickstartSpec(image_size=256, images=(20000, 1000, 1000), labeled=1500, per_image=(1, 16)),
    overrides=("dataloader.train.num_workers=2",),
    for_larger=("optimizer.lr=1e-3",),
    student=_STUDENT,
    teacher=_TEACHER,
    teacher_line=Line(
        "teacher",
        "teacher",
        "configs/quickstart/teacher.py",
        iterations=3000,
        folder="teacher",
        seeds=1,
    ),
    longer=4,
    # About the time on a CPU, about tiny detectors of other libraries, and about images of another
    # kind.
    without=("savings", "forms", "real", "realtime"),
)


def quick(folder: Path) -> Scale:
    """Every line once, for a few iterations on a few images, below this folder."""
    spec = QuickstartSpec(images=(24, 8, 8), labeled=12)
    short = ("train.eval_period=0", "lr_multiplier.warmup_iters=0")
    return Scale("quick", folder, spec, short, longest=2, most=1, without=("real",), around=8.0)
