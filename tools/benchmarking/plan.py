"""The measurements behind docs/performance.md: one list, each a command of tools/benchmark.py."""

from dataclasses import dataclass

DISTILL, DETECTORS = "configs/distill", "configs/detectors"
DAB = "dab_detr_r18_from_dab_detr_r50"
DINO = "dino_r18_from_dino_r50"
SHORT = {DAB: "DAB-DETR R18 from R50", DINO: "DINO R18 from R50"}
PAIRS = {
    SHORT[DAB]: DAB,
    "Deformable DETR R18 from R50": "deformable_detr_r18_from_deformable_detr_r50",
    SHORT[DINO]: DINO,
    "Faster R-CNN R50 from DINO R50": "faster_rcnn_r50_from_dino_r50",
}
AMP = "train.amp.enabled=true"
STEPS = ("--only", "steps,operations,memory")
ON_CARD = ("cuda",)
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
        before: commands that make what it needs, and nothing where that is there already.
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
    before: tuple[tuple[str, ...], ...] = ()

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
    large = "steps", SHORT[DINO], f"{DISTILL}/{DINO}.py", (800, 1333)
    recomputed = Measurement(
        f"{DAB}_320_recomputed",
        "steps",
        f"{SHORT[DAB]}, activations recomputed",
        f"{DISTILL}/{DAB}.py",
        (320, 320),
        overrides=("model.student.checkpoint_activations=true",),
    )
    # On a CPU the profiler, which counts memory there, would itself need 20 GB at this size.
    name, only = f"{DINO}_800x1333", ("--only", "steps,operations")
    cpu = Measurement(name, *large, only, repeats=3, devices=("cpu",))
    cuda = Measurement(f"{name}_whole", *large, repeats=3, devices=("cuda",))
    return [*found, recomputed, cpu, cuda]


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
    """What recomputed activations save, which docs/speed_and_memory.md refers to."""
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


def _recorded() -> list[Measurement]:
    """A student on the bundled images, with recorded answers and with its teacher in the loop.

    The record is that of a small detector with random weights and 100 queries, as many answers of
    an image as a record keeps: what a recorded step costs does not depend on who has answered.
    """
    folder = "output/performance"
    data, record = f"{folder}/quickstart", f"{folder}/record"
    untrained = "model.teacher.detector._target_=benchmarking.weights.untrained"
    before = (
        ("python", "tools/make_quickstart_data.py", "--root", data),
        (
            *("python", "tools/record_teacher.py", "--output", record),
            *("--config-file", "configs/quickstart/distilled.py", "--images", f"{data}/train"),
            *("--categories", f"{data}/train_labeled.json"),
            *(untrained, "model.teacher.detector.checkpoint="),
            "model.teacher.detector.model.num_queries=100",
        ),
    )
    images = (
        "model.student.num_classes=10",
        f"dataloader.train.dataset.json_file={data}/train_labeled.json",
        f"dataloader.train.dataset.image_root={data}/train",
        "dataloader.test=null",
    )
    rows = {
        "recorded": ("custom_recorded", (f"model.teacher.path={record}",), before),
        "live": ("custom_dino", (), before[:1]),
    }
    return [
        Measurement(
            f"dino_{name}_320",
            "recorded",
            f"DINO R18, {name}",
            f"{DISTILL}/{config}.py",
            (320, 320),
            flags=("--own-images", "--only", "steps,operations"),
            overrides=(*overrides, *images),
            before=commands,
        )
        for name, (config, overrides, commands) in rows.items()
    ]


