"""The measurements behind docs/performance.md: one list, each a command of tools/benchmark.py."""

from dataclasses import dataclass

DISTILL, DETECTORS = "configs/distill", "configs/detectors"
DAB = "dab_detr_r18_from_dab_detr_r50"
DINO = "dino_r18_from_dino_r50"
PAIRS = {
    "DAB-DETR R18 from R50": DAB,
    "Deformable DETR R18 from R50": "deformable_detr_r18_from_deformable_detr_r50",
    "DINO R18 from R50": DINO,
    "Faster R-CNN R50 from DINO R50": "faster_rcnn_r50_from_dino_r50",
}
AMP = "train.amp.enabled=true"
RETINANET = "model.student.name=COCO-Detection/retinanet_R_50_FPN_1x.yaml"
FCOS = (
    "model.student.name=COCO-Detection/fcos_R_50_FPN_1x.py",
    "model.student.overrides=[model.head.norm,'']",
)


@dataclass(frozen=True)
class Measurement:
    """One run of tools/benchmark.py.

    Attributes:
        name: of the line in the results file.
        table: of the page that shows it.
        label: the row's first cell.
        config: the config file.
        size: height and width of the images.
        flags: further flags.
        overrides: of the config.
        repeats: interleaved repetitions.
        devices: on which it is measured.
    """

    name: str
    table: str
    label: str
    config: str
    size: tuple[int, int]
    flags: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    repeats: int = 5
    devices: tuple[str, ...] = ("cpu", "cuda")

    def arguments(self, device: str) -> list[str]:
        """The arguments of tools/benchmark.py. One thread of a CPU: other programs on the machine
        then cost the measured one nothing that is counted.
        """
        words = ["--config-file", self.config, "--device", device, "--image-size"]
        words += [str(side) for side in self.size]
        words += ["--threads", "1"] if device == "cpu" else []
        words += ["--repeats", str(self.repeats), *self.flags]
        return [*words, *(["--", *self.overrides] if self.overrides else [])]


def _steps() -> list[Measurement]:
    found = []
    for side in (320, 640):
        for label, config in PAIRS.items():
            name, file = f"{config}_{side}", f"{DISTILL}/{config}.py"
            repeats = 5 if side == 320 else 3
            found.append(Measurement(name, "steps", label, file, (side, side), repeats=repeats))
    large = Measurement(
        f"{DINO}_800x1333",
        "steps",
        "DINO R18 from R50",
        f"{DISTILL}/{DINO}.py",
        (800, 1333),
        repeats=3,
    )
    return [*found, large]


def _points() -> list[Measurement]:
    """General points alone, so that nothing else changes between the two rows."""
    sampler = "{{_target_:kddetr.points.GeneralSampler,count:{},distribution:normal_logit}}"
    return [
        Measurement(
            f"general_{count}",
            "points",
            f"{count} general points",
            f"{DISTILL}/{DAB}.py",
            (320, 320),
            flags=("--only", "steps,operations"),
            overrides=(f"model.sampler.samplers=[{sampler.format(count)}]",),
        )
        for count in (300, 900)
    ]


def _adapter() -> list[Measurement]:
    flags = ("--fixed-teacher", "--batch-size", "1", "--only", "steps,operations")
    found = []
    own, custom = (
        f"{DISTILL}/faster_rcnn_r50_from_dino_r50.py",
        f"{DISTILL}/custom_faster_rcnn.py",
    )
    at_points = ("model.query_placement=null",)
    rows: list[tuple[str, str, str, tuple[int, int], tuple[str, ...]]] = [
        ("faster_rcnn_480", "Faster R-CNN R50, at the answers", own, (480, 640), ()),
        ("faster_rcnn_480_points", "Faster R-CNN R50, at the points", own, (480, 640), at_points),
        ("faster_rcnn_800", "Faster R-CNN R50, at the answers", own, (800, 1088), ()),
        ("retinanet_480", "RetinaNet R50, at the answers", custom, (480, 640), (RETINANET,)),
        ("fcos_480", "FCOS R50, at the answers", custom, (480, 640), FCOS),
    ]
    for name, label, config, size, overrides in rows:
        found.append(
            Measurement(f"adapter_{name}", "adapter", label, config, size, flags, overrides)
        )
    return found


def _objects() -> list[Measurement]:
    flags = ("--boxes", "30", "--only", "shares")
    return [
        Measurement(
            f"objects_{side}",
            "objects",
            f"DINO R18 from R50, {side} x {side}",
            f"{DISTILL}/{DINO}.py",
            (side, side),
            flags,
            repeats=3,
        )
        for side in (320, 640)
    ]


def _memory() -> list[Measurement]:
    """What recomputed activations save, which docs/training.md refers to."""
    recompute, flags = "model.checkpoint_activations=true", ("--only", "memory")
    plain = (*flags, "--sampling", "grid_sample")
    rows = [
        ("kept", "activations kept", flags, (AMP,)),
        ("recomputed", "recomputed", flags, (AMP, recompute)),
        ("recomputed_plain", "recomputed, sampled by grid_sample", plain, (AMP, recompute)),
    ]
    return [
        Measurement(
            f"memory_{name}",
            "activations",
            label,
            f"{DETECTORS}/dino_r50.py",
            (800, 1333),
            options,
            overrides,
        )
        for name, label, options, overrides in rows
    ]


def _float32() -> list[Measurement]:
    """The same steps in float32, where a GPU takes bfloat16 by itself."""
    return [
        Measurement(
            f"{config}_640_float32",
            "steps",
            label,
            f"{DISTILL}/{config}.py",
            (640, 640),
            overrides=("train.amp.enabled=false",),
            devices=("cuda",),
        )
        for label, config in PAIRS.items()
    ]


MEASUREMENTS = (
    *_steps(),
    *_float32(),
    *_points(),
    *_adapter(),
    *_objects(),
    *_memory(),
)
