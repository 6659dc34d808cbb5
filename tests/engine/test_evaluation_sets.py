"""Several test sets are judged one by one, no test data are no evaluation, and evaluators are
checked before training.
"""

import json

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    coco_evaluation,
)
from detectron2.structures import Boxes, BoxMode, Instances
from torch import nn

from kddetr.data import DatasetError, DetectionMapper, load_coco_format, register_coco_format
from kddetr.engine import CocoEvaluator, ConfigError, Trainer, check_config, check_model
from kddetr.engine.evaluation import truth_sources
from kddetr.engine.evaluation.sets import best_metric_name, by_evaluation_set, evaluation_sets
from tests.tiny import tiny_detector

A, B = "engine_a", "engine_b"


class Oracle(nn.Module):
    """Finds every box of the data sets, by the name of the file; trains nothing."""

    def __init__(self, datasets: list[str], missing: str = ""):
        super().__init__()
        self.num_classes = 3
        self.weight = nn.Parameter(torch.zeros(1))
        self.notes = {
            record["file_name"]: [] if name == missing else record["annotations"]
            for name in datasets
            for record in DatasetCatalog.get(name)
        }

    def forward(self, batch: list[dict]):
        if self.training:
            return {"loss": self.weight.square().sum()}
        return [{"instances": self.found(x)} for x in batch]

    def found(self, x: dict) -> Instances:
        notes = self.notes[x["file_name"]]
        boxes = [BoxMode.convert(n["bbox"], n["bbox_mode"], BoxMode.XYXY_ABS) for n in notes]
        found = Instances((x["height"], x["width"]))
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        found.pred_classes = torch.tensor([n["category_id"] for n in notes])
        found.scores = torch.full((len(notes),), 0.9)
        return found


class Counting(DatasetEvaluator):
    """A user's own evaluator: how many images it judged."""

    def __init__(self, of: str):
        self.of = of

    def reset(self):
        self.seen = []

    def process(self, inputs, outputs):
        self.seen += [x["file_name"] for x in inputs]

    def evaluate(self):
        return {
            "images": {"count": len(self.seen), "sets": len({f.split("/")[-2] for f in self.seen})}
        }


@pytest.fixture
def cfg(toy, tmp_path):
    """Two test sets whose image ids and file names collide; the second has four images."""
    for name, images in ((A, 6), (B, 4)):
        toy.write_dataset(tmp_path / name, name, images)
    cfg = toy.toy_config(tmp_path, A, max_iter=2, eval_period=1)
    cfg.model = L(Oracle)(datasets=[A, B], missing="")
    cfg.optimizer.params.lr_factors = {}
    cfg.dataloader.test = L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names=[A, B], filter_empty=False),
        mapper=L(DetectionMapper)(is_train=False, augmentations=[]),
        num_workers=0,
    )
    cfg.dataloader.evaluator = L(CocoEvaluator)(dataset_name="${..test.dataset.names}")
    yield cfg
    for name in (A, B):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_each_set_is_judged_alone(cfg, tmp_path):
    cfg.model.missing = B
    cfg.dataloader.evaluator.output_dir = str(tmp_path / "found")
    results = Trainer.test(cfg, Trainer.build_model(cfg).eval())
    assert list(results) == [A, B]
    assert results[A]["bbox"]["AP"] == pytest.approx(100) and results[B]["bbox"]["AP"] == 0
    saved = {
        name: json.loads((tmp_path / f"found/{name}/coco_instances_results.json").read_text())
        for name in (A, B)
    }
    assert len(saved[A]) == 24 and not saved[B]
    cfg.dataloader.test.dataset.names = [A]  # a list of one is one set
    assert Trainer.test(cfg, Trainer.build_model(cfg).eval())["bbox"]["AP"] == pytest.approx(100)


def test_a_run_records_each_set_and_keeps_the_best_of_the_first(cfg, tmp_path, caplog):
    with caplog.at_level("INFO"):
        results = Trainer(cfg).train()
    assert results[A]["bbox"]["AP"] == results[B]["bbox"]["AP"] == pytest.approx(100)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    assert any(f"{A}/bbox/AP" in line and f"{B}/bbox/AP-class5" in line for line in lines)
    assert f"train.best_metric=bbox/AP means {A}/bbox/AP" in caplog.text
    assert f"copypaste: Task: {B}/bbox" in caplog.text
    assert json.loads((tmp_path / "run/best.json").read_text())["metric"] == f"{A}/bbox/AP"
    cfg.train.best_metric = f"{B}/bbox/AP50"
    check_config(cfg)
    assert best_metric_name(cfg) == f"{B}/bbox/AP50"


