"""RetinaNet and FCOS answer a query with the prediction that is responsible for its box. Their
losses and detections stay those of Detectron2.
"""

import copy
from functools import partial

import pytest
import torch
from detectron2.modeling.anchor_generator import RotatedAnchorGenerator
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from fvcore.nn import sigmoid_focal_loss

from kddetr import KDDETR
from kddetr.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from kddetr.detectors import DenseQueryDetector
from kddetr.errors import UsageError
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler, StudentSampler
from kddetr.structures import Detector, Queries
from tests.stock_models import DENSE_STRIDES, bgr, tiny_faster_rcnn, tiny_fcos, tiny_retinanet
from tests.tiny import CLASSES, tiny_batch, tiny_detector

SIZES = ((64, 80), (48, 72))
STOCK = {"retinanet": tiny_retinanet, "fcos": tiny_fcos}


@pytest.fixture(params=STOCK)
def detector(request) -> DenseQueryDetector:
    return DenseQueryDetector(STOCK[request.param](), num_queries=20, input_format="BGR").eval()


@pytest.fixture(autouse=True)
def storage():
    with EventStorage() as events:
        yield events


def all_predictions(detector, memory, image: int):
    """All predictions for an image, computed by the stock model: class logits (R, K), boxes and
    anchors (R, 4), ``xyxy`` in pixels.
    """
    stock = detector.stock
    kinds = stock._transpose_dense_predictions(memory.predictions[:2], [CLASSES, 4])
    logits, deltas = (torch.cat([level[image] for level in kind]) for kind in kinds)
    anchors = Boxes.cat(stock.anchor_generator(memory.features)).tensor
    return logits, stock.box2box_transform.apply_deltas(deltas, anchors), anchors


