"""The distillation losses and one complete step, as the published code computes them."""

import pytest
import torch

from kddetr.checkpoint.origins import ORIGINS
from kddetr.detectors.detr.matcher import Target
from kddetr.losses import (
    EqualWeight,
    ForegroundWeight,
    GIoULoss,
    KLDivergence,
    L1Loss,
    PublishedLoss,
)
from kddetr.structures import Predictions, Queries
from tests.golden_numbers.files import Golden
from tests.golden_numbers.models import golden_step_detector
from tests.golden_numbers.test_detectors import check_parameter_gradients

TERMS = {"cls": "class", "bbox": "bbox", "giou": "giou"}


def published_loss(config: dict, weights: dict, **options) -> PublishedLoss:
    return PublishedLoss(
        class_loss=KLDivergence(weight=weights["cls"], temperature=config["T"]),
        box_losses=[
            L1Loss(weight=weights["bbox"]),
            GIoULoss(weight=weights["giou"], eps=config["iou_eps"]),
        ],
        **options,
    )


def each_layer(loss: PublishedLoss, student: Predictions, teacher: Predictions) -> dict:
    """The losses of every student layer by itself, (L,) by term."""
    layers = [
        loss.losses_of_group(Predictions(logits[None], boxes[None]), teacher.last().detach())
        for logits, boxes in zip(student.logits, student.boxes, strict=True)
    ]
    return {name: torch.stack([layer[name] for layer in layers]) for name in layers[0]}


def test_published_reduction():
    z = Golden("kd_losses")
    weights = z.config["weights"]
    loss = published_loss(z.config, weights)
    groups = {name: z.config[name] for name in ("specific", "general")}
    inputs = {
        role: {
            name: Predictions(
                z[f"in/{name}/{role}_logits"].requires_grad_(),
                z[f"in/{name}/{role}_boxes"].requires_grad_(),
            )
            for name in groups
        }
        for role in ("student", "teacher")
    }
    joined = {
        role: Predictions(
            torch.cat([p.logits for p in parts.values()], dim=2),
            torch.cat([p.boxes for p in parts.values()], dim=2),
        )
        for role, parts in inputs.items()
    }
    boxes = joined["teacher"].boxes[-1].detach()
    losses = loss(joined["student"], joined["teacher"], Queries(boxes, groups=groups))
    for name in groups:
        teacher = inputs["teacher"][name]
        z.check(f"out/{name}/foreground_weight", ForegroundWeight()(teacher))
        terms = each_layer(loss, inputs["student"][name], teacher)
        for theirs, ours in TERMS.items():
            z.check_relative(
                f"loss/{name}/{theirs}_per_student_layer", terms[ours] / weights[theirs]
            )
            unweighted = losses[f"kd_{name}/{ours}"] / weights[theirs]
            z.check_relative(f"loss/{name}/{theirs}", unweighted)
        plain = published_loss(z.config, weights, weighting=EqualWeight())
        last = each_layer(plain, inputs["student"][name], teacher)["class"][-1]
        unweighted = last / weights["cls"]
        z.check_relative(f"loss/{name}/cls_unweighted_mean_last_layer", unweighted)
    total = sum(losses.values())
    z.check_relative("loss/total_weighted", total)
    total.backward()
    for name in groups:
        z.check_relative(f"grad/{name}/student_logits", inputs["student"][name].logits.grad)
        z.check_relative(f"grad/{name}/student_boxes", inputs["student"][name].boxes.grad)
        assert inputs["teacher"][name].boxes.grad is None


@pytest.mark.parametrize("grouped", [True, False])
def test_one_complete_step(grouped):
    """The points in one pass of groups, or each set in a pass of its own: the same numbers."""
    z = Golden("kd_step_dab_detr")
    c = z.config
    student, teacher = (golden_step_detector(z, role) for role in ("student", "teacher"))
    feature = z["in/student_feat"].requires_grad_()
    padding = [z["in/mask"]]
    memory = student.encode_features({"res5": feature}, padding)
    with torch.no_grad():
        teacher_memory = teacher.encode_features({"res5": z["in/teacher_feat"]}, padding)
        general = z["in/general_points_unact"].sigmoid()[None]
        sets = [
            teacher.queries(teacher_memory).named("specific"),
            teacher.make_queries(teacher_memory, general).named("general"),
        ]
    passes = [Queries.join(sets)] if grouped else sets
    loss = published_loss(c, c["kd_weights"])
    losses = {}
    for points in passes:
        with torch.no_grad():
            wanted = teacher.decode(teacher_memory, points)
        answers = student.decode(memory, points)
        for name in points.groups:
            for role, predictions in (("teacher", wanted), ("student", answers)):
                part = predictions.split(points.groups)[name]
                z.check(f"out/{role}_{name}_logits", part.logits)
                z.check(f"out/{role}_{name}_boxes", part.boxes)
        losses |= loss(answers, wanted, points)
    for name in ("specific", "general"):
        for theirs, ours in TERMS.items():
            unweighted = losses[f"kd_{name}/{ours}"] / c["kd_weights"][theirs]
            z.check_relative(f"loss/loss_kd_{name}_{theirs}", unweighted)
    distilled = sum(losses.values())
    z.check_relative("loss/kd_total_weighted", distilled)

    own = student.decode(memory, student.queries(memory))
    z.check("out/student_own_logits", own.logits)
    z.check("out/student_own_boxes", own.boxes)
    pairs = zip(z.numbered("in/targets/labels"), z.numbered("in/targets/boxes"), strict=True)
    targets = [Target(*pair) for pair in pairs]
    matches = student.criterion.matcher(own, targets)
    for layer in range(own.num_layers):
        for i in range(len(targets)):
            source, target = matches.of(layer, i)
            assert torch.equal(source, z[f"loss/match_layer_{layer}/src_{i}"])
            assert torch.equal(target, z[f"loss/match_layer_{layer}/tgt_{i}"])
    truth = student.criterion(own, targets)
    for name, value in truth.items():
        published = name.replace("loss_class", "loss_ce")
        z.check_relative(f"loss/gt_{published}", value)
    weights = {f"loss_{k}".replace("loss_ce", "loss_class"): v for k, v in c["gt_weights"].items()}
    detected = sum(weights["_".join(k.split("_")[:2])] * v for k, v in truth.items())
    z.check_relative("loss/gt_total_weighted", detected)
    total = detected + distilled
    z.check_relative("loss/total", total)
    total.backward()
    z.check_relative("grad/student_feat", feature.grad)
    check_parameter_gradients(z, student, ORIGINS["DAB-DETR of its authors' project"])
