"""Recorded answers are the live teacher's, follow the image, and are refused for other images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kddetr.boxes import cxcywh_to_xyxy
from kddetr.data import DetectionMapper, ShortestEdge
from kddetr.data.loader import build_train_loader, seeded
from kddetr.detectors import RegionDetector
from kddetr.errors import UsageError
from kddetr.points import (
    GeneralSampler,
    JointSampler,
    NearbySampler,
    SpecificSampler,
    StudentSampler,
)
from kddetr.structures import EncodedDetector, QueryableDetector
from kddetr.teachers import CachedEncoder, RecordedTeacher, Vocabulary
from kddetr.teachers.record import Record
from tests.records import image_files, random_record, record_of
from tests.stock_models import tiny_faster_rcnn
from tests.tiny import tiny_detector, tiny_distiller

PLAIN = DetectionMapper(is_train=False, augmentations=[])
CROPS = [
    T.RandomRotation([90, 270], sample_style="choice"),
    T.RandomFlip(),
    ShortestEdge([50, 70]),
    T.RandomCrop("relative_range", (0.3, 0.3)),
    T.RandomFlip(horizontal=False, vertical=True),
    T.RandomContrast(0.5, 2),
    T.FixedSizeCrop((60, 80)),  # pads too
]


def mapped(images, augmentations=(), **more) -> list[dict]:
    mapper = DetectionMapper(is_train=True, augmentations=list(augmentations), **more)
    return [mapper(x) for x in images]


@pytest.fixture
def images(tmp_path) -> list[dict]:
    return image_files(tmp_path / "images")


@pytest.fixture
def teacher(images, tmp_path) -> RecordedTeacher:
    """Of 5, 0 and 3 random answers."""
    return RecordedTeacher(path=random_record(tmp_path / "record", images, (5, 0, 3)))


def in_pixels(boxes: torch.Tensor, size) -> torch.Tensor:
    height, width = size
    return cxcywh_to_xyxy(boxes) * torch.tensor([width, height, width, height])


@pytest.mark.parametrize("family", ["dab_detr", "dino", "deformable_detr_plain", "faster_rcnn"])
def test_the_record_has_the_best_answers_of_the_live_teacher(family, images, tmp_path):
    """Rounded to half precision, with boxes cut at the edges, at the live teacher's queries."""
    if family == "faster_rcnn":
        live = RegionDetector(tiny_faster_rcnn(), num_queries=6).eval()
    else:
        live = tiny_detector(family).eval()
    recorded = RecordedTeacher(path=record_of(live, tmp_path / "record", images, keep=4))
    assert isinstance(recorded, QueryableDetector)
    for x in map(PLAIN, images):
        with torch.no_grad():
            memory = live.encode([x])
            queries = live.queries(memory)
            expected = live.decode(memory, queries).last()
        best = expected.logits[0, 0].amax(-1).argsort(descending=True)[:4]
        memory = recorded.encode([x])
        asked, found = recorded.queries(memory), recorded.decode(memory, recorded.queries(memory))
        corners = cxcywh_to_xyxy(expected.boxes[0, 0, best]).clamp(0, 1)
        seen = (corners[:, 2:] > corners[:, :2]).all(1)
        best, count = best[seen], int(seen.sum())
        close = {"atol": 2e-3, "rtol": 2e-3}
        torch.testing.assert_close(found.logits[0, 0, :count], expected.logits[0, 0, best], **close)
        boxes = cxcywh_to_xyxy(found.boxes[0, 0, :count])
        torch.testing.assert_close(boxes, corners[seen], atol=1e-5, rtol=0)
        if family == "deformable_detr_plain":  # its queries have no boxes
            torch.testing.assert_close(
                asked.boxes[0, :count], expected.boxes[0, 0, best].clamp(0, 1), **close
            )
        else:
            torch.testing.assert_close(asked.boxes[0, :count], queries.boxes[0, best], **close)
        assert (asked.content is not None) == (family == "dino")
        if family == "dino":
            assert torch.equal(asked.content[0, :count], queries.content[0, best])
            assert recorded.query_parts == live.query_parts
        assert found.answered.sum() == count


