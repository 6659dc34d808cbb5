"""Odd images and boxes give finite losses, gradients and detections in every family."""

import json

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.data import transforms as T
from detectron2.evaluation import inference_on_dataset
from detectron2.structures import Boxes
from omegaconf import OmegaConf
from PIL import Image

from kddetr.data import (
    DetectionMapper,
    ShortestEdge,
    build_train_loader,
    load_coco_format,
    register_coco_format,
)
from kddetr.detectors.detr.postprocess import select_detections
from kddetr.engine import CocoEvaluator, check_config, train_defaults
from kddetr.errors import DivergedError, UsageError
from tests.tiny import CLASSES, FAMILIES, tiny_batch, tiny_detector

USUAL = (40, 56)
SIZES = ((1, 1), (1, 40), (40, 1), (3, 200), (200, 3), (9, 9))


@pytest.fixture(params=FAMILIES)
def detector(request):
    return tiny_detector(request.param)


def assert_trains(detector, batch) -> dict[str, torch.Tensor]:
    detector.train().zero_grad()
    losses = detector(batch)
    assert all(torch.isfinite(value) for value in losses.values()), losses
    sum(losses.values()).backward()
    wrong = [
        name
        for name, p in detector.named_parameters()
        if p.requires_grad and (p.grad is None or not torch.isfinite(p.grad).all())
    ]
    assert wrong == []
    return losses


def assert_detects(detector, batch) -> None:
    """Detections are ordered, finite, inside the image, and of a size."""
    detector.eval()
    with torch.no_grad():
        outputs = detector(batch)
    assert len(outputs) == len(batch)
    for x, output in zip(batch, outputs, strict=True):
        found = output["instances"]
        assert found.image_size == (x["height"], x["width"]) and len(found) <= 10
        assert torch.isfinite(found.scores).all() and torch.isfinite(found.pred_boxes.tensor).all()
        assert (found.scores.diff() <= 0).all()
        assert ((found.pred_classes >= 0) & (found.pred_classes < CLASSES)).all()
        x0, y0, x1, y1 = found.pred_boxes.tensor.unbind(1)
        assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 > x0).all() and (y1 > y0).all()
        assert (x1 <= x["width"]).all() and (y1 <= x["height"]).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_odd_sizes_alone_and_in_a_batch(detector, size):
    """The smallest images have fewer tokens than a two-stage detector has queries."""
    for sizes in ((size,), (size, USUAL)):
        batch = tiny_batch(sizes, boxes=(2, 3)[: len(sizes)])
        assert_trains(detector, batch)
        assert_detects(detector, batch)


def test_fewer_tokens_than_queries(detector):
    """There are also fewer queries than boxes, so some boxes stay without a match."""
    batch = tiny_batch(((1, 1), (8, 8)), boxes=(9, 1))
    memory = detector.encode(batch)
    answers = detector.decode(memory, detector.queries(memory))
    assert 0 < answers.logits.shape[2] <= 6
    assert_trains(detector, batch)
    assert_trains(detector, tiny_batch(((1, 1),), boxes=(0,)))
    assert_trains(detector, tiny_batch(((1, 1),), boxes=(None,)))


def test_constant_images(detector):
    for value in (0, 255):
        batch = tiny_batch()
        for x in batch:
            x["image"] = torch.full_like(x["image"], value)
        assert_trains(detector, batch)
        assert_detects(detector, batch)


@pytest.mark.parametrize(
    "boxes",
    [
        [[5, 5, 5, 20], [9, 9, 9, 9], [3, 7, 30, 7]],
        [[-30, -30, -5, -5], [90, 90, 120, 120], [-50, -50, 500, 500]],
        [[0, 0, 56, 40]] * 9,
        [[3, 3, 3.001, 3.001]],
    ],
    ids=["no size", "outside", "more equal boxes than queries", "tiny"],
)
def test_odd_boxes_without_a_mapper_that_drops_them(detector, boxes):
    batch = tiny_batch((USUAL, USUAL), boxes=(len(boxes), 0))
    batch[0]["instances"].gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
    assert_trains(detector, batch)


@pytest.mark.parametrize("wrong", [-1, CLASSES])
def test_a_class_that_the_detector_does_not_have_is_refused(detector, wrong):
    """Without the check, class -1 would train the last class."""
    batch = tiny_batch((USUAL,), boxes=(3,))
    batch[0]["instances"].gt_classes[1] = wrong
    with pytest.raises(UsageError, match=f"of class {wrong}, but this detector has {CLASSES}"):
        detector.train()(batch)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 5)], ids=str)
