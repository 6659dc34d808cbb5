"""Ways to distil the small Faster R-CNN of configs/quickstart, on the validation images.

They differ in the points, in where the student's regions are placed, in the class term or in the
weights of the box terms.
"""

from .lines import Experiment, Line
from .paper import EVIDENCE, QUICK, points

ALONE, DISTILLED = f"{QUICK}/faster_rcnn_alone.py", f"{QUICK}/faster_rcnn_distilled.py"
AT_POINTS = ("model.query_placement=null",)
EXACT = ("model.query_placement.shift=0.0", "model.query_placement.scale=0.0")
BCE = "model.loss.class_loss._target_=kddetr.losses.BinaryCrossEntropy"
BACKGROUND = "model.loss.class_loss._target_=kddetr.losses.KLWithBackground"
T_1 = "model.loss.class_loss.temperature=1.0"
SAMPLERS = {
    "general": "{_target_: kddetr.points.GeneralSampler, count: 50}",
    "specific": "{_target_: kddetr.points.SpecificSampler}",
    "student": "{_target_: kddetr.points.StudentSampler, count: 50}",
    "nearby": "{_target_: kddetr.points.NearbySampler}",
}


def boxes(l1: float, giou: float) -> tuple[str, str]:
    """The overrides that set these weights of the box terms."""
    return f"model.loss.box_losses.0.weight={l1}", f"model.loss.box_losses.1.weight={giou}"


def _form(
    name: str,
    *overrides: str,
    sampled: str = "general, specific",
    regions: str = "at the answers, moved",
    term: str = "KL, T 10",
    weights: str = "5, 2",
    samplers: tuple[str, ...] = (),
    seeds: int = 0,
) -> Line:
    if samplers:
        overrides = (*overrides, points(*(SAMPLERS[sampler] for sampler in samplers)))
    return Line(name, (sampled, regions, term, weights), DISTILLED, overrides, seeds=seeds)


_AT_POINTS, _EXACT = {"regions": "at the points"}, {"regions": "at the answers"}
FORMS = Experiment(
    "forms",
    "forms",
    (
        Line("alone", ("none", "", "", ""), ALONE),
        _form("chosen"),
        _form("at_points", *AT_POINTS, **_AT_POINTS),
        _form("exact", *EXACT, **_EXACT),
        _form(
            "nearby",
            *AT_POINTS,
            sampled="general, nearby",
            samplers=("general", "nearby"),
            seeds=1,
            **_AT_POINTS,
        ),
        _form(
            "student",
            *AT_POINTS,
            sampled="the student's proposals",
            samplers=("student",),
            **_AT_POINTS,
        ),
        _form(
            "three",
            sampled="general, specific, the student's proposals",
            samplers=("general", "specific", "student"),
            seeds=1,
        ),
        _form("specific", sampled="specific", samplers=("specific",), seeds=1),
        _form("background", BACKGROUND, term="KL with background, T 10"),
        _form("background_1", BACKGROUND, T_1, term="KL with background, T 1", seeds=1),
        _form("kl_1", T_1, term="KL, T 1", seeds=1),
        _form("bce", BCE, T_1, term="BCE"),
        _form(
            "bce_1",
            BCE,
            T_1,
            "model.loss.class_loss.weight=1.0",
            term="BCE, weight 1",
            seeds=1,
        ),
        _form("no_boxes", *boxes(0.0, 0.0), weights="0, 0"),
        _form("light_boxes", *boxes(1.0, 0.5), weights="1, 0.5"),
        _form("heavy_boxes", *boxes(10.0, 4.0), weights="10, 4", seeds=1),
        _form("exact_no_boxes", *EXACT, *boxes(0.0, 0.0), weights="0, 0", **_EXACT),
        Line(
            "two_places",
            ("general, specific", "classes at the answers, boxes moved", "KL, T 10", "5, 2"),
            f"{EVIDENCE}/faster_rcnn_two_places.py",
        ),
    ),
    baselines=("alone", "chosen"),
    iterations=900,
    heads=("points", "regions", "class term", "L1, GIoU"),
    columns=("seeds", "val_AP", "val_AP50", "val_AP75"),
)
EXPERIMENTS = (FORMS,)