@pytest.mark.parametrize("seed", range(8))
def test_answers_go_where_ground_truth_would_go(seed, images, teacher):
    """Through rotation, flip, resize, crop and padding, in a box with the same fate."""
    for x in images[::2]:
        _, answers = teacher.record.find(
            bytes(teacher.record._shards[0].images[x["image_id"]].digest)
        )
        size = PLAIN(x)["image"].shape[-2:]
        boxes = in_pixels(answers.boxes, size)
        notes = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0} for box in boxes.tolist()
        ]
        with seeded(seed):
            (sample,) = mapped([x | {"annotations": notes}], CROPS)
        memory = teacher.encode([sample])
        there = memory.answers.answered[0, 0]
        found = in_pixels(memory.answers.boxes[0, 0, there], sample["image"].shape[-2:])
        torch.testing.assert_close(found, sample["instances"].gt_boxes.tensor, atol=1e-3, rtol=0)
        assert ((memory.queries.boxes >= 0) & (memory.queries.boxes <= 1)).all()


def test_answers_of_an_image_do_not_depend_on_its_batch(images, teacher):
    samples = mapped(images, labeled=False)
    together = teacher.encode(samples)
    assert together.answers.answered[0].sum(1).tolist() == [5, 0, 3]
    for i, sample in enumerate(samples):
        alone = teacher.encode([sample])
        assert torch.equal(alone.answers.logits[:, 0], together.answers.logits[:, i])
        assert torch.equal(alone.queries.boxes[0], together.queries.boxes[i])


def test_answers_that_are_left_over_are_the_image_s_own_from_the_last_to_the_first(images, teacher):
    memory = teacher.encode(mapped(images, labeled=False)[1:])
    for found in (memory.queries.boxes, memory.answers.boxes[0], memory.answers.logits[0]):
        assert torch.equal(found[1, 3:], found[1, [2, 1]])
        assert (found[0] == found[0, 0]).all()  # without any answer
    assert memory.queries.boxes[0, 0].tolist() == [0.5, 0.5, 1, 1]


def test_a_student_answers_as_if_nothing_were_left_over(images, tmp_path):
    """Exactly where each query is repeated equally often, because attention is a mean."""
    teacher = RecordedTeacher(path=random_record(tmp_path, images, (6, 2, 3)))
    student = tiny_detector().eval()
    for i, count in ((1, 2), (2, 3)):
        sample = mapped(images, labeled=False)[i]
        asked = teacher.encode([sample]).queries
        with torch.no_grad():
            memory = student.encode([sample])
            found, alone = (student.decode(memory, q) for q in (asked, asked.first(count)))
        torch.testing.assert_close(found.logits[:, :, :count], alone.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.boxes[:, :, :count], alone.boxes, atol=1e-5, rtol=1e-5)


def test_the_rest_of_the_classes_share_their_mean(images, tmp_path):
    """Of each answer the best classes are kept, and the sum of all logits."""
    live = tiny_detector(num_classes=7).eval()
    few, all_of_them = (
        RecordedTeacher(path=record_of(live, tmp_path / str(k), images[:1], top_classes=k))
        for k in (2, 7)
    )
    small, whole = (t.encode([PLAIN(images[0])]).answers.logits[0, 0] for t in (few, all_of_them))
    values, classes = whole.topk(2, dim=-1)
    assert torch.equal(small.gather(1, classes), values)
    torch.testing.assert_close(small.sum(1), whole.sum(1), atol=0.02, rtol=0.01)


