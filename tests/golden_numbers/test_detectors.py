"""Every family end to end: every stage, both padded images, losses, gradients."""

import contextlib

import pytest
import torch
import torch.nn.functional as F

from kddetr.checkpoint.origins import ORIGINS
from kddetr.checkpoint.published import rename
from kddetr.detectors.detr.attention import GroupMask
from kddetr.detectors.detr.encoder import cell_centres
from kddetr.detectors.detr.matcher import Target
from kddetr.detectors.detr.memory import FeatureLevels
from kddetr.detectors.detr.position_encoding import proposal_sine_embedding
from kddetr.detectors.detr.proposals import initial_proposals
from tests.golden_numbers.files import ATOL, RTOL, Golden
from tests.golden_numbers.models import (
    feature_names,
    golden_dab_detr,
    golden_deformable_detr,
    golden_dino,
    recorded_noise,
)

NAMES = {
    "dab_detr": ORIGINS["DAB-DETR of detrex"],
    "deformable_detr_plain": ORIGINS["Deformable DETR of detrex"],
    "deformable_detr_refine": ORIGINS["Deformable DETR of detrex"],
    "deformable_detr_two_stage": ORIGINS["two-stage Deformable DETR of detrex"],
    "dino_eval": ORIGINS["DINO of detrex"],
    "dino_train_dn": ORIGINS["DINO of detrex"],
}


class Run:
    """One forward of a golden detector, with what its layers saw and gave."""

    def __init__(self, name: str) -> None:
        self.z = z = Golden(name)
        self.name = name
        self.dab = name == "dab_detr"
        build = golden_deformable_detr
        if self.dab or name.startswith("dino"):
            build = golden_dab_detr if self.dab else golden_dino
        self.model = build(z)
        self.model.train()
        if self.dab:
            self.features = {"res5": z["in/feat"].requires_grad_()}
            self.paddings = [z["in/mask"]]
        else:
            self.features = {n: z[f"in/feat_{n}"].requires_grad_() for n in feature_names(z)}
            self.paddings = z.numbered("in/mask")
        self.sizes = [tuple(s) for s in z["in/image_sizes"].tolist()]
        self.targets = [
            Target(labels, boxes)
            for labels, boxes in zip(
                z.numbered("in/targets/labels"), z.numbered("in/targets/boxes"), strict=True
            )
        ]
        self.noised = None
        if "out/dn_groups" in z.arrays:
            noise = recorded_noise(z, "in/noise", int(z["out/dn_groups"]))
            self.noised = self.model.denoising(self.targets, noise)
        self.seen: dict[str, list] = {"encoder": [], "decoder": [], "geometry": []}
        for layer in self.model.encoder.layers:
            layer.register_forward_hook(lambda m, i, out: self.seen["encoder"].append(out))
        for layer in self.model.decoder.layers:
            layer.register_forward_hook(lambda m, i, out: self.seen["decoder"].append(out))
            layer.register_forward_pre_hook(lambda m, i: self.seen["geometry"].append(i[1]))
        self.levels = self.model.neck(self.features)
        self.memory = self.model.encode_features(self.features, self.paddings, self.sizes)
        self.own = self.model.queries(self.memory)
        self.asked = self.own if self.noised is None else self.noised.join(self.own)
        self.answers = self.model.decode(self.memory, self.asked)
        sizes = {"noised": len(self.asked) - len(self.own), "own": len(self.own)}
        self.predictions = self.answers.split(sizes)["own"]
        self.denoised = self.answers.split(sizes)["noised"]

    @property
    def proposals(self):
        """What the encoder proposed, in the families that have two stages."""
        head = getattr(self.model.query_source, "proposals", None)
        return None if head is None else head(self.memory)

    @property
    def valid(self) -> torch.Tensor:
        return ~torch.cat([p.flatten(1) for p in self.paddings], dim=1)


@pytest.fixture(scope="module", params=NAMES)
def run(request) -> Run:
    return Run(request.param)