def _precision() -> list[Measurement]:
    """What mixed precision saves, and a teacher whose weights are in half precision too."""
    bfloat16 = (AMP, "train.amp.dtype=bfloat16")
    rows: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
        "float32": ("", (), ("train.amp.enabled=false",)),
        "bfloat16": ("", (), bfloat16),
        "float16": ("", (), (AMP, "train.amp.dtype=float16")),
        "half_teacher": (", HalfPrecision teacher", ("--half-teacher",), bfloat16),
    }
    return [
        Measurement(
            f"{config}_640_{name}",
            "precision",
            label + suffix,
            f"{DISTILL}/{config}.py",
            (640, 640),
            (*flags, *STEPS),
            overrides,
            devices=ON_CARD,
        )
        for config, label in SHORT.items()
        for name, (suffix, flags, overrides) in rows.items()
    ]


def _compiled() -> list[Measurement]:
    """What torch.compile saves; on a CPU of the pair that compiles fastest only."""
    teacher, student = "train.compile.teacher=true", "train.compile.student=true"
    rows = {
        "plainly": ("not compiled", ()),
        "compiled_teacher": ("teacher compiled", (teacher,)),
        "compiled": ("teacher and student compiled", (teacher, student)),
    }
    return [
        Measurement(
            f"{config}_{side}_{name}",
            "compile",
            f"{label}, {words}",
            f"{DISTILL}/{config}.py",
            (side, side),
            STEPS,
            overrides,
            devices=devices,
        )
        for config, label, side, devices in (
            (DAB, SHORT[DAB], 320, ("cpu",)),
            (DAB, SHORT[DAB], 640, ON_CARD),
            (DINO, SHORT[DINO], 640, ON_CARD),
        )
        for name, (words, overrides) in rows.items()
    ]


def _batching() -> list[Measurement]:
    """Two images of different sizes, each through the backbone by itself, or padded together."""
    keys = ("model.student.backbone_batching", "model.teacher.model.backbone_batching")
    return [
        Measurement(
            f"{config}_{side}_{way}",
            "batching",
            f"{label}, {way}",
            f"{DISTILL}/{config}.py",
            (side, side),
            ("--mixed-sizes", *STEPS),
            tuple(f"{key}={way}" for key in keys),
            devices=devices,
        )
        for config, label, side, devices in (
            (DINO, SHORT[DINO], 320, ("cpu",)),
            (DAB, SHORT[DAB], 640, ON_CARD),
            (DINO, SHORT[DINO], 640, ON_CARD),
        )
        for way in ("by_size", "padded")
    ]


def _sampling() -> list[Measurement]:
    """The implementations of deformable attention's sampling, all in one run."""
    label, config = SHORT[DINO], f"{DISTILL}/{DINO}.py"
    return [
        Measurement(
            f"sampling_{side}", "sampling", label, config, (side, side), ("--only", "sampling")
        )
        for side in (320, 640)
    ]


def _students() -> list[Measurement]:
    """The small students of all families on images of the bundled data's size, alone, and a
    real-time detector of full size; the runs of the steps have others of that size.
    """
    quick, small = "configs/quickstart", (128, 128)
    rows: dict[str, tuple[str, str, tuple[int, int]]] = {
        "rtdetr": ("RT-DETRv2", f"{quick}/rtdetr_alone.py", small),
        "dab": ("DAB-DETR, deformable attention", f"{quick}/alone.py", small),
        "dino": ("DINO", f"{quick}/dino_alone.py", small),
        "rcnn": ("Faster R-CNN", f"{quick}/faster_rcnn_alone.py", small),
        "rtdetr_r18": ("RT-DETRv2 R18", f"{DETECTORS}/rtdetr_v2_r18.py", (640, 640)),
    }
    return [
        Measurement(
            f"student_{name}",
            "students",
            label,
            config,
            size,
            ("--only", "student"),
            repeats=20 if size == small else 5,
            devices=("cpu",),
        )
        for name, (label, config, size) in rows.items()
    ]


MEASUREMENTS = (
    *_steps(),
    *_points(),
    *_adapter(),
    *_objects(),
    *_memory(),
    *_recorded(),
    *_precision(),
    *_compiled(),
    *_batching(),
    *_sampling(),
    *_students(),
)