@pytest.mark.parametrize("workers", [0, 1])
def test_answers_follow_images_from_a_loading_process(workers, images, teacher):
    mapper = DetectionMapper(is_train=True, augmentations=CROPS, labeled=False)
    loader = build_train_loader(
        dataset=images, mapper=mapper, total_batch_size=3, num_workers=workers, seed=1
    )
    memory = teacher.encode(next(iter(loader)))
    assert memory.answers.boxes.shape == (1, 3, 5, 4)
    assert memory.answers.answered.sum() > 0


def ask(sampler, teacher, sample):
    """The teacher's answers at a sampler's points, with a student that is a DAB-DETR."""
    student = tiny_detector().eval()
    with torch.no_grad():
        pair = [EncodedDetector(d, d.encode([sample])) for d in (teacher, student)]
        return pair[0].decode(sampler(*pair))


def test_recorded_queries_are_answered(images, teacher):
    sample = PLAIN(images[0])
    whole = ask(SpecificSampler(), teacher, sample)
    for sampler in (SpecificSampler(count=3), JointSampler([SpecificSampler(count=3)])):
        assert torch.equal(ask(sampler, teacher, sample).boxes, whole.boxes[:, :, :3])


@pytest.mark.parametrize(
    "sampler",
    [
        GeneralSampler(count=5),
        StudentSampler(count=5),
        NearbySampler(),
        lambda teacher, student: student.queries().first(5).named("mine"),
        lambda teacher, student: student.queries().named("mine"),
    ],
)
def test_other_queries_are_refused(sampler, images, teacher):
    with pytest.raises(UsageError, match="can answer only the queries in its record"):
        ask(sampler, teacher, PLAIN(images[0]))


class Wave(T.Transform):
    """Moves pixels along a curve."""

    def apply_image(self, image):
        return image

    def apply_coords(self, coords):
        return coords + np.sin(coords[:, ::-1])


class Unknown(Wave):
    """Does not know how points move."""

    def apply_coords(self, coords):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.pop("affine"), "take kddetr.data.DetectionMapper as mapper"),
        (lambda x: x.pop("file_name"), "this one has no file_name"),
        (lambda x: x.update(height=99), "recorded with 56 x 40 pixels and is read with 56 x 99"),
        (lambda x: x.update(file_name="gone.png"), "gone.png does not exist"),
        (lambda x: x.update(affine=None), "is not affine or cannot move points"),
    ],
)
def test_an_image_that_cannot_be_followed_is_refused(change, words, images, teacher):
    sample = PLAIN(images[0])
    change(sample)
    with pytest.raises(ValueError, match=words):
        teacher.encode([sample])


@pytest.mark.parametrize("transform", [Wave(), Unknown()])
def test_a_transform_that_is_not_affine_only_matters_to_a_record(transform, images, teacher):
    (sample,) = mapped(images[:1], [transform], labeled=False)
    with pytest.raises(UsageError, match="remove it from the mapper's augmentations"):
        teacher.encode([sample])


def test_other_images_are_refused(images, teacher, tmp_path):
    (other,) = image_files(tmp_path / "others", [(9, 9)])
    with pytest.raises(UsageError, match=r"others/0\.png has other bytes than when"):
        teacher.encode([PLAIN(other)])
    unknown = tmp_path / "unknown.png"
    Image.new("RGB", (9, 9)).save(unknown)
    with pytest.raises(UsageError, match=r"unknown\.png is not in the record"):
        teacher.encode([PLAIN({"file_name": str(unknown), "image_id": 7})])
    moved = Path(images[0]["file_name"]).rename(tmp_path / "moved.png")
    teacher.encode([PLAIN({"file_name": str(moved), "image_id": "another"})])


def test_vocabulary_selects_classes_and_refuses_another_order(images, teacher):
    names = list(teacher.trained_classes)
    wanted = [names[2], names[0]]
    vocabulary = Vocabulary(detector=teacher, classes=names, wanted=wanted)
    sample = PLAIN(images[0])
    found, whole = (ask(SpecificSampler(), t, sample) for t in (vocabulary, teacher))
    assert torch.equal(found.logits, whole.logits[..., [2, 0]])
    assert torch.equal(found.answered, whole.answered)
    with pytest.raises(UsageError, match="the same 3 classes in another order"):
        Vocabulary(detector=teacher, classes=names[::-1], wanted=wanted)
    with pytest.raises(UsageError, match="remove CachedEncoder"):
        CachedEncoder(teacher).encode([sample])


