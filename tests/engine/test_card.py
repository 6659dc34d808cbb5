"""The model card of a run: what a checkpoint of a training says about itself."""

import json

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T

from kddetr.checkpoint import input_in, read_card
from kddetr.data import DetectionMapper, ShortestEdge, data_card
from kddetr.engine.card import input_of, results_of, run_card, teacher_of
from tests.engine.test_trainer import run
from tests.tiny import tiny_detector


def test_every_checkpoint_of_a_run_has_a_card(toy, tmp_path, dataset):
    """Results are in the cards of the weights that were evaluated."""
    cfg = toy.toy_config(tmp_path, dataset, distil=True, max_iter=6, eval_period=2)
    cfg.train.checkpointer.period = 3
    trainer = run(cfg)
    folder = tmp_path / "run"
    cards = {file.stem: read_card(str(file)) for file in folder.glob("*.pth")}
    assert cards.keys() == {"model_0000002", "model_0000005", "model_final", "model_best"}
    done = {name: card["trained"]["iterations"] for name, card in cards.items()}
    best = json.loads((folder / "best.json").read_text())
    saved = {"model_0000002": 3, "model_0000005": 6, "model_final": 6}
    assert done == saved | {"model_best": best["iteration"]}
    assert cards["model_0000002"]["results"] == cards["model_0000005"]["results"] == {}
    final = trainer.last_results["bbox"]
    assert cards["model_final"]["results"]["bbox/AP"] == final["AP"]
    assert cards["model_best"]["results"]["bbox/AP"] == best["value"]
    for card in cards.values():
        assert card["classes"] == list(cfg.train.classes) and card["teacher"] is None
        assert card["trained"]["config"]["train"]["max_iter"] == 6
        assert card["model"]["_target_"].endswith("ToyDetector")  # of the student
        assert json.loads(json.dumps(card)) == card
    run(cfg, resume=True)  # nothing is left to train, and the results stay
    assert read_card(str(folder / "model_final.pth")) == cards["model_final"]


def test_averaged_weights_have_the_results_of_their_own(toy, tmp_path, dataset):
    cfg = toy.toy_config(tmp_path, dataset, max_iter=4, eval_period=2)
    cfg.train.ema.decay, cfg.train.best_metric = 0.5, "ema/bbox/AP"
    trainer = run(cfg)
    cards = {x: read_card(str(tmp_path / f"run/model_{x}.pth")) for x in ("final", "ema", "best")}
    own, averaged = trainer.last_results["bbox"], trainer.last_results["ema"]["bbox"]
    assert cards["final"]["results"]["bbox/AP"] == own["AP"]
    assert cards["ema"]["results"]["bbox/AP"] == averaged["AP"]
    best = json.loads((tmp_path / "run/best.json").read_text())
    assert cards["best"]["results"]["bbox/AP"] == best["value"]
    assert not any(name.startswith("ema/") for card in cards.values() for name in card["results"])
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_final.pth"
    flat = {"bbox/AP": 1.0, "ema/bbox/AP": 2.0}
    assert results_of(flat, averaged=True) == {"bbox/AP": 2.0}
    assert results_of(flat, averaged=False) == {"bbox/AP": 1.0}


def test_the_preparation_of_an_image_is_described(toy, tmp_path, dataset):
    cfg = toy.toy_config(tmp_path, dataset)
    model = tiny_detector("dino")
    assert input_of(cfg, model) is None  # the toy's loader has no mapper
    resize = L(ShortestEdge)(short_edge_length=32, max_size=64)
    cfg.dataloader.test = {"mapper": L(DetectionMapper)(is_train=False, augmentations=[resize])}
    found = input_of(cfg, model)
    assert (found["min_size"], found["max_size"], found["format"]) == (32, 64, "RGB")
    np.testing.assert_allclose(found["pixel_mean"], model.pixel_mean.flatten())
    assert input_in({"input": found}, "x.pth") == found
    square = L(T.Resize)(shape=(8, 8))
    cfg.dataloader.test.mapper = L(DatasetMapper)(
        is_train=False, augmentations=[square], image_format="RGB"
    )
    found = input_of(cfg, model)
    assert found["min_size"] is None and found["augmentations"][0]["shape"] == [8, 8]
    cfg.dataloader.test.mapper.augmentations = [T.RandomFlip()]
    assert input_of(cfg, model) is None  # an object, which no file describes


@pytest.mark.parametrize("preflight", [None, "[", '{"teacher": {}}', '{"teacher": {"AP": 40.5}}'])
def test_the_teacher_is_named_with_its_ap(toy, tmp_path, dataset, preflight):
    cfg = toy.toy_config(tmp_path, dataset, distil=True, max_iter=1)
    run(cfg)
    file = tmp_path / "run/model_final.pth"
    ap = read_card(str(file))["results"]["bbox/AP"]
    cfg.model.teacher = {"checkpoint": str(file)}
    first = teacher_of(cfg)
    assert first["file"] == "model_final.pth" and first["bbox/AP"] == ap
    if preflight:
        (tmp_path / "run/preflight.json").write_text(preflight)
    assert teacher_of(cfg) == first | (
        {"bbox/AP": 40.5} if preflight == '{"teacher": {"AP": 40.5}}' else {}
    )
    cfg.model.teacher.checkpoint = str(tmp_path / "gone.pth")
    assert teacher_of(cfg)["fingerprint"] is None
    assert run_card(cfg, tiny_detector(), [])["teacher"] == teacher_of(cfg)


def test_a_fingerprint_is_of_images_and_boxes_and_not_of_their_folder():
    def records(folder="a", x=1.0, flag=0):
        box = {"bbox": [x, 1, 2, 3], "category_id": 0, "iscrowd": flag}
        return [{"file_name": f"{folder}/1.png", "annotations": [box]}, {"file_name": "a/2.png"}]

    first = data_card(records())
    assert (first["images"], first["boxes"]) == (2, 1)
    assert data_card(records("b")) == first
    prints = {data_card(r)["fingerprint"] for r in (records(), records(x=2.0), records()[:1])}
    assert len(prints) == 3
    assert data_card(records(flag=1))["boxes"] == 0
