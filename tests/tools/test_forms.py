"""The ways to distil a Faster R-CNN: every one is described correctly in the table."""

from copy import deepcopy
from functools import cache

import pytest
from detectron2.config import LazyConfig
from omegaconf import DictConfig

from experiments import ROOT
from experiments.forms import DISTILLED, FORMS
from kddetr.engine import apply_overrides, build
from kddetr.losses import BinaryCrossEntropy, KLDivergence, KLWithBackground
from kddetr.points import AtAnswers, NearbySampler, SpecificSampler, StudentSampler

LINES = [line for line in FORMS.lines if line.config == DISTILLED]


@cache
def config(file: str) -> DictConfig:
    return LazyConfig.load(str(ROOT / file))


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_description_of_a_form_agrees_with_its_config(line):
    cfg = deepcopy(config(line.config))
    apply_overrides(cfg, list(line.overrides))
    loss, query_placement = build(cfg.model.loss), cfg.model.query_placement
    where = {0.2: "at the answers, moved", 0.0: "at the answers", None: "at the points"}
    points, regions, term, weights = line.title
    assert regions == where[query_placement and query_placement.get("shift", AtAnswers().shift)]
    assert weights == ", ".join(f"{box_term.weight:g}" for box_term in loss.box_losses)
    kinds = {KLDivergence: "KL", KLWithBackground: "KL with background", BinaryCrossEntropy: "BCE"}
    words = kinds[type(loss.class_loss)]
    if words != "BCE":
        words += f", T {loss.class_loss.temperature:g}"
    if loss.class_loss.weight != 10:
        words += f", weight {loss.class_loss.weight:g}"
    assert term == words
    named = {
        SpecificSampler: "specific",
        StudentSampler: "the student's proposals",
        NearbySampler: "nearby",
    }
    samplers = build(cfg.model.sampler).samplers
    assert points == ", ".join(named.get(type(one), "general") for one in samplers)
