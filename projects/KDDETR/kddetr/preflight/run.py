"""Measuring a distillation before its first hour: names, steps, gradients, and the teacher's AP."""

import argparse
import gc
import itertools
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from ..engine import Trainer, check_model, record_classes, resolve_device
from ..engine.auto_weight import (
    BATCHES,
    gradient_ratios,
    is_auto,
    settle_weight,
    starting_distiller,
    starting_student,
)
from ..engine.config.calls import needs_no_teacher
from ..engine.evaluation.sets import has_test_data
from ..engine.metrics import read_metrics
from ..engine.precision import amp_dtype
from ..engine.seeding import kept_random_states
from ..errors import ConfigError, UserError
from ..teachers import RecordedTeacher, TeacherDetector, trained_classes
from .images import Detect, JudgedImages, detections_of, training_images, validation_images
from .measured import Measured, Run
from .names import compare_names, count_labels, teacher_names
from .report import Finding, PreflightReport, report_on
from .sample_ap import SampleAP, sample_ap
from .steps import TIMED, next_batches, remembers, time_distilled, time_plain
from .still import Batch, Given, still_trainer

_log = logging.getLogger(__name__)
LONGEST = 120.0  # seconds
SHARE = 0.03  # of the run
FEWEST_IMAGES, MOST_IMAGES = 40, 1000
FEWEST_BATCHES = 3  # of the ten whose gradients are compared
BEYOND = 30.0  # seconds that a measurement may take beyond its share of the time


def run_preflight(
    cfg: DictConfig,
    *,
    student_alone: str = "",
    findings: Sequence[Finding] = (),
    seconds: float | None = None,
) -> PreflightReport:
    """Measure what decides whether a distillation will pay, on the data and devices of its config.

    The training that follows is not changed: what is measured is built anew and thrown away, and
    the random generators are left as they were. A config of a detector alone gets the figures that
    need no teacher. ``preflight.json`` is written into ``train.output_dir``.

    Args:
        cfg: a config as :func:`~kddetr.engine.load_config` returns it, which has passed
            :func:`~kddetr.engine.check_config`. ``model.weight=auto`` is replaced by a number. All
            processes of a job call this together.
        student_alone: the output folder of a run of the student without a teacher, whose AP is
            compared with the teacher's; empty: none.
        findings: those of the data report; errors are refusals here, and warnings are warnings.
        seconds: to spend; None: 3 % of the run, and two minutes at most. A few steps and images are
            measured in any case.

    Returns:
        The report, the same on all processes.

    Raises:
        UserError: teacher and student do not go together, or a file cannot be read.
    """
    started = time.perf_counter()
    alone = alone_ap(student_alone) if student_alone else None
    with kept_random_states():
        measured = _Measuring(cfg, seconds, started).measure()
    if torch.cuda.is_available():
        gc.collect()  # the models of the measurement, before the training builds its own
        torch.cuda.empty_cache()
    measured.alone, measured.seconds = alone, time.perf_counter() - started
    report = comm.all_gather(report_on(measured, findings))[0]
    if comm.is_main_process():
        report.save(cfg.train.output_dir)
    return report


