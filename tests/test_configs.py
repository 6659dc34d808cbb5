"""Every config file is a complete recipe whose parts can be built, and trains.

A config file that a user has added is tested like the others; what is expected of it follows from
what it builds.
"""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from engine_toy import write_dataset
from omegaconf import OmegaConf

from kddetr import KDDETR
from kddetr.detectors import model_zoo_detector, zoo_config
from kddetr.engine import Trainer, load_config
from kddetr.engine.writers import GROUP_PREFIX
from kddetr.structures import Detector, QueryableDetector
from kddetr.teachers import RecordedTeacher, Vocabulary
from tests.documented_names import undescribed
from tests.tiny_config import tiny_config
from tests.tiny_huggingface import REASON

ROOT = Path(__file__).parents[1]
PARTS = ("common.py", "models.py")  # ends of the names of files that other configs import
RECIPES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("detectors", "distill", "quickstart")
    for path in (ROOT / "configs" / folder).glob("*.py")
    if not path.name.endswith(PARTS)
)
# They differ from configs/quickstart in one part each, so it is enough that they train.
EVIDENCE = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "configs/evidence").glob("*.py"))


def detectors_of(path: str) -> list[Path]:
    """The config files of student and teacher, of a pair that is named after both."""
    names = re.fullmatch(r"configs/distill/(.+)_from_(.+)\.py", path)
    files = [ROOT / f"configs/detectors/{name}.py" for name in names.groups()] if names else []
    return files if all(file.is_file() for file in files) else []


def skip_without_package(path: str) -> None:
    """Skip the config of a real-time detector where the package that builds it is missing."""
    if re.search("rtdetr|dfine", path):
        pytest.importorskip("transformers", reason=REASON)


def build(path: str):
    """A config and its model; the weights of a teacher are not loaded, nor is its record."""
    if "swin" in path:
        pytest.importorskip("timm", reason="its backbone needs the extra timm")
    skip_without_package(path)
    cfg = load_config(str(ROOT / path))
    node = cfg.model
    if "loss" in node:
        OmegaConf.resolve(node.loss)  # it may name the width of the teacher that is replaced below
    if "teacher" in node:
        if node.teacher["_target_"] is RecordedTeacher:
            del node.teacher
            node.weight = 0
        elif node.teacher["_target_"] is Vocabulary:  # it reads the classes from a file
            node.teacher = node.teacher.detector.model
        elif "detector" in node.teacher:
            node.teacher.detector = node.teacher.detector.model
        else:
            node.teacher = node.teacher.model
    with torch.device("meta"):
        return cfg, instantiate(node)


@pytest.mark.parametrize("path", RECIPES)
def test_recipe(path):
    cfg, model = build(path)
    detectors = [model.student, model.teacher] if isinstance(model, KDDETR) else [model]
    assert all(isinstance(d, QueryableDetector) for d in detectors if d is not None)
    assert isinstance(detectors[0], Detector)
    optimizer = Trainer.build_optimizer(cfg, model)
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert len(grouped) == len({id(p) for p in grouped}) == len(trainable)
    Trainer.build_lr_scheduler(cfg, optimizer)
    for loader in (cfg.dataloader.train, cfg.dataloader.test):
        instantiate(loader.mapper)
    assert Path(cfg.train.output_dir).parts[0] == "output"


@pytest.mark.parametrize("path", [path for path in RECIPES if detectors_of(path)])
def test_a_pair_has_the_detectors_of_its_name(path):
    student, teacher = (load_config(str(file)).model for file in detectors_of(path))
    pair = load_config(str(ROOT / path)).model
    assert (pair.student, pair.teacher.model) == (student, teacher)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data"), "configs_tiny")


@pytest.mark.parametrize("path", [*RECIPES, *EVIDENCE])
def test_tiny_version_trains_two_steps(path, dataset, tmp_path):
    """It reads images, updates nearly all weights, logs finite losses and saves a checkpoint."""
    skip_without_package(path)
    cfg = tiny_config(load_config(str(ROOT / path)), tmp_path, dataset)
    trainer = Trainer(cfg)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.resume_or_load(resume=False)
    trainer.train()
    changed = [not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters())]
    assert sum(changed) > 0.8 * len(changed)
    lines = (tmp_path / "run/metrics.json").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    assert not undescribed(name for line in logged for name in line)
    steps = [line for line in logged if "total_loss" in line]
    assert len(steps) == 2
    for step in steps:
        assert all(map(math.isfinite, step.values())) and step["grad_norm"] > 0
        groups = {name for name in step if name.startswith(GROUP_PREFIX)}
        is_distilled = isinstance(trainer.model, KDDETR)
        assert (groups > {f"{GROUP_PREFIX}detection"}) == is_distilled
    assert (tmp_path / "run/model_final.pth").is_file()


