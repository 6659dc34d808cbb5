"""A config for a detector alone, or for a distillation, from what the user asks for."""

import inspect
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ..data import DataFolder, Finding
from ..detectors import (
    RegionDetector,
    dab_detr,
    deformable_detr,
    dino,
    huggingface_detector,
)
from ..engine import load_config, resolve_device
from ..engine.config.calls import located
from ..engine.config.scaling import BATCH, REFERENCE
from ..errors import UsageError
from .amounts import (
    EPOCHS,
    EPOCHS_OF_DETECTOR,
    SHORT,
    batch_size,
    image_size,
    iterations,
    loading_processes,
    resizes,
    set_image_size,
)
from .decisions import Decision, settled
from .distilling import add_teacher
from .recognize import BackboneFileError, Recognized, recognize, without_memory
from .request import Request
from .sources import Images, about_images, find_images, set_images
from .students import ZOO, find_recipe, is_published, recipe, set_num_classes, students
from .words import in_words
from .written import config_text

_EVALUATIONS = 10  # in a run
_LENGTH = "train.max_iter"


@dataclass(frozen=True)
class Plan:
    """A config that is ready to be trained.

    Attributes:
        cfg: the config, overrides included.
        text: the same as a Python file.
        decisions: what was decided, for the table.
        folder: the output folder.
        data: the labelled images; None without any.
        findings: what is odd about the images beside what the report about ``data`` finds.
        image_size: the short side of a test image in pixels, 0 for images as they are, and the
            most that its long side may be.
    """

    cfg: DictConfig
    text: str
    decisions: list[Decision]
    folder: str
    data: DataFolder | None = None
    findings: Sequence[Finding] = ()
    image_size: tuple[int, int] = (0, 0)


def plan(request: Request, command: str) -> Plan:
    """Decide everything that a request leaves open.

    Args:
        request: what the user asks for.
        command: the command line, for the docstring of the config file.

    Raises:
        UserError: something that the request names cannot be used; the message says what to do.
    """
    request.same()  # mistakes of the command line are found before files are read
    if request.model:
        find_recipe(request.model, request.what)
    teacher = None
    if request.teacher:
        teacher = recognize(
            request.teacher, config=request.teacher_config, settings=request.teacher_settings
        )
    weights = None if request.model else _detector_in(request.weights)
    images = find_images(request)
    classes = len(images.classes) or (teacher.num_classes if teacher else 0)
    cfg, decisions = _detector(request, images, teacher or weights, weights, classes)
    set_images(cfg.dataloader, images)
    cfg.train.output_dir = request.folder
    if teacher is not None:
        decisions = add_teacher(cfg, request, teacher, images) + decisions
    decisions += about_images(request, images)
    decisions.append(
        Decision("output", "{}", "where the run is saved", "--output DIR", "train.output_dir")
    )
    made = _finished(cfg, request, decisions, command)
    size = image_size(made.cfg.dataloader.test) or _own_size(cfg.model)
    return replace(made, data=images.folder, findings=images.findings, image_size=size)


def _own_size(model: DictConfig) -> tuple[int, int]:
    """The image size of a detector that resizes images itself; zeros for any other."""
    node = model.get("student") or model
    if located(node["_target_"]) is not huggingface_detector:
        return 0, 0
    usual = inspect.signature(huggingface_detector).parameters["image_size"].default
    sides = node.get("image_size") or usual
    return min(sides), max(sides)


def _detector_in(file: str) -> Recognized | None:
    """The detector in the weights to start from; None where they are a backbone's, or none."""
    if not file:
        return None
    try:
        return recognize(file)
    except BackboneFileError:
        return None


