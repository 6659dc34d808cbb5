"""Arguments out of range are refused by every constructor, in a sentence that names them."""

import math

import numpy as np
import pytest
from torch import nn

from kddetr.detectors import (
    HungarianMatcher,
    RegionDetector,
    SetCriterion,
    TinyConvNet,
    dab_detr,
    deformable_detr,
    model_zoo_detector,
    resnet,
    swin,
    timm_backbone,
)
from kddetr.losses import BinaryCrossEntropy, GIoULoss, KLDivergence, L1Loss, WeightedMeanLoss
from kddetr.points import (
    AtAnswers,
    GeneralSampler,
    JointSampler,
    NearbySampler,
    SpecificSampler,
    StudentSampler,
)
from kddetr.teachers import CachedEncoder
from tests.stock_models import tiny_faster_rcnn
from tests.tiny import tiny_detector, tiny_distiller

NO_COUNT = (0, -1, 10.5, 10.0, True, None, "10", math.nan)
NO_WEIGHT = (-1, -0.1, math.nan, math.inf, None, True, "1", 10**400)


def of(make, **values):
    """A constructor, its other arguments, and the wrong values of one argument."""
    ((name, wrong),) = values.items()
    return pytest.param(make, name, wrong, id=f"{getattr(make, '__name__', make)}.{name}")


def dino(**options):
    return tiny_detector("dino", **options)


def deformable(**options):
    return tiny_detector("deformable_detr", **options)


def rcnn(**options):
    return RegionDetector(tiny_faster_rcnn(), **options)


def zoo(**options):
    return model_zoo_detector("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", **options)


def convnet(**options):
    return TinyConvNet(**{"channels": [4], "blocks": [0], **options})


def resnet18(**options):
    return resnet(depth=18, **options)


def timm18(**options):
    return timm_backbone(name="resnet18", **options)


def criterion(**options):
    return SetCriterion(matcher=HungarianMatcher(), **options)


def distiller(**options):
    return tiny_distiller(tiny_detector(), tiny_detector(), **options)


def cached(**options):
    return CachedEncoder(tiny_detector(), **options)


FEATURES = ([], "stage1", ["res5"], [1], ["stage1", "stage1"], None)


@pytest.mark.parametrize(
    ("make", "name", "wrong"),
    [
        *(
            of(tiny_detector, **{name: NO_COUNT})
            for name in (
                *("num_classes", "num_queries", "num_detections", "decoder_layers"),
                *("embed_dim", "num_heads", "feedforward_dim"),
            )
        ),
        of(tiny_detector, encoder_layers=(-1, 0.5, True)),
        of(tiny_detector, embed_dim=(18, 2, 30)),
        of(tiny_detector, dropout=(-0.1, 1.1, math.nan, None)),
        of(tiny_detector, temperature=(0, -1, math.inf)),
        of(tiny_detector, eps=(0, -1, 2)),
        of(tiny_detector, activation=("gelu", None, 3)),
        of(tiny_detector, anchor_size=(0, -1, 1.5)),
        of(tiny_detector, anchor_centres=("normal", None, 1)),
        of(tiny_detector, anchor_temperature=(0, None)),
        of(dino, num_queries=NO_COUNT),
        of(dino, denoising_number=(-1, 0.5, True)),
        of(dino, label_noise=(-0.1, 1.1)),
        of(dino, box_noise=(-0.1, math.nan)),
        of(deformable, num_sampling_points=NO_COUNT),
        of(deformable, extra_levels=(-1, 0.5)),
        of(deformable, num_classes=NO_COUNT),
        of(rcnn, num_queries=NO_COUNT),
        of(zoo, num_classes=NO_COUNT[:-3]),
        of(zoo, num_queries=NO_COUNT),
        of(convnet, channels=([0], [-4], [4.5], [])),
        of(convnet, blocks=([-1], [0, 1])),
        of(convnet, out_features=("stage0", ["stage1"], ["stage0", "stage0"])),
        of(convnet, norm=("batch", None)),
        of(resnet18, out_features=FEATURES[:2]),
        of(resnet18, freeze_at=(-1, None)),
        of(resnet, depth=(51, "18", None)),
        of(criterion, class_weight=NO_WEIGHT),
        of(criterion, alpha=(-0.1, 1.1)),
        of(HungarianMatcher, giou_cost=NO_WEIGHT),
        *(of(loss, weight=NO_WEIGHT) for loss in (KLDivergence, BinaryCrossEntropy, L1Loss)),
        of(GIoULoss, weight=NO_WEIGHT),
        of(KLDivergence, temperature=(0, *NO_WEIGHT)),
        of(BinaryCrossEntropy, temperature=(0, *NO_WEIGHT)),
        of(WeightedMeanLoss, weighting=("foreground", 3)),
        of(WeightedMeanLoss, box_losses=(L1Loss(), 3)),
        *(of(one, count=NO_COUNT) for one in (GeneralSampler, StudentSampler)),
        of(SpecificSampler, count=[x for x in NO_COUNT if x is not None]),
        of(GeneralSampler, distribution=("normal", None)),
        *(of(one, shift=NO_WEIGHT) for one in (NearbySampler, AtAnswers)),
        of(JointSampler, samplers=([], None, [None], SpecificSampler())),
        of(distiller, weight=NO_WEIGHT),
        of(cached, dtype=("float", "int8", "Tensor", None)),
    ],
)
def test_an_argument_out_of_range_is_named(make, name, wrong):
    for value in wrong:
        with pytest.raises(ValueError, match=name) as caught:
            make(**{name: value})
        assert type(caught.value) is ValueError, value


def test_features_that_a_network_does_not_have_are_named_with_those_that_it_has():
    pytest.importorskip("timm")
    for wrong in (["layer4"], [4], "res5", [], ["res5", "res6"], ["res5", "res5"]):
        with pytest.raises(ValueError, match=r"resnet18.*res1, res2, res3, res4, res5"):
            timm18(out_features=wrong)
    with pytest.raises(ValueError, match="convmixer_768_32 has no feature"):
        timm_backbone(name="convmixer_768_32")
    with pytest.raises(ValueError, match=r"\(res2, res3, res4, res5\), not \['stage3'\]"):
        swin(size="tiny", out_features=["stage3"])
    for build, feature in (
        (dab_detr, {"in_feature": "stage1"}),
        (deformable_detr, {"in_features": ["stage0", "stage1"]}),
    ):
        with pytest.raises(ValueError, match=r"that the backbone gives \(stage0\), not"):
            build(backbone=convnet(), num_classes=3, **feature)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"drop_pth": 1}, "timm cannot build resnet18 as a backbone: .*drop_pth"),
        ({"in_chans": 1}, "options must not set in_chans"),
        ({"pretrained": True, "out_indices": (1,)}, "must not set out_indices, pretrained"),
    ],
)
def test_options_that_timm_cannot_take(options, sentence):
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=sentence):
        timm18(options=options)


def test_a_backbone_has_to_be_one():
    for wrong in (None, nn.Linear(2, 2)):
        with pytest.raises(ValueError, match=r"backbone is .*, which has no output_shape"):
            tiny_detector(backbone=wrong)


def test_whole_numbers_of_numpy_are_legal():
    assert tiny_detector(num_queries=np.int64(5)).query_source.anchors.shape == (5, 4)
    assert KLDivergence(weight=np.float32(0.5), temperature=np.int32(2)).weight == 0.5
