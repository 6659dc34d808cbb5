"""What a detector takes when it is called from Python, and the sentence for everything else; the
same for transformers and for wrapped models of Detectron2.
"""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from kddetr.detectors import DenseQueryDetector, RegionDetector
from kddetr.errors import UsageError
from kddetr.teachers import CachedEncoder
from tests.stock_models import tiny_faster_rcnn, tiny_retinanet
from tests.tiny import CLASSES, tiny_batch, tiny_detector, tiny_distiller

DETECTORS = {
    "dab_detr": tiny_detector,
    "dino": lambda: tiny_detector("dino"),
    "faster_rcnn": lambda: RegionDetector(tiny_faster_rcnn()),
    "retinanet": lambda: DenseQueryDetector(tiny_retinanet()),
    "distiller": lambda: tiny_distiller(tiny_detector(), tiny_detector(seed=1)),
}
IMAGE = torch.randint(0, 256, (3, 40, 56), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(scope="module", params=DETECTORS)
def detector(request) -> nn.Module:
    return DETECTORS[request.param]()


def changed(**values) -> list[dict]:
    return [tiny_batch()[0] | values]


def without(key: str) -> list[dict]:
    return [{name: value for name, value in tiny_batch()[0].items() if name != key}]


NO_BATCH = {
    "empty": ([], "not an empty list"),
    "None": (None, "not None"),
    "one dict": (tiny_batch()[0], "list of dictionaries .* not a dict"),
    "one image": (IMAGE, r"not a Tensor of shape \(3, 40, 56\)"),
    "images": ([IMAGE], r"not a list with a Tensor of shape \(3, 40, 56\)"),
    "no image": (without("image"), "a dict with the keys height, width, image_id, instances"),
    "numpy": (changed(image=IMAGE.permute(1, 2, 0).numpy()), r"an ndarray of shape .*permute\(2"),
    "numpy float": (changed(image=IMAGE.numpy().astype("float32")), "not an ndarray"),
    "file name": (changed(image="a.jpg"), "not 'a.jpg'"),
    "batch": (changed(image=IMAGE[None]), "one for each image"),
    "channels last": (changed(image=IMAGE.permute(1, 2, 0)), r"take image.permute\(2, 0, 1\)"),
    "grey": (changed(image=IMAGE[:1]), r"image.expand\(3, -1, -1\)"),
    "grey map": (changed(image=IMAGE[0]), r"image.expand\(3, -1, -1\)"),
    "alpha": (changed(image=torch.cat([IMAGE, IMAGE[:1]])), r"image\[:3\], without the alpha"),
    "two channels": (changed(image=IMAGE[:2]), "kddetr.data.read_image"),
    "no rows": (changed(image=IMAGE[:, :0]), "no pixels"),
    "bool": (changed(image=IMAGE > 9), "not torch.bool"),
    "int64": (changed(image=IMAGE.long()), "not torch.int64"),
    "zero to one": (changed(image=IMAGE / 255), "a detector takes 0 to 255"),
    "normalised": (changed(image=(IMAGE - 120.0) / 60), "it normalises them itself"),
    "nan": (changed(image=IMAGE * torch.nan), "pixels that are infinite or no numbers"),
    "height": (changed(height=None), "The height of an image is None"),
    "width": (changed(width=0), "The width of an image is 0"),
}


@pytest.mark.parametrize("case", NO_BATCH)
@pytest.mark.parametrize("training", [True, False])
def test_what_is_no_batch_is_refused_in_training_and_evaluation(detector, case, training):
    batch, sentence = NO_BATCH[case]
    with pytest.raises(UsageError, match=sentence):
        detector.train(training)(batch)


def truth(classes=(0,), *, size=(40, 56), boxes=Boxes, **more) -> list[dict]:
    fields = {"gt_boxes": boxes(torch.tensor([[3.0, 3.0, 20.0, 30.0]] * len(classes)))}
    fields |= {"gt_classes": torch.tensor(classes), **more}
    given = Instances(size, **{name: x for name, x in fields.items() if x is not None})
    return changed(instances=given)


NO_TRUTH = {
    "None": (changed(instances=None), "Instances of Detectron2 with gt_boxes.*not None"),
    "list": (changed(instances=[{"bbox": [0, 0, 9, 9]}]), "not a list"),
    "no boxes": (truth(gt_boxes=None), "must be Instances"),
    "no classes": (truth(gt_classes=None), "must be Instances"),
    "tensor": (truth(boxes=lambda x: x), "must be Instances"),
    "size": (truth(size=(56, 40)), r"size \(56, 40\) and the image is \(40, 56\)"),
    "float": (truth((0.0,)), "must be a tensor of whole numbers"),
    "high": (truth((0, CLASSES)), f"of class {CLASSES}, but this detector has {CLASSES}"),
    "low": (truth((-1,)), "of class -1"),
}


@pytest.mark.parametrize("case", NO_TRUTH)
def test_what_is_no_ground_truth_is_refused(detector, case):
    batch, sentence = NO_TRUTH[case]
    with EventStorage(0), pytest.raises(UsageError, match=sentence):
        detector.train()(batch)


@torch.no_grad()
def test_other_forms_of_the_same_batch_give_the_same_detections(detector):
    detector.eval()
    (expected,) = detector([{"image": IMAGE}])
    for batch in (
        ({"image": IMAGE},),
        [{"image": IMAGE.float()}],
        [{"image": IMAGE.double()}],
        [{"image": IMAGE, "height": 40, "width": 56}],
    ):
        (found,) = detector(batch)
        assert torch.equal(found["instances"].scores, expected["instances"].scores)
    (large,) = detector([{"image": IMAGE, "height": 80}])
    assert large["instances"].image_size == (80, 56)
    black = [{"image": torch.zeros(3, 40, 56)}]
    assert len(detector(black)) == 1


def test_unlabelled_images_have_losses_of_zero(detector):
    with EventStorage(0):
        losses = detector.train()(without("instances"))
    assert not any(x.item() for name, x in losses.items() if "/" not in name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_detector_says_how_to_compute_in_half_precision(detector, dtype):
    cast = copy.deepcopy(detector).to(dtype).eval()
    with pytest.raises(UsageError, match=r"call \.float\(\), and .* torch\.autocast"):
        cast([{"image": IMAGE}])
    (found,) = cast.float()([{"image": IMAGE}])
    assert found["instances"].image_size == (40, 56)


def saved_and_loaded(module: nn.Module) -> nn.Module:
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), saved_and_loaded]
)
@torch.no_grad()
def test_a_copy_is_a_detector_of_its_own(detector, copied):
    (expected,) = detector.eval()([{"image": IMAGE}])
    other = copied(detector)
    (found,) = other([{"image": IMAGE}])
    assert torch.equal(found["instances"].scores, expected["instances"].scores)
    for parameter in other.parameters():
        parameter.zero_()
    (again,) = detector([{"image": IMAGE}])
    assert torch.equal(again["instances"].scores, expected["instances"].scores)


def test_a_cached_encoder_has_the_same_door():
    with pytest.raises(UsageError, match="not an ndarray"):
        CachedEncoder(tiny_detector()).encode([{"image": np.zeros((40, 56, 3)), "image_id": 0}])


def test_more_detections_than_there_are_queries_and_classes():
    (found,) = tiny_detector(num_detections=500).eval()([{"image": IMAGE}])
    assert len(found["instances"]) <= 6 * CLASSES
