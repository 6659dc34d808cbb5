"""Experiments about the choices that the paper leaves open: how many points, which loss."""

from dataclasses import replace

from .lines import Experiment, Line
from .paper import ALONE, ALONE_CONFIG, BOTH_FRW, DISTILLED, EVIDENCE

COUNTS = (10, 25, 100, 300, 900)  # and the quickstart's 50
WEIGHTS = (0.1, 0.3, 3.0, 10.0)  # and 1
TEMPERATURES = (1.0, 3.0, 30.0)  # and 10
CLASS_WEIGHT = 10.0  # of the quickstart's KL, which is a mean over the classes
OURS = ("both_frw",)
_NORMAL, _UNIFORM = "logits from N(0, 1), as published", "uniform, as the quickstart"


def _changed(name: str, title: str, *overrides: str) -> Line:
    return Line(name, title, DISTILLED, overrides)


def _default(title: str) -> Line:
    return Line(BOTH_FRW.name, title, DISTILLED)


GENERAL_POINTS = Experiment(
    "general_points",
    "choices",
    (
        ALONE,
        *(
            _changed(f"general_{n}", str(n), f"model.sampler.samplers.0.count={n}")
            for n in COUNTS[:2]
        ),
        _default("50, as the quickstart"),
        *(
            _changed(f"general_{n}", str(n), f"model.sampler.samplers.0.count={n}")
            for n in COUNTS[2:]
        ),
    ),
    baselines=OURS,
    heads=("general points",),
)
TEMPERATURE = Experiment(
    "temperature",
    "choices",
    (
        *(
            _changed(f"temperature_{t:g}", f"{t:g}", f"model.loss.class_loss.temperature={t:g}")
            for t in TEMPERATURES[:2]
        ),
        _default("10, as published"),
        _changed("temperature_30", "30", "model.loss.class_loss.temperature=30"),
    ),
    baselines=OURS,
    heads=("temperature",),
)
REDUCTION = Experiment(
    "reduction",
    "choices",
    (
        _default("weighted mean, as the quickstart"),
        _changed(
            "per_image_mean",
            "weighted mean of each image",
            "model.loss._target_=kddetr.losses.PerImageLoss",
        ),
        _changed(
            "summed_classes",
            "weighted mean, KL summed over the 10 classes",
            f"model.loss.class_loss.weight={10 * CLASS_WEIGHT:g}",
        ),
        Line("published", "the published settings for DAB-DETR", f"{EVIDENCE}/published.py"),
        Line("per_image", "the public settings of TPRD for DINO", f"{EVIDENCE}/per_image.py"),
    ),
    baselines=OURS,
    heads=("reduction",),
)
BOXES = Experiment(
    "boxes",
    "choices",
    (
        _default(_UNIFORM),
        _changed(
            "normal_logit",
            _NORMAL,
            "model.sampler.samplers.0.distribution=normal_logit",
        ),
    ),
    baselines=OURS,
    heads=("general boxes",),
)
ANCHORS = Experiment(
    "anchors",
    "choices",
    (
        replace(ALONE, title=("alone", _UNIFORM)),
        Line(
            "alone_normal", ("alone", _NORMAL), ALONE_CONFIG, ("model.anchor_centres=normal_logit",)
        ),
        Line("distilled", ("distilled", _UNIFORM), DISTILLED),
        Line(
            "distilled_normal",
            ("distilled", _NORMAL),
            DISTILLED,
            ("model.student.anchor_centres=normal_logit",),
        ),
    ),
    baselines=("alone", "distilled"),
    heads=("student", "centres of its initial anchors"),
)
LAYERS = Experiment(
    "layers",
    "choices",
    (
        _default("all against the teacher's last, as published"),
        _changed("last_layer", "the last against the last", "model.loss.student_layers=last"),
        Line("layer_by_layer", "each against the teacher's same", f"{EVIDENCE}/layer_by_layer.py"),
    ),
    baselines=OURS,
    heads=("student's layers",),
)
WEIGHT = Experiment(
    "weight",
    "choices",
    (
        ALONE,
        *(_changed(f"weight_{w:g}", f"{w:g}", f"model.weight={w:g}") for w in WEIGHTS[:2]),
        _default("1, as the quickstart"),
        *(_changed(f"weight_{w:g}", f"{w:g}", f"model.weight={w:g}") for w in WEIGHTS[2:]),
        _changed("weight_auto", "auto", "model.weight=auto"),
    ),
    baselines=OURS,
    heads=("weight of the distillation",),
)
EXPERIMENTS = (GENERAL_POINTS, TEMPERATURE, REDUCTION, BOXES, ANCHORS, LAYERS, WEIGHT)
