"""The building blocks of the detectors and their losses."""

import pytest
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from torch import nn

from kddetr.boxes import box_giou, box_iou, cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from kddetr.detectors.detr import sampling
from kddetr.detectors.detr.attention import GroupMask
from kddetr.detectors.detr.criterion import SetCriterion
from kddetr.detectors.detr.deformable_attention import DeformableAttention
from kddetr.detectors.detr.denoising import ContrastiveDenoising, Noise
from kddetr.detectors.detr.encoder import cell_centres
from kddetr.detectors.detr.matcher import HungarianMatcher, Target
from kddetr.detectors.detr.memory import FeatureLevels, Memory
from kddetr.detectors.detr.position_encoding import (
    ImageSineEmbedding,
    box_sine_embedding,
)
from kddetr.detectors.detr.postprocess import select_detections
from kddetr.detectors.detr.proposals import ProposalHead, initial_proposals
from kddetr.structures import Predictions, Queries
from tests.golden_numbers.files import Golden
from tests.golden_numbers.models import recorded_noise


def test_box_arithmetic():
    z = Golden("box_ops")
    a, b = z["in/boxes_a"], z["in/boxes_b"]
    z.check("out/a_xyxy", cxcywh_to_xyxy(a))
    z.check("out/b_xyxy", cxcywh_to_xyxy(b))
    z.check("out/a_roundtrip", xyxy_to_cxcywh(cxcywh_to_xyxy(a)))
    z.check("out/iou_eps", box_iou(a[:, None], b[None], eps=z.config["iou_eps"]))
    z.check("out/giou_eps", box_giou(a[:, None], b[None], eps=z.config["iou_eps"]))
    z.check("out/giou_plain", box_giou(a[:, None], b[None], eps=0))
    z.check("out/inverse_sigmoid_1e3", inverse_sigmoid(z["in/p"], eps=1e-3))
    z.check("out/inverse_sigmoid_1e5", inverse_sigmoid(z["in/p"], eps=1e-5))


