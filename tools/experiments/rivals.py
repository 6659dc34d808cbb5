"""Other methods in the same frame, each tuned with as many trials, alone and added to KD-DETR."""

from .lines import EVERY, FULL, Experiment, Line, Tuning
from .paper import ALONE, ALONE_CONFIG, DISTILLED, EVIDENCE

POINTS = (0.3, 1.0, 3.0)  # weights of losses at points; 1 is the one of the config
# Of losses on features. At 5, that of the configs, their gradient is at first about 3 % of the
# detection loss's (gradient_ratio in a run's metrics.json), so the trials go up from there.
FEATURES = (5.0, 25.0, 125.0)
# The name of a config, its title, and the key of its weight with the values that are tried.
RIVALS = (
    ("pkd_neck", "features of the neck (PKD)", "model.loss.weight", FEATURES),
    ("pkd_encoder", "features of the encoder (PKD)", "model.loss.weight", FEATURES),
    ("target_queries", "target-aware queries (CLoCKDistill)", "model.weight", POINTS),
    (
        "clockdistill",
        "target-aware queries and encoder maps weighted by objects (CLoCKDistill)",
        "model.loss.losses.1.weight",
        FEATURES,
    ),
    ("qskd", "weights by GIoU (QSKD)", "model.weight", POINTS),
    ("tprd", "refined targets (TPRD)", "model.loss.loss.loss.class_loss.weight", POINTS),
)
# The keys of the methods that have another one where they are added to KD-DETR.
ADDED = {
    "pkd_neck": "model.loss.losses.1.weight",
    "pkd_encoder": "model.loss.losses.1.weight",
    "qskd": "model.loss.weighting.weight",
    "tprd": "model.loss.specific.loss.loss.class_loss.weight",
}
# Twice as long, for features of the neck, which are far ahead of the others at half length.
TWICE_AS_LONG = Experiment(
    "rivals_long",
    "rivals",
    (
        ALONE,
        Line(
            "alone_longer",
            "alone, the time of KD-DETR and PKD",
            ALONE_CONFIG,
            same_time_as="pkd_neck_added",
        ),
        Line("kd_detr", "KD-DETR", DISTILLED),
        Line(
            "pkd_neck",
            "features of the neck (PKD), weight 125",
            f"{EVIDENCE}/pkd_neck.py",
            ("model.loss.weight=125",),
        ),
        Line(
            "pkd_neck_added",
            "KD-DETR and features of the neck (PKD), weight 125",
            f"{EVIDENCE}/pkd_neck_added.py",
            ("model.loss.losses.1.weight=125",),
        ),
    ),
    baselines=("alone", "kd_detr"),
    iterations=FULL,
    columns=("iterations", *EVERY),
)


def _tuning(key: str, values: tuple[float, ...]) -> Tuning:
    return Tuning(key, values, default=5.0 if values is FEATURES else 1.0)


def _line(name: str, title: str, key: str, values: tuple[float, ...]) -> Line:
    return Line(name, title, f"{EVIDENCE}/{name}.py", tuning=_tuning(key, values))


EXPERIMENTS = (
    Experiment(
        "rivals",
        "rivals",
        (
            ALONE,
            Line("kd_detr", "KD-DETR", DISTILLED, tuning=_tuning("model.weight", POINTS)),
            *(_line(*rival) for rival in RIVALS),
            *(
                _line(
                    f"{name}_added",
                    f"KD-DETR and {title}",
                    ADDED.get(name, key),
                    values,
                )
                for name, title, key, values in RIVALS
            ),
        ),
        baselines=("alone", "kd_detr"),
        columns=("tuned", *EVERY),
    ),
    TWICE_AS_LONG,
)