@pytest.mark.parametrize("student", ["dab_detr", "dino"])
def test_content_of_another_width_is_projected(student, images, tmp_path):
    live = tiny_detector("dino", embed_dim=32).eval()
    recorded = RecordedTeacher(path=record_of(live, tmp_path / "record", images))
    model = tiny_distiller(tiny_detector(student), recorded, sampler=SpecificSampler())
    assert (model.projection is not None) == (student == "dino")
    losses = model(mapped(images, labeled=False))
    sum(losses.values()).backward()
    assert losses["kd_specific/class"] > 0 and all(v.isfinite() for v in losses.values())


def damaged(folder: Path, name: str) -> None:
    file = folder / name
    file.write_bytes(file.read_bytes()[:-5])


def carded(folder: Path, **parts) -> None:
    file = folder / "card.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | parts))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "card.json").unlink(), r"has no card\.json"),
        (lambda f: damaged(f, "card.json"), r"card\.json is damaged"),
        (lambda f: (f / "card.json").write_text('{"version": 9}'), "version 9"),
        (lambda f: (f / "answers_00001.safetensors").unlink(), "1 of its 2 files are missing"),
        (lambda f: damaged(f, "answers_00001.safetensors"), "delete it, and give the command"),
        (lambda f: damaged(f, "content.safetensors"), r"content\.safetensors is damaged"),
        (lambda f: carded(f, data={}), r"card\.json is damaged"),
        (lambda f: carded(f, data={"images": 0}), r"card\.json is damaged"),
        (lambda f: carded(f, classes=[{}]), r"card\.json is damaged"),
        (lambda f: carded(f, content="16"), r"card\.json is damaged"),
    ],
)
def test_an_unfinished_or_damaged_record_is_refused(change, words, images, tmp_path):
    folder = Path(record_of(tiny_detector("dino").eval(), tmp_path / "record", images))
    assert json.loads((folder / "card.json").read_text())["content"] == 16
    Record(str(folder))
    change(folder)
    with pytest.raises(UsageError, match=words):
        RecordedTeacher(path=str(folder))


@pytest.mark.parametrize(
    ("array", "value"), [("classes", 99), ("rows", 99), ("logits", float("nan"))]
)
def test_wrong_numbers_in_a_file_are_found_when_they_are_used(array, value, images, tmp_path):
    folder = record_of(tiny_detector("dino").eval(), tmp_path / "record", images)
    file = Path(folder, "answers_00000.safetensors")
    with safe_open(file, framework="pt") as opened:
        names = opened.metadata()
    arrays = {name: tensor.clone() for name, tensor in load_file(file).items()}
    arrays[array][0] = value
    save_file(arrays, file, metadata=names)
    teacher = RecordedTeacher(path=folder)
    with pytest.raises(UsageError, match=r"answers_00000\.safetensors is damaged: delete it"):
        teacher.encode([PLAIN(images[0])])


@pytest.mark.parametrize("lost", ["missing", "damaged"])
def test_lost_content_is_recorded_again(lost, images, tmp_path):
    detector = tiny_detector("dino").eval()
    folder = Path(record_of(detector, tmp_path / "record", images))
    expected = Record(str(folder)).content.clone()
    if lost == "missing":
        (folder / "content.safetensors").unlink()
    else:
        damaged(folder, "content.safetensors")
    record_of(detector, folder, images)
    assert torch.equal(Record(str(folder)).content, expected)


def test_a_record_has_to_be_named():
    with pytest.raises(UsageError, match=r"model\.teacher\.path=FOLDER"):
        RecordedTeacher(path="")