def rates(path: str) -> dict[float, int]:
    cfg, model = build(path)
    groups = Trainer.build_optimizer(cfg, model).param_groups
    return {group["lr"]: len(group["params"]) for group in groups}


def test_published_learning_rates():
    assert set(rates("configs/detectors/dab_detr_r50.py")) == {1e-4, 1e-5}
    assert set(rates("configs/detectors/dino_r50.py")) == {1e-4, 1e-5}
    assert set(rates("configs/detectors/deformable_detr_r50.py")) == {2e-4, 2e-5}
    assert set(rates("configs/detectors/deformable_detr_two_stage_r50.py")) == {2e-4, 2e-5}
    names = dict(build("configs/detectors/deformable_detr_r50.py")[1].named_parameters())
    slow = [n for n in names if "query_source.reference" in n or "sampling_offsets" in n]
    assert len(slow) == 2 + 2 * 12
    assert set(rates("configs/detectors/faster_rcnn_r50.py")) == {0.02}


@pytest.mark.parametrize(
    "path, millions",
    [
        # Published counts for 91 classes; 80 here, so 11 rows of the class heads less.
        ("configs/detectors/dab_detr_r50.py", 43.67e6 - 11 * 257),
        ("configs/detectors/deformable_detr_r50.py", 40.07e6 - 11 * 257),
        ("configs/detectors/deformable_detr_refine_r50.py", 40.85e6 - 6 * 11 * 257),
        ("configs/detectors/deformable_detr_two_stage_r50.py", 41.18e6 - 7 * 11 * 257),
        # two class heads, of the decoder and of the proposals, and a label embedding of 92 rows
        ("configs/detectors/dino_r50.py", 46.89e6 - 2 * 11 * 257 - 12 * 256),
        # torchvision's, where background is one of 91 classes; a box for each class
        ("configs/detectors/faster_rcnn_r50.py", 41_755_286 - (91 - 81 + 4 * (91 - 80)) * 1025),
    ],
)
def test_sizes_are_the_published_ones(path, millions):
    _, model = build(path)
    frozen_norms = sum(b.numel() for n, b in model.named_buffers() if "norm" in n and "res" in n)
    count = sum(p.numel() for p in model.parameters())
    assert count == pytest.approx(millions, abs=0.006e6), frozen_norms


@pytest.mark.parametrize(
    ("path", "batch", "epochs", "warmup", "expected"),
    [
        ("rtdetr_v2_r18", 16, 120, 2000, {1e-4}),
        ("rtdetr_v2_r101", 16, 72, 2000, {1e-4, 1e-6}),
        ("dfine_s", 32, 132, 500, {2e-4, 1e-4}),
        ("dfine_x", 32, 80, 500, {2.5e-4, 2.5e-6}),
    ],
)
def test_real_time_recipes_are_the_published_ones(path, batch, epochs, warmup, expected):
    """One rate after the warm-up, and a moving average of the weights."""
    path = f"configs/detectors/{path}.py"
    assert {float(f"{rate:.6g}") for rate in rates(path)} == expected
    cfg = load_config(str(ROOT / path))
    assert cfg.dataloader.train.total_batch_size == batch
    assert cfg.train.max_iter == epochs * math.ceil(118287 / batch)
    schedule = instantiate(cfg.lr_multiplier)
    assert schedule(warmup / cfg.train.max_iter) == schedule(0.999) == 1 > schedule(0.0)
    assert cfg.train.ema.decay == 0.9999 and cfg.train.clip_grad.max_norm == 0.1


