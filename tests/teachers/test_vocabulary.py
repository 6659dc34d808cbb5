"""A teacher's classes are selected by name, and lists that do not fit raise an error."""

import json

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf

from kddetr.checkpoint import load_pretrained
from kddetr.data import DatasetError
from kddetr.detectors import RegionDetector
from kddetr.engine import ConfigError, build, check_model, train_defaults
from kddetr.errors import UsageError
from kddetr.points import SpecificSampler
from kddetr.structures import QueryableDetector
from kddetr.teachers import CachedEncoder, Vocabulary, class_names
from tests.stock_models import tiny_faster_rcnn
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller

KNOWN = ["cat", "dog", "horse", "bird", "fish"]
WANTED = ["fish", "cat", "bird"]
ROWS = [4, 0, 3]
SIZES = ((64, 80), (64, 80))


def teacher_of(classes: int = len(KNOWN), **options):
    """A DINO with so many classes."""
    return tiny_detector("dino", num_classes=classes, **options).eval()


def asked(detector, count: int = 7):
    """The detector's own queries, and its predictions at the same random boxes at every call."""
    boxes = torch.rand(2, count, 4, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.2
    with torch.no_grad():
        memory = detector.encode(tiny_batch(SIZES))
        torch.manual_seed(0)
        queries = detector.make_queries(memory, boxes)
        return detector.queries(memory), detector.decode(memory, queries)


def test_predictions_are_those_of_the_wanted_classes_in_their_order():
    detector = teacher_of()
    vocabulary = Vocabulary(detector=detector, classes=KNOWN, wanted=WANTED)
    assert isinstance(vocabulary, QueryableDetector) and vocabulary.num_classes == 3
    assert vocabulary.query_parts == detector.query_parts
    (queries, found), (expected_queries, expected) = asked(vocabulary), asked(detector)
    assert torch.equal(found.logits, expected.logits[..., ROWS])
    assert torch.equal(found.boxes, expected.boxes) and found.class_boxes is None
    assert torch.equal(queries.boxes, expected_queries.boxes)
    assert torch.equal(queries.content, expected_queries.content)


def test_a_class_that_the_teacher_lacks_is_not_taught():
    """It gets no gradient of the distillation, and the others are taught as without it."""
    batch = tiny_batch(SIZES, boxes=(None, None))
    names, gradients = ["fish", "unicorn", "cat"], {}
    weights = tiny_detector("dino", seed=1, num_classes=3).state_dict()
    for wanted in (names, ["fish", "cat"]):
        teacher = Vocabulary(detector=teacher_of(), classes=KNOWN, wanted=wanted, partial=True)
        student, rows = tiny_detector("dino", num_classes=len(wanted)), [*map(names.index, wanted)]
        student.load_state_dict(
            {k: v[rows] if "class_head" in k or "label" in k else v for k, v in weights.items()}
        )
        losses = tiny_distiller(student, teacher, sampler=SpecificSampler())(batch)
        torch.stack([v for k, v in losses.items() if k.startswith("kd")]).sum().backward()
        gradients[len(wanted)] = student.decoder.class_heads[-1].weight.grad
    found, expected = gradients[3], gradients[2]
    assert not found[1].any() and found[0].any()
    torch.testing.assert_close(found[[0, 2]], expected)


def test_a_teacher_without_any_of_the_classes_is_refused():
    for partial, wanted in ((False, ["fish", "unicorn"]), (True, ["unicorn"])):
        with pytest.raises(UsageError, match="no class 'unicorn'"):
            Vocabulary(detector=teacher_of(), classes=KNOWN, wanted=wanted, partial=partial)


@pytest.mark.parametrize("agnostic", [False, True])
def test_boxes_of_every_class_are_selected_with_the_logits(agnostic):
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
    # At some query the most likely of all classes is not a wanted one, and its box is not used.
    assert not torch.equal(found.boxes, expected.boxes)


def test_all_classes_in_order_change_nothing():
    detector = teacher_of()
    (_, found), (_, expected) = (
        asked(Vocabulary(detector=detector, classes=KNOWN, wanted=KNOWN)),
        asked(detector),
    )
    assert torch.equal(found.logits, expected.logits) and torch.equal(found.boxes, expected.boxes)


def test_works_inside_and_around_a_cached_encoder():
    detector = teacher_of()
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


def distiller(teacher):
    return tiny_distiller(tiny_detector(seed=1), teacher)


def test_a_student_with_fewer_classes_than_its_teacher_trains():
    teacher = Vocabulary(detector=teacher_of(), classes=KNOWN, wanted=WANTED)
    model = distiller(teacher)
    losses = model(tiny_batch())
    sum(losses.values()).backward()
    assert any("kd_" in name and value > 0 for name, value in losses.items())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any("teacher" in name for name in model.state_dict())
    model.double()
    assert teacher.rows.dtype == torch.int64
    assert {p.dtype for p in teacher.parameters()} == {torch.float64}


def test_the_distillers_error_names_the_vocabulary():
    with pytest.raises(UsageError, match=r"5 classes and the student 3: .*Vocabulary"):
        distiller(teacher_of())


def test_can_be_built_from_a_config(tmp_path):
    file = str(tmp_path / "teacher.pth")
    torch.save({"model": teacher_of().state_dict()}, file)
    node = OmegaConf.create(
        L(Vocabulary)(
            detector=L(load_pretrained)(model=L(teacher_of)(classes=5, seed=3), checkpoint=file),
            classes=KNOWN,
            wanted=WANTED,
        ),
        flags={"allow_objects": True},
    )
    for made in (instantiate(node), build(node)):
        assert made.wanted == WANTED and type(made.wanted) is list
        expected = asked(teacher_of())[1].logits[..., ROWS]
        # PyTorch computes attention along another path when its weights are frozen.
        torch.testing.assert_close(asked(made)[1].logits, expected)


@pytest.fixture
def coco_file(tmp_path):
    """A COCO file whose categories are not in the order of their ids."""
    ids = {"bird": 9, "cat": 4, "fish": 1}
    categories = [{"id": i, "name": name} for name, i in ids.items()]
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"images": [], "categories": categories}))
    return str(path)


