"""What the measured figures say about a distillation: warnings, and reasons not to start it.

The thresholds are rules of thumb. The comment at each says what was measured; docs/
before_you_distil.md has the runs.
"""

import math

from .measured import Measured
from .names import known_words, unknown_words

# Of the gradient ratio before the training. The runs of docs/evidence.md whose distillation helped
# began at 0.28 (Faster R-CNN) and 1.7 (DAB-DETR), and had medians from 0.36 to 1.1 in training.
LEAST_RATIO, MOST_RATIO = 0.1, 10.0
# Percent; a guess, which no run of this project has tested.
WEAK_TEACHER = 20.0
# The one trial in which distillation lost AP in every run had 160 labelled images and a weak
# teacher; with 300 and a teacher of 77 AP a student gained 12.8 (docs/heterogeneous.md).
FEW_LABELS, TEACHER_FOR_FEW_LABELS = 300, 50.0
LEAST_COVERED = 0.9  # of the boxes
# Times of a plain step. In docs/recorded.md a step took 2.0 with a live teacher that keeps its
# encodings, and 1.3 with a recorded one.
SLOW_STEP = 2.5
LARGE_EVALUATIONS = 0.3  # of the time of a run
NO_AP = 0.5  # percent, the upper end of the interval
ENOUGH_OBJECTS = 20  # for a teacher without AP to be refused


def refusals(m: Measured) -> list[str]:
    """Sentences about why the run makes no sense."""
    found = []
    names = m.vocabularies
    if names is not None and names.teacher and names.data and not names.known:
        found.append(
            f"The teacher knows none of the {len(names.data)} classes of the data:"
            f" {unknown_words(names)}; name a teacher of these classes, or give model.teacher a"
            " Vocabulary whose classes are the teacher's in the spelling of the data."
        )
    elif m.unbuildable:
        found.append(m.unbuildable)
    if m.steps.fits is not None:
        found.append(_too_large(m))
    teacher = m.teacher
    tried = teacher is not None and sum(teacher.objects.values()) >= ENOUGH_OBJECTS
    if tried and teacher.interval[1] < NO_AP:
        found.append(
            f"The teacher finds next to nothing on {teacher.images} {m.judged_on} images (AP"
            f" {teacher.value:.1f}), and its student would learn that: check its file, the order of"
            " its classes, and that it was trained on images of this kind."
        )
    return found


def warnings(m: Measured) -> list[str]:
    """Sentences about why the distillation may not pay, and what to do, the gravest first."""
    return [*_about_teacher(m), *_about_names(m), *_about_ratio(m), *_about_time(m)]


def _about_teacher(m: Measured) -> list[str]:
    found, teacher = [], m.teacher
    if teacher is None or math.isnan(teacher.value):
        return found
    if m.student is not None and m.student.value >= teacher.value:
        low, high = m.student.minus(teacher)
        found.append(
            f"The teacher (AP {teacher.value:.1f}) is no better than the weights that the student"
            f" starts from (AP {m.student.value:.1f}; the difference is between {low:+.1f} and"
            f" {high:+.1f}): train the student on without a teacher, or take a better teacher."
        )
    if m.alone is not None and m.alone >= teacher.value and not _partly(m):
        low, high = teacher.interval
        sure = "" if m.alone > high else ", though this sample is too small to be sure"
        found.append(
            f"The teacher (AP {teacher.value:.1f}, between {low:.1f} and {high:.1f}) is no better"
            f" than the student alone (AP {m.alone:.1f}){sure}: a distillation would pull the"
            " student down to it; train a better teacher first."
        )
    labelled = m.labels.images if m.labels is not None else 0
    few = 0 < labelled <= FEW_LABELS and teacher.value < TEACHER_FOR_FEW_LABELS
    if few:
        found.append(
            f"There are only {labelled} labelled images and the teacher has AP {teacher.value:.1f}:"
            " in the trial of this project with 160 labelled images and a weak teacher, the student"
            " alone was better in every run. Train the student alone too, and compare."
        )
    elif teacher.value < WEAK_TEACHER:
        found.append(
            f"The teacher's AP on the {m.judged_on} images is only {teacher.value:.1f}, which is"
            " about the most that a student can learn from it: train a better teacher first, on"
            " these classes and images of this kind."
        )
    return found


def _about_names(m: Measured) -> list[str]:
    names = m.vocabularies
    if m.unbuildable or names is None or not names.known or not names.unknown:
        return []
    few = names.covered is not None and names.covered < LEAST_COVERED
    advice = "; train a teacher with all of them" if few else ""
    words = "the other classes have only their labels to learn from"
    return [f"{known_words(names)}: {words}{advice}."]


def _about_ratio(m: Measured) -> list[str]:
    ratio = m.ratio
    if ratio is None or m.settled is not None or LEAST_RATIO <= ratio <= MOST_RATIO:
        return []
    if ratio < LEAST_RATIO:
        return [
            f"The gradient of the distillation is only {ratio:.2g} times that of the labels, so the"
            f" student will hardly notice its teacher: raise model.weight from {m.weight:g}, or set"
            " model.weight=auto."
        ]
    return [
        f"The gradient of the distillation is {ratio:.2g} times that of the labels, so the labels"
        f" will hardly count: lower model.weight from {m.weight:g}, or set model.weight=auto."
    ]


def _about_time(m: Measured) -> list[str]:
    found, known = [], m.steps.medians()
    if "first" in known and "plain" in known:
        times = known.get("again", known["first"]) / known["plain"]
        if times > SLOW_STEP and not m.recorded:
            found.append(
                f"A distillation step takes {times:.1f} times as long as a step of the student"
                " alone, mostly for the teacher: where specific points are enough, its answers can"
                " be recorded once, and the steps are little dearer than plain ones, see"
                " docs/recorded.md."
            )
    share = (m.evaluation_seconds or 0) / m.eta if m.eta else 0.0
    if share > LARGE_EVALUATIONS and m.run.evaluations > 1:
        found.append(
            f"The {m.run.evaluations} evaluations take {100 * share:.0f} % of the run: evaluate"
            " less often with train.eval_period."
        )
    return found


def _partly(m: Measured) -> bool:
    """Whether the teacher is judged on some of the classes only."""
    return m.vocabularies is not None and bool(m.vocabularies.teacher and m.vocabularies.unknown)


def _too_large(m: Measured) -> str:
    images = m.steps.images
    if not m.steps.fits:
        return (
            "Not even one image fits into the memory of the device: take smaller images,"
            " train.amp.enabled=true, or model.student.checkpoint_activations=true."
        )
    at_once = max(n for n in range(1, m.steps.fits + 1) if images % n == 0)
    return (
        f"{images} images at once do not fit into the memory of the device, and {at_once} do: set"
        f" train.accumulate={m.run.accumulate * images // at_once}, which gives the same batch in"
        " parts, or model.student.checkpoint_activations=true."
    )
