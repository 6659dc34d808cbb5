"""An R-CNN of Detectron2 answers a query as its heads would answer a proposal with that box. Its
losses and detections stay those of Detectron2.
"""

import copy

import pytest
import torch
from detectron2.modeling import PanopticFPN
from detectron2.modeling.roi_heads import RROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from kddetr.boxes import cxcywh_to_xyxy
from kddetr.detectors import RegionDetector
from kddetr.detectors.stock.regions import foreground_logits, inside, pixel_regions
from kddetr.errors import UsageError
from kddetr.structures import Detector, Queries
from tests.stock_models import bgr, tiny_c4, tiny_cascade_rcnn, tiny_faster_rcnn
from tests.tiny import CLASSES, tiny_batch, tiny_detector

SIZES = ((64, 80), (56, 72))
KINDS = {
    "class-specific": tiny_faster_rcnn,
    "class-agnostic": lambda: tiny_faster_rcnn(
        **{"roi_heads.box_predictor.cls_agnostic_bbox_reg": True}
    ),
    "cascade": tiny_cascade_rcnn,
    "c4": tiny_c4,
}


@pytest.fixture(params=KINDS)
def detector(request) -> RegionDetector:
    """A detector whose predictors move the boxes much, so that a wrong frame of the boxes shows."""
    torch.manual_seed(0)
    stock = KINDS[request.param]()
    for name, parameter in stock.named_parameters():
        if "predictor" in name and "weight" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return RegionDetector(stock, num_queries=1000).eval()


