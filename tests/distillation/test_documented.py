"""docs/your_own.md, followed word for word: its files in a folder outside of the repository, and
its commands with fewer images and iterations.
"""

import json
import re
import shlex
import signal
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.events import EventStorage

from kddetr.engine import Trainer, build, load_config, program
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from kddetr.quickstart import QuickstartSpec, make_quickstart_data, register_quickstart
from tests.distillation.runs import final_checkpoint, interrupt, trained
from tests.tiny import assert_same_tensors, tiny_batch, tiny_detector, tiny_distiller

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "projects" / "KDDETR" / "kddetr"
PAGE = (ROOT / "docs" / "your_own.md").read_text(encoding="utf-8")
FILES = {  # by the name in the first line
    name: f"# {name}\n{code}"
    for name, code in re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
}
CONFIGS = [Path(name).stem for name, code in FILES.items() if "\ntrain.output_dir" in code]
COMMANDS = re.findall(r"^python train_net\.py (.*)$", PAGE, re.MULTILINE)
SMALL = [
    *("train.max_iter=2", "train.eval_period=0", "train.log_period=1"),
    *("dataloader.train.total_batch_size=1", "lr_multiplier.warmup_iters=0"),
]


@pytest.fixture(scope="module", autouse=True)
def images(tmp_path_factory):
    """A small copy of the quickstart's images, under the same names."""

    def forget():
        for name in [n for n in DatasetCatalog.list() if n.startswith("quickstart_")]:
            DatasetCatalog.pop(name)
            MetadataCatalog.pop(name)

    spec = QuickstartSpec(images=(3, 1, 1), labeled=2)
    folder = make_quickstart_data(tmp_path_factory.mktemp("data") / "q", spec=spec, progress=False)
    forget()
    register_quickstart(folder)
    yield
    forget()
    register_quickstart()


@pytest.fixture(scope="module")
def my_project(tmp_path_factory) -> Path:
    """The reader's folder, beside an empty one that the programs are started in."""
    root = tmp_path_factory.mktemp("reader")
    (root / "repository").mkdir()
    for name, code in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(code, encoding="utf-8")
    return root / "my_project"


@pytest.fixture
def train_net(my_project, monkeypatch):
    """The program, as a function of its command line."""
    monkeypatch.setattr(program, "collect_env_info", str)  # takes longer than the training
    monkeypatch.chdir(my_project.parent / "repository")
    return lambda command: program.main([*shlex.split(command), *SMALL])


def stopped_after_an_iteration(train_net, command: str) -> None:
    """Run a command and press Ctrl-C in its first iteration."""

    def step(trainer, original=Trainer.run_step):
        original(trainer)
        signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(Trainer, "run_step", step)
        train_net(command)
    assert stop.value.code == 128 + signal.SIGINT


def metrics(folder: str) -> dict:
    """All values that a run wrote, the last ones of each name."""
    lines = Path(folder, "metrics.json").read_text().splitlines()
    return {name: value for line in lines for name, value in json.loads(line).items()}


def test_the_complete_example_trains_stops_resumes_and_is_evaluated(train_net):
    """Its commands in the printed order; the stopped run ends like the one that was not stopped."""
    first_try, whole, resume, evaluate = COMMANDS
    train_net(first_try)
    stopped_after_an_iteration(train_net, whole)
    train_net(resume)
    train_net(evaluate)
    expected, found = (
        torch.load(f"output/{folder}/model_final.pth")["model"]
        for folder in ("first_try", "near_objects")
    )
    assert_same_tensors(found, expected)
    assert metrics("output/near_objects").keys() >= {"kd_near/bbox", "my/certainty", "bbox/AP"}


@cache
def loaded(path: Path):
    """The config of an example; loading it takes longer than a step."""
    return load_config(str(path), SMALL)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "near_objects"])
def test_every_other_example_trains_and_is_evaluated(my_project, monkeypatch, name):
    """One has weights of its own, which are saved for a resume, but not as the student's."""
    monkeypatch.chdir(my_project.parent / "repository")
    cfg = deepcopy(loaded(my_project / f"{name}.py"))
    if name == "encoder_imitation":
        interrupt(cfg, at=1)
        trained(cfg, resume=True)
        saved = final_checkpoint(cfg)
        in_student, beside = ("project" in " ".join(saved[p]) for p in ("model", "wrapper"))
        assert beside and not in_student
    else:
        trained(cfg)
    found = metrics(f"output/{name}")
    assert "bbox/AP" in found and any(key.startswith("kd_") for key in found)
    logged = re.findall(r'put_scalar\(f?"(my/\w+)', FILES[f"my_project/{name}.py"])
    assert all(any(key.startswith(value) for key in found) for value in logged)


