"""Other methods: imitated features, queries and weights of the ground truth, refined targets."""

from dataclasses import replace

import pytest
import torch

from kddetr.baselines import (
    DecoupledKL,
    FeatureImitation,
    GIoUWeight,
    NoPoints,
    RefinedTargets,
    TargetSampler,
)
from kddetr.baselines.features import object_weights
from kddetr.baselines.refined import refined
from kddetr.detectors.detr.matcher import Target, target_of
from kddetr.engine import parameter_groups
from kddetr.errors import UsageError
from kddetr.losses import ForegroundWeight, KLDivergence, LayerByLayer, WeightedMeanLoss
from kddetr.predictions import Predictions
from kddetr.structures import EncodedDetector, Queries
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller

CPU = torch.device("cpu")
BATCH = tiny_batch(((40, 56), (40, 56)), boxes=(3, None))  # the second image is unlabelled
OBJECTS = target_of(BATCH[0]["instances"], CPU)


class Maps:
    """A detector of given feature maps."""

    def __init__(self, *maps):
        self.maps = maps

    def feature_maps(self, memory):
        return {"encoder": self.maps}


def of_maps(*maps, inputs=()):
    encoded = EncodedDetector(Maps(*maps), None, inputs)
    empty = torch.zeros(1, 2, 0, 4)
    return Predictions(empty, empty, encoded=encoded)


def imitated(ours, theirs, **options):
    channels = {"student_channels": ours.shape[1], "teacher_channels": theirs.shape[1]}
    loss = FeatureImitation(**channels, **options)
    found = loss(of_maps(ours, inputs=BATCH), of_maps(theirs, inputs=BATCH), None)
    return found["kd_features/encoder"]


def maps(seed=0, channels=3):
    return torch.randn(2, channels, 5, 7, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("objects", [False, True])
def test_imitation_does_not_depend_on_a_channels_scale_and_offset(objects):
    ours, theirs = maps(0), maps(1)
    scale, offset = torch.rand(3, 1, 1) + 0.5, torch.randn(3, 1, 1)
    expected = imitated(ours, theirs, objects=objects)
    found = imitated(scale * ours + offset, theirs, objects=objects)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert imitated(2 * ours + 1, ours, objects=objects) < 1e-8 < expected


def test_imitation_is_one_minus_the_mean_correlation_of_the_channels():
    ours, theirs = maps(0), maps(1)
    rows = (x.transpose(0, 1).flatten(1) for x in (ours, theirs))
    correlations = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*rows, strict=True)]
    expected = 1 - torch.stack(correlations).mean()
    torch.testing.assert_close(imitated(ours, theirs, weight=3.0), 3 * expected)


def test_every_object_and_the_background_weigh_the_same():
    boxes = torch.tensor([[0.25, 0.5, 0.3, 0.6], [0.85, 0.25, 0.01, 0.01]])
    weights = object_weights(boxes, 10, 10)
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    assert weights[2, 8] == weights.max()  # the second object has a single cell
    of_first = weights[2:8, 1:4]
    total = weights.sum() / 3
    torch.testing.assert_close(weights[2, 8], total)
    torch.testing.assert_close(of_first.sum(), total)
    torch.testing.assert_close(object_weights(boxes[:0], 10, 10), torch.ones(10, 10))


@pytest.mark.parametrize("name", ["neck", "encoder"])
def test_the_projection_is_trained_with_the_student_and_is_no_part_of_it(name):
    loss = FeatureImitation(maps=name, student_channels=16, teacher_channels=24)
    student, teacher = tiny_detector(), tiny_detector(seed=1, embed_dim=24)
    model = tiny_distiller(student, teacher, sampler=NoPoints(), loss=loss)
    before = set(student.state_dict())
    losses = model(BATCH)
    losses[f"kd_features/{name}"].backward()
    assert loss.projection.weight.grad.any()
    grouped = [p for group in parameter_groups(model, base_lr=1.0) for p in group["params"]]
    assert any(p is loss.projection.weight for p in grouped)
    assert any(p.grad is not None and p.grad.any() for p in student.backbone.parameters())
    assert set(model.deployable.state_dict()) == before


