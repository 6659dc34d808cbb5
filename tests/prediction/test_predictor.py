"""A predictor feeds its detector as the evaluation does, whatever kind of image it is given."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils.visualizer import Visualizer
from PIL import Image

import kddetr
from kddetr.checkpoint import Checkpointer, CheckpointError, asset
from kddetr.data import ShortestEdge
from kddetr.detectors import RegionDetector
from kddetr.engine import CocoEvaluator, Trainer
from kddetr.engine.card import run_card
from kddetr.errors import ConfigError, DatasetError, UsageError
from kddetr.prediction import DefaultPredictor, Predictor
from tests.prediction.trained import NAMES, save_trained
from tests.stock_models import tiny_faster_rcnn


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return save_trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def picture(tmp_path):
    """The path of a PNG of 40 x 30 random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


def same(found, expected):
    """Whether detections are the same bits: the same code computed them."""
    pairs = zip(found.get_fields().values(), expected.get_fields().values(), strict=True)
    return all(torch.equal(getattr(a, "tensor", a), getattr(b, "tensor", b)) for a, b in pairs)


def test_a_file_is_predicted_as_in_evaluation(trained, picture):
    cfg, file, model = trained
    mapper = kddetr.engine.build(cfg.dataloader.test.mapper)
    with torch.no_grad():
        expected = model([mapper({"file_name": picture})])[0]["instances"]
    predictor = Predictor(file)
    found = predictor(picture)
    assert same(found, expected) and found.image_size == (30, 40) and len(found)
    assert predictor.classes == NAMES and not predictor.model.training
    assert not any(p.requires_grad for p in predictor.model.parameters())


def test_the_folder_of_a_run_stands_for_its_best_weights(trained, picture, tmp_path):
    expected = Predictor(trained[1])(picture)
    for name in ("model_final.pth", "model_best.pth"):
        shutil.copy(trained[1], tmp_path / name)
        assert same(Predictor(tmp_path)(picture), expected)
        (tmp_path / "model_final.pth").write_bytes(b"not looked at where there is a best")
    (tmp_path / "model_best.pth").unlink()
    (tmp_path / "model_final.pth").unlink()
    with pytest.raises(CheckpointError, match=r"is a folder without .*model_best\.pth"):
        Predictor(tmp_path)


def test_only_some_classes(trained, picture):
    every, only = Predictor(trained[1])(picture), Predictor(trained[1], only=[NAMES[1]])(picture)
    assert same(only, every[every.pred_classes == 1]) and 0 < len(only) < len(every)
    with pytest.raises(UsageError, match=f"has no class .*{NAMES[1]}"):
        Predictor(trained[1], only=[NAMES[1].upper() + "x"])


def test_the_ap_is_that_of_the_evaluation(trained):
    cfg, file, model = trained
    name = cfg.dataloader.evaluator.dataset_name
    expected = Trainer.test(cfg, model)["bbox"]
    predictor, evaluator = Predictor(file, batch_size=3), CocoEvaluator(name)
    evaluator.reset()
    records = DatasetCatalog.get(name)
    found = predictor([record["file_name"] for record in records])
    evaluator.process(records, [{"instances": one} for one in found])
    assert evaluator.evaluate()["bbox"] == pytest.approx(expected, nan_ok=True)


def test_all_kinds_of_images_give_the_same(trained, picture):
    file = trained[1]
    image = Image.open(picture)
    rgb = np.asarray(image)
    predictor, bgr = Predictor(file), Predictor(file, array_format="BGR")
    expected = predictor(picture)
    for given in (Path(picture), image, rgb, np.dstack([rgb, rgb[..., :1]])):
        assert same(predictor(given), expected), type(given)
    assert same(bgr(rgb[:, :, ::-1]), expected) and same(bgr(image), expected)
    assert not same(bgr(rgb), expected)
    batched = predictor([picture, rgb, rgb[:20], image])
    assert [len(x) > 0 for x in batched] == [True] * 4
    torch.testing.assert_close(batched[3].pred_boxes.tensor, expected.pred_boxes.tensor)
    assert same(batched[2], predictor(rgb[:20]))
    grey = rgb[:, :, 0]
    assert same(predictor(grey), predictor(np.dstack([grey] * 3)))
    assert predictor([]) == []


def test_a_turned_photograph_has_boxes_in_the_upright_image(trained, picture, tmp_path):
    image = Image.open(picture)
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn clockwise shows it upright
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    predictor, turned = Predictor(trained[1]), str(tmp_path / "turned.png")
    assert same(predictor(turned), predictor(picture))
    assert same(predictor(Image.open(turned)), predictor(picture))


def test_dictionaries_and_threshold(trained, picture):
    every = Predictor(trained[1])(picture)
    limit = float(every.scores[2])
    found = Predictor(trained[1], threshold=limit, as_dicts=True)(picture)
    assert len(found) == 3 and found[0]["class"] == NAMES[int(every.pred_classes[0])]
    assert found[0]["box"] == every.pred_boxes.tensor[0].tolist()
    assert json.loads(json.dumps(found)) == found
    assert Predictor(trained[1], threshold=1.0, as_dicts=True)([picture]) == [[]]


def test_half_precision_is_close(trained, picture):
    exact = Predictor(trained[1])(picture)
    half = Predictor(trained[1], precision="bfloat16")(picture)
    torch.testing.assert_close(half.scores, exact.scores, atol=0.05, rtol=0)
    assert not torch.equal(half.scores, exact.scores)


