"""What a preflight has measured, and the figures that follow from it."""

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from .names import LabelCounts, Vocabularies
from .sample_ap import SampleAP
from .steps import StepFigures


@dataclass
class Run:
    """What a config says about the length of its run.

    Attributes:
        iterations: of the training.
        batch: images of an iteration, over all processes; 0: unknown.
        labelled, unlabelled: training images, the latter only where they are used.
        test_images: images of an evaluation, of all test sets.
        evaluations: how often these are judged, twice where a moving average is judged too; 0:
            never.
        teaches: whether there is a teacher.
        accumulate: in how many parts a batch goes through the model.
    """

    iterations: int
    batch: int = 0
    labelled: int = 0
    unlabelled: int = 0
    test_images: int = 0
    evaluations: int = 0
    teaches: bool = True
    accumulate: int = 1


@dataclass
class Measured:
    """All that was measured; what was not is None or empty.

    Attributes:
        run: see :class:`Run`.
        vocabularies: the class names of data and teacher.
        labels: what is labelled in the training data.
        steps: seconds and memory of training steps.
        ratios: gradient ratios at the weight ``weight``.
        weight: of the distillation; where the config says ``auto``, 1 while they were measured.
        settled: the weight that ``auto`` has become; None: the config has a number.
        teacher, student: their AP on the same images, the student's with the weights that it starts
            from.
        recorded: whether the teacher's answers were recorded.
        judged_on: what these images are, "validation" or "training".
        alone: the AP of the student without a teacher, which another run has measured.
        seconds_an_image: of an evaluation of the student; None: unknown.
        unbuildable: why the classes do not let the distiller be built; empty where they do.
        notes: sentences about what was left out, and why.
        seconds: what the measuring took.
    """

    run: Run
    vocabularies: Vocabularies | None = None
    labels: LabelCounts | None = None
    steps: StepFigures = field(default_factory=StepFigures)
    ratios: list[float] = field(default_factory=list)
    weight: float = 1.0
    settled: float | None = None
    teacher: SampleAP | None = None
    student: SampleAP | None = None
    recorded: bool = False
    judged_on: str = ""
    alone: float | None = None
    seconds_an_image: float | None = None
    unbuildable: str = ""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ratio(self) -> float | None:
        """The median of the ratios, at the weight that the run will have."""
        if not self.ratios:
            return None
        factor = 1.0 if self.settled is None else self.settled / self.weight
        return factor * statistics.median(self.ratios)

    @property
    def step(self) -> float | None:
        """Seconds of an iteration of the run, the mean over images that the teacher meets first and
        those that it has met.
        """
        known = self.steps.medians()
        if "first" not in known:
            return known["plain"] + known.get("waiting", 0.0) if "plain" in known else None
        step = known["first"]
        if "again" in known and self.run.iterations:
            images = self.run.labelled + self.run.unlabelled
            first = min(1.0, images / max(1, self.run.batch * self.run.iterations))
            step = first * known["first"] + (1 - first) * known["again"]
        return step + known.get("waiting", 0.0)

    @property
    def training_seconds(self) -> float | None:
        """Of all iterations."""
        return None if self.step is None else self.step * self.run.iterations

    @property
    def evaluation_seconds(self) -> float | None:
        """Of all evaluations."""
        if self.seconds_an_image is None:
            return None
        return self.seconds_an_image * self.run.test_images * self.run.evaluations

    @property
    def eta(self) -> float | None:
        """Seconds of the whole run."""
        if self.training_seconds is None:
            return None
        return self.training_seconds + (self.evaluation_seconds or 0.0)

    def figures(self) -> dict[str, Any]:
        """Plain values for ``preflight.json``: seconds, MiB, AP in percent; null: not measured."""
        names, labels = self.vocabularies, self.labels
        return {
            "teacher": _ap_figures(self.teacher, self.judged_on),
            "student": _ap_figures(self.student, self.judged_on),
            "student_alone": self.alone,
            "vocabulary": None
            if names is None
            else {
                "data": len(names.data),
                "teacher": len(names.teacher),
                "known": names.known if names.teacher else None,
                "unknown": names.unknown if names.teacher else None,
                "near": dict(names.near),
                "covered_boxes": names.covered,
            },
            "labels": None
            if labels is None
            else {"images": labels.images, "counted_boxes": sum(labels.boxes.values())},
            "step_seconds": self.steps.medians(),
            "memory_mb": {name: round(mb) for name, mb in self.steps.memory.items()},
            "gradient_ratio": self.ratio,
            "gradient_ratios": self.ratios,
            "weight": self.weight if self.settled is None else self.settled,
            "eta_seconds": self.eta,
            "eta_parts": {
                "training": self.training_seconds,
                "evaluations": self.evaluation_seconds,
            },
            "seconds": self.seconds,
        }


def _ap_figures(ap: SampleAP | None, judged_on: str) -> dict[str, Any] | None:
    if ap is None or math.isnan(ap.value):
        return None
    return {
        "AP": ap.value,
        "interval": list(ap.interval),
        "images": ap.images,
        "judged_on": judged_on,
        "classes": dict(ap.classes),
        "objects": dict(ap.objects),
    }