def test_imitation_refuses_maps_that_do_not_fit():
    with pytest.raises(ValueError, match="maps must be one of 'neck', 'encoder', not 'head'"):
        FeatureImitation(maps="head", student_channels=3, teacher_channels=3)
    loss = FeatureImitation(student_channels=3, teacher_channels=3)
    with pytest.raises(UsageError, match="give both detectors the same strides"):
        loss(of_maps(maps()), of_maps(maps()[..., :4]), None)
    loss = FeatureImitation(student_channels=3, teacher_channels=3, objects=True)
    given = of_maps(maps(), inputs=tiny_batch())
    with pytest.raises(UsageError, match="objects=True needs one size"):
        loss(given, given, None)


def test_target_queries_begin_with_the_boxes_of_the_image():
    detector = tiny_detector("dab_deformable_detr").eval()
    encoded = EncodedDetector(detector, detector.encode(BATCH), BATCH)
    points = TargetSampler(count=7)(encoded, encoded)
    assert points.boxes.shape == (2, 7, 4) and points.groups == {"targets": 7}
    torch.testing.assert_close(points.boxes[0, :3], OBJECTS.boxes)
    again, moved = OBJECTS.boxes[[0, 1, 2, 0]], points.boxes[0, 3:]
    assert not torch.isclose(moved, again).all(-1).any()
    assert ((moved - again).abs()[:, :2] <= 0.2 * again[:, 2:] + 1e-6).all()
    first = TargetSampler(count=2)(encoded, encoded)
    torch.testing.assert_close(first.boxes[0], OBJECTS.boxes[:2])


def answers(boxes, inputs=BATCH, seed=0):
    logits = torch.randn(*boxes.shape[:3], 3, generator=torch.Generator().manual_seed(seed))
    return Predictions(logits, boxes, encoded=EncodedDetector(None, None, inputs))


def test_points_on_an_object_weigh_their_overlap_and_others_nothing():
    far = torch.tensor([[0.99, 0.99, 0.01, 0.01]])
    boxes = torch.cat([OBJECTS.boxes, far]).expand(1, 2, -1, -1)
    teacher = answers(boxes)
    weights = GIoUWeight()(teacher)
    torch.testing.assert_close(weights[0], torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-4, rtol=0)
    foreground = ForegroundWeight()(teacher)
    assert torch.equal(weights[1], foreground[1])  # unlabelled
    both = GIoUWeight(weight=2.0, added_to=ForegroundWeight())(teacher)
    torch.testing.assert_close(both, 2 * weights + foreground)
    empty = answers(boxes, tiny_batch(((40, 56), (40, 56)), boxes=(0, None)))
    assert not GIoUWeight()(empty)[0].any()


def test_the_decoupled_kl_with_the_teachers_own_beta_is_the_kl():
    torch.manual_seed(0)
    student, teacher = (Predictions(torch.randn(n, 2, 5, 4), None) for n in (3, 1))
    pair = [replace(p, boxes=torch.zeros(*p.logits.shape[:3], 4)) for p in (student, teacher)]
    binary = DecoupledKL(beta=0.0, temperature=2.0)(*pair)
    among = DecoupledKL(alpha=0.0, temperature=2.0)(*pair)
    other = 1 - (teacher.logits / 2).softmax(-1).amax(-1)
    summed = 4 * KLDivergence(temperature=2.0)(*pair)
    torch.testing.assert_close(binary + other * among, summed)
    assert DecoupledKL()(pair[1], pair[1]).abs().max() < 1e-6


def one_object(scores, boxes):
    """Predictions of one image: (L, N, K) logits and (L, N, 4) boxes; the object is of class 0."""
    predictions = Predictions(torch.tensor(scores)[:, None], torch.tensor(boxes)[:, None])
    return predictions, Target(torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.4, 0.4]]))


EXACT, NEAR, FAR = [0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.3, 0.3], [0.1, 0.1, 0.1, 0.1]


