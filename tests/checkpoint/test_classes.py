"""Class names travel with the weights: in the file, or in a card beside a Detectron2 model's."""

import json

import pytest
import torch
from detectron2.data import MetadataCatalog
from torch import nn

from kddetr.checkpoint import AssumedClasses, Checkpointer, load_pretrained, read_checkpoint
from kddetr.checkpoint.classes import assumed_classes
from kddetr.detectors import RegionDetector
from kddetr.engine import PeriodicCheckpointer
from tests.checkpoint import other_names
from tests.golden_numbers.files import Golden
from tests.stock_models import tiny_faster_rcnn

NAMES = ["cat", "Ümlaut ${x}", "yes"]


def stock():
    return RegionDetector(tiny_faster_rcnn(**{"roi_heads.num_classes": 3}))


def test_names_are_in_the_file(tmp_path):
    model = nn.Linear(3, 2)
    Checkpointer(model, str(tmp_path), classes=NAMES).save("model_0000001", iteration=1)
    assert read_checkpoint(str(tmp_path / "model_0000001.pth"))["classes"] == NAMES
    loaded = Checkpointer(nn.Linear(3, 2), str(tmp_path)).resume_or_load("")
    assert loaded == {"iteration": 1, "classes": tuple(NAMES)}
    teacher = load_pretrained(nn.Linear(3, 2), str(tmp_path / "model_0000001.pth"))
    assert teacher.trained_classes == tuple(NAMES)


def test_names_of_a_detectron2_model_are_in_a_card(tmp_path):
    """Its file is byte for byte the same without them, and so is the file of the model itself."""
    model = stock()
    for folder, inner, names in (
        ("with", model, NAMES),
        ("without", model, []),
        ("bare", model.stock, NAMES),
    ):
        Checkpointer(inner, str(tmp_path / folder), classes=names).save("model_final")
    files = [(tmp_path / name / "model_final.pth").read_bytes() for name in ("with", "without")]
    assert files[0] == files[1] == (tmp_path / "bare/model_final.pth").read_bytes()
    assert not (tmp_path / "without/model_final.json").exists()
    for folder in ("with", "bare"):
        file = str(tmp_path / folder / "model_final.pth")
        assert load_pretrained(stock(), file).trained_classes == tuple(NAMES)
    # Without names, a card of an earlier file of this name would be another file's.
    Checkpointer(model, str(tmp_path / "with")).save("model_final")
    assert load_pretrained(stock(), str(tmp_path / "with/model_final.pth")).trained_classes == ()


@pytest.mark.parametrize("content", ["", "[1", "[]", '{"classes": 3}', '{"classes": ["a", 1]}'])
def test_a_json_file_that_is_no_card_says_nothing(tmp_path, content):
    torch.save({"model": nn.Linear(3, 2).state_dict(), "classes": 3}, tmp_path / "x.pth")
    (tmp_path / "x.json").write_text(content)
    assert load_pretrained(nn.Linear(3, 2), str(tmp_path / "x.pth")).trained_classes == ()


def test_cards_are_deleted_with_their_checkpoints(tmp_path):
    saver = Checkpointer(stock(), str(tmp_path), classes=NAMES)
    hook = PeriodicCheckpointer(saver, 1, max_iter=4, max_to_keep=2)
    hook.recent_checkpoints = []
    for iteration in range(4):
        hook.step(iteration)
    files = {suffix: {p.stem for p in tmp_path.glob(f"*.{suffix}")} for suffix in ("pth", "json")}
    assert files["pth"] == files["json"] == {"model_0000002", "model_0000003", "model_final"}
    assert json.loads((tmp_path / "model_final.json").read_text()) == {"classes": NAMES}


def test_a_published_detector_of_80_classes_has_cocos():
    state = other_names.dino_official(Golden("dino_eval").state())
    other, zoo = {"a": torch.ones(1)}, "model_zoo://trained/COCO-Detection/retinanet_R_50_FPN_1x"
    for named, rows, path, count in (
        (state, 80, "x.pth", 80),
        (state, 5, "x.pth", 0),
        (other, 80, "x.pth", 0),
        (other, 80, f"{zoo}.yaml", 80),
        (other, 80, "model_zoo://COCO-Detection/retinanet_R_50_FPN_1x.yaml", 0),  # ImageNet's
    ):
        names = assumed_classes(named, {"decoder.class_heads.0.weight": torch.zeros(rows, 2)}, path)
        assert isinstance(names, AssumedClasses) == bool(count) and len(names) == count
        assert names == tuple(MetadataCatalog.get("coco_2017_val").thing_classes)[:count]