def test_sets_of_a_users_own_evaluator_and_of_paths(cfg, tmp_path):
    cfg.dataloader.evaluator = L(Counting)(of="all")
    results = Trainer.test(cfg, Trainer.build_model(cfg).eval())
    assert results == {n: {"images": {"count": c, "sets": 1}} for n, c in ((A, 6), (B, 4))}
    given = [Counting("a"), Counting("b")]
    assert Trainer.test(cfg, Trainer.build_model(cfg).eval(), given) == results
    cfg.train.best_metric = "images/anything"  # known only after the first evaluation
    check_config(cfg)

    folders = {n: str(tmp_path / n) for n in (A, B)}
    paths = [{"json_file": f"{f}/toy.json", "image_root": f, "name": n} for n, f in folders.items()]
    cfg.dataloader.test.dataset = [L(load_coco_format)(**p) for p in paths]
    cfg.dataloader.evaluator = L(CocoEvaluator)(
        dataset_name=[L(register_coco_format)(**p) for p in paths]
    )
    assert evaluation_sets(cfg) == [A, B]
    results = Trainer.test(cfg, Trainer.build_model(cfg).eval())
    assert results[A]["bbox"]["AP"] == results[B]["bbox"]["AP"] == pytest.approx(100)


def test_evaluators_inside_of_another_follow_too(cfg):
    inner = L(CocoEvaluator)(dataset_name="${dataloader.test.dataset.names}")
    cfg.dataloader.evaluator = L(DatasetEvaluators)(evaluators=[inner, L(Counting)(of="all")])
    check_config(cfg)
    results = Trainer.test(cfg, Trainer.build_model(cfg).eval())
    assert [results[n]["images"]["count"] for n in (A, B)] == [6, 4]
    assert results[A]["bbox"]["AP"] == results[B]["bbox"]["AP"] == pytest.approx(100)
    cfg.dataloader.evaluator.evaluators[0].dataset_name = B
    with pytest.raises(ConfigError, match=rf"is {B}, but dataloader.test.dataset reads {A}, {B}"):
        check_config(cfg)
    cfg.dataloader.evaluator = [inner]
    with pytest.raises(ConfigError, match=r"dataloader\.evaluator must be a LazyCall"):
        check_config(cfg)
    cfg.dataloader.test.dataset.names, cfg.dataloader.evaluator = A, "coco"
    with pytest.raises(ConfigError, match=r"must build one DatasetEvaluator .*, not a str"):
        check_config(cfg)


def test_an_evaluator_of_one_of_two_sets_is_refused(cfg):
    cfg.dataloader.evaluator.dataset_name = A
    both = rf"evaluator.dataset_name is {A}, but dataloader.test.dataset reads {A}, {B}:"
    with pytest.raises(ConfigError, match=both):
        check_config(cfg)
    cfg.dataloader.evaluator.dataset_name = [B, A]
    check_config(cfg)
    cfg.dataloader.evaluator.dataset_name = 5
    with pytest.raises(ConfigError, match="must be the name of a data set, not 5"):
        check_config(cfg)
    cfg.dataloader.test.dataset = L(sum)(of=[cfg.dataloader.test.dataset])
    cfg.dataloader.evaluator.dataset_name = [A, B]
    with pytest.raises(ConfigError, match="cannot be judged one by one: use get_detection"):
        by_evaluation_set(cfg)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tasks", ["segm"], "annotations of engine_a have no segmentation"),
        ("tasks", ["masks"], "must be some of bbox, segm, keypoints"),
        ("tasks", 5, "must be some of bbox, segm, keypoints, not 5"),
        ("backend", "pycoco", "must be auto or pycocotools, not 'pycoco'; did you mean pycoco"),
        ("max_dets_per_image", 9, "10 or more"),
        ("max_dets_per_image", True, "10 or more"),
        ("max_dets_per_image", "many", "10 or more"),
        ("output_dir", "{file}/found", "found.* cannot be written"),
        ("output_dir", 3, "must be a folder, not 3"),
    ],
)
def test_arguments_of_an_evaluator_are_checked_before_training(cfg, tmp_path, key, value, words):
    (tmp_path / "file").write_text("")
    value = value.format(file=tmp_path / "file") if isinstance(value, str) else value
    cfg.dataloader.evaluator[key] = value
    with pytest.raises(ConfigError, match=words):
        check_config(cfg)
    with pytest.raises(ConfigError, match=words):
        check_config(cfg, training=False)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("bbox/AP51", "did you mean engine_a/bbox/AP5?"),
        ("segm/AP", "no value in the evaluation"),
        ("bbox/APl", "no value in the evaluation"),  # the toy has no large object
        (f"{B}/bbox/AP-class4", "no value in the evaluation; did you mean"),
        ("engine_c/bbox/AP", "no value in the evaluation; did you mean"),
    ],
)
def test_a_metric_that_will_not_be_is_refused_before_training(cfg, metric, words):
    cfg.train.best_metric = metric
    with pytest.raises(ConfigError, match=words):
        check_config(cfg)
    check_config(cfg, training=False)  # which keeps no best