@pytest.fixture
def data_set():
    """A registered data set that sets its class names only when it is read."""

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
    made = Vocabulary(detector=teacher_of(), classes=data_set, wanted=coco_file)
    assert made.rows.tolist() == ROWS


@pytest.mark.parametrize(
    ("classes", "wanted", "words"),
    [
        (
            KNOWN,
            ["cat", "zebra"],
            r"no class 'zebra'; .*5 \(cat, dog, horse, bird, fish\)",
        ),
        (
            KNOWN,
            ["Cat", "birds"],
            r"no class 'Cat' \(did you mean cat\?\) and no class 'birds' \(did you mean",
        ),
        (KNOWN, ["cat", "dog", "cat"], "wanted list 'cat' more than once"),
        ([*KNOWN[:4], "cat"], ["cat"], "classes list 'cat' more than once"),
        (KNOWN[:4], ["cat"], r"has 5 classes, but .* classes are 4 \(cat, dog, horse, bird\)"),
        (KNOWN, [], "wanted are an empty list"),
        (KNOWN, "coco_2017_vall", "neither a registered data set .* did you mean coco_2017_val"),
    ],
)
def test_lists_that_do_not_fit_are_refused(classes, wanted, words):
    with pytest.raises(UsageError, match=words) as error:
        Vocabulary(detector=teacher_of(), classes=classes, wanted=wanted)
    assert "\n" not in str(error.value) and str(error.value).count(". ") == 0


def test_long_lists_are_shortened_in_messages():
    detector, known = teacher_of(1203), [f"class {i}" for i in range(1203)]
    wanted = [f"other {i}" for i in range(300)]
    with pytest.raises(UsageError) as error:
        Vocabulary(detector=detector, classes=known, wanted=wanted)
    message = str(error.value)
    assert "1203 (class 0, " in message and "class 9, and 1193 more)" in message
    assert "and not 290 other wanted ones" in message and len(message) < 1000


def test_a_broken_or_missing_file_is_named(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for name in ("broken.json", "missing.json"):
        with pytest.raises(DatasetError, match=name):
            class_names(str(tmp_path / name))


@pytest.mark.parametrize("cached", [False, True])
def test_the_classes_of_the_data_must_be_the_wanted_ones(cached):
    teacher = Vocabulary(detector=teacher_of(), classes=KNOWN, wanted=WANTED)
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
        words = (
            "selects other classes than .*_data': the same 3 classes in another order: class 0 is"
            " 'fish' in wanted and 'bird' in the data"
        )
        with pytest.raises(ConfigError, match=words):
            check_model(cfg, model)
        check_model(cfg, distiller(teacher_of(3)))  # a teacher without class names is accepted
    finally:
        MetadataCatalog.pop(name)
