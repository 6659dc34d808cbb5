"""A teacher of other classes: its answers are found by name, or nothing is."""

import json

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf

from kddetr import KDDETR
from kddetr.checkpoint import load_pretrained
from kddetr.data import DatasetError
from kddetr.detectors import RegionDetector
from kddetr.engine import ConfigError, build, train_defaults
from kddetr.engine.preflight import check_model
from kddetr.errors import UsageError
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from kddetr.structures import QueryableDetector
from kddetr.teachers import CachedEncoder, Vocabulary, class_names
from tests.stock_models import tiny_faster_rcnn
from tests.tiny import tiny_batch, tiny_detector

KNOWN = ["cat", "dog", "horse", "bird", "fish"]
WANTED = ["fish", "cat", "bird"]
ROWS = [4, 0, 3]
SIZES = ((64, 80), (64, 80))


def knowing(classes: int = len(KNOWN), **options):
    return tiny_detector("dino", num_classes=classes, **options).eval()


def asked(detector, count: int = 7):
    """(queries, answers) at the same random boxes."""
    boxes = torch.rand(2, count, 4, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.2
    with torch.no_grad():
        memory = detector.encode(tiny_batch(SIZES))
        torch.manual_seed(0)
        queries = detector.make_queries(memory, boxes)
        return detector.queries(memory), detector.decode(memory, queries)


def test_it_answers_for_the_wanted_classes_in_their_order():
    detector = knowing()
    vocabulary = Vocabulary(detector=detector, classes=KNOWN, wanted=WANTED)
    assert isinstance(vocabulary, QueryableDetector) and vocabulary.num_classes == 3
    assert vocabulary.query_parts == detector.query_parts
    (queries, found), (expected_queries, expected) = asked(vocabulary), asked(detector)
    assert torch.equal(found.logits, expected.logits[..., ROWS])
    assert torch.equal(found.boxes, expected.boxes) and found.class_boxes is None
    assert torch.equal(queries.boxes, expected_queries.boxes)
    assert torch.equal(queries.content, expected_queries.content)


@pytest.mark.parametrize("agnostic", [False, True])
def test_boxes_of_classes_go_with_them(agnostic):
    options = {
        "roi_heads.num_classes": 5,
        "roi_heads.box_predictor.cls_agnostic_bbox_reg": agnostic,
    }
    detector = RegionDetector(tiny_faster_rcnn(**options), num_queries=10).eval()
    vocabulary = Vocabulary(detector=detector, classes=KNOWN, wanted=WANTED)
    (_, found), (_, expected) = asked(vocabulary), asked(detector)
    assert torch.equal(found.logits, expected.logits[..., ROWS])
    if agnostic:
        assert found.class_boxes is None and torch.equal(found.boxes, expected.boxes)
        return
    assert torch.equal(found.class_boxes, expected.class_boxes[..., ROWS, :])
    best = found.logits.argmax(-1)
    assert torch.equal(found.boxes, found.of_classes(best).boxes)
    # the likeliest class of all is not wanted somewhere, and its box is not the answer there
    assert not torch.equal(found.boxes, expected.boxes)


def test_all_classes_in_order_change_nothing():
    detector = knowing()
    (_, found), (_, expected) = (
        asked(Vocabulary(detector=detector, classes=KNOWN, wanted=KNOWN)),
        asked(detector),
    )
    assert torch.equal(found.logits, expected.logits) and torch.equal(found.boxes, expected.boxes)


def test_around_and_inside_remembered_encodings():
    detector = knowing()
    inside = CachedEncoder(
        Vocabulary(detector=detector, classes=KNOWN, wanted=WANTED), dtype="float32"
    )
    around = Vocabulary(
        detector=CachedEncoder(detector, dtype="float32"), classes=KNOWN, wanted=WANTED
    )
    plain = Vocabulary(detector=detector, classes=KNOWN, wanted=WANTED)
    expected = asked(plain)[1].logits
    for wrapped in (inside, around):
        assert wrapped.num_classes == 3
        for _ in range(2):
            # A cached encoder encodes the images one by one, which changes the last bits.
            torch.testing.assert_close(asked(wrapped)[1].logits, expected)


def distiller(teacher, classes: int = 3) -> KDDETR:
    return KDDETR(
        student=tiny_detector(num_classes=classes, seed=1),
        teacher=teacher,
        sampler=JointSampler([GeneralSampler(count=4), SpecificSampler()]),
        loss=WeightedMeanLoss(),
    )


def test_a_student_of_fewer_classes_is_taught():
    teacher = Vocabulary(detector=knowing(), classes=KNOWN, wanted=WANTED)
    model = distiller(teacher).train()
    losses = model(tiny_batch())
    sum(losses.values()).backward()
    assert any("kd_" in name and value > 0 for name, value in losses.items())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any("teacher" in name for name in model.state_dict())
    model.double()
    assert teacher.rows.dtype == torch.int64
    assert {p.dtype for p in teacher.parameters()} == {torch.float64}  # .to() moves it along


def test_the_distiller_says_where_the_way_out_is():
    with pytest.raises(UsageError, match=r"5 classes and the student 3: .*Vocabulary"):
        distiller(knowing())


def test_it_is_a_config_node(tmp_path):
    file = str(tmp_path / "teacher.pth")
    torch.save({"model": knowing().state_dict()}, file)
    node = OmegaConf.create(
        L(Vocabulary)(
            detector=L(load_pretrained)(model=L(knowing)(classes=5, seed=3), checkpoint=file),
            classes=KNOWN,
            wanted=WANTED,
        ),
        flags={"allow_objects": True},
    )
    for made in (instantiate(node), build(node)):
        assert made.wanted == WANTED and type(made.wanted) is list
        expected = asked(knowing())[1].logits[..., ROWS]
        # A frozen attention takes another path through PyTorch than one that is trained.
        torch.testing.assert_close(asked(made)[1].logits, expected)


@pytest.fixture
def coco_file(tmp_path):
    """Its categories are not in the order of their ids."""
    ids = {"bird": 9, "cat": 4, "fish": 1}
    categories = [{"id": i, "name": name} for name, i in ids.items()]
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"images": [], "categories": categories}))
    return str(path)