def in_image(anchors: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    x, y = Boxes(anchors).get_centers().unbind(-1)
    return (x < size[1]) & (y < size[0])


def levels_of(memory, per_cell: int) -> torch.Tensor:
    """(R,) level of every anchor."""
    counts = [f.shape[-2] * f.shape[-1] * per_cell for f in memory.features]
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def unit(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Boxes ``xyxy`` in pixels as boxes of queries."""
    return xyxy_to_cxcywh(boxes / boxes.new_tensor([size[1], size[0]] * 2))


def answering(detector, memory, boxes: torch.Tensor, image: int = 0) -> torch.Tensor:
    """(N,) index of the prediction that answers the query at each of (N, 4) boxes."""
    logits, _, _ = all_predictions(detector, memory, image)
    found = detector.decode(memory, detector.make_queries(memory, boxes[None])).logits[0, image]
    same = (found[:, None] == logits).all(-1)
    assert (same.sum(1) == 1).all()
    return same.float().argmax(1)


def objects(size: tuple[int, int], count: int = 200) -> torch.Tensor:
    """(N, 4) ``xyxy`` boxes inside the image, at least 6 pixels wide and high."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.tensor([size[1], size[0]])
    sides = 6 + torch.rand(count, 2, generator=generator) ** 2 * (scale - 6)
    low = torch.rand(count, 2, generator=generator) * (scale - sides)
    return torch.cat([low, low + sides], dim=1)


def test_it_is_a_detector(detector):
    assert isinstance(detector, Detector)
    assert detector.num_classes == CLASSES and detector.query_parts == {}
    own = {k for k in detector.state_dict() if not k.startswith("stock.")}
    assert own == {"loss_normalizer"}  # no weight, and not in the stock model's file


def test_losses_are_those_of_the_stock_model(detector):
    """Over several steps, because the losses depend on a running mean."""
    stock = copy.deepcopy(detector.stock).train()
    detector.train()
    for step in range(3):
        batch = tiny_batch(SIZES, seed=step)
        ours, theirs = detector(batch), stock(bgr(batch))
        assert ours.keys() == theirs.keys()
        # PyTorch compiles the focal loss again after its first calls, which changes the rounding.
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        sum(ours.values()).backward()
        sum(theirs.values()).backward()
    assert detector.stock.loss_normalizer == stock.loss_normalizer
    for (name, mine), other in zip(detector.stock.named_parameters(), stock.parameters()):
        if mine.requires_grad:
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_detections_are_those_of_the_stock_model(detector):
    batch = tiny_batch(SIZES)
    with torch.no_grad():
        ours, theirs = detector(batch), copy.deepcopy(detector.stock)(bgr(batch))
    for mine, other in zip(ours, theirs, strict=True):
        mine, other = mine["instances"], other["instances"]
        assert len(mine) and torch.equal(mine.pred_boxes.tensor, other.pred_boxes.tensor)
        assert torch.equal(mine.scores, other.scores)
        assert torch.equal(mine.pred_classes, other.pred_classes)


@pytest.mark.parametrize("image", [0, 1])
def test_a_query_at_an_anchor_is_answered_by_the_prediction_of_that_anchor(detector, image):
    """For every level and anchor shape; the second image has padding."""
    batch = tiny_batch(SIZES)
    memory = detector.encode(batch)
    logits, boxes, anchors = all_predictions(detector, memory, image)
    retinanet = isinstance(detector.stock, RetinaNet)
    own, level = anchors, levels_of(memory, 6 if retinanet else 1)
    if not retinanet:  # anchors only mark a cell: its objects have half sides of 4 to 8 strides
        centre = Boxes(anchors).get_centers()
        half = 5.5 * torch.tensor(DENSE_STRIDES)[level, None] * torch.tensor([0.7, 1.0])
        own = torch.cat([centre - half, centre + half], dim=1)
    inside = in_image(anchors, SIZES[image])
    assert set(level[inside].tolist()) == {0, 1, 2, 3}
    queries = detector.make_queries(memory, unit(own[inside], SIZES[image])[None])
    found = detector.decode(memory, queries)
    assert torch.equal(found.logits[0, image], logits[inside])  # looked up, not computed
    expected = unit(boxes[inside], SIZES[image])
    torch.testing.assert_close(found.boxes[0, image], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("image", [0, 1])
def test_no_other_anchor_of_retinanet_overlaps_more(image):
    """The anchor chosen from one cell of each level, against all anchors in the image."""
    detector = DenseQueryDetector(tiny_retinanet()).eval()
    memory = detector.encode(tiny_batch(SIZES))
    _, _, anchors = all_predictions(detector, memory, image)
    boxes = torch.rand(300, 4, generator=torch.Generator().manual_seed(0))  # some reach outside
    height, width = SIZES[image]
    pixels = cxcywh_to_xyxy(boxes) * torch.tensor([width, height] * 2)
    overlap = pairwise_iou(Boxes(pixels), Boxes(anchors))
    overlap[:, ~in_image(anchors, SIZES[image])] = -1
    chosen = answering(detector, memory, boxes, image)
    torch.testing.assert_close(overlap.gather(1, chosen[:, None])[:, 0], overlap.amax(1))
    assert len(chosen.unique()) > 100


def test_the_answering_prediction_is_trained_on_an_object_with_that_box(detector):
    """The model's own matching labels the answering prediction with the class of that object."""
    size = SIZES[0]  # without padding
    memory = detector.encode(tiny_batch((size,), boxes=(0,)))
    boxes = objects(size)
    if isinstance(detector.stock, RetinaNet):
        overlap = pairwise_iou(Boxes(boxes), Boxes(all_predictions(detector, memory, 0)[2]))
        boxes = boxes[overlap.amax(1) > 0.501]  # anchors with an IoU below 0.5 are not trained
    else:
        half = (boxes[:, 2:] - boxes[:, :2]).amax(1) / 2
        bounds = 8 * torch.tensor(DENSE_STRIDES)
        # The nearest cell is a little farther from one side than half of the box.
        boxes = boxes[((half[:, None] + bounds / 16 < bounds) | (half[:, None] > bounds)).all(1)]
        # Boxes two cells wide have the centre of a cell inside.
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).amin(1) > 8]
    assert len(boxes) > 40
    chosen = answering(detector, memory, unit(boxes, size))
    anchors = detector.stock.anchor_generator(memory.features)
    for box, index in zip(boxes, chosen):
        truth = Instances(size, gt_boxes=Boxes(box[None]), gt_classes=torch.tensor([1]))
        (labels,), _ = detector.stock.label_anchors(anchors, [truth])
        assert labels[index] == 1, (box, index)


def test_an_image_gets_the_same_answers_alone_and_in_a_batch(detector):
    batch = tiny_batch((SIZES[0], SIZES[0]))
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
    boxes = torch.rand(2, 30, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = detector.encode(batch)
        both = detector.decode(together, Queries(boxes))
        own = detector.queries(together).boxes
        for i in range(2):
            memory = detector.encode(batch[i : i + 1])
            alone = detector.decode(memory, Queries(boxes[i : i + 1]))
            close(alone.logits[:, 0], both.logits[:, i])
            close(alone.boxes[:, 0], both.boxes[:, i])
            close(detector.queries(memory).boxes[0], own[i])


def test_answers_have_gradients_for_every_part_of_the_head_but_the_centerness(detector):
    memory = detector.train().encode(tiny_batch(SIZES))
    boxes = torch.rand(1, 200, 4, generator=torch.Generator().manual_seed(0))
    found = detector.decode(memory, detector.make_queries(memory, boxes))
    assert found.logits.shape == (1, 2, 200, CLASSES) and found.boxes.shape == (1, 2, 200, 4)
    (found.logits.square().sum() + found.boxes.square().sum()).backward()
    for name, parameter in detector.stock.head.named_parameters():
        expected = not name.startswith("ctrness")
        assert (parameter.grad is not None and bool(parameter.grad.any())) == expected, name
    assert all(p.grad is not None for p in detector.stock.backbone.parameters() if p.requires_grad)


@torch.no_grad()
def test_own_queries_are_the_boxes_with_the_highest_scores(detector):
    size = SIZES[0]
    memory = detector.encode(batch := tiny_batch((size,), boxes=(0,)))
    queries = detector.queries(memory)
    assert queries.boxes.shape == (1, 20, 4) and not queries.boxes.requires_grad
    corners = cxcywh_to_xyxy(queries.boxes)
    assert corners.min() >= -1e-6 and corners.max() <= 1 + 1e-6
    best = detector.stock.eval()(bgr(batch))[0]["instances"].pred_boxes.tensor[0]
    torch.testing.assert_close(queries.boxes[0, 0], unit(best, size))
    # All of them are in the order of the scores that detections get.
    logits, boxes, _ = all_predictions(detector, memory, 0)
    score = logits.sigmoid().amax(1)
    if not isinstance(detector.stock, RetinaNet):
        centerness = torch.cat([level.flatten() for level in memory.predictions[2]])
        score = (score * centerness.sigmoid()).sqrt()
    boxes = Boxes(boxes)
    boxes.clip(size)
    order = score.masked_fill(~boxes.nonempty(), 0).argsort(descending=True)[:20]
    torch.testing.assert_close(queries.boxes[0], unit(boxes.tensor[order], size))


def test_own_queries_come_from_the_image_and_not_from_its_padding(detector):
    """The smaller image of the batch has fewer of them, and gets the whole image for the rest."""
    detector.num_queries = 10**6
    memory = detector.encode(tiny_batch(SIZES))
    counts = []
    for image, size in enumerate(SIZES):
        _, boxes, anchors = all_predictions(detector, memory, image)
        boxes = Boxes(boxes[in_image(anchors, size)])
        boxes.clip(size)
        counts.append(int(boxes.nonempty().sum()))
    assert counts[1] < counts[0]
    boxes = detector.queries(memory).boxes
    whole = torch.tensor([0.5, 0.5, 1.0, 1.0])
    assert boxes.shape == (2, counts[0], 4)
    assert (boxes[1, counts[1] :] == whole).all()
    assert not (boxes[1, : counts[1]] == whole).all(-1).all()
    detector.decode(memory, detector.queries(memory))


def test_unlabelled_images_take_no_part(detector):
    detector.train()
    labelled = tiny_batch((SIZES[0],), boxes=(3,))
    other = tiny_batch((SIZES[0],), boxes=(None,), seed=5)
    reference = copy.deepcopy(detector)(labelled)
    for batch in (labelled + other, other + labelled):
        losses = copy.deepcopy(detector)(batch)
        for name, value in reference.items():
            torch.testing.assert_close(losses[name], value)


def test_without_labels_the_losses_are_zero_and_the_running_mean_stays(detector):
    detector.train()
    unlabelled = tiny_batch(SIZES, boxes=(None, None))
    losses = detector(unlabelled)
    assert not hasattr(detector.stock, "loss_normalizer")
    assert losses.keys() == detector(tiny_batch(SIZES)).keys()
    before = detector.stock.loss_normalizer
    losses = detector(unlabelled)
    assert detector.stock.loss_normalizer == before
    assert all(value == 0 for value in losses.values())
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and not parameter.grad.any(), name


def test_in_an_image_without_objects_every_prediction_is_background(detector):
    """Detectron2 0.6's FCOS cannot match an image without boxes."""
    memory = detector.train().encode(batch := tiny_batch(SIZES[:1], boxes=(0,)))
    losses = list(detector.losses(memory, batch).values())
    logits = all_predictions(detector, memory, 0)[0]
    focal = sigmoid_focal_loss(
        logits, torch.zeros_like(logits), alpha=0.25, gamma=2.0, reduction="sum"
    )
    torch.testing.assert_close(losses[0], focal / detector.stock.loss_normalizer)
    assert all(value == 0 for value in losses[1:])
    sum(losses).backward()


def test_answers_are_float32_in_mixed_precision(detector):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        memory = detector.encode(tiny_batch(SIZES))
        assert memory.predictions[0][0].dtype == torch.bfloat16
        queries = detector.queries(memory)
        found = detector.decode(memory, queries)
    assert {queries.boxes.dtype, found.logits.dtype, found.boxes.dtype} == {torch.float32}


def pair(student, teacher, *samplers) -> KDDETR:
    sampler = JointSampler([GeneralSampler(count=8), *samplers])
    return KDDETR(
        student=student, teacher=teacher, sampler=sampler, loss=WeightedMeanLoss()
    ).train()


def test_it_learns_from_a_transformer(detector):
    model = pair(detector, tiny_detector(), SpecificSampler(), StudentSampler(count=10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = tiny_batch(SIZES, boxes=(3, None))
    losses = model(batch)
    gaps = {name.split("/")[0] for name in losses if "/" in name}
    assert gaps == {"kd_general", "kd_specific", "kd_student"}
    total = sum(losses.values())
    assert torch.isfinite(total) and all(value > 0 for value in losses.values())
    total.backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []
    optimizer.step()
    assert torch.isfinite(sum(model(batch).values()))


def test_a_transformer_learns_from_it_and_does_not_change_it(detector):
    before = copy.deepcopy(detector.state_dict())
    model = pair(tiny_detector(), detector, SpecificSampler())
    losses = model(tiny_batch(SIZES))
    sum(losses.values()).backward()
    assert torch.isfinite(losses["kd_specific/class"]) and losses["kd_specific/bbox"] > 0
    assert not any(p.requires_grad for p in detector.parameters()) and not detector.training
    assert not any("stock" in name for name, _ in model.named_parameters())
    assert not hasattr(detector.stock, "loss_normalizer")
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_odd_boxes_get_an_answer(detector):
    """Boxes without an area, with a negative width, outside the image, larger than it, or none."""
    memory = detector.encode(tiny_batch(SIZES))
    odd = torch.tensor(
        [
            [0.5, 0.5, 0.0, 0.8],
            [0.5, 0.5, 0.0, 0.0],
            [0.5, 0.5, -0.2, 0.3],
            [-3.0, 7.0, 0.1, 0.1],
            [0.5, 0.5, 9.0, 9.0],
            [1.0, 1.0, 1e-6, 1.0],
        ]
    )
    found = detector.decode(memory, detector.make_queries(memory, odd[None]))
    assert torch.isfinite(found.logits).all() and torch.isfinite(found.boxes).all()
    line = unit(torch.tensor([[39.5, 6.4, 40.5, 57.6]]), SIZES[0])[None]  # a pixel wide
    line = detector.decode(memory, detector.make_queries(memory, line))
    assert torch.equal(line.logits[:, 0, 0], found.logits[:, 0, 0])
    none = detector.decode(memory, detector.make_queries(memory, odd[None, :0]))
    assert none.logits.shape == (1, 2, 0, CLASSES) and none.boxes.shape == (1, 2, 0, 4)


def test_bad_input_is_refused(detector):
    memory = detector.encode(batch := tiny_batch(SIZES))
    with pytest.raises(ValueError, match="not finite"):
        detector.decode(memory, detector.make_queries(memory, torch.full((1, 2, 4), torch.nan)))
    with pytest.raises(UsageError, match="must be a"):
        detector.encode([{"image": torch.zeros(3, 0, 8, dtype=torch.uint8)}])
    with pytest.raises(UsageError, match="boxes"):
        detector.convert_queries(memory, Queries(torch.rand(2, 3, 2)))
    batch[0]["instances"].gt_classes[0] = CLASSES
    with pytest.raises(UsageError, match="this detector has 3 classes"):
        detector.losses(memory, batch)
    torch.nn.init.constant_(detector.stock.head.bbox_pred.bias, torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        detector.queries(detector.encode(batch))


class OwnForward(RetinaNet):
    def forward(self, batched_inputs):
        return super().forward(batched_inputs)


def test_other_models_are_refused_in_one_sentence():
    own = tiny_retinanet()
    own.__class__ = OwnForward
    rotated = tiny_retinanet()
    rotated.anchor_generator = RotatedAnchorGenerator(
        sizes=[8], aspect_ratios=[1.0], strides=DENSE_STRIDES, angles=[0]
    )
    for stock, reason in (
        (tiny_faster_rcnn(), "take a RetinaNet or FCOS, or an R-CNN"),
        (own, "training forward of its own"),
        (rotated, "DefaultAnchorGenerator"),
        (tiny_fcos(), "set input_format to RGB or BGR"),
    ):
        with pytest.raises(UsageError, match=reason) as error:
            DenseQueryDetector(stock)
        assert str(error.value).count(". ") == 0
    assert not DenseQueryDetector(tiny_fcos(), input_format="RGB").takes_bgr
    assert DenseQueryDetector(tiny_retinanet()).takes_bgr