def random_boxes(count: int, images: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(images, count, 4, generator=generator) * 0.8 + 0.1


def answers(detector, boxes, batch=None):
    with torch.no_grad():
        memory = detector.encode(batch or tiny_batch(SIZES))
        return detector.decode(memory, detector.make_queries(memory, boxes))


def test_it_is_a_detector(detector):
    assert isinstance(detector, Detector)
    assert detector.num_classes == CLASSES and detector.query_parts == {}
    assert {k.removeprefix("stock.") for k in detector.state_dict()} == set(
        detector.stock.state_dict()
    )


def test_answers_at_the_own_proposals_give_the_own_detections(detector):
    batch, stock = tiny_batch(SIZES), detector.stock
    with torch.no_grad():
        expected = stock.inference(bgr(batch), do_postprocess=False)
        memory = detector.encode(batch)
        answers = detector.decode(memory, detector.queries(memory))
    heads = stock.roi_heads
    predictor = heads.box_predictor[-1] if answers.num_layers > 1 else heads.box_predictor
    boxes, scores = [], []
    for i, ((height, width), found) in enumerate(zip(SIZES, memory.proposals)):
        n = len(found)
        z = F.pad(answers.logits[:, i, :n], (0, 1))
        scores.append(z.softmax(-1).mean(0))  # a cascade averages its stages
        per_class = answers.class_boxes
        own = answers.boxes[-1, i, :n, None] if per_class is None else per_class[-1, i, :n]
        own = cxcywh_to_xyxy(own) * torch.tensor([width, height, width, height])
        boxes.append(own.flatten(1))
    found, _ = fast_rcnn_inference(
        boxes,
        scores,
        SIZES,
        predictor.test_score_thresh,
        predictor.test_nms_thresh,
        predictor.test_topk_per_image,
    )
    for mine, theirs in zip(found, expected):
        assert len(theirs) > 3
        assert torch.equal(mine.pred_classes, theirs.pred_classes)
        torch.testing.assert_close(mine.scores, theirs.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            mine.pred_boxes.tensor, theirs.pred_boxes.tensor, atol=1e-3, rtol=0
        )


def test_detections_are_those_of_the_stock_model(detector):
    batch = tiny_batch(SIZES)
    with torch.no_grad():
        for mine, theirs in zip(detector(batch), detector.stock(bgr(batch))):
            assert torch.equal(
                mine["instances"].pred_boxes.tensor, theirs["instances"].pred_boxes.tensor
            )
            assert torch.equal(mine["instances"].scores, theirs["instances"].scores)


def test_losses_and_gradients_are_those_of_the_stock_model(detector):
    batch, stock = tiny_batch(SIZES), copy.deepcopy(detector.stock).train()
    detector.train()
    with EventStorage():
        torch.manual_seed(3)
        expected = stock(bgr(batch))
        torch.manual_seed(3)
        found = detector(batch)
    assert list(found) == list(expected)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    sum(expected.values()).backward()
    sum(found.values()).backward()
    for ours, theirs in zip(detector.stock.parameters(), stock.parameters()):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_an_rgb_model_gets_rgb():
    stock = tiny_faster_rcnn().eval()
    stock.input_format = "RGB"
    batch = tiny_batch(SIZES)
    images = RegionDetector(stock).encode(batch).images.tensor
    assert torch.equal(images, stock.preprocess_image(batch).tensor)
    stock.input_format = None
    with pytest.raises(UsageError, match="set input_format to RGB or BGR"):
        RegionDetector(stock)
    assert torch.equal(
        RegionDetector(stock, input_format="BGR").encode(batch).images.tensor,
        stock.preprocess_image(bgr(batch)).tensor,
    )


def test_the_answer_to_a_query_does_not_depend_on_the_other_queries(detector):
    boxes = random_boxes(9)
    together = answers(detector, boxes)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    shuffled = answers(detector, boxes[:, order])
    torch.testing.assert_close(shuffled.logits, together.logits[:, :, order])
    torch.testing.assert_close(shuffled.boxes, together.boxes[:, :, order])
    with torch.no_grad():
        memory = detector.encode(tiny_batch(SIZES))
        groups = detector.convert_queries(memory, Queries(boxes, groups={"a": 4, "b": 5}))
        split = detector.decode(memory, groups).split(groups.groups)
    torch.testing.assert_close(split["b"].logits, together.logits[:, :, 4:])
    torch.testing.assert_close(split["b"].boxes, together.boxes[:, :, 4:])


def test_an_image_gets_the_same_answers_alone_and_in_a_batch(detector):
    sizes = ((64, 80), (64, 80))
    batch, boxes = tiny_batch(sizes), random_boxes(5)
    both = answers(detector, boxes, batch)
    alone = answers(detector, boxes[1:], batch[1:])
    torch.testing.assert_close(both.logits[:, 1:], alone.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(both.boxes[:, 1:], alone.boxes, atol=1e-5, rtol=0)


def test_boxes_are_in_the_frame_of_the_unpadded_image():
    """A head that does not move boxes returns the box of the query, also in a padded batch."""
    stock = tiny_faster_rcnn().eval()
    torch.nn.init.zeros_(stock.roi_heads.box_predictor.bbox_pred.weight)
    torch.nn.init.zeros_(stock.roi_heads.box_predictor.bbox_pred.bias)
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.2], [0.25, 0.75, 0.5, 0.5]]]).expand(2, -1, -1)
    found = answers(RegionDetector(stock), boxes)
    torch.testing.assert_close(found.boxes[0], boxes, atol=1e-6, rtol=0)


def test_odd_boxes_become_regions_of_the_image(detector):
    boxes = torch.tensor(
        [
            [0.5, 0.5, 0.0, 0.0],  # no area
            [0.5, 0.5, 0.3, 0.0],
            [-3.0, 0.5, 0.2, 0.2],  # outside
            [0.5, 4.0, 0.2, 0.2],
            [0.5, 0.5, 9.0, 9.0],  # larger than the image
            [1.0, 1.0, 0.1, 0.1],
            [0.5, 0.5, -0.2, -0.2],  # negative width and height
        ]
    )
    height, width = SIZES[0]
    (regions,) = pixel_regions(boxes[None], [SIZES[0]])
    low, high = regions.tensor[:, :2], regions.tensor[:, 2:]
    assert (low >= 0).all() and (high <= torch.tensor([width, height])).all()
    assert (high - low > 0.5).all()
    found = answers(detector, boxes.expand(2, -1, -1))
    assert torch.isfinite(found.logits).all() and torch.isfinite(found.boxes).all()
    assert (found.boxes[..., 2:] > 0).all()
    tiny = inside(torch.tensor([[0.0, 0.0, 9.0, 9.0]]), (1, 1)).tensor
    assert tiny.tolist() == [[0, 0, 1, 1]]
    with pytest.raises(UsageError, match="not finite"):
        answers(detector, torch.full((2, 1, 4), float("nan")))