def test_detections_from_few_or_no_queries(size):
    for queries, classes in ((0, 3), (1, 1), (4, 3)):
        logits, boxes = torch.randn(2, queries, classes), torch.rand(2, queries, 4)
        for found in select_detections(logits, boxes, [size, USUAL], count=5):
            assert len(found) == min(5, queries * classes)
            assert (found.scores.diff() <= 0).all() and found.pred_boxes.tensor.shape[1] == 4


@pytest.fixture()
def odd_folder(tmp_path):
    """Images of every kind, with boxes of every kind."""
    images = {
        "row.png": Image.new("RGB", (30, 1), (200, 9, 9)),
        "column.png": Image.new("L", (1, 30), 77),
        "dot.png": Image.new("RGBA", (1, 1), (9, 200, 9, 128)),
        "thin.png": Image.new("LA", (400, 3), (200, 9)),
        "palette.gif": Image.new("RGB", (31, 17), (9, 9, 200)).convert("P"),
        "print.jpg": Image.new("CMYK", (16, 16), (9, 99, 9, 9)),
        "deep.png": Image.new("I;16", (20, 20), 40000),
    }
    notes = []
    for i, (name, image) in enumerate(images.items()):
        image.save(tmp_path / name)
        w, h = image.size
        for box in ([0, 0, w, h], [-w, -h, 9 * w, 9 * h], [0, 0, 0, h], [3 * w, 0, w, h]):
            area, crowd = box[2] * box[3], int(i == 2 or box[0] < 0)
            notes.append({"image_id": 10 * i, "category_id": 7, "bbox": box, "area": area})
            notes[-1] |= {"id": len(notes), "iscrowd": crowd}
    document = {
        "images": [
            {"id": 10 * i, "file_name": name, "width": image.width, "height": image.height}
            for i, (name, image) in enumerate(images.items())
        ],
        "categories": [{"id": i, "name": str(i)} for i in (90, 7, 3)],
    }
    before = set(DatasetCatalog.list())
    paths = {}
    for name, kept in (
        ("mixed", notes),
        ("crowds", [n for n in notes if n["iscrowd"]]),
        ("nothing", []),
        ("unlabelled", None),
    ):
        extra = {} if kept is None else {"annotations": kept}
        (tmp_path / f"{name}.json").write_text(json.dumps(document | extra))
        paths[name] = {"json_file": str(tmp_path / f"{name}.json"), "image_root": str(tmp_path)}
    yield paths
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


def test_a_folder_of_odd_images_from_preflight_to_metric(detector, odd_folder):
    paths = odd_folder["mixed"]
    resize = ShortestEdge([16, 24], 48)
    crop = [T.RandomFlip(), T.RandomCrop("absolute_range", (8, 16)), resize]
    data = L(load_coco_format)(**paths)
    cfg = OmegaConf.create({"train": train_defaults()}, flags={"allow_objects": True})
    cfg.dataloader = {"train": {"dataset": data}, "test": {"dataset": data}}
    check_config(cfg)
    mapper = DetectionMapper(is_train=True, augmentations=[resize], augmentations_with_crop=crop)
    records = load_coco_format(**paths)
    loader = iter(build_train_loader(dataset=records, mapper=mapper, total_batch_size=7, seed=0))
    for _ in range(2):
        batch = next(loader)
        # One of the seven images has only crowds, which are left out.
        assert sum(len(x["instances"]) for x in batch) >= 6
        assert_trains(detector, batch)
    mapper = DetectionMapper(is_train=False, augmentations=[resize])
    for name, paths in odd_folder.items():
        loader = build_detection_test_loader(load_coco_format(**paths), mapper=mapper)
        results = inference_on_dataset(
            detector.eval(), loader, CocoEvaluator(register_coco_format(**paths))
        )
        if name == "mixed":
            assert 0 <= results["bbox"]["AP"] <= 100
        elif name == "unlabelled":
            assert not results
        else:
            assert results["bbox"]["AP"] != results["bbox"]["AP"]  # NaN: there are no boxes


def test_boxes_that_are_not_finite_are_a_sentence(detector):
    with torch.no_grad():
        for weight in detector.decoder.box_heads.parameters():
            weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="boxes that are not finite numbers"):
        detector.eval()(tiny_batch())