def _detector(
    request: Request,
    images: Images,
    like: Recognized | None,
    weights: Recognized | None,
    classes: int,
) -> tuple[DictConfig, list[Decision]]:
    """The config of the detector alone, without its images, and what was decided.

    Args:
        request: what the user asks for.
        images: of the training.
        like: a detector whose image size is taken, where its file says it.
        weights: the detector in the weights to start from.
        classes: their number.
    """
    name = request.model or _recipe_of(weights)
    published = is_published(name)
    short, why_short = _short_side(request, like, published)
    batch, why_batch = _batch(request, images, short)
    cfg = recipe(name, batch=batch if published else 0, what=request.what)
    if not published:
        batch = request.count_given(BATCH) or cfg.dataloader.train.total_batch_size
    cfg.dataloader.train.total_batch_size = batch
    if weights is not None:
        cfg.model = weights.model
    if request.weights:
        cfg.train.init_checkpoint = weights.file if weights else request.weights
    set_num_classes(cfg.model, classes)
    model = without_memory(cfg.model)
    words = f"{name}: {in_words(cfg.model, model)}"
    about = students().get(name, "as the file says").rstrip(".")
    if weights is not None:
        words, about = in_words(cfg.model, model), f"that of the weights, with the recipe of {name}"
    decisions = [
        Decision(
            request.what,
            words,
            about,
            f"--{request.what} NAME",
            "model.student" if request.teacher else "model",
        ),
        _start(request, cfg, weights),
    ]
    if published:
        if resizes(cfg.dataloader):
            set_image_size(cfg.dataloader, SHORT if short is None else short)
            decisions.append(_about_size(short, why_short))
        elif request.image_size is not None:
            raise UsageError(
                f"--image-size does not fit {name}, which resizes images itself: set its own"
                f" {'model.student' if request.teacher else 'model'}.image_size=[HEIGHT,WIDTH]."
            )
        for loader in (cfg.dataloader.train, cfg.dataloader.test):
            loader.num_workers = min(loader.num_workers, loading_processes())
        most = EPOCHS if weights is None else EPOCHS_OF_DETECTOR
        length, why_length = iterations(cfg.train.max_iter, images.trained, batch, most)
        _set_length(cfg, request.count_given(_LENGTH) or length, periods=True)
        OmegaConf.update(cfg, REFERENCE, batch)
    else:
        why_batch = why_length = "as the config file says"
        if length := request.count_given(_LENGTH):
            _set_length(cfg, length, periods=False)
    rule = "the recipe's, scaled to the batch" if published else "as the config file says"
    decisions += [
        Decision("batch", "{} images", why_batch, f"{BATCH}=N", BATCH),
        Decision("iterations", "{}", why_length, f"{_LENGTH}=N", _LENGTH),
        Decision("learning rate", "{}", rule, "optimizer.lr=X", "optimizer.lr"),
    ]
    return cfg, decisions


def _recipe_of(weights: Recognized | None) -> str:
    """The recipe for a detector that is known by its weights alone."""
    if weights is None:
        raise UsageError("Name a detector with --model NAME; --model list shows all.")
    if isinstance(name := weights.model.get("name"), str):
        return name
    target = located(weights.model["_target_"])
    if target is huggingface_detector:
        return "dfine_s" if weights.model.model_type == "d_fine" else "rtdetr_v2_r18"
    names = {dab_detr: "dab_detr_r50", dino: "dino_r50", RegionDetector: "faster_rcnn_r50"}
    if target is deformable_detr:
        variant = str(weights.model.get("variant", "refine"))
        kinds = {"plain": "deformable_detr_r50", "anchors": "dino_r50"}
        return kinds.get(variant, f"deformable_detr_{variant}_r50")
    return names.get(target, ZOO["retinanet_r50"])


