"""AP on a sample of images, and its interval."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from kddetr.engine import CocoEvaluator
from kddetr.engine.evaluation.ground_truth import GroundTruth
from kddetr.preflight.images import detections_of, training_images, validation_images
from kddetr.preflight.sample_ap import sample_ap
from kddetr.teachers import TeacherDetector, Vocabulary
from tests.preflight.seeing import SeeingTeacher

NAMES = ["class1", "class5", "class9"]


def noisy(truth: GroundTruth, *, seed: int = 0, ids=(1, 2, 3, 4, 5, 6, 7, 8)) -> list[dict]:
    """Detections that are near the objects, of the wrong class now and then, some of them twice."""
    rng, found = np.random.default_rng(seed), []
    for thing in [*truth.objects, *truth.objects[::2]]:
        k = thing["category_id"] - 1 if rng.random() < 0.8 else int(rng.integers(3))
        box = (np.array(thing["bbox"]) + rng.normal(0, 1, 4)).tolist()
        score = round(float(rng.random()), 1)  # with ties
        image = ids[thing["image_id"] - 1]
        found.append({"image_id": image, "category_id": k, "bbox": box, "score": score})
    return found


def test_on_all_images_it_is_the_ap_of_the_evaluation(dataset):
    evaluator = CocoEvaluator(dataset)
    found = noisy(evaluator.truth)
    per_image = [
        {"image_id": i, "instances": [one for one in found if one["image_id"] == i]}
        for i in range(1, 9)
    ]
    evaluator._predictions = per_image
    expected = evaluator.evaluate()["bbox"]
    ap = sample_ap(evaluator.truth, found, range(1, 9))
    assert ap.value == pytest.approx(expected["AP"], abs=1e-9) and 10 < ap.value < 90
    for name in NAMES:
        assert ap.classes[name] == pytest.approx(expected[f"AP-{name}"], abs=1e-9)
    assert sum(ap.objects.values()) == 32 and ap.images == 8


def test_a_resample_is_the_ap_of_its_images(dataset):
    """Of a sample of one image, every resample is that image as often as it was drawn: once."""
    truth = GroundTruth(dataset)
    found = noisy(truth)
    ap = sample_ap(truth, found, [3])
    assert ap.resampled == pytest.approx(np.full(200, ap.value))
    some = sample_ap(truth, found, [1, 2, 3, 4])
    low, high = some.interval
    assert low <= some.value <= high and low < high
    assert some.minus(some) == (0, 0)
    better = sample_ap(truth, noisy(truth, seed=1), [1, 2, 3, 4])
    assert better.minus(some)[0] <= better.value - some.value <= better.minus(some)[1]


def test_without_detections_it_is_zero_and_without_objects_unknown(dataset):
    truth = GroundTruth(dataset)
    assert sample_ap(truth, [], [1, 2]).interval == (0, 0)
    for thing in truth.coco.dataset["annotations"]:
        thing["iscrowd"] = thing["ignore"] = 1
    truth.coco.createIndex()
    assert np.isnan(sample_ap(truth, [], [1, 2]).value)


def test_a_sample_is_random_the_same_every_time_and_read_as_for_testing(config):
    cfg = config()
    images, again = (validation_images(cfg) for _ in range(2))
    assert images.ids(3) == again.ids(3) != [1, 2, 3] and images.evaluated == 8
    read = [x["image_id"] for batch in images.loader(3) for x in batch]
    assert sorted(read) == sorted(images.ids(3))
    records = DatasetCatalog.get(cfg.dataloader.test.dataset.names)
    training = training_images(cfg, [*records[:5], {"file_name": "unlabelled.png"}])
    assert training.kind == "training" and sorted(training.ids(9)) == [1, 2, 3, 4, 5]
    cfg.dataloader.test = None
    assert validation_images(cfg) is None and training_images(cfg, records) is None


def test_a_teacher_whose_classes_are_selected_is_judged_with_these(config, dataset):
    """Named in another order than the data's, it is as good."""
    names = ["class9", "class1", "class5"]

    class Turned(SeeingTeacher):
        def decode(self, memory, queries):
            answers = super().decode(memory, queries)
            return answers.__class__(answers.logits[..., [2, 0, 1]], answers.boxes)

    teacher = Vocabulary(detector=Turned(), classes=names, wanted=dataset)
    images = validation_images(config())
    found = detections_of(TeacherDetector(teacher), images.loader(8))
    assert sample_ap(images.truth, found, images.ids(8)).value == pytest.approx(100)