@pytest.mark.parametrize(
    ("path", "batch", "epochs", "drop"),
    [
        ("dab_detr_r50", 16, 50, 40),
        ("../distill/dab_detr_r18_from_dab_detr_r50", 64, 50, 40),
        ("../distill/dab_detr_r50_from_dab_detr_r101", 64, 50, 40),
        ("deformable_detr_r50", 32, 50, 40),
        ("deformable_detr_two_stage_r101", 32, 50, 40),
        ("dino_r18", 16, 12, 11),
        ("dino_r50", 16, 12, 11),
        ("dino_5scale_r50", 16, 12, 11),
        ("dino_r101", 16, 36, 30),
        ("../distill/dino_r50_from_dino_r101", 16, 12, 11),
    ],
)
@pytest.mark.parametrize("times", [1, 4])
def test_schedules_are_the_published_ones(path, batch, epochs, drop, times):
    """At the published batch, and at a batch four times as large."""
    change = [] if times == 1 else [f"dataloader.train.total_batch_size={times * batch}"]
    cfg = load_config(str(ROOT / f"configs/detectors/{path}.py"), change)
    assert cfg.dataloader.train.total_batch_size == batch * times
    assert cfg.train.max_iter * batch * times / 118287 == pytest.approx(epochs, rel=1e-3)
    assert cfg.train.max_iter == epochs * cfg.train.eval_period
    assert cfg.train.checkpointer.period == cfg.train.eval_period
    schedule = instantiate(cfg.lr_multiplier)
    end, start = cfg.train.max_iter, drop * cfg.train.eval_period
    assert [round(schedule(i / end), 6) for i in (0, start - 1, start, end - 1)] == [1, 1, 0.1, 0.1]