def test_a_matched_answer_takes_box_and_score_of_a_better_earlier_layer():
    teacher, target = one_object(
        [[[3.0, -1.0], [-3.0, -2.0]], [[2.0, -4.0], [-3.0, -2.0]]], [[EXACT, FAR], [NEAR, FAR]]
    )
    found = refined(teacher, [target])
    assert found.logits[1, 0].tolist() == [[3.0, -4.0], [-3.0, -2.0]]
    torch.testing.assert_close(found.boxes[1, 0], torch.tensor([EXACT, FAR]))
    assert torch.equal(found.logits[0], teacher.logits[0])


@pytest.mark.parametrize(
    ("score", "box"), [(1.0, EXACT), (3.0, FAR)], ids=["lower score", "lower IoU"]
)
def test_a_matched_answer_stays_unless_both_are_better(score, box):
    teacher, target = one_object(
        [[[score, -1.0], [-3.0, -2.0]], [[2.0, -4.0], [-3.0, -2.0]]], [[box, FAR], [NEAR, FAR]]
    )
    found = refined(teacher, [target])
    assert torch.equal(found.logits[1], teacher.logits[1])
    assert torch.equal(found.boxes, teacher.boxes)


def test_an_answer_without_an_object_takes_the_lower_score_of_its_class():
    lower = [[2.0, -4.0], [-5.0, -4.0]]
    higher = [[2.0, -4.0], [-5.0, -1.0]]
    teacher, target = one_object([lower, higher], [[NEAR, FAR], [NEAR, FAR]])
    assert refined(teacher, [target]).logits[1, 0].tolist() == lower
    teacher, target = one_object([higher, lower], [[NEAR, FAR], [NEAR, FAR]])
    assert refined(teacher, [target]).logits[1, 0].tolist() == lower


def test_images_without_objects_keep_the_answers_of_the_teacher():
    teacher = answers(torch.rand(3, 2, 6, 4))
    found = refined(teacher, [OBJECTS, None])
    assert torch.equal(found.logits[:, 1], teacher.logits[:, 1])
    assert not torch.equal(found.logits[:, 0], teacher.logits[:, 0])
    nothing = Target(OBJECTS.labels[:0], OBJECTS.boxes[:0])
    assert refined(teacher, [nothing, None]) is teacher


def test_the_loss_gets_the_refined_answers_of_the_last_layer():
    teacher, student = answers(torch.rand(3, 2, 6, 4)), answers(torch.rand(2, 2, 6, 4), seed=1)
    points = Queries(torch.rand(2, 6, 4), groups={"specific": 6})
    found = RefinedTargets(WeightedMeanLoss())(student, teacher, points)
    expected = WeightedMeanLoss()(student, refined(teacher, [OBJECTS, None]), points)
    assert found == expected


def test_refined_targets_around_layer_by_layer_refine_every_layer():
    teacher, student = answers(torch.rand(3, 2, 6, 4)), answers(torch.rand(2, 2, 6, 4), seed=1)
    points = Queries(torch.rand(2, 6, 4), groups={"specific": 6})
    found = RefinedTargets(LayerByLayer(WeightedMeanLoss()))(student, teacher, points)
    targets = refined(teacher, [OBJECTS, None])
    expected = [
        WeightedMeanLoss()(student.of_layers([i]), targets.of_layers([i]), points) for i in (-2, -1)
    ]
    torch.testing.assert_close(found, {n: sum(x[n] for x in expected) for n in expected[0]})


def test_a_single_layer_has_nothing_to_be_refined_by():
    teacher, student = answers(torch.rand(3, 2, 6, 4)), answers(torch.rand(2, 2, 6, 4), seed=1)
    points = Queries(torch.rand(2, 6, 4), groups={"specific": 6})
    with pytest.raises(UsageError, match=r"write RefinedTargets\(LayerByLayer\(loss\)\)"):
        LayerByLayer(RefinedTargets(WeightedMeanLoss()))(student, teacher, points)
