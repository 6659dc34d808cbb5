"""Other methods in the same frame, each tuned with as many trials, alone and added to KD-DETR."""

from .lines import EVERY, Experiment, Line, Tuning
from .paper import ALONE, DISTILLED, EVIDENCE

FACTORS = (0.3, 1.0, 3.0)
# The name of a config, its title, and the key of its weight with the value that it has there.
RIVALS = (
    ("pkd_neck", "features of the neck (PKD)", "model.loss.weight", 5.0),
    ("pkd_encoder", "features of the encoder (PKD)", "model.loss.weight", 5.0),
    ("target_queries", "target-aware queries (CLoCKDistill)", "model.weight", 1.0),
    ("clockdistill", "the same and the memory of objects", "model.loss.losses.1.weight", 5.0),
    ("qskd", "weights by GIoU (QSKD)", "model.weight", 1.0),
    ("tprd", "refined targets (TPRD)", "model.loss.loss.class_loss.weight", 1.0),
)
# The keys of the methods that have another one where they are added to KD-DETR.
ADDED = {
    "pkd_neck": "model.loss.losses.1.weight",
    "pkd_encoder": "model.loss.losses.1.weight",
    "qskd": "model.loss.weighting.weight",
    "tprd": "model.loss.specific.loss.class_loss.weight",
}


def _tuning(key: str, default: float) -> Tuning:
    return Tuning(key, tuple(factor * default for factor in FACTORS), default)


def _line(name: str, title: str, key: str, default: float) -> Line:
    return Line(name, title, f"{EVIDENCE}/{name}.py", tuning=_tuning(key, default))


EXPERIMENTS = (
    Experiment(
        "rivals",
        "rivals",
        (
            ALONE,
            Line("kd_detr", "KD-DETR", DISTILLED, tuning=_tuning("model.weight", 1.0)),
            *(_line(*rival) for rival in RIVALS),
            *(
                _line(
                    f"{name}_added",
                    f"KD-DETR and {title.replace('the same', 'target-aware queries')}",
                    ADDED.get(name, key),
                    default,
                )
                for name, title, key, default in RIVALS
            ),
        ),
        baselines=("alone", "kd_detr"),
        columns=("tuned", *EVERY),
    ),
)