def test_masks_are_those_of_the_image_sizes(run):
    height, width = run.z["in/padded_size"].tolist()
    image = torch.ones(len(run.sizes), height, width)
    for i, (h, w) in enumerate(run.sizes):
        image[i, :h, :w] = 0
    for padding in run.paddings:
        resized = F.interpolate(image[None], size=padding.shape[-2:])[0].bool()
        assert torch.equal(resized, padding)


def test_levels_and_position(run):
    z = run.z
    names = ["out/src"] if run.dab else [f"out/src_{i}" for i in range(len(run.levels))]
    for name, level in zip(names, run.levels, strict=True):
        z.check(name, level)
    names = ["out/pos_embed"] if run.dab else [f"out/pos_embed_{i}" for i in range(len(run.levels))]
    for name, padding in zip(names, run.paddings, strict=True):
        position = run.model.encoder.position_embedding(padding).permute(0, 3, 1, 2)
        z.check(name, position, where=(~padding)[:, None].expand_as(position))


def test_encoder(run):
    z = run.z
    for i, out in enumerate(run.seen["encoder"]):
        if f"out/enc_layer_{i}" in z.arrays:
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
        assert "out/topk_proposals" not in z.arrays
        return
    initial = initial_proposals(run.memory.shapes, run.memory.padding)
    z.check("out/enc_output_proposals", initial)
    usable = initial.isfinite().all(-1)
    z.check("out/enc_output_memory", run.model.query_source.proposals.features(run.memory, usable))
    z.check("out/enc_logits", proposals.logits)
    z.check("out/enc_coord_unact", proposals.unactivated)
    z.check("out/topk_proposals", proposals.selected)
    z.check("out/topk_coords_unact", proposals.chosen(proposals.unactivated))
    if "out/topk_pos_embed" in z.arrays:
        z.check("out/topk_pos_embed", proposal_sine_embedding(run.own.boxes, 16))
        z.check("out/dec_query", run.own.content)
        z.check("out/dec_query_pos", run.own.position)
    else:
        best = proposals.best()
        z.check("out/enc_pred_logits", best.logits[0])
        z.check("out/enc_pred_boxes", best.boxes[0])


def test_denoising(run):
    z, noised = run.z, run.noised
    if noised is None:
        assert "out/dn_query_label" not in z.arrays
        return
    z.check("out/dn_query_label", noised.queries.content)
    z.check("out/dn_query_bbox", torch.logit(noised.queries.boxes))
    z.check("out/dn_attn_mask", GroupMask(run.asked).masks[0])
    assert set(noised.queries.groups.values()) == {int(z["out/dn_single_padding"])}
    z.check("out/dn_logits", run.denoised.logits)
    z.check("out/dn_boxes", run.denoised.boxes)


