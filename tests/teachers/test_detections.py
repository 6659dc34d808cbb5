"""A teacher in its wrappers as a detector of its student's classes."""

import pytest
import torch

from kddetr.detectors import detectron2_detector
from kddetr.teachers import CachedEncoder, HalfPrecision, TeacherDetector, Vocabulary
from tests.stock_models import tiny_faster_rcnn
from tests.tiny import tiny_batch, tiny_detector

NAMES = ["a", "b", "c"]
FAMILIES = {
    "transformer": lambda: tiny_detector(num_classes=3),
    "stock": lambda: detectron2_detector(tiny_faster_rcnn()),
}
WRAPPERS = [lambda x: x, lambda x: HalfPrecision(x)]


@torch.no_grad()
def found_by(teacher):
    return [one["instances"] for one in TeacherDetector(teacher)(tiny_batch())]


def test_it_detects_what_the_detector_itself_detects():
    detector = tiny_detector().eval()
    with torch.no_grad():
        expected = [one["instances"] for one in detector(tiny_batch())]
    for one, other in zip(found_by(detector), expected, strict=True):
        torch.testing.assert_close(one.scores, other.scores)
        torch.testing.assert_close(one.pred_boxes.tensor, other.pred_boxes.tensor)
        assert one.pred_classes.tolist() == other.pred_classes.tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_classes_have_the_numbers_that_they_have_in_the_student(family, wrap):
    """Also where the teacher does not know all of them: "x" is the student's first class."""
    teacher = wrap(FAMILIES[family]().eval())
    for wanted, partial in ((["c", "a"], False), (["x", "c", "a"], True)):
        chosen = Vocabulary(detector=teacher, classes=NAMES, wanted=wanted, partial=partial)
        for one, other in zip(found_by(teacher), found_by(chosen), strict=True):
            known = {NAMES.index(name): i for i, name in enumerate(wanted) if name in NAMES}
            kept = [known[k] for k in one.pred_classes.tolist() if k in known]
            assert kept and other.pred_classes.tolist()[: len(kept)] == kept


def test_a_cache_is_passed_by():
    """Images of several sizes are no matter, and nothing is kept."""
    inside = tiny_detector(num_classes=3).eval()
    teacher = HalfPrecision(CachedEncoder(inside))
    chosen = Vocabulary(detector=teacher, classes=NAMES, wanted=["c", "a"])
    batch = [{**x, "image_id": i} for i, x in enumerate(tiny_batch())]
    assert len({x["image"].shape for x in batch}) > 1
    with torch.no_grad():
        TeacherDetector(chosen)(batch)
    assert not teacher.detector._images and isinstance(teacher.detector, CachedEncoder)
