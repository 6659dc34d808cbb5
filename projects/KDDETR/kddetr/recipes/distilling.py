"""A detector's config made into one that distils a teacher into it."""

from pathlib import Path

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from ..checkpoint import load_pretrained
from ..detectors import DenseQueryDetector, RegionDetector
from ..distiller import KDDETR
from ..errors import UsageError
from ..losses import (
    ForegroundWeight,
    GIoULoss,
    KLDivergence,
    KLWithBackground,
    L1Loss,
    WeightedMeanLoss,
)
from ..points import AtAnswers, GeneralSampler, JointSampler, SpecificSampler
from ..structures import queries_are_boxes
from ..teachers import Vocabulary
from .classes import match_classes, teacher_classes
from .decisions import Decision
from .recognize import Recognized, without_memory
from .request import Request
from .sources import Images

_POINTS = 300  # of each kind at most; the paper finds 300 best on COCO


def add_teacher(
    cfg: DictConfig, request: Request, teacher: Recognized, images: Images
) -> list[Decision]:
    """Make the model of a config the student of a distillation, in place.

    Args:
        cfg: of the student alone, whose number of classes is set.
        request: what the user asks for.
        teacher: what its file is.
        images: of the training.

    Returns:
        What was decided, for the table.

    Raises:
        UsageError: the student cannot be asked what this teacher is asked, the classes of the
            teacher are not known, or it knows none of those of the data.
    """
    names = _names(request, teacher, images)
    match = match_classes(images.classes, names, request.same()) if images.classes else None
    student = cfg.model
    placement, why_points = _placement(request, student, teacher)
    checkpoint = teacher.file
    if "://" not in checkpoint:
        checkpoint = str(Path(checkpoint).expanduser().resolve())
    node = L(load_pretrained)(model=teacher.model, checkpoint=checkpoint)
    if match is not None and list(teacher.classes) != match.data:
        node = L(Vocabulary)(detector=node, classes=match.teacher, wanted=match.data)
        if match.unknown:
            node.partial = True
    elif match is None:
        cfg.train.classes = names or None
    known = len(match.known) if match else teacher.num_classes
    # The KL divergence over a single class is always 0.
    kind, of_classes = (KLDivergence, "") if known > 1 else (KLWithBackground, " and background")
    queries = min(_POINTS, teacher.model.get("num_queries", _POINTS))
    specific = L(SpecificSampler)(count=queries) if placement else L(SpecificSampler)()
    cfg.model = L(KDDETR)(
        student=student,
        teacher=node,
        sampler=L(JointSampler)(samplers=[L(GeneralSampler)(count=queries), specific]),
        loss=L(WeightedMeanLoss)(
            class_loss=L(kind)(weight=10.0, temperature=10.0),
            box_losses=[L(L1Loss)(weight=5.0), L(GIoULoss)(weight=2.0)],
            weighting=L(ForegroundWeight)(),
        ),
    )
    if placement:
        cfg.model.query_placement = L(AtAnswers)()
    why = "recognised by the card in its file" if teacher.card else "recognised by its weights"
    if teacher.card and (ap := teacher.card["results"].get("bbox/AP")):
        why += f", which had {ap:.1f} AP in its last evaluation"
    if request.teacher_config:
        why = f"as {request.teacher_config} says"
    why = "; ".join([why, *(note.rstrip(".") for note in teacher.notes)])
    found = [Decision("teacher", teacher.words, why, "teacher.KEY=VALUE", "model.teacher")]
    if match is not None:
        words = match.describe(labeled=images.labeled > 0)
        override = "--same-class DATA=TEACHER" if match.unknown else "--teacher-classes NAMES"
        why = "matched by name; the teacher's other classes are not used"
        found.append(Decision("classes", words, why, override))
    loss = f"KL divergence of the classes{of_classes}, L1 and GIoU of the boxes"
    found += [
        Decision("points", why_points, f"compared by {loss}", "model.sampler...", "model.sampler"),
    ]
    return found


def _names(request: Request, teacher: Recognized, images: Images) -> list[str]:
    """The names of the teacher's classes; without labelled data there may be none."""
    names = list(teacher.classes)
    if request.teacher_classes:
        names = teacher_classes(request.teacher_classes, teacher.num_classes, images.classes)
    if images.classes and not names:
        raise UsageError(
            f"{teacher.file} does not say the names of its {teacher.num_classes} classes: give"
            " them, in the order of its training, with --teacher-classes (names separated by"
            " commas, the COCO file it was trained with, or the word data for the classes of your"
            " data)."
        )
    return names


def _placement(request: Request, student: DictConfig, teacher: Recognized) -> tuple[bool, str]:
    """Whether the student is asked where the teacher's answers lie, and the points in words.

    A region detector has to be, because a region does not move to an object; so has any student
    whose queries are boxes where those of the teacher are learned embeddings.
    """
    asked, asker = without_memory(student), without_memory(teacher.model)
    if not queries_are_boxes(asked) and queries_are_boxes(asker):
        raise UsageError(
            f"The queries of {request.model} are learned embeddings, and those of the teacher"
            f" ({teacher.words}) are boxes, so the student cannot be asked the same: take a student"
            " whose queries are boxes, such as dino_r18, dab_detr_r18 or faster_rcnn_r50."
        )
    is_region = isinstance(asked, RegionDetector | DenseQueryDetector)
    if is_region or queries_are_boxes(asked) != queries_are_boxes(asker):
        return True, "random and the teacher's own queries; the student is asked at the answers"
    return False, "random and the teacher's own queries"
