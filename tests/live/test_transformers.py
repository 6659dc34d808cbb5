"""DAB-DETR and Deformable DETR at full size against the models of the transformers package.

The model of transformers gets random weights, the converter brings them into a model of this
project, and both models get the same padded batch of two images. The backbone features are
compared, and then memory, proposals and decoder layers, which both models compute from the features
of transformers.

In float64 all numbers agree to 1e-14. In float32, on three instruction sets, the largest
differences were 1.1e-6 of the largest feature, 2.4e-6 in the memory, 4.2e-6 in logits and 2.2e-6 in
boxes. The rounding of the ResNet alone would change single numbers of the memory by 1.4e-5: this is
why the later stages start from the same features.

What differs in transformers, and what the comparison does about it:

- The clamp of the logit is 1e-5 in both detectors, as in the project of Deformable DETR. The
  project of DAB-DETR has 1e-3. The models of this project are built with 1e-5.
- A new model with refinement shares one class head among its layers. The authors' models, and all
  published weights, have one for each layer. So the heads are separated before they are filled.
- Backbone and projections process the padded batch, as in every published implementation. This
  project pads features, so the comparison calls ``encode_features``.
- Tokens without a usable box (two-stage) compete with the score of an empty token, as in the
  authors' project. Here they are selected last. None of them is selected with these weights.
- The numbers of padded cells have no meaning and are not compared.
"""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kddetr.checkpoint.published import converted
from kddetr.detectors import dab_detr, deformable_detr, resnet
from tests.in_double import precision

pytestmark = pytest.mark.live

SIZES = ((147, 221), (190, 163))  # neither is a multiple of a stride
SEED = 3
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}  # absolute; of features, in their largest

PLAIN = "deformable_detr"
REFINE = "deformable_detr_refine"
TWO_STAGE = "deformable_detr_two_stage"
# The name that the converter gives it, and millions of parameters of the published model.
FAMILIES = {
    "dab_detr": ("DAB-DETR of Hugging Face", 43.67),
    PLAIN: ("Deformable DETR of Hugging Face", 40.07),
    REFINE: ("Deformable DETR of Hugging Face", 40.85),
    TWO_STAGE: ("two-stage Deformable DETR of Hugging Face", 41.18),
}


class Pair:
    """The two models with the same weights, and their results for the same images."""

    def __init__(self, family: str, dtype: torch.dtype) -> None:
        self.family, self.dtype = family, dtype
        theirs = their_model(family)
        make_random(theirs, SEED)
        self.converted = converted(theirs.state_dict(), "transformers' model")
        self.ours = our_model(family)
        self.ours.load_state_dict(self.converted.state, strict=True)
        with precision(dtype), torch.no_grad():
            images, mask = batch(dtype)
            self._ask_theirs(theirs.to(dtype), images, mask)
            self._ask_ours(self.ours.to(dtype), images, mask)

    def _ask_theirs(self, model: nn.Module, images: Tensor, mask: Tensor) -> None:
        features, layers = [], {}

        def take_features(module, inputs, maps_and_masks):
            features.extend(maps for maps, _ in maps_and_masks)

        def take(logits, labels, device, boxes, config, all_logits, all_boxes, **others):
            layers.update(logits=all_logits, boxes=all_boxes)
            return None, None, None

        backbone = model.model.backbone
        backbone = getattr(backbone, "conv_encoder", backbone)
        backbone.register_forward_hook(take_features)
        model.loss_function = take  # only the loss gets the predictions of all layers
        self.theirs = model(images, pixel_mask=mask, labels=[], output_hidden_states=True)
        self.their_features, self.their_layers = features, layers

    def _ask_ours(self, model: nn.Module, images: Tensor, mask: Tensor) -> None:
        self.features = model.backbone(images)
        # DAB-DETR uses only the last feature.
        self.their_features = self.their_features[-len(self.features) :]
        features = dict(zip(self.features, self.their_features, strict=True))
        paddings = [
            ~F.interpolate(mask[None].to(images.dtype), size=level.shape[-2:])[0].bool()
            for level in model.neck(features)
        ]
        self.memory = model.encode_features(features, paddings, SIZES)
        self.predictions = model.decode(self.memory, model.queries(self.memory))
        head = getattr(model.query_source, "proposals", None)
        self.proposals = None if head is None else head(self.memory)

    def their_choice(self) -> Tensor:
        """(B, N) tokens whose proposals are the queries of transformers, best first."""
        scores = self.theirs.enc_outputs_class[..., 0]
        return scores.topk(self.predictions.logits.shape[2], dim=1).indices

    def check(self, ours: Tensor, theirs: Tensor, *, unit: float = 1.0) -> None:
        assert ours.dtype == theirs.dtype == self.dtype
        torch.testing.assert_close(ours, theirs, atol=unit * TOLERANCE[self.dtype], rtol=0)


def their_model(family: str) -> nn.Module:
    """The model of transformers at its published size; nothing is downloaded."""
    from transformers import (
        DabDetrConfig,
        DabDetrForObjectDetection,
        DeformableDetrConfig,
        DeformableDetrForObjectDetection,
    )

    if family == "dab_detr":
        config = DabDetrConfig(num_labels=91, auxiliary_loss=True)
        return DabDetrForObjectDetection(config).eval()
    config = DeformableDetrConfig(
        num_labels=91, with_box_refine=family != PLAIN, two_stage=family == TWO_STAGE
    )
    model = DeformableDetrForObjectDetection(config)
    if family == REFINE:
        model.class_embed = nn.ModuleList(copy.deepcopy(head) for head in model.class_embed)
    return model.eval()