def test_image_sine_embedding():
    z = Golden("pos_sine_2d")
    for name in z.keys("out"):
        padding = z["in/mask_small" if "_small" in name else "in/mask"]
        settings = z.config[name.split("_")[0]]  # of dab or of deformable
        embedding = ImageSineEmbedding(features=z[f"out/{name}"].shape[1] // 2, **settings)
        actual = embedding(padding).permute(0, 3, 1, 2)
        z.check(f"out/{name}", actual, where=(~padding)[:, None].expand_as(actual))


def test_box_sine_embedding():
    z = Golden("pos_sine_anchor")
    boxes, proposals = z["in/boxes"], z["in/unact"].sigmoid()
    for name in z.keys("out"):
        kind = name.split("_")[0]
        points = {"box4": boxes, "point2": boxes[..., :2], "proposal": proposals}[kind]
        features = z[f"out/{name}"].shape[-1] // points.shape[-1]
        settings = {"y_first": kind != "proposal", "temperature": z.config["temperature"]}
        z.check(f"out/{name}", box_sine_embedding(points, features, **settings))


@pytest.mark.parametrize("implementation", sampling.IMPLEMENTATIONS)
def test_deformable_sampling_forward_and_backward(implementation):
    if implementation == "library":
        pytest.importorskip("torch_ms_deform_attn")
    if implementation == "triton":
        pytest.importorskip("triton")
        from kddetr.detectors.detr.triton_sampling import is_interpreted

        if not is_interpreted():
            pytest.skip("the numbers are on the CPU, where Triton's kernels need its interpreter")
    z = Golden("msdeform_core")
    value, locations, weights = (
        z[f"in/{n}"].requires_grad_() for n in ("value", "sampling_locations", "attention_weights")
    )
    with sampling.sampled_by(implementation):
        out = sampling.sample_values(value, z.shapes(), locations, weights)
    z.check("out/output", out)
    out.backward(z["in/grad_output"])
    z.check_relative("out/grad_value", value.grad)
    z.check_relative("out/grad_sampling_locations", locations.grad)
    z.check_relative("out/grad_attention_weights", weights.grad)


@pytest.mark.parametrize("reference", ["2d", "4d"])
def test_deformable_attention_module(reference):
    z = Golden("msdeform_module")
    module = DeformableAttention(
        embed_dim=z.config["d_model"],
        num_heads=z.config["heads"],
        num_levels=len(z.shapes()),
        num_sampling_points=z.config["points"],
    )
    z.check("in/sampling_offsets_bias_default", module.sampling_offsets.bias)
    module.load_state_dict(z.state())
    values = module.project(z["in/value"], z["in/key_padding_mask"])
    query, position = z["in/query"], z["in/query_pos"]
    references = z[f"in/reference_points_{reference}"]
    out = module.attend(query + position, references, values, z.shapes())
    z.check(f"out/attn_{reference}", out)
    z.check(f"out/attn_plus_query_{reference}", out + query)


def test_layout_of_padded_levels():
    z = Golden("two_stage_proposals")
    shapes = z.shapes()
    masks = z["in/mask"].split([h * w for h, w in shapes], dim=1)
    levels = FeatureLevels(
        features=[torch.zeros(len(m), 1, *s) for m, s in zip(masks, shapes, strict=True)],
        paddings=[m.view(-1, *s) for m, s in zip(masks, shapes, strict=True)],
    )
    z.check("out/valid_ratios", levels.valid_ratios())
    z.check("out/encoder_reference_points", cell_centres(shapes, levels.valid_ratios()))
    tokens, padding = levels.flatten()
    assert tokens.shape[:2] == padding.shape
    z.check("in/mask", padding)


def test_proposals_of_the_grid():
    z = Golden("two_stage_proposals")
    shapes = z.shapes()
    proposals = initial_proposals(shapes, z["in/mask"])
    usable = proposals.isfinite().all(-1)
    z.check("out/usable", usable)
    z.check("out/proposals_unact", proposals)
    z.check("out/proposals", proposals.sigmoid())
    tokens = z["in/memory"]
    inputs = []
    head = ProposalHead(
        embed_dim=tokens.shape[-1],
        count=1,
        class_head=nn.Identity(),
        box_head=nn.Identity(),
        class_agnostic=True,
    )
    head.output.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    head.features(Memory(tokens, tokens, z["in/mask"], shapes, z["out/valid_ratios"]), usable)
    z.check("out/masked_memory", inputs[0])


def test_denoising_queries():
    z = Golden("dn_queries")
    for name, counts, number in z.config["cases"]:
        denoising = ContrastiveDenoising(
            num_classes=z.config["classes"],
            embed_dim=z.config["d_model"],
            number=number,
            label_noise=z.config["label_noise_ratio"],
            box_noise=z.config["box_noise_scale"],
        )
        denoising.label_embedding.weight.data = z["sd/label_enc.weight"]
        targets = z.targets(f"in/{name}")
        groups = int(z[f"out/{name}/groups"])
        noise = recorded_noise(z, f"in/{name}/noise", groups)
        made = denoising(targets, noise)
        assert made.num_groups == groups
        assert set(made.queries.groups.values()) == {int(z[f"out/{name}/single_padding"])}
        z.check(f"out/{name}/query_label", made.queries.content)
        z.check_logits_of_boxes(f"out/{name}/query_bbox_unact", made.queries.boxes)
        own = torch.rand(len(targets), z.config["queries"], 4)
        content = torch.zeros(*own.shape[:2], z.config["d_model"])
        (attn_mask,) = GroupMask(made.join(Queries(own, content=content))).masks
        z.check(f"out/{name}/attn_mask", attn_mask)
        # Without noise the query of a positive slot is the box that it is matched with.
        no_noise = Noise(noise.labels, noise.sign, torch.zeros_like(noise.part))
        boxes = denoising(targets, no_noise).queries.boxes
        for image, slot, target in zip(made.image, made.slot, made.target, strict=True):
            inside = cxcywh_to_xyxy(targets[image].boxes[target]).clamp(0, 1)
            expected = inverse_sigmoid(xyxy_to_cxcywh(inside), eps=denoising.eps).sigmoid()
            torch.testing.assert_close(boxes[image, slot], expected, atol=1e-6, rtol=0)
        assert len(made.slot) == groups * sum(counts)


def test_denoising_without_boxes_is_one_empty_group():
    denoising = ContrastiveDenoising(num_classes=3, embed_dim=4)
    background = Target(torch.empty(0, dtype=torch.int64), torch.empty(0, 4))
    made = denoising([background, background])
    assert made.num_groups == 1 and made.queries.content.shape == (2, 2, 4)
    assert not made.queries.content.any() and (made.queries.boxes == 0.5).all()
    assert len(made.slot) == 0
    with pytest.raises(ValueError, match="0: no denoising"):
        ContrastiveDenoising(num_classes=3, embed_dim=4, number=-1)


def test_labels_are_replaced_as_often_as_the_recorded_draws_say():
    z = Golden("dn_queries")
    for name, counts, _ in z.config["cases"]:
        replaced = z[f"in/{name}/noise/label_p"] < 0.5 * z.config["label_noise_ratio"]
        chosen = torch.zeros_like(replaced)
        chosen[z[f"in/{name}/noise/label_chosen"]] = True
        assert torch.equal(replaced, chosen)
        assert len(chosen) == 2 * int(z[f"out/{name}/groups"]) * sum(counts)
    torch.manual_seed(0)
    denoising = ContrastiveDenoising(num_classes=1000, embed_dim=2, label_noise=0.5)
    labels = torch.zeros(5000, dtype=torch.int64)
    noise = denoising.draw(labels, groups=2)
    assert noise.labels.shape == (4, 5000)
    assert (noise.labels != 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert set(noise.sign.unique().tolist()) == {-1.0, 1.0}
    assert noise.part.min() >= 0 and noise.part.max() < 1


def _matcher(z: Golden) -> HungarianMatcher:
    costs = z.config["costs"]
    return HungarianMatcher(
        class_cost=costs["cls"],
        box_cost=costs["l1"],
        giou_cost=costs["giou"],
        alpha=z.config["alpha"],
        gamma=z.config["gamma"],
        eps=z.config["iou_eps"],
    )


def test_matcher_and_criterion():
    z = Golden("matcher_criterion")
    matcher = _matcher(z)
    unweighted = {"class_weight": 1.0, "box_weight": 1.0, "giou_weight": 1.0}
    focal = {"alpha": z.config["alpha"], "gamma": z.config["gamma"]}
    criterion = SetCriterion(matcher=matcher, eps=z.config["iou_eps"], **focal, **unweighted)
    for case in sorted({key.split("/")[0] for key in z.keys("in")}):
        logits = z[f"in/{case}/logits"].requires_grad_()
        boxes = z[f"in/{case}/boxes"].requires_grad_()
        targets = z.targets(f"in/{case}", "gt_boxes")
        predictions = Predictions(logits[None], boxes[None])
        matches = matcher(predictions, targets)
        z.check_matches(f"out/{case}/match", matches, 0, len(targets))
        for i, target in enumerate(targets):
            if f"out/{case}/cost_class_{i}" in z:
                terms = matcher.costs(logits[None, i], boxes[None, i], target)
                total = sum(w * t for w, t in zip(matcher.weights, terms, strict=True))
                for name, term in zip(("class", "l1", "giou"), terms, strict=True):
                    z.check(f"out/{case}/cost_{name}_{i}", term[0])
                z.check(f"out/{case}/cost_total_{i}", total[0])

        losses = criterion(predictions, targets)
        for name, loss in losses.items():
            z.check_relative(f"loss/{case}/{name}", loss)
        if f"loss/{case}/loss_giou_no_eps" in z:
            plain = SetCriterion(matcher=matcher, eps=0, **focal, **unweighted)
            plain = plain(predictions, targets, matches=matches)
            z.check_relative(f"loss/{case}/loss_giou_no_eps", plain["loss_giou"])
        for key in z.keys(f"grad/{case}"):
            name, _, tensor = key.rpartition("_")
            tensor = {"logits": logits, "boxes": boxes}[tensor]
            (gradient,) = torch.autograd.grad(losses[name], tensor, retain_graph=True)
            z.check_relative(f"grad/{case}/{key}", gradient)


def test_detections_in_network_and_original_pixels():
    z = Golden("postprocess")
    sizes = [tuple(s) for s in z["in/network_sizes"].tolist()]
    selected = select_detections(z["in/logits"], z["in/boxes"], sizes, count=z.config["topk"])
    for i, detections in enumerate(selected):
        z.check(f"out/scores_{i}", detections.scores)
        z.check(f"out/labels_{i}", detections.pred_classes)
        z.check_pixels(f"out/boxes_xyxy_network_{i}", detections.pred_boxes.tensor)
        final = detector_postprocess(detections, *z["in/original_sizes"][i].tolist())
        z.check(f"out/final_scores_{i}", final.scores)
        z.check(f"out/final_labels_{i}", final.pred_classes)
        z.check_pixels(f"out/final_boxes_xyxy_{i}", final.pred_boxes.tensor)
