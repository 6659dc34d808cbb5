"""The program heterogeneous_forms.py: every form is described correctly in the table."""

import pytest
from omegaconf import OmegaConf

from comparison import read_lines
from heterogeneous_forms import COLUMNS, DISTILLED, FORMS, table
from kddetr.engine import build, load_config
from kddetr.losses import BinaryCrossEntropy, KLDivergence, KLWithBackground
from kddetr.points import AtAnswers, NearbySampler, SpecificSampler, StudentSampler
from runs import ROOT


def loaded(name: str):
    form = FORMS[name]
    return load_config(str(ROOT / form.config), list(form.changes)).model


@pytest.mark.parametrize("name", FORMS)
def test_description_of_a_form_agrees_with_its_config(name):
    form, model = FORMS[name], loaded(name)
    if name == "alone":
        assert "teacher" not in model
        return
    loss, query_placement = model.loss, model.query_placement
    where = {0.2: "at the answers, moved", 0.0: "at the answers", None: "at the points"}
    assert (
        form.regions == where[query_placement and query_placement.get("shift", AtAnswers().shift)]
    )
    built = build(loss)
    assert form.box_terms == ", ".join(f"{term.weight:g}" for term in built.box_losses)
    kinds = {KLDivergence: "KL", KLWithBackground: "KL with background", BinaryCrossEntropy: "BCE"}
    words = kinds[type(built.class_loss)]
    if words != "BCE":
        words += f", T {built.class_loss.temperature:g}"
    if built.class_loss.weight != 10:
        words += f", weight {built.class_loss.weight:g}"
    assert form.class_term == words
    samplers = build(model.sampler).samplers
    named = {
        SpecificSampler: "specific",
        StudentSampler: "the student's proposals",
        NearbySampler: "nearby",
    }
    assert form.points == ", ".join(named.get(type(one), "general") for one in samplers)


def test_all_forms_differ():
    seen = [OmegaConf.to_yaml(loaded(name)) for name in FORMS]
    assert len(set(seen)) == len(FORMS)
    assert loaded("chosen") == load_config(str(ROOT / DISTILLED)).model


def test_table_has_one_row_per_form_in_the_order_of_the_forms():
    lines = [
        {"form": name, "seed": seed, "AP": 10.0 + seed, "AP50": 20.0, "AP75": 5.0}
        for seed, name in ((0, "exact"), (0, "alone"), (1, "exact"), (2, "exact"))
    ]
    rows = table(lines).splitlines()[2:]
    assert rows == [
        "| none | | | | 1 | 10.0 | 20.0 | 5.0 |",
        "| general, specific | at the answers | KL, T 10 | 5, 2 | 3 | 11.0 ± 1.0 | 20.0 ± 0.0"
        " | 5.0 ± 0.0 |",
    ]
    assert set(lines[0]) == set(COLUMNS)


def test_table_in_the_document_is_made_from_the_results_file():
    lines = read_lines(ROOT / "docs" / "heterogeneous_forms.jsonl", COLUMNS)
    assert table(lines) in (ROOT / "docs" / "heterogeneous.md").read_text()