def our_model(family: str) -> nn.Module:
    if family == "dab_detr":
        backbone = resnet(depth=50, out_features=["res5"])
        return dab_detr(backbone=backbone, num_classes=91, eps=1e-5).eval()
    return deformable_detr(
        backbone=resnet(depth=50),
        num_classes=91,
        variant={PLAIN: "plain", REFINE: "refine", TWO_STAGE: "two_stage"}[family],
        eps=1e-5,
    ).eval()


# References get wider random weights, so that the clamp of their logits matters. What is added to a
# token or a query gets narrower ones: otherwise all tokens become equal within six layers.
GAINS = (
    (r"\breference_points\.weight$", 3.0),
    (r"\bbbox_\w+(\.\d+)?\.layers\.2\.weight$", 2.0),
    (r"\b((o|out|output)_proj|fc2)\.weight$", 0.3),
)


@torch.no_grad()
def make_random(model: nn.Module, seed: int) -> None:
    """Make every weight and statistic random, in place; shared weights stay shared."""
    generator = torch.Generator().manual_seed(seed)
    done = set()
    for name, value in model.state_dict().items():
        if value.data_ptr() in done:
            continue
        done.add(value.data_ptr())
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            noise = 0.5 + torch.rand(value.shape, generator=generator)
        elif value.numel() == 1:  # the slope of a PReLU
            noise = 0.25 + 0.1 * noise
        elif value.dim() == 1 and name.endswith("weight"):  # of a norm
            noise = 1 + 0.1 * noise
        elif value.dim() == 1 and "sampling_offsets" not in name:
            noise = 0.1 * noise
        elif value.dim() > 1 and not name.endswith(("embeddings.weight", "level_embed")):
            gain = next((gain for pattern, gain in GAINS if re.search(pattern, name)), 1.0)
            noise = noise * gain * value[0].numel() ** -0.5
        value.copy_(noise)


def batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) normalised images, padded with zeros, and (B, H, W) int64, 1 inside an image."""
    generator = torch.Generator().manual_seed(SEED)
    height, width = (max(side) for side in zip(*SIZES, strict=True))
    images = torch.zeros(len(SIZES), 3, height, width, dtype=dtype)
    mask = torch.zeros(len(SIZES), height, width, dtype=torch.int64)
    for i, (h, w) in enumerate(SIZES):
        images[i, :, :h, :w] = torch.randn(3, h, w, generator=generator)
        mask[i, :h, :w] = 1
    return images, mask


@pytest.fixture(
    scope="module",
    params=[(family, dtype) for dtype in TOLERANCE for family in FAMILIES],
    ids=lambda param: f"{param[0]}-{str(param[1]).removeprefix('torch.')}",
)
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(*request.param)


def test_recognised_at_its_full_size(pair: Pair):
    name, millions = FAMILIES[pair.family]
    assert str(pair.converted.origin) == name
    assert pair.converted.classes == 91
    assert pair.converted.heads == (6 if pair.family in (REFINE, TWO_STAGE) else 1)
    count = sum(parameter.numel() for parameter in pair.ours.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


def test_features(pair: Pair):
    for ours, theirs in zip(pair.features.values(), pair.their_features, strict=True):
        pair.check(ours, theirs, unit=float(theirs.abs().max()))


def test_encoder_memory(pair: Pair):
    valid = ~pair.memory.padding
    assert valid.any(1).all() and not valid.all(1).any()
    pair.check(pair.memory.tokens[valid], pair.theirs.encoder_last_hidden_state[valid])


def test_proposals_and_their_selection(pair: Pair):
    proposals = pair.proposals
    if pair.family != TWO_STAGE:
        assert proposals is None and getattr(pair.theirs, "enc_outputs_class", None) is None
        return
    usable = proposals.unactivated.isfinite().all(-1)
    boxes = pair.theirs.enc_outputs_coord_logits
    assert torch.equal(usable, boxes.isfinite().all(-1))
    pair.check(proposals.logits, pair.theirs.enc_outputs_class)
    pair.check(proposals.unactivated[usable].sigmoid(), boxes[usable].sigmoid())
    chosen = pair.their_choice()
    assert usable.gather(1, chosen).all(), "no longer comparable: choose another SEED"
    assert torch.equal(proposals.selected.sort(1).values, chosen.sort(1).values)


def test_every_decoder_layer(pair: Pair):
    logits, boxes = pair.their_layers["logits"], pair.their_layers["boxes"]
    assert len(logits) == len(boxes) == 6
    ours = (pair.predictions.logits, pair.predictions.boxes)
    if pair.family == TWO_STAGE:
        # Rounding can change the order of equal scores, so the queries are ordered by their tokens.
        ours = [in_order_of(pair.proposals.selected, values) for values in ours]
        logits, boxes = (in_order_of(pair.their_choice(), values) for values in (logits, boxes))
    pair.check(ours[0], logits)
    pair.check(ours[1], boxes)
    assert boxes[-1].std(1).mean() > 0.05, "all queries predict the same: nothing is compared"


def in_order_of(tokens: Tensor, values: Tensor) -> Tensor:
    """(L, B, N, D) with the N queries in the order of their (B, N) tokens."""
    order = tokens.argsort(1)[None, :, :, None].expand(values.shape)
    return values.gather(2, order)
