"""The distillation losses and one complete step, as the published code computes them."""

import pytest
import torch

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
from tests.golden_numbers.models import check_parameter_gradients, golden_step_detector
from tests.in_double import precision

TERMS = {"cls": "class", "bbox": "bbox", "giou": "giou"}  # name in the file: name here


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
    """The losses of each student layer, (L,) by term."""
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
        for published, term in TERMS.items():
            unweighted = terms[term] / weights[published]
            z.check_relative(f"loss/{name}/{published}_per_student_layer", unweighted)
            unweighted = losses[f"kd_{name}/{term}"] / weights[published]
            z.check_relative(f"loss/{name}/{published}", unweighted)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("grouped", [True, False], ids=["one pass", "a pass for each group"])
def test_one_complete_step(grouped, dtype):
    with precision(dtype):
        step = Step(Golden("kd_step_dab_detr", dtype), grouped=grouped)
        distillation = step.distillation_loss()
        detection = step.detection_loss()
        total = detection + distillation
        step.z.check_relative("loss/total", total)
        total.backward()
    step.z.check_relative("grad/student_feat", step.student_feature.grad)
    if dtype == torch.float64:
        check_parameter_gradients(step.z, step.student)


class Step:
    """One complete distillation step; its methods compare their results with the file.

    Args:
        z: the file.
        grouped: ask both groups of points in one pass, or each group in a pass of its own.
    """

    def __init__(self, z: Golden, *, grouped: bool) -> None:
        self.z = z
        self.student, self.teacher = (golden_step_detector(z, r) for r in ("student", "teacher"))
        self.student_feature = z["in/student_feat"].requires_grad_()
        padding = [z["in/mask"]]
        self.memory = self.student.encode_features({"res5": self.student_feature}, padding)
        with torch.no_grad():
            features = {"res5": z["in/teacher_feat"]}
            self.teacher_memory = self.teacher.encode_features(features, padding)
            general = z["in/general_points_unact"].sigmoid()[None]
            groups = [
                self.teacher.queries(self.teacher_memory).named("specific"),
                self.teacher.make_queries(self.teacher_memory, general).named("general"),
            ]
        self.passes = [Queries.join(groups)] if grouped else groups

    def distillation_loss(self) -> torch.Tensor:
        """The weighted sum of the distillation losses."""
        z, weights = self.z, self.z.config["kd_weights"]
        loss = published_loss(z.config, weights)
        losses = {}
        for points in self.passes:
            with torch.no_grad():
                teacher = self.teacher.decode(self.teacher_memory, points)
            student = self.student.decode(self.memory, points)
            for role, predictions in (("teacher", teacher), ("student", student)):
                for name, part in predictions.split(points.groups).items():
                    z.check(f"out/{role}_{name}_logits", part.logits)
                    z.check(f"out/{role}_{name}_boxes", part.boxes)
            losses |= loss(student, teacher, points)
        for name in ("specific", "general"):
            for published, term in TERMS.items():
                unweighted = losses[f"kd_{name}/{term}"] / weights[published]
                z.check_relative(f"loss/loss_kd_{name}_{published}", unweighted)
        total = sum(losses.values())
        z.check_relative("loss/kd_total_weighted", total)
        return total

    def detection_loss(self) -> torch.Tensor:
        """The weighted sum of the ground-truth losses."""
        z = self.z
        own = self.student.decode(self.memory, self.student.queries(self.memory))
        z.check("out/student_own_logits", own.logits)
        z.check("out/student_own_boxes", own.boxes)
        targets = z.targets("in/targets")
        matches = self.student.criterion.matcher(own, targets)
        for layer in range(own.num_layers):
            z.check_matches(f"loss/match_layer_{layer}", matches, layer, len(targets))
        total = 0
        for name, value in self.student.criterion(own, targets).items():
            published = name.replace("loss_class", "loss_ce")
            z.check_relative(f"loss/gt_{published}", value)
            total = total + z.config["gt_weights"][published.split("_")[1]] * value
        z.check_relative("loss/gt_total_weighted", total)
        return total
