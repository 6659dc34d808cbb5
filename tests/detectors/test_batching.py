"""Images of different sizes in the backbone: by size, or padded to one batch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kddetr.detectors.detr.batching import levels_by_size, levels_of_padded
from tests.tiny import FAMILIES, tiny_batch, tiny_detector


def images(*sizes):
    return [torch.randn(3, h, w) for h, w in sizes]


def strided(batch):
    """A pyramid in which a cell is the pixel at its top left corner: it does not see padding."""
    return [batch[:, :, ::stride, ::stride] for stride in (4, 8)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", [((40, 56),), ((33, 47), (33, 47))])
def test_images_of_one_size_are_not_padded(family, sizes):
    """Both ways give the same memory where nothing has to be padded."""
    by_size = tiny_detector(family)
    padded = tiny_detector(family, backbone_batching="padded")
    batch = tiny_batch(sizes, boxes=(1,) * len(sizes))
    one, other = by_size.encode(batch), padded.encode(batch)
    torch.testing.assert_close(one.tokens, other.tokens, atol=1e-6, rtol=0)
    assert torch.equal(one.padding, other.padding) and one.shapes == other.shapes


def test_padded_images_give_the_levels_of_the_published_code():
    """Its ``nested_tensor_from_tensor_list`` and ``Joiner``, written down again."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 5, 3, stride=4, padding=1)
    batch = images((33, 47), (40, 30), (21, 64))
    found = levels_of_padded(batch, lambda x: [convolution(x), convolution(x)[:, :, ::2, ::2]])
    tensors, mask = torch.zeros(3, 3, 40, 64), torch.ones(3, 40, 64, dtype=torch.bool)
    for image, pad, m in zip(batch, tensors, mask, strict=True):
        pad[:, : image.shape[1], : image.shape[2]].copy_(image)
        m[: image.shape[1], : image.shape[2]] = False
    expected = convolution(tensors)
    torch.testing.assert_close(found.features[0], expected)
    torch.testing.assert_close(found.features[1], expected[:, :, ::2, ::2])
    for level, padding in zip(found.features, found.paddings, strict=True):
        resized = F.interpolate(mask[None].float(), size=level.shape[-2:]).to(torch.bool)[0]
        assert torch.equal(padding, resized)


def test_features_that_do_not_see_padding_are_the_same_both_ways():
    batch = images((32, 48), (40, 24), (32, 48), (16, 64))
    one, other = levels_by_size(batch, strided), levels_of_padded(batch, strided)
    assert one.shapes == other.shapes
    for a, b in zip((*one.features, *one.paddings), (*other.features, *other.paddings)):
        assert torch.equal(a, b)


def test_the_backbone_runs_once_for_a_padded_batch():
    calls = []
    model = tiny_detector(backbone_batching="padded").eval()
    model.backbone.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].shape))
    assert len(model(tiny_batch())) == 2
    assert calls == [(2, 3, 48, 56)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_trains_every_parameter(family):
    model = tiny_detector(family, backbone_batching="padded").train()
    sum(model(tiny_batch()).values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_another_batching_is_refused():
    with pytest.raises(ValueError, match="backbone_batching must be one of 'by_size', 'padded'"):
        tiny_detector(backbone_batching="pad")
