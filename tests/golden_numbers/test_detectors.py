"""Every family from features to gradients: every stage, on images of different sizes.

The stages are compared in float64. Some of their numbers are badly conditioned, most of all
gradients that are sums of terms which nearly cancel. In float32 the rounding here and the rounding
in the file together come close to the tolerance, and the former depends on the machine. In float64
only the rounding in the file is left. Predictions and losses are well conditioned and are compared
in float32 too.
"""

import contextlib

import pytest
import torch
import torch.nn.functional as F

from kddetr.detectors.detr.attention import GroupMask
from kddetr.detectors.detr.encoder import cell_centres
from kddetr.detectors.detr.memory import FeatureLevels
from kddetr.detectors.detr.position_encoding import box_sine_embedding
from kddetr.detectors.detr.proposals import initial_proposals
from tests.golden_numbers.files import ATOL, Golden, golden_names
from tests.golden_numbers.models import (
    check_parameter_gradients,
    feature_names,
    golden_dab_detr,
    golden_deformable_detr,
    golden_dino,
    recorded_noise,
)
from tests.in_double import precision

FAMILIES = ("dab_detr", "deformable_detr", "dino")  # the file names of a family begin with it
NAMES = [name for family in FAMILIES for name in golden_names(family)]


class Run:
    """One forward pass of a golden detector, with the inputs and outputs of its layers."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.z = z = Golden(name, dtype)
        self.dab = name.startswith("dab_detr")
        if self.dab:
            self.model = golden_dab_detr(z)
            self.features = {"res5": z["in/feat"].requires_grad_()}
            self.paddings = [z["in/mask"]]
        else:
            build = golden_dino if name.startswith("dino") else golden_deformable_detr
            self.model = build(z)
            self.features = {n: z[f"in/feat_{n}"].requires_grad_() for n in feature_names(z)}
            self.paddings = z.numbered("in/mask")
        self.model.train()
        self.sizes = [tuple(s) for s in z["in/image_sizes"].tolist()]
        self.targets = z.targets("in/targets")
        self.denoising = None
        if "out/dn_groups" in z:
            noise = recorded_noise(z, "in/noise", int(z["out/dn_groups"]))
            self.denoising = self.model.denoising(self.targets, noise)
        self.encoder_outputs: list[torch.Tensor] = []
        self.decoder_outputs: list[torch.Tensor] = []
        self.geometry: list = []  # what enters each decoder layer
        for layer in self.model.encoder.layers:
            layer.register_forward_hook(lambda m, i, out: self.encoder_outputs.append(out))
        for layer in self.model.decoder.layers:
            layer.register_forward_hook(lambda m, i, out: self.decoder_outputs.append(out))
            layer.register_forward_pre_hook(lambda m, i: self.geometry.append(i[1]))
        self.levels = self.model.neck(self.features)
        self.memory = self.model.encode_features(self.features, self.paddings, self.sizes)
        self.own = self.model.queries(self.memory)
        self.queries = self.own if self.denoising is None else self.denoising.join(self.own)
        answers = self.model.decode(self.memory, self.queries)
        sizes = {"denoising": len(self.queries) - len(self.own), "own": len(self.own)}
        self.denoised, self.predictions = answers.split(sizes).values()

    @property
    def proposals(self):
        """What the encoder proposed, in the families that have two stages; None in the others."""
        head = self.model.query_source.proposals
        return None if head is None else head(self.memory)

    @property
    def valid(self) -> torch.Tensor:
        """(B, S) True where a token is not padding."""
        return ~torch.cat([p.flatten(1) for p in self.paddings], dim=1)

    def by_level(self, key: str) -> list[str]:
        """Names of the arrays of all levels; DAB-DETR has one level and no number."""
        return [key] if self.dab else [f"{key}_{i}" for i in range(len(self.levels))]


@pytest.fixture(scope="module", params=NAMES)
def run(request):
    with precision(torch.float64):
        yield Run(request.param, torch.float64)


def test_masks_are_those_of_the_image_sizes(run):
    height, width = run.z["in/padded_size"].tolist()
    image = torch.ones(len(run.sizes), height, width)
    for i, (h, w) in enumerate(run.sizes):
        image[i, :h, :w] = 0
    for padding in run.paddings:
        resized = F.interpolate(image[None], size=padding.shape[-2:])[0].bool()
        assert torch.equal(resized, padding)


def test_levels_and_position(run):
    for name, level in zip(run.by_level("out/src"), run.levels, strict=True):
        run.z.check(name, level)
    for name, padding in zip(run.by_level("out/pos_embed"), run.paddings, strict=True):
        position = run.model.encoder.position_embedding(padding).permute(0, 3, 1, 2)
        run.z.check(name, position, where=(~padding)[:, None].expand_as(position))


def test_encoder(run):
    z = run.z
    for i, out in enumerate(run.encoder_outputs):
        if f"out/enc_layer_{i}" in z:
            z.check(f"out/enc_layer_{i}", out, where=run.valid)
    z.check("out/memory", run.memory.tokens, where=run.valid)
    if not run.dab:
        z.check("out/valid_ratios", run.memory.valid_ratios)
        z.check("out/spatial_shapes", torch.tensor(run.memory.shapes))
        centres = cell_centres(run.memory.shapes, run.memory.valid_ratios)
        z.check("out/enc_reference_points", centres)


def test_proposals_and_their_selection(run):
    z, proposals = run.z, run.proposals
    if proposals is None:
        assert "out/topk_proposals" not in z
        return
    initial = initial_proposals(run.memory.shapes, run.memory.padding)
    z.check("out/enc_output_proposals", initial)
    usable = initial.isfinite().all(-1)
    z.check("out/enc_output_memory", run.model.query_source.proposals.features(run.memory, usable))
    z.check("out/enc_logits", proposals.logits)
    z.check("out/enc_coord_unact", proposals.unactivated)
    z.check("out/topk_proposals", proposals.selected)
    z.check("out/topk_coords_unact", proposals.rows_of_selected(proposals.unactivated))
    if "out/topk_pos_embed" in z:
        features = z.config["sine_feats_per_coord"]
        embedding = box_sine_embedding(run.own.boxes, features, y_first=False)
        z.check("out/topk_pos_embed", embedding)
        z.check("out/dec_query", run.own.content)
        z.check("out/dec_query_pos", run.own.position)
    else:
        selected = proposals.of_selected_tokens()
        z.check("out/enc_pred_logits", selected.logits[0])
        z.check("out/enc_pred_boxes", selected.boxes[0])


def test_denoising(run):
    z, denoising = run.z, run.denoising
    if denoising is None:
        assert "out/dn_query_label" not in z
        return
    z.check("out/dn_query_label", denoising.queries.content)
    z.check_logits_of_boxes("out/dn_query_bbox", denoising.queries.boxes)
    z.check("out/dn_attn_mask", GroupMask(run.queries).masks[0])
    assert set(denoising.queries.groups.values()) == {int(z["out/dn_single_padding"])}


def test_decoder_layer_by_layer(run):
    z, geometry = run.z, run.geometry
    for i, out in enumerate(run.decoder_outputs):
        z.check(f"out/dec_layer_{i}", out)
        z.check(f"out/dec_query_pos_{i}", geometry[i].embedding.expand_as(out))
        if run.dab:
            z.check(f"out/dec_query_sine_{i}", geometry[i].sine)
        else:
            ratios = run.memory.valid_ratios[:, None]
            ratios = ratios.repeat(1, 1, 1, geometry[i].boxes.shape[-1] // 2)
            z.check(f"out/dec_reference_input_{i}", geometry[i].boxes[:, :, None] * ratios)
    norm = run.model.decoder.norm or torch.nn.Identity()
    z.check("out/hs", torch.stack([norm(x) for x in run.decoder_outputs]))
    if run.dab:
        z.check("out/reference", torch.stack([g.boxes for g in geometry]))
    else:
        z.check("out/init_reference", run.queries.boxes)
        entering = torch.stack([g.boxes for g in geometry[1:]])
        z.check("out/inter_references", entering, first=len(entering))


@pytest.mark.parametrize("name", NAMES)
def test_predictions_and_losses_in_float32(name):
    run = Run(name, torch.float32)
    test_predictions_and_detections(run)
    test_matching_and_losses(run)


def test_predictions_and_detections(run):
    z = run.z
    z.check("out/logits", run.predictions.logits)
    z.check("out/boxes", run.predictions.boxes)
    if run.denoising is not None:
        z.check("out/dn_logits", run.denoised.logits)
        z.check("out/dn_boxes", run.denoised.boxes)
    detections = run.model.detections(run.predictions.last(), run.sizes)
    for i, detected in enumerate(detections):
        z.check(f"out/det_scores_{i}", detected.scores)
        z.check(f"out/det_labels_{i}", detected.pred_classes)
        z.check_pixels(f"out/det_boxes_{i}", detected.pred_boxes.tensor)


def test_matching_and_losses(run):
    z, criterion = run.z, run.model.criterion
    matches = criterion.matcher(run.predictions, run.targets)
    for layer in range(run.predictions.num_layers):
        z.check_matches(f"loss/match_layer_{layer}", matches, layer, len(run.targets))
    if run.proposals is not None:
        head = run.model.query_source.proposals
        matches = criterion.matcher(*head.predictions_and_targets(run.memory, run.targets))
        z.check_matches("loss/match_enc", matches, 0, len(run.targets))
    losses = training_losses(run)
    assert losses.keys() == {k for k in z.keys("loss") if k.startswith("loss_")}
    for name, loss in losses.items():
        z.check_relative(f"loss/{name}", loss)
    z.check_relative("loss/total_weighted", weighted_sum(z, losses))


def test_gradients(run):
    z = run.z
    weighted_sum(z, training_losses(run)).backward()
    for name, feature in run.features.items():
        z.check_relative("grad/in_feat" if run.dab else f"grad/feat_{name}", feature.grad)
    if run.dab:
        z.check_relative("grad/anchor_box_embed", run.model.query_source.anchors.grad)
    check_parameter_gradients(z, run.model)


def training_losses(run: Run) -> dict[str, torch.Tensor]:
    """The losses by the path that training takes, with the recorded noise."""
    with contextlib.ExitStack() as stack:
        if run.denoising is not None:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(run.model.denoising, "forward", lambda targets: run.denoising)
        return run.model.target_losses(run.memory, run.targets)


def weighted_sum(z: Golden, losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """The sum of ``loss_class``, ``loss_class_0``, ``loss_class_dn_0``, ``loss_class_enc``, ..."""
    total = 0
    for name, value in losses.items():
        _, term, *rest = name.split("_")
        suffix = "_dn" if "dn" in rest else ""
        total = total + z.config["loss_weights"][f"loss_{term}{suffix}"] * value
    return total


def test_images_of_a_padded_batch_are_what_they_are_alone(run, monkeypatch):
    """Padding never changes an answer: each image again, without the other and without padding.

    DINO embeds its boxes in the padded frame. Without that, the rule holds for DINO too.
    """
    together = run.predictions
    if getattr(run.model.decoder.position, "padded", False):
        monkeypatch.setattr(run.model.decoder.position, "padded", False)
        together = run.model.decode(run.memory, run.own)
    for training in (True, False):
        run.model.train(training)
        for i in range(len(run.sizes)):
            features, paddings = [], []
            for level, padding in zip(run.levels, run.paddings, strict=True):
                h, w = int((~padding[i, :, 0]).sum()), int((~padding[i, 0]).sum())
                features.append(level[i : i + 1, :, :h, :w])
                paddings.append(torch.zeros(1, h, w, dtype=torch.bool))
            memory = run.model.encoder(FeatureLevels(features, paddings))
            alone = run.model.decode(memory, run.model.queries(memory))
            torch.testing.assert_close(alone.logits[:, 0], together.logits[:, i], atol=ATOL, rtol=0)
            torch.testing.assert_close(alone.boxes[:, 0], together.boxes[:, i], atol=ATOL, rtol=0)
    run.model.train()