def test_detectron2s_habits(trained, picture):
    bgr = np.asarray(Image.open(picture))[:, :, ::-1]
    predictor = DefaultPredictor(trained[1])
    outputs = predictor(bgr)
    assert same(outputs["instances"].to("cpu"), Predictor(trained[1])(picture))
    drawn = Visualizer(bgr[:, :, ::-1], predictor.metadata).draw_instance_predictions(
        outputs["instances"]
    )
    assert drawn.get_image().shape == bgr.shape


def test_a_detectron2_student_has_its_card_beside_it(tmp_path, picture):
    model = RegionDetector(
        tiny_faster_rcnn(**{"roi_heads.box_predictor.test_score_thresh": 0.0})
    ).eval()
    Checkpointer(model, str(tmp_path), classes=NAMES).save_weights("student")
    file, steps = str(tmp_path / "student.pth"), [ShortestEdge(48, 80)]
    predictor = Predictor(file, model=model, augmentations=steps)
    image = predictor.prepare(predictor.read(picture))
    with torch.no_grad():
        assert same(predictor(picture), model([image])[0]["instances"])
    assert predictor.classes == NAMES


@pytest.mark.slow
def test_a_file_is_enough_where_nothing_else_is(trained, picture, tmp_path):
    """In a process without data sets, in an empty folder."""
    code = (
        "import sys; from kddetr import Predictor; found = Predictor(sys.argv[1])(sys.argv[2]);"
        "print(found.scores.tolist())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "DETECTRON2_DATASETS"}
    package = str(Path(kddetr.__file__).parents[1])
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, trained[1], picture],
        cwd=tmp_path / "empty",
        env=environment | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = Predictor(trained[1])(picture).scores
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), expected)


def test_a_file_without_a_card_needs_a_config(trained, picture, tmp_path):
    cfg, file, model = trained
    old = str(tmp_path / "old.pth")
    torch.save({"model": model.state_dict()}, old)
    with pytest.raises(CheckpointError, match=r"has no model card.*give the config"):
        Predictor(old)
    (tmp_path / "config.yaml").write_text("train: {}")
    with pytest.raises(CheckpointError, match=r"which is .*config\.yaml"):
        Predictor(old)
    expected = Predictor(file)(picture)
    assert same(Predictor(old, config=cfg)(picture), expected)
    with pytest.raises(ConfigError, match="How images are resized"):
        Predictor(old, model=Trainer.build_detector(cfg))
    given = Predictor(old, model=Trainer.build_detector(cfg), augmentations=[ShortestEdge(48, 80)])
    assert same(given(picture), expected) and given.classes == ["0", "1", "2"]


def test_other_statistics_than_in_training_are_refused(trained, tmp_path):
    cfg, _, model = trained
    card = run_card(cfg, model, NAMES)
    card["input"]["pixel_mean"] = [100.0, 120.0, 140.0]
    Checkpointer(model, str(tmp_path), card=card).save_weights("x")
    with pytest.raises(CheckpointError, match="was trained with pixel_mean="):
        Predictor(str(tmp_path / "x.pth"))
    card = run_card(cfg, model, NAMES)
    card["model"]["depth_of_the_sea"] = 3
    Checkpointer(model, str(tmp_path), card=card).save_weights("x")
    with pytest.raises(CheckpointError, match="cannot be built by this version"):
        Predictor(str(tmp_path / "x.pth"))


def test_wrong_arguments_and_images_are_sentences(trained, picture, tmp_path):
    file = trained[1]
    for options, words in (
        ({"threshold": 2}, "threshold"),
        ({"array_format": "HSV"}, "RGB or BGR"),
        ({"precision": "int8"}, "float32, float16, bfloat16"),
        ({"precision": "float16", "device": "cpu"}, "needs CUDA"),
    ):
        with pytest.raises(UsageError, match=words):
            Predictor(file, **options)
    with pytest.raises(ConfigError, match="device must be"):
        Predictor(file, device="tpu")
    predictor = Predictor(file)
    for image, words in (
        (np.zeros((3, 8, 8), np.uint8), "transpose"),
        (np.zeros((8, 8, 3)), "uint8 from 0 to 255"),
        (torch.zeros(3, 8, 8), "path of a file"),
        (tmp_path, "is a folder: give the paths"),
    ):
        with pytest.raises(UsageError, match=words):
            predictor(image)
    (tmp_path / "cut.png").write_bytes(Path(picture).read_bytes()[:200])
    for image in (str(tmp_path / "cut.png"), Image.open(tmp_path / "cut.png")):
        with pytest.raises(DatasetError, match=r"cut\.png"):
            predictor(image)


def test_the_shipped_teacher_has_a_card():
    """Its resizing leaves the bundled images as they are, so its results hold for them."""
    predictor = Predictor("kddetr://quickstart_teacher.pth")
    assert predictor.classes == list("0123456789") and predictor.card["results"]["bbox/AP"] > 70
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    image = predictor.prepare(pixels)["image"]
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))
    assert predictor.prepare(np.zeros((300, 600, 3), np.uint8))["image"].shape == (3, 128, 256)
    files = [*asset("kddetr://").iterdir()]
    assert sum(file.stat().st_size for file in files) < 5e6