def test_metric_names_are_those_of_the_results(cfg):
    results = Trainer.test(cfg, Trainer.build_model(cfg).eval())[A]["bbox"]
    finite = {f"bbox/{name}" for name, value in results.items() if value == value}
    assert set(CocoEvaluator(A).metric_names()) == finite


def test_test_data_without_objects_have_no_best(cfg, tmp_path):
    path = tmp_path / A / "toy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    cfg.dataloader.test.dataset.names = A
    with pytest.raises(ConfigError, match="the test data have no object to find"):
        check_config(cfg)
    cfg.train.best_metric = None
    check_config(cfg)


@pytest.mark.parametrize("how", ["no files", "no names", "no test", "no evaluator"])
def test_training_without_test_data(cfg, tmp_path, caplog, how):
    custom = {"json_file": "${dataloader.test.dataset.json_file}", "image_root": "", "name": None}
    if how == "no files":  # as configs/common/data/custom.py has them
        cfg.dataloader.test.dataset = L(load_coco_format)(json_file="", image_root="")
        cfg.dataloader.evaluator.dataset_name = L(register_coco_format)(**custom)
    elif how == "no names":
        cfg.dataloader.test.dataset.names = None
    else:
        cfg.dataloader["test" if how == "no test" else "evaluator"] = None
    assert Trainer(cfg).train() == {}
    assert "nothing is evaluated in this run" in caplog.text
    assert (tmp_path / "run/model_final.pth").exists()
    with pytest.raises(ConfigError, match="needs test data, and the config names none"):
        check_config(cfg, training=False)


def test_a_test_file_that_is_missing_stays_a_mistake(cfg):
    cfg.dataloader.evaluator.dataset_name = None
    cfg.dataloader.test.dataset = L(load_coco_format)(json_file="vall.json", image_root="images")
    with pytest.raises(DatasetError, match=r"vall\.json does not exist"):
        check_config(cfg)
    cfg.dataloader.test.dataset.json_file = ""
    with pytest.raises(DatasetError, match="has no json_file"):
        check_config(cfg)


def test_an_evaluation_reads_no_training_data(cfg):
    for train in ({"dataset": L(load_coco_format)(json_file="", image_root="")}, None):
        cfg.dataloader.train = train
        check_config(cfg, training=False)
        check_model(cfg, Trainer.build_model(cfg), training=False)


def test_detectron2s_own_evaluator_gets_only_what_it_can_read(cfg, tmp_path):
    cfg.dataloader.evaluator = L(COCOEvaluator)(
        dataset_name="${..test.dataset.names}", tasks=["bbox"], use_fast_impl=False
    )
    check_config(cfg)
    results = Trainer.test(cfg, Trainer.build_model(cfg).eval())
    assert results[B]["bbox"]["AP"] == pytest.approx(100)
    path = tmp_path / B / "toy.json"
    whole = json.loads(path.read_text())
    for change in ({"id": 0}, {"id": 2}, {"id": 2**64}, {"id": "1"}, {"ignore": 1}):
        changed = [whole["annotations"][0] | change, *whole["annotations"][1:]]
        path.write_text(json.dumps(whole | {"annotations": changed}))
        with pytest.raises(ConfigError, match=r"would misread .*toy\.json.*take kddetr\.engine"):
            check_config(cfg)


def test_detectron2s_own_evaluator_needs_its_compiled_operators(cfg, monkeypatch):
    monkeypatch.setattr(truth_sources, "compiled_coco", lambda: None)
    # Later releases of Detectron2 do without the operators where their module cannot be imported.
    monkeypatch.setattr(coco_evaluation, "COCOeval_opt", object)
    node = L(COCOEvaluator)(dataset_name="${dataloader.test.dataset.names}", tasks=["bbox"])
    for evaluator in (node, L(DatasetEvaluators)(evaluators=[node])):
        cfg.dataloader.evaluator = evaluator
        with pytest.raises(ConfigError, match=r"not installed: set .*use_fast_impl=False"):
            check_config(cfg)
    monkeypatch.setattr(truth_sources, "compiled_coco", lambda: COCOEvaluator)
    check_config(cfg)


def test_a_detector_without_masks_is_not_asked_for_masks(cfg):
    cfg.dataloader.evaluator.tasks = ["bbox", "segm"]
    with pytest.raises(ConfigError, match=r"names segm, but the .* has no head for it"):
        check_model(cfg, tiny_detector("dino"))