def test_no_query_gets_no_answer(detector):
    found = answers(detector, torch.empty(2, 0, 4))
    assert found.logits.shape[1:] == (2, 0, CLASSES) and found.boxes.shape[1:] == (2, 0, 4)


def test_an_ordinary_box_stays_as_it_is():
    (found,) = pixel_regions(torch.tensor([[[0.5, 0.5, 0.5, 0.25]]]), [(80, 100)])
    assert found.tensor.tolist() == [[25, 30, 75, 50]]


def test_gradients_reach_the_heads_and_the_features(detector):
    detector.train()
    memory = detector.encode(tiny_batch(SIZES))
    boxes = random_boxes(6).requires_grad_()
    found = detector.decode(memory, Queries(boxes))
    (found.logits.sum() + found.boxes.sum()).backward()
    assert boxes.grad is None
    names = {n for n, p in detector.stock.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("box_predictor" in n and "cls_score" in n for n in names)
    assert any("box_predictor" in n and "bbox_pred" in n for n in names)
    assert any(n.startswith("backbone") for n in names)


def test_a_box_for_every_class():
    torch.manual_seed(0)
    stock = tiny_faster_rcnn().eval()
    torch.nn.init.normal_(stock.roi_heads.box_predictor.bbox_pred.weight, std=0.1)
    found = answers(RegionDetector(stock), random_boxes(7))
    assert found.class_boxes.shape == (1, 2, 7, CLASSES, 4)
    own = found.logits.argmax(-1)
    for i in range(7):
        assert torch.equal(found.boxes[0, 1, i], found.class_boxes[0, 1, i, own[0, 1, i]])
    wanted = torch.randint(0, CLASSES, (2, 7), generator=torch.Generator().manual_seed(0))
    chosen = found.of_classes(wanted)
    for i in range(7):
        assert torch.equal(chosen.boxes[0, 0, i], found.class_boxes[0, 0, i, wanted[0, i]])
    part = found.split({"a": 3, "b": 4})["b"]
    assert torch.equal(part.class_boxes, found.class_boxes[:, :, 3:])
    agnostic = answers(RegionDetector(KINDS["class-agnostic"]().eval()), random_boxes(7))
    assert agnostic.class_boxes is None and agnostic.of_classes(wanted) is agnostic


def test_stages_of_a_cascade_are_layers():
    torch.manual_seed(0)
    stock = tiny_cascade_rcnn().eval()
    for predictor in stock.roi_heads.box_predictor:
        torch.nn.init.normal_(predictor.bbox_pred.weight, std=0.1)
    detector = RegionDetector(stock)
    boxes = random_boxes(5)
    found = answers(detector, boxes)
    assert found.num_layers == stock.roi_heads.num_cascade_stages
    # A cascade without the first stage, asked at the boxes of the first stage, gives the rest.
    rest = copy.deepcopy(stock)
    del rest.roi_heads.box_head[0], rest.roi_heads.box_predictor[0]
    rest.roi_heads.num_cascade_stages -= 1
    again = answers(RegionDetector(rest), found.boxes[0])
    torch.testing.assert_close(again.logits, found.logits[1:], atol=1e-4, rtol=0)
    torch.testing.assert_close(again.boxes, found.boxes[1:], atol=1e-5, rtol=0)


def test_foreground_logits_contain_the_distribution_of_the_softmax():
    scores = torch.randn(20, CLASSES + 1, generator=torch.Generator().manual_seed(0)) * 3
    z = foreground_logits(scores)
    torch.testing.assert_close(F.pad(z, (0, 1)).softmax(-1), scores.softmax(-1))
    p = scores.softmax(-1)
    torch.testing.assert_close(z.sigmoid(), p[:, :-1] / (p[:, :-1] + p[:, -1:]))
    torch.testing.assert_close(z.softmax(-1), p[:, :-1] / (1 - p[:, -1:]))
    assert torch.equal(foreground_logits(scores, sigmoid=True), scores[:, :-1])


def test_unlabelled_images_take_no_part_in_the_losses(detector):
    detector.train()
    sizes = ((64, 80),) * 3
    batch = tiny_batch(sizes, boxes=(3, None, 2))
    with EventStorage():
        memory = detector.encode(batch)
        torch.manual_seed(0)
        found = detector.losses(memory, batch)
        labelled = [batch[0], batch[2]]
        torch.manual_seed(0)
        expected = detector.losses(detector.encode(labelled), labelled)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_without_any_label_losses_are_zero_and_every_parameter_has_a_gradient(detector):
    detector.train()
    batch = tiny_batch(SIZES, boxes=(None, None))
    with EventStorage():
        losses = detector(batch)
    assert losses and all(float(v.detach()) == 0 for v in losses.values())
    sum(losses.values()).backward()
    missing = [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    with EventStorage():
        labelled = copy.deepcopy(detector)
        labelled.zero_grad()
        sum(labelled(tiny_batch(SIZES)).values()).backward()
    silent = [n for n, p in labelled.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == silent


def test_other_models_and_inputs_are_refused(detector):
    with pytest.raises(UsageError, match="only Detectron2's StandardROIHeads") as error:
        RegionDetector(tiny_detector())
    assert "DetectionTransformer" in str(error.value)

    class Own(type(detector.stock)):
        def forward(self, inputs):
            return {}

    for kind in (Own, PanopticFPN):
        stock = copy.copy(detector.stock)
        stock.__class__ = kind
        with pytest.raises(UsageError, match="training forward of its own"):
            RegionDetector(stock)
    batch = tiny_batch(SIZES)
    batch[0]["instances"].gt_classes[0] = CLASSES
    with EventStorage(), pytest.raises(UsageError, match=f"class {CLASSES}, but this detector"):
        detector.train()(batch)
    with pytest.raises(UsageError, match="RGB tensor"):
        detector.encode([{"image": torch.zeros(1, 8, 8)}])


def test_a_model_of_rotated_boxes_is_refused(detector):
    heads = copy.copy(detector.stock.roi_heads)
    heads.__class__ = RROIHeads
    detector.stock.roi_heads = heads
    with pytest.raises(UsageError, match="has RROIHeads"):
        RegionDetector(detector.stock)


def test_pictures_of_the_training_are_drawn_in_the_stock_models_period(detector):
    detector.train().stock.vis_period = 2
    drawn = []
    detector.stock.visualize_training = lambda inputs, proposals: drawn.append((inputs, proposals))
    batch = tiny_batch(SIZES)
    with EventStorage() as storage:
        for _ in range(3):
            detector(batch)
            storage.step()
    assert len(drawn) == 2
    assert torch.equal(drawn[0][0][0]["image"], batch[0]["image"].flip(0))


def test_missing_masks_or_keypoints_are_named(detector):
    for on, field in (("mask_on", "gt_masks"), ("keypoint_on", "gt_keypoints")):
        heads = detector.stock.roi_heads
        heads.mask_on = heads.keypoint_on = False
        setattr(heads, on, True)
        with EventStorage(), pytest.raises(UsageError, match=f"learns {field}"):
            detector.train()(tiny_batch(SIZES))
