"""How large the experiments are: as docs/evidence.md shows them, or tiny, to see that they run."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

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
        longest: the most iterations of a training.
        most: the most seeds of a line, and values of a tuning.
    """

    name: str
    output: Path
    spec: QuickstartSpec | None = None
    overrides: tuple[str, ...] = ()
    longest: int = 1_000_000
    most: int = 100

    def iterations(self, experiment: Experiment, line: Line) -> int:
        """Iterations of a line of an experiment."""
        return min(line.iterations or experiment.iterations, self.longest)

    def seeds(self, experiment: Experiment, line: Line) -> range:
        """Seeds of a line of an experiment."""
        return range(min(line.seeds or experiment.seeds, self.most))

    def values(self, tuning: Tuning) -> Sequence[float]:
        """The values of a tuning that are tried."""
        return tuning.values[: self.most]

    def fitting(self, overrides: Sequence[str]) -> list[str]:
        """The overrides for data of this scale: at most half of its training images are labelled
        by number.
        """
        most = self.spec.images[0] // 2 if self.spec else math.inf
        key, found = "dataloader.train.dataset.count=", list(overrides)
        for override in overrides:
            if override.startswith(key) and int(override.removeprefix(key)) > most:
                found.append(f"{key}{most}")
        return found

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


CPU = Scale("cpu", ROOT / "output" / "evidence" / "cpu")


def quick(folder: Path) -> Scale:
    """Every line once, for a few iterations on a few images, below this folder."""
    spec = QuickstartSpec(images=(24, 8, 8), labeled=12)
    short = ("train.eval_period=0", "lr_multiplier.warmup_iters=0")
    return Scale("quick", folder, spec, short, longest=2, most=1)