def test_the_errors_say_what_the_page_says():
    modules = ("returned", "distiller", "structures", "losses/point_loss", "engine/config/files")
    texts = [(PACKAGE / f"{name}.py").read_text(encoding="utf-8") for name in modules]
    source = re.sub(r"[\"']\s*\n\s*f?[\"']", "", "".join(texts))  # literals over several lines
    table = PAGE.split("## What is checked")[1].split("\n## ")[0]
    quoted = re.findall(r'\| "([^"]+)"', table)
    assert len(quoted) > 8
    assert [text for text in quoted if text not in source] == []


def part(my_project: Path, name: str):
    """The config ``model`` of an example."""
    return loaded(my_project / f"{name}.py").model


def distillation_losses(**parts) -> dict[str, float]:
    """The distillation losses of one training step of a tiny pair; they have a gradient."""
    student, teacher = tiny_detector(seed=1), tiny_detector(seed=2, decoder_layers=3)
    model = tiny_distiller(student, teacher, **parts)
    torch.manual_seed(0)
    with EventStorage(0):
        losses = {n: x for n, x in model(tiny_batch()).items() if n.startswith("kd_")}
    sum(losses.values()).backward()
    return {name: value.item() for name, value in losses.items()}


def test_the_sampler_also_takes_a_teacher_with_fewer_queries(my_project):
    """Its argument is changed on the command line, as the page says."""
    override = re.search(r"model\.sampler\.samplers\.2\.count=\d+", PAGE)[0]
    cfg = load_config(str(my_project / "near_objects.py"), [override])
    near = build(cfg.model.sampler).samplers[2]
    assert near.count == 50
    for count in (near.count, 3):
        near.count = count
        losses = distillation_losses(sampler=JointSampler([near, SpecificSampler()]))
        assert {"kd_near/class", "kd_specific/giou"} <= losses.keys()


def test_the_placement_keeps_the_points_where_nothing_was_found(my_project):
    placement = build(part(my_project, "where_found").query_placement)
    plain = distillation_losses(sampler=GeneralSampler(count=4))
    placement.threshold = 1.0
    assert distillation_losses(sampler=GeneralSampler(count=4), query_placement=placement) == plain
    placement.threshold = 0.0
    assert distillation_losses(sampler=GeneralSampler(count=4), query_placement=placement) != plain


def test_the_term_is_added_and_its_weight_is_a_factor(my_project):
    loss = build(part(my_project, "smooth_l1").loss)
    once = distillation_losses(loss=loss)
    loss.box_losses[2].weight = 15.0
    thrice = distillation_losses(loss=loss)
    plain = distillation_losses()
    assert once.keys() - plain.keys() == {"kd_general/smooth", "kd_specific/smooth"}
    for name, value in plain.items():
        assert once[name] == value
    for name in once.keys() - plain.keys():
        assert once[name] > 0 and thrice[name] == pytest.approx(3 * once[name])


def test_only_objects_counts_points_above_its_threshold(my_project):
    loss = build(part(my_project, "only_objects").loss)
    loss.weighting.threshold = 1.0
    assert not any(distillation_losses(loss=loss).values())


def test_the_ground_truth_decides_where_there_is_one(my_project):
    """Against a loop; images without objects, and without labels, included."""
    weighting = build(part(my_project, "in_objects").loss.weighting)
    batch = tiny_batch(((40, 56), (48, 40), (40, 56)), boxes=(3, 0, None))
    kept = []

    def keep(student, teacher, points):
        kept.append((weighting(teacher), teacher.boxes[-1]))
        return {}

    tiny_distiller(tiny_detector(seed=1), tiny_detector(seed=2), loss=keep)(batch)
    ((found, boxes),) = kept
    for i, image in enumerate(batch):
        height, width = image["image"].shape[1:]
        for weight, (x, y, _, _) in zip(found[i], boxes[i].tolist(), strict=True):
            objects = image["instances"].gt_boxes.tensor.tolist() if i < 2 else []
            inside = i == 2 or any(
                a < x * width < c and b < y * height < d for a, b, c, d in objects
            )
            assert weight.item() == pytest.approx(1.0 if inside else 0.1)
    assert {round(w, 1) for w in found[0].tolist()} == {0.1, 1.0}


def test_layer_by_layer_is_the_plain_loss_where_there_is_one_layer(my_project):
    by_layer = build(part(my_project, "layer_by_layer").loss)
    assert type(by_layer).__name__ == "LayerByLayer"

    def last(student, teacher, points):
        return by_layer(student.last(), teacher.last(), points)

    plain = distillation_losses(loss=WeightedMeanLoss(student_layers="last"))
    assert distillation_losses(loss=last) == pytest.approx(plain)
    assert distillation_losses(loss=by_layer).keys() == plain.keys()
