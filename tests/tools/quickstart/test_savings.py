"""The program savings.py: its tables from made-up lines, equal times, and the ways themselves."""

import sys

import pytest

import savings
from comparison import read_lines
from kddetr.engine import load_config
from kddetr.errors import UsageError
from runs import ROOT
from savings import COLUMNS, FEWER, TABLES, WAYS, filled, table, tables

MEASURED = ROOT / "docs" / "performance" / "savings.jsonl"
PAGES = ("performance.md", "recorded.md")


def line(way: str, seed: int, ap: float, iterations: int = 1000, cost: float = 0.1) -> dict:
    aps = {"AP": ap, "AP50": 2 * ap, "AP75": ap / 2}
    return {"way": way, "seed": seed, "iterations": iterations, "cost": cost, **aps}


LINES = [
    line("specific", 1, 24.0, cost=0.15),
    line("alone", 0, 10.0),
    line("specific", 0, 16.0, cost=0.15),
    line("alone", 1, 20.0),
    line("pseudo_0.5", 0, 12.0, iterations=2000),
]


def program(*words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["savings.py", *words])
        savings.main()


def test_gains_are_those_of_the_same_seed():
    assert set(LINES[0]) == set(COLUMNS)
    first, second = table(FEWER, LINES).splitlines()[2:]
    assert first == "| alone | 1,000 | 1.00 x | 2 | 15.0 ± 7.1 | 30.0 ± 14.1 | 7.5 ± 3.5 | |"
    # 16 - 10 and 24 - 20, although the lines are in another order.
    assert second.endswith("| +5.0 ± 1.4 |") and "| 1.50 x |" in second


def test_a_seed_without_its_partner_has_no_gain():
    (_, second) = table(FEWER, [line("alone", 0, 10.0), line("specific", 1, 16.0)]).splitlines()[2:]
    assert second.endswith("| 8.0 | |")


def test_each_table_has_its_heading_and_only_those_with_lines_are_there():
    found = tables(LINES)
    assert found.count(":\n\n| |") == 2
    assert found.startswith(f"{FEWER}:") and TABLES["threshold"] in found
    assert table(TABLES["rcnn"], LINES) == "" and TABLES["rcnn"] not in found


def test_every_way_belongs_to_a_table():
    assert {way.table for way in WAYS.values()} == set(TABLES.values())


@pytest.mark.parametrize("config", sorted({way.config for way in WAYS.values()}))
def test_configs_of_the_ways_load(config):
    for way in WAYS.values():
        if way.config == config:
            load_config(str(ROOT / config), list(way.changes))


def test_ways_of_one_table_differ():
    seen = [(w.table, w.config, w.changes, w.same_time_as) for w in WAYS.values()]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.same_time_as])
def test_equal_time_means_as_many_iterations_as_the_time_allows(name, tmp_path):
    way = WAYS[name]
    costs = {way.same_time_as: 0.3, name: 0.1}
    longer = savings._run(name, 0, 100, costs, tmp_path)
    assert longer.iterations == 300
    assert WAYS[way.same_time_as].iterations == way.iterations
    timed = savings._timed(name)
    assert not WAYS[timed].same_time_as and WAYS[timed].config == way.config


def test_a_page_gets_the_tables_that_its_markers_name(tmp_path, capsys):
    page = tmp_path / "page.md"
    marks = [f"<!-- savings: {name} -->\nold\n<!-- end -->\n" for name in ("labelled", "rcnn")]
    page.write_text("before\n" + "between\n".join(marks) + "after\n")
    file = tmp_path / "savings.jsonl"
    savings.write_lines(file, LINES)
    program("--table", str(file), "--page", str(page))
    text = page.read_text()
    assert table(FEWER, LINES) in text and "old" not in text
    assert text.endswith("between\n<!-- savings: rcnn -->\n<!-- end -->\nafter\n")
    program("--table", str(file), "--page", str(page))
    assert page.read_text() == text
    assert capsys.readouterr().out.startswith(FEWER)


def test_wrong_arguments_are_a_sentence(capsys):
    with pytest.raises(UsageError, match="The page has a table 'x'; known are labelled"):
        filled("<!-- savings: x -->\n<!-- end -->", [])
    with pytest.raises(SystemExit):
        program("--page", "page.md")
    assert "--page takes the tables of --table FILE" in capsys.readouterr().err


def test_the_pages_have_a_place_for_every_table():
    text = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in PAGES)
    assert sorted(m[2] for m in savings.MARKED.finditer(text)) == sorted(TABLES)


@pytest.mark.parametrize("page", PAGES)
def test_tables_in_the_documents_are_made_from_the_results_file(page):
    """`python tools/quickstart/savings.py --table FILE --page PAGES` writes them."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert filled(text, read_lines(MEASURED, COLUMNS)) == text