def before_training(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Run a preflight where the command line says ``--preflight``, and log its report.

    Args:
        cfg: see :func:`run_preflight`.
        args: the parsed flags of ``train_net.py``.

    Raises:
        ConfigError: the run makes no sense, and the command line does not say ``--force``.
    """
    if args.preflight:
        report = run_preflight(cfg)
        _log.info("Preflight:\n%s", report)
        report.require(force=args.force)


def alone_ap(folder: str) -> float:
    """The best AP of a run, in percent.

    Raises:
        ConfigError: the folder has no results.
    """
    lines = read_metrics(folder) if os.path.isdir(folder) else []
    found = [line["bbox/AP"] for line in lines if "bbox/AP" in line]
    if not found:
        raise ConfigError(
            f"{folder} is no output folder of a run that was evaluated, because there is no bbox/AP"
            " in its metrics.json: name the train.output_dir of the student alone."
        )
    return max(found)


@dataclass
class _Measuring:
    """The state of a preflight while it measures.

    Attributes:
        cfg: of the run.
        seconds: to spend; None: they follow from the length of the run.
        started: when it began.
        found: what has been measured.
    """

    cfg: DictConfig
    seconds: float | None
    started: float
    found: Measured = field(init=False)

    def measure(self) -> Measured:
        """Names and labels; steps of the student, and with the teacher; gradients; detections."""
        cfg = self.cfg
        loader = Trainer.build_train_loader(cfg)
        teaches = "student" in cfg.model and not needs_no_teacher(cfg.model)
        self.found = Measured(self._run(loader, teaches))
        records = _labelled_records(loader)
        self.found.labels = count_labels(records) if records is not None else None
        self._compare_names(teacher_names(cfg) if teaches else [])
        batches = iter(loader)
        student = starting_student(cfg)
        timed = next_batches(batches, TIMED + 1, self.found.steps.waiting)
        amp = amp_dtype(cfg.train.amp, resolve_device(cfg.train.device), student)
        _log.info("Preflight: steps of the student alone are timed.")
        time_plain(self.found.steps, lambda: _steps(cfg, student, amp), timed, cfg.train.accumulate)
        if teaches and self.found.steps.fits is None:
            model = self._distiller(student)
            if model is None:
                return self.found
            _log.info("Preflight: steps with the teacher are timed.")
            self._time_distilled(model, timed)
            _log.info("Preflight: gradients are compared.")
            self._measure_ratios(model, timed, batches)
            self._detect(model.teacher, student, records or ())
        elif not teaches:
            check_model(cfg, student)
            self._detect(None, student, records or ())
        if cfg.train.compile.student or cfg.train.compile.teacher:
            self.found.notes.append("Compilation (train.compile): steps were timed without it.")
        return self.found

    def _run(self, loader: Any, teaches: bool) -> Run:
        cfg, train = self.cfg, self.cfg.train
        images = [len(stream.records) for stream in getattr(loader, "streams", ())]
        evaluates = has_test_data(cfg)
        often = (train.max_iter - 1) // train.eval_period if train.eval_period else 0
        return Run(
            train.max_iter,
            getattr(loader, "total_batch_size", None) or 0,
            *(images[:1] or [0]),
            sum(images[1:]),
            evaluations=(often + 1) * (2 if train.ema.decay else 1) if evaluates else 0,
            accumulate=train.accumulate,
            teaches=teaches,
        )

    def _compare_names(self, teacher: Sequence[str]) -> None:
        if not self.found.run.teaches:
            return
        boxes = {} if self.found.labels is None else self.found.labels.boxes
        data = record_classes(self.cfg)
        self.found.vocabularies = compare_names(data, teacher, boxes) if data else None

    def _distiller(self, student: nn.Module) -> Any:
        """The distiller; None where it cannot be built and the teacher does not know all classes of
        the data, which the report says.
        """
        names = self.found.vocabularies
        try:
            model = starting_distiller(self.cfg, student)
        except UserError as error:
            if names is None or not names.teacher or not names.unknown:
                raise
            self.found.unbuildable = str(error)
            return None
        if names is not None and not names.teacher:
            self._compare_names(list(trained_classes(model.teacher)))
        return model

    def _time_distilled(self, model: Any, timed: list[Batch]) -> None:
        cfg, steps = self.cfg, self.found.steps
        amp = amp_dtype(cfg.train.amp, model.device, model)
        twice = remembers(model.teacher)
        parts = cfg.train.accumulate
        time_distilled(steps, lambda: _steps(cfg, model, amp), timed, parts, twice=twice)

    def _measure_ratios(self, model: Any, timed: list[Batch], batches: Iterator[Batch]) -> None:
        if self.found.steps.fits is not None:
            return
        step = self.found.steps.medians()
        each = 2 * step["first"] + step.get("waiting", 0.0)
        count = self._affordable(each, FEWEST_BATCHES, BATCHES, share=0.4)
        cut = f"Gradients were compared on {count} batches instead of {BATCHES}, to save time."
        if count < BATCHES:
            self.found.notes.append(cut)
        given = itertools.chain(timed, batches)
        self.found.ratios = gradient_ratios(model, itertools.islice(given, count), self.cfg)
        if is_auto(self.cfg):
            settle_weight(self.cfg)
            self.found.settled = self.cfg.model.weight
        else:
            self.found.weight = float(model.weight)

    def _detect(self, teacher: Any, student: nn.Module, records: Sequence[dict]) -> None:
        """The AP of teacher and student on a sample of the images."""
        images = None
        try:
            images = self._judged_images(teacher, records)
        except UserError as error:
            self.found.notes.append(f"Nothing was evaluated: {error}")
        if images is None or not images.records or not images.truth.objects:
            return
        self.found.judged_on = images.kind
        student.eval()
        self.found.seconds_an_image = _seconds_an_image(student, images)
        if teacher is not None:
            self.found.teacher = self._judge(TeacherDetector(teacher), images, share=0.7)
        if teacher is not None and self.cfg.train.init_checkpoint:
            self.found.student = self._judge(student, images, share=1.0)

    def _judged_images(self, teacher: Any, records: Sequence[dict]) -> JudgedImages | None:
        modules = teacher.modules() if isinstance(teacher, nn.Module) else ()
        recorded = any(isinstance(module, RecordedTeacher) for module in modules)
        self.found.recorded = recorded
        images = validation_images(self.cfg)
        if images is not None:
            most = self.cfg.train.eval_batches * images.batch_size or images.evaluated
            self.found.run.test_images = min(most, images.evaluated)
        if images is None or recorded:
            images = training_images(self.cfg, records)
        if images is None:
            self.found.notes.append("AP: the config names no labelled images to judge it on.")
        elif images.kind == "training":
            reason = "a record has no others" if recorded else "there are no validation images"
            self.found.notes.append(
                f"AP was measured on training images, because {reason}: where the teacher was"
                " trained on them too, it is better on them than on others."
            )
        return images

    def _judge(self, detect: Detect, images: JudgedImages, *, share: float) -> SampleAP:
        other = self.found.teacher
        if other is not None:
            count = other.images  # the same images, so that the difference is that of detectors
        else:
            each = _seconds_an_image(detect, images)
            count = self._affordable(each, FEWEST_IMAGES, MOST_IMAGES, share=share)
            count = min(count, len(images.records))
        if count < min(MOST_IMAGES, len(images.records)) and other is None:
            self.found.notes.append(
                f"AP was measured on {count} of {len(images.records)} images, to save time."
            )
        _log.info("Preflight: %d %s images are judged.", count, images.kind)
        found = detections_of(detect, images.loader(count))
        names = self.found.vocabularies
        known = names.known if names is not None and names.known else None
        return sample_ap(
            images.truth, found, images.ids(count), max_dets=images.max_dets, classes=known
        )

    def _affordable(self, each: float, least: int, most: int, *, share: float) -> int:
        """How many pieces of work of ``each`` seconds fit into a share of the time that is left, on
        the slowest process: from ``least``, or fewer where they take long, to ``most``.
        """
        budget = self.seconds
        if budget is None:
            budget = min(LONGEST, SHARE * (self.found.eta or LONGEST / SHARE))
        left = share * (budget - (time.perf_counter() - self.started))
        each = max(each, 1e-6)
        count, least = int(left / each), min(least, max(1, int(BEYOND / each)))
        return min(comm.all_gather(max(least, min(most, count))))


def _steps(cfg: DictConfig, model: nn.Module, amp: torch.dtype | None):
    given = Given()
    return still_trainer(cfg, model, given, amp), given


def _labelled_records(loader: Any) -> Sequence[dict] | None:
    """The dataset dicts of the labelled training images, where the loader is of this project."""
    streams = getattr(loader, "streams", ())
    return streams[0].records if streams else None


@torch.no_grad()
def _seconds_an_image(detect: Detect, images: JudgedImages) -> float:
    """Seconds for one more image, loading included, where all processes share the images; of the
    second of two batches.
    """
    few = images.loader(2 * images.batch_size * comm.get_world_size())
    seconds, started = 0.0, time.perf_counter()
    for batch in few:
        detect(batch)
        seconds = (time.perf_counter() - started) / len(batch)
        started = time.perf_counter()
    return max(comm.all_gather(seconds)) / comm.get_world_size()