@pytest.fixture
def data_set():
    """Its classes are known once it has been read."""

    def read() -> list:
        MetadataCatalog.get("vocabulary_late").set(thing_classes=KNOWN)
        return []

    DatasetCatalog.register("vocabulary_late", read)
    yield "vocabulary_late"
    DatasetCatalog.pop("vocabulary_late")
    MetadataCatalog.pop("vocabulary_late")


def test_names_of_a_data_set_or_a_file(coco_file, data_set):
    assert class_names(coco_file) == ["fish", "cat", "bird"]
    assert class_names(data_set) == KNOWN
    assert len(class_names("coco_2017_val")) == 80
    made = Vocabulary(detector=knowing(), classes=data_set, wanted=coco_file)
    assert made.rows.tolist() == ROWS


@pytest.mark.parametrize(
    ("classes", "wanted", "words"),
    [
        (
            KNOWN,
            ["cat", "zebra"],
            r"no 'zebra'; .*5 \(cat, dog, horse, bird, fish\).*2 \(cat, zebra",
        ),
        (
            KNOWN,
            ["Cat", "birds"],
            r"no 'Cat' \(did you mean cat\?\) and no 'birds' \(did you mean",
        ),
        (KNOWN, ["cat", "dog", "cat"], "wanted name 'cat' more than once"),
        ([*KNOWN[:4], "cat"], ["cat"], "classes name 'cat' more than once"),
        (KNOWN[:4], ["cat"], r"has 5 classes, and .* name 4 \(cat, dog, horse, bird\)"),
        (KNOWN, [], "wanted are an empty list"),
        (KNOWN, "coco_2017_vall", "neither a registered data set .* did you mean coco_2017_val"),
    ],
)
def test_what_does_not_go_together(classes, wanted, words):
    with pytest.raises(UsageError, match=words) as error:
        Vocabulary(detector=knowing(), classes=classes, wanted=wanted)
    assert "\n" not in str(error.value) and str(error.value).count(". ") == 0


def test_long_lists_are_shortened():
    detector, known = knowing(1203), [f"class {i}" for i in range(1203)]
    wanted = [f"other {i}" for i in range(300)]
    with pytest.raises(UsageError) as error:
        Vocabulary(detector=detector, classes=known, wanted=wanted)
    message = str(error.value)
    assert "1203 (class 0, " in message and "class 49, and 1153 more)" in message
    assert "and not 290 others" in message and len(message) < 3000


def test_a_broken_file(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for name in ("broken.json", "missing.json"):
        with pytest.raises(DatasetError, match=name):
            class_names(str(tmp_path / name))


@pytest.mark.parametrize("cached", [False, True])
def test_the_datas_classes_must_be_the_wanted_ones(cached):
    teacher = Vocabulary(detector=knowing(), classes=KNOWN, wanted=WANTED)
    model = distiller(CachedEncoder(teacher) if cached else teacher)
    name = "vocabulary_data"
    data = {"train": {"dataset": {"names": name}}}
    cfg = OmegaConf.create({"dataloader": data, "train": train_defaults()})
    metadata = MetadataCatalog.get(name)
    try:
        metadata.set(thing_classes=WANTED)
        check_model(cfg, model)
        MetadataCatalog.pop(name)
        MetadataCatalog.get(name).set(thing_classes=sorted(WANTED))
        words = r"answers for 3 \(fish, cat, bird\), but .*_data' are 3 \(bird, cat, fish\)"
        with pytest.raises(ConfigError, match=words):
            check_model(cfg, model)
        check_model(cfg, distiller(knowing(3)))  # nobody knows what its classes are called
    finally:
        MetadataCatalog.pop(name)