def test_decoder_layer_by_layer(run):
    z = run.z
    geometry = run.seen["geometry"]
    for i, out in enumerate(run.seen["decoder"]):
        z.check(f"out/dec_layer_{i}", out)
        embedding = geometry[i].embedding.expand_as(out)
        z.check(f"out/dec_query_pos_{i}", embedding)
        if run.dab:
            z.check(f"out/dec_query_sine_{i}", geometry[i].sine)
        else:
            ratios = run.memory.valid_ratios[:, None]
            ratios = ratios.repeat(1, 1, 1, geometry[i].boxes.shape[-1] // 2)
            z.check(f"out/dec_reference_input_{i}", geometry[i].boxes[:, :, None] * ratios)
    norm = run.model.decoder.norm or torch.nn.Identity()
    z.check("out/hs", torch.stack([norm(x) for x in run.seen["decoder"]]))
    if run.dab:
        z.check("out/reference", torch.stack([g.boxes for g in geometry]))
    else:
        z.check("out/init_reference", run.asked.boxes)
        for i, entering in enumerate(geometry[1:]):
            wanted = z["out/inter_references"][i]
            torch.testing.assert_close(entering.boxes.detach(), wanted, atol=ATOL, rtol=0)


def test_predictions_and_detections(run):
    z = run.z
    z.check("out/logits", run.predictions.logits)
    z.check("out/boxes", run.predictions.boxes)
    detections = run.model.detections(run.predictions.last(), run.sizes)
    for i, found in enumerate(detections):
        z.check(f"out/det_scores_{i}", found.scores)
        z.check(f"out/det_labels_{i}", found.pred_classes)
        boxes = z[f"out/det_boxes_{i}"]
        torch.testing.assert_close(found.pred_boxes.tensor, boxes, atol=1e-2, rtol=0)


def test_matching_losses_and_gradients(run):
    z = run.z
    criterion = run.model.criterion

    def check_matches(matches, layers, key):
        for layer in range(layers):
            for i in range(len(run.targets)):
                source, target = matches.of(layer, i)
                assert torch.equal(source, z[f"loss/{key(layer)}/src_{i}"])
                assert torch.equal(target, z[f"loss/{key(layer)}/tgt_{i}"])

    matches = criterion.matcher(run.predictions, run.targets)
    check_matches(matches, run.predictions.num_layers, lambda layer: f"match_layer_{layer}")
    if run.proposals is not None:
        head = run.model.query_source.proposals
        matches = criterion.matcher(*head.pairs(run.memory, run.targets))
        check_matches(matches, 1, lambda layer: "match_enc")
    # The whole loss, by the path that training takes, with the recorded noise.
    with patched(run.model.denoising, run.noised):
        losses = run.model.target_losses(run.memory, run.targets)
    assert {f"loss/{n}" for n in losses} == {
        k for k in z.arrays if k.startswith("loss/loss_") and "total" not in k
    }
    for name, loss in losses.items():
        z.check_relative(f"loss/{name}", loss)
    total = sum(weight_of(z, name) * value for name, value in losses.items())
    z.check_relative("loss/total_weighted", total)

    run.model.zero_grad()
    for feature in run.features.values():
        feature.grad = None
    total.backward()
    for name, feature in run.features.items():
        z.check_relative("grad/in_feat" if run.dab else f"grad/feat_{name}", feature.grad)
    if run.dab:
        z.check_relative("grad/anchor_box_embed", run.model.query_source.anchors.grad)
    check_parameter_gradients(z, run.model, NAMES[run.name])


@contextlib.contextmanager
def patched(denoising, noised):
    """``denoising`` gives what was made with the recorded noise."""
    if noised is None:
        yield
        return
    denoising.forward = lambda targets: noised
    yield
    del denoising.forward


def weight_of(z, name: str) -> float:
    """The weight of ``loss_class``, ``loss_class_0``, ``loss_class_dn_0``, ``loss_class_enc``."""
    parts = name.split("_")
    base = "_".join(parts[:2])
    return z.config["loss_weights"][f"{base}_dn" if "dn" in parts else base]


def check_parameter_gradients(z, model, rules, prefix: str = "grad") -> None:
    """The norm of every parameter's gradient, by the published name of the parameter."""
    parameters = dict(model.named_parameters())
    wanted = dict(
        zip(
            (str(n) for n in z.arrays[f"{prefix}/param_names"]),
            z.arrays[f"{prefix}/param_l2"].tolist(),
            strict=True,
        )
    )
    renamed = rename(wanted, rules)
    assert renamed.keys() == parameters.keys()
    for name, norm in renamed.items():
        gradient = parameters[name].grad
        actual = 0.0 if gradient is None else float(gradient.double().norm())
        assert actual == pytest.approx(norm, rel=RTOL, abs=ATOL), name


def test_images_of_a_padded_batch_are_what_they_are_alone(run):
    """Padding never changes an answer: each image again, without the other and without padding.

    DINO embeds its boxes in the padded frame; without that habit it holds there too.
    """
    together = run.predictions
    if getattr(run.model.decoder.position, "padded", False):
        run.model.decoder.position.padded = False
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