def _short_side(
    request: Request, like: Recognized | None, published: bool
) -> tuple[int | None, str]:
    """The short side of a test image, None for that of the recipe, and why."""
    if request.image_size is not None:
        if request.image_size < 0:
            raise UsageError(
                f"--image-size {request.image_size} is no number of pixels: give the short side of"
                " an image, or 0 for images as they are."
            )
        if not published:
            raise UsageError(
                f"--image-size is for the detectors that are known by name, and {request.model} is"
                " a config file: set the size there."
            )
        return request.image_size, "as given"
    card = (like.card or {}).get("input") if like else None
    if card and card.get("min_size"):
        return int(card["min_size"]), f"that of {like.file}, by its card"
    if card and card.get("augmentations") == []:
        return 0, f"{like.file} takes images as they are, by its card"
    return None, "as in the published recipes"


def _about_size(short: int | None, why: str) -> Decision:
    value = (
        f"short side {SHORT if short is None else short} pixels" if short != 0 else "as they are"
    )
    return Decision("image size", value, why, "--image-size PIXELS", "dataloader.train.mapper")


def _batch(request: Request, images: Images, short: int | None) -> tuple[int, str]:
    if batch := request.count_given(BATCH):
        return batch, "as given"
    device = resolve_device(request.given("train.device") or "auto")
    labeled, each = images.labeled or images.unlabeled, request.num_gpus
    batch, why = batch_size(device, each, labeled, short or SHORT)
    if images.unlabeled and images.labeled and batch < 2 * each:
        batch, why = 2 * each, "one image with labels and one without for each process"
    return batch, why


def _set_length(cfg: DictConfig, length: int, periods: bool) -> None:
    """Set the number of iterations, in place, and fit the warm-up and the periods to it.

    Args:
        cfg: the config.
        length: iterations.
        periods: whether the run is evaluated and saved ten times; otherwise as often as before.
    """
    train, before = cfg.train, cfg.train.max_iter
    train.max_iter = length
    for group, key in ((train, "eval_period"), (train.checkpointer, "period")):
        period = max(1, length // _EVALUATIONS if periods else round(group[key] * length / before))
        group[key] = period if periods or group[key] else 0
    if warmup := cfg.lr_multiplier.get("warmup_iters"):
        most = length // 10 if periods else round(warmup * length / before)
        cfg.lr_multiplier.warmup_iters = min(warmup, most)
    train.batch_scaling.note = ""


def _start(request: Request, cfg: DictConfig, weights: Recognized | None) -> Decision:
    """What is said about the weights that the training starts from."""
    file, key = cfg.train.init_checkpoint or "nothing", "train.init_checkpoint"
    why = "weights of ImageNet for the backbone, all else is random"
    if weights is not None:
        why = weights.words
        if weights.num_classes != _classes(cfg.model):
            why += "; its class heads are made anew, for other classes"
    elif request.weights:
        why = "as given"
    elif file == "nothing":
        why = "random weights"
    value = "{}" if cfg.train.init_checkpoint else file
    return Decision("starts from", value, why, f"{key}=FILE", key)


def _classes(node: DictConfig) -> int:
    return without_memory(node).num_classes


def _finished(cfg: DictConfig, request: Request, decisions: list[Decision], command: str) -> Plan:
    """The plan with the overrides of the user, read from a file as a training reads it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.py")
        file.write_text(config_text(cfg), encoding="utf-8")
        final = load_config(str(file), request.config_overrides)
    keys = {text.partition("=")[0].lstrip("+") for text in request.config_overrides}
    known = settled(decisions, cfg, final, keys)
    known = [replace(one, why="as given") if one.key in keys else one for one in known]
    about = (
        f"{_title(request)}\n\nWritten by\n\n    {command}\n\nTo train with changes, edit it and"
        f" run\n\n    python train_net.py --config-file {shlex.quote(request.config_file)}"
    )
    text = config_text(final, about=about, comments={one.key: one.comment for one in known})
    return Plan(final, text, known, final.train.output_dir)


def _title(request: Request) -> str:
    data = request.data or request.unlabeled
    name = Path(request.model or request.weights).name
    if request.teacher:
        return f"{name}, distilled from {request.teacher} on {data}."
    return f"{name}, trained on {data}."