@pytest.mark.parametrize(("path", "times"), [("faster_rcnn_r50", 1), ("faster_rcnn_r50_3x", 3)])
@pytest.mark.parametrize("more", [1, 4])
def test_rcnn_schedules_are_those_of_detectron2(path, times, more):
    """The same rate at every fraction of the run, warm-up included, for 16 and for 64 images."""
    change = [] if more == 1 else [f"dataloader.train.total_batch_size={16 * more}"]
    for name in (f"detectors/{path}", f"distill/{path.replace('r50', 'r50_from_dino_r50')}"):
        cfg = load_config(str(ROOT / f"configs/{name}.py"), change)
        iterations = times * 90_000 // more
        assert (cfg.train.max_iter, cfg.train.eval_period) == (iterations, 5000 // more)
        assert cfg.optimizer.lr == pytest.approx(0.02 * more) and not cfg.train.clip_grad.max_norm
        ours = instantiate(cfg.lr_multiplier)
        zoo = zoo_config("common/coco_schedule.py")[f"lr_multiplier_{times}x"]
        theirs = instantiate(zoo)
        for where in [*(i / 1000 for i in range(1000)), 2 / 3, 7 / 9, 8 / 9, 25 / 27, 1e-3]:
            assert ours(where) == pytest.approx(theirs(where), rel=1e-6), where


def test_rcnn_optimizer_and_images_are_those_of_detectron2():
    cfg = load_config(str(ROOT / "configs/detectors/faster_rcnn_r50.py"))
    for key, value in zoo_config("common/optim.py").SGD.items():
        assert key == "params" or cfg.optimizer[key] == value
    assert cfg.optimizer.params.weight_decay_norm == 0
    zoo = zoo_config("common/data/coco.py").dataloader
    ours, theirs = (d.train.mapper.augmentations for d in (cfg.dataloader, zoo))
    for key in ("short_edge_length", "max_size"):
        assert ours[0][key] == theirs[0][key]
    assert [ours[1]["_target_"]] == [a["_target_"] for a in theirs[1:]]
    assert cfg.dataloader.train.mapper.augmentations_with_crop is None
    assert cfg.dataloader.train.dataset.filter_empty
    assert cfg.dataloader.test.dataset.names == zoo.test.dataset.names


@pytest.mark.parametrize("name", ["faster_rcnn_R_50_FPN_1x", "cascade_mask_rcnn_R_50_FPN_1x"])
def test_rcnn_models_are_those_of_detectron2(name):
    """The same weights, frozen and trained, as in its published recipes, which are YAML files."""
    path = f"configs/detectors/{name.partition('_')[0]}_rcnn_r50.py"
    ours = build(path)[1].stock
    folder = "Misc" if "cascade" in name else "COCO-Detection"
    with torch.device("meta"):
        theirs = model_zoo_detector(f"{folder}/{name}.yaml", boxes_only=True).stock
    shapes, expected = (
        {n: (p.shape, p.requires_grad) for n, p in m.named_parameters()} for m in (ours, theirs)
    )
    assert shapes == expected
    for part in ("proposal_generator", "roi_heads"):
        mine, other = getattr(ours, part), getattr(theirs, part)
        plain = {
            k: v
            for k, v in vars(other).items()
            if k[0] != "_" and isinstance(v, int | float | dict)
        }
        assert {k: vars(mine)[k] for k in plain} == plain
    assert ours.input_format == theirs.input_format == "BGR"


@pytest.mark.parametrize("pair", ["r18_from_dab_detr_r50", "r50_from_dab_detr_r101"])
def test_dab_detr_pairs_have_the_published_rate(pair):
    """2e-4 for 8 processes of 8 images; scaled to 16 images it is the DAB-DETR project's 1e-4."""
    path = f"configs/distill/dab_detr_{pair}.py"
    assert set(rates(path)) == {2e-4, 2e-5}
    scaled = load_config(str(ROOT / path), ["dataloader.train.total_batch_size=16"])
    alone = load_config(str(ROOT / "configs/detectors/dab_detr_r50.py"))
    assert scaled.optimizer.lr == alone.optimizer.lr == 1e-4


def test_dino_as_its_authors_and_as_detrex_have_it():
    authors, detrex = (
        load_config(str(ROOT / f"configs/detectors/{name}.py"))
        for name in ("dino_r50", "dino_r50_detrex")
    )
    for cfg, variant in ((authors, (20, 0, True, 2)), (detrex, (1e4, -0.5, False, 1))):
        model = cfg.model
        found = (model.temperature, model.offset, model.shared_heads, model.backbone.freeze_at)
        assert found == variant
    with torch.device("meta"):
        heads = [len(instantiate(cfg.model).decoder.class_heads) for cfg in (authors, detrex)]
        five = build("configs/detectors/dino_5scale_r50.py")[1]
    assert heads == [1, 6]
    assert len(five.neck.levels) + len(five.neck.extra) == 5


def test_own_data_needs_one_number():
    cfg = load_config(str(ROOT / "configs/distill/custom.py"), ["model.student.num_classes=5"])
    assert cfg.model.teacher.model.num_classes == 5
    with torch.device("meta"):
        assert instantiate(cfg.model.student).num_classes == 5
    alone = load_config(str(ROOT / "configs/detectors/custom.py"), ["model.num_classes=5"])
    assert alone.model == cfg.model.teacher.model  # the teacher that is trained with it
    assert alone.train.batch_scaling.note == "" and alone.train.max_iter == cfg.train.max_iter


def test_own_data_by_the_names_of_its_classes(dataset, tmp_path):
    """A teacher with more classes in another order, and a student of the model zoo."""
    path = str(ROOT / "configs/distill/custom_faster_rcnn.py")
    categories = [{"id": 7, "name": "a"}, {"id": 3, "name": "b"}]
    json_file = tmp_path / "mine.json"
    json_file.write_text(json.dumps({"images": [], "categories": categories}))
    changes = ["student.num_classes=2", "teacher.classes=[a,c,b]"]
    changes = [*changes, "teacher.detector.model.num_classes=3"]
    changes = [f"dataloader.train.dataset.json_file={json_file}", *(f"model.{c}" for c in changes)]
    cfg = load_config(path, changes)
    assert cfg.train.init_checkpoint == f"model_zoo://{cfg.model.student.name}"
    node = cfg.model.teacher
    node.detector = node.detector.model
    with torch.device("meta"):
        teacher = instantiate(node)
    assert (teacher.detector.num_classes, teacher.num_classes) == (3, 2)
    assert teacher.wanted == ["b", "a"]
    for name in (cfg.model.student.name, "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"):
        cfg = load_config(path, [*changes, f"model.student.name={name}"])
        assert cfg.train.init_checkpoint.endswith(name)
        with torch.device("meta"):
            student = instantiate(cfg.model.student)
        assert student.num_classes == 2 and not student.stock.roi_heads.mask_on
