"""What is measured: a student, the distiller around it where there is one, and what trains them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import nn

from kddetr import KDDETR
from kddetr.checkpoint import Checkpointer
from kddetr.engine import Trainer, build, require_sections, resolve_device, seed_everything
from kddetr.engine.compilation import compile_detectors
from kddetr.engine.config.calls import needs_no_teacher
from kddetr.engine.precision import amp_dtype, check_precision
from kddetr.engine.step import StepTrainer
from kddetr.errors import UsageError
from kddetr.preflight.still import Given, still_trainer
from kddetr.teachers import HalfPrecision

from .batches import DEFAULT_SIZE, Batch, RandomImages, Source, own_images
from .fixed_answers import FixedAnswers
from .weights import batch_statistics, is_here, is_recorded, replace_missing


@dataclass
class Subject:
    """A student and, of a pair, its teacher, on one device.

    Attributes:
        student: the detector that is trained.
        distiller: the distiller around it; None: the config is that of a plain detector.
        given: hands the batches to the trainers.
        plain: trains the student alone.
        distilling: trains the distiller; None without one.
        source: where batches come from.
        amp: the dtype of mixed precision; None: float32.
        notes: sentences about what is not as in a training run.
    """

    student: nn.Module
    distiller: KDDETR | None
    given: Given
    plain: StepTrainer
    distilling: StepTrainer | None
    source: Source
    device: torch.device
    amp: torch.dtype | None
    notes: list[str] = field(default_factory=list)

    @property
    def teacher(self) -> Any:
        """The teacher; None without one."""
        return None if self.distiller is None else self.distiller.teacher

    def autocast(self) -> torch.autocast:
        """The precision of a training step."""
        return torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None)

    def trainers(self) -> dict[str, StepTrainer]:
        """The kinds of steps by their names."""
        found = {"plain_step": self.plain}
        return found if self.distilling is None else found | {"distillation_step": self.distilling}


def build_subject(cfg: DictConfig, args: Any) -> Subject:
    """Everything that is measured, with the weights and the batches that the machine has.

    Args:
        cfg: the config, which is changed in place.
        args: the command line, see :mod:`.arguments`.

    Raises:
        ConfigError, UsageError: something of it cannot be measured; the message says why.
    """
    require_sections(cfg, "model", "optimizer")
    device = resolve_device(args.device)
    check_precision(cfg.train.amp, device)
    notes: list[str] = []
    missing = replace_missing(cfg.model)
    seed_everything(cfg.train.seed)
    student = Trainer.build_detector(cfg)
    source = _source(cfg, args, student.num_classes, notes)
    distiller = _distiller(cfg, args, student, source.next())
    is_random = not _load_start(cfg, student, notes)
    for model in (student, distiller):
        if model is not None:
            model.to(device).train()
    if distiller is not None and not args.fixed_teacher:
        notes += [_missing_note(file) for file in missing]
    untrained = [student] if is_random else []
    if missing and distiller is not None and isinstance(distiller.teacher, nn.Module):
        untrained.append(distiller.teacher)
    batch = source.next()
    with batch_statistics(*untrained):
        for model in untrained:
            model.encode(batch)
    whole = student if distiller is None else distiller
    compile_detectors(cfg.train.compile, whole)
    # A teacher decides too, so both kinds of steps have the precision of the whole.
    amp = amp_dtype(cfg.train.amp, device, whole)
    given = Given()
    plain = still_trainer(cfg, student, given, amp)
    distilling = None if distiller is None else still_trainer(cfg, distiller, given, amp)
    return Subject(student, distiller, given, plain, distilling, source, device, amp, notes)


def _source(cfg: DictConfig, args: Any, num_classes: int, notes: list[str]) -> Source:
    """The config's own images where they are wanted and there, otherwise random ones."""
    size = None if args.image_size is None else (args.image_size[0], args.image_size[-1])
    # A recorded teacher knows the images of its record only.
    needed = args.own_images or (is_recorded(cfg.model) and not args.fixed_teacher)
    if needed and args.mixed_sizes:
        raise UsageError("--mixed-sizes is for random images: leave it out, or --own-images.")
    if needed or (size is None and not args.fixed_teacher and not args.mixed_sizes):
        own, reason = own_images(cfg, args.batch_size, size)
        if own is not None:
            return own
        if needed:
            raise UsageError(f"The images of the config are needed, but {reason.rstrip('.')}.")
        notes.append(f"The images are random, because {reason.rstrip('.')}.")
    return RandomImages(
        size=size or DEFAULT_SIZE,
        mixed=args.mixed_sizes,
        batch_size=args.batch_size,
        boxes=args.boxes,
        num_classes=num_classes,
    )


def _distiller(cfg: DictConfig, args: Any, student: nn.Module, batch: Batch) -> KDDETR | None:
    """The distiller of the config around the student; None where the config has none."""
    is_pair = "student" in cfg.model and not needs_no_teacher(cfg.model)
    if not is_pair:
        if args.fixed_teacher or args.half_teacher:
            raise UsageError(
                "--fixed-teacher and --half-teacher need a config with a teacher: name one under"
                " configs/distill."
            )
        return None
    parts: dict[str, Any] = {"student": student}
    if args.half_teacher:
        cfg.model.teacher = L(HalfPrecision)(detector=cfg.model.teacher)
    if args.fixed_teacher:
        parts["teacher"] = FixedAnswers.around(batch, student.num_classes)
    model = build(cfg.model, **parts)
    if not isinstance(model, KDDETR):
        raise UsageError(
            f"The model is a {type(model).__name__}, and only a KDDETR can be taken apart to be"
            " measured: name the config of its student."
        )
    return model


def _load_start(cfg: DictConfig, student: nn.Module, notes: list[str]) -> bool:
    """Load the weights that training starts from, where they are a file of this machine."""
    file = cfg.train.init_checkpoint or ""
    if is_here(file):
        Checkpointer(student).load(file, checkpointables=[])
        return True
    notes.append("The student's weights are random" + (f"; {file} is not here." if file else "."))
    return False


def _missing_note(file: str) -> str:
    named = f"its file {file} is not here" if file else "the config names no file"
    return f"The teacher's weights are random, because {named}."
