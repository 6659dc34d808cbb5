"""docs/performance.md is what its files of results say, and a series of measurements resumes."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import benchmark
import performance
from benchmarking import tables
from benchmarking.arguments import parser
from benchmarking.plan import MEASUREMENTS, Measurement
from kddetr.engine import load_config
from kddetr.errors import UsageError, exit_on_user_error

ROOT = Path(__file__).resolve().parents[2]
TINY = Measurement(
    "tiny_64",
    "steps",
    "the small pair",
    "configs/quickstart/distilled.py",
    (64, 64),
    repeats=1,
    flags=("--warmup", "0", "--only", "steps,operations"),
)
DERIVED = ("where", "shares", "memory", "student")  # from measurements of other tables
PAGE = "before\n<!-- measured on cpu: steps -->\nold\n<!-- end -->\nafter\n"


def program(*words: str) -> None:
    with pytest.MonkeyPatch.context() as patch, exit_on_user_error():
        patch.setattr(sys, "argv", ["performance.py", *words])
        performance.main()


@pytest.fixture
def docs(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a page of one table, and a plan of one tiny measurement."""
    for module in (performance, tables):
        monkeypatch.setattr(module, "MEASUREMENTS", (TINY,))
    (tmp_path / "performance.md").write_text(PAGE)
    return tmp_path


def test_the_page_is_what_its_files_say():
    """`python tools/performance.py --page-only` writes it."""
    page = ROOT / "docs" / "performance.md"
    assert performance.current(ROOT / "docs") == page.read_text(encoding="utf-8")


def test_the_page_shows_every_measured_table():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    shown = {(m[2], m[3]) for m in tables.BLOCK.finditer(page)}
    measured = {(device, m.table) for m in MEASUREMENTS for device in m.devices}
    further = {(device, name) for device in performance.DEVICES for name in DERIVED}
    assert shown == measured | further


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=lambda m: m.name)
def test_every_measurement_is_a_command_of_the_benchmark(measurement):
    for device in measurement.devices:
        args = parser(None).parse_args(measurement.arguments(device))
        assert (ROOT / args.config_file).is_file()
        assert args.threads == (1 if device == "cpu" else None)
        assert tuple(args.opts) == measurement.overrides


def test_configs_of_the_measurements_take_their_overrides():
    for config, overrides in {(m.config, m.overrides) for m in MEASUREMENTS}:
        load_config(str(ROOT / config), list(overrides))


def test_measurements_have_names_of_their_own():
    names = [m.name for m in MEASUREMENTS]
    assert len(set(names)) == len(names)
    assert not {*names} & {m.table for m in MEASUREMENTS}
    assert {m.table for m in MEASUREMENTS} | {*DERIVED} == set(tables.TABLES)


def test_a_measurement_is_made_once_and_shown(docs, monkeypatch, capsys):
    def run_here(words: list[str]) -> bool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[1:])
            benchmark.main()
        return True

    monkeypatch.setattr(performance, "program", run_here)
    program("--docs", str(docs), "--only", "tiny_64")
    file = docs / "performance" / "cpu.jsonl"
    (result,) = map(json.loads, file.read_text().splitlines())
    assert result["name"] == "tiny_64" and result["environment"]["threads"] == 1
    page = (docs / "performance.md").read_text()
    assert page.startswith("before\n") and page.endswith("<!-- end -->\nafter\n")
    assert "old" not in page and "| the small pair | 64 x 64 |" in page
    written = file.read_text()
    program("--docs", str(docs))
    assert "measured already" in capsys.readouterr().out and file.read_text() == written


def test_an_interrupted_series_goes_on_with_what_is_missing(docs, monkeypatch):
    done = {"name": "tiny_64", "arguments": TINY.arguments("cpu")}
    file = docs / "performance" / "cpu.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(done) + "\n")
    monkeypatch.setattr(performance, "program", lambda _: pytest.fail("it ran"))
    assert performance.run(TINY, "cpu", file, again=False)


def test_a_failed_measurement_is_named(docs, monkeypatch, capsys):
    monkeypatch.setattr(performance, "program", lambda _: False)
    with pytest.raises(SystemExit) as stopped:
        program("--docs", str(docs))
    assert stopped.value.code == 2
    assert "These could not be measured: tiny_64" in capsys.readouterr().err


def test_what_a_measurement_needs_is_made_before_it(docs, monkeypatch):
    needing = replace(TINY, before=(("python", "make.py"), ("python", "record.py")))
    ran: list[str] = []

    def fails_at(file: str):
        return lambda words: ran.append(words[1]) or words[1] != file

    monkeypatch.setattr(performance, "program", fails_at("record.py"))
    assert not performance.run(needing, "cpu", docs / "x.jsonl", again=False)
    assert ran == ["make.py", "record.py"]


def test_tables_of_variants_show_figures(of_a_run):
    """Those of steps in several ways, of a recorded teacher, of memory and of samplings."""
    spread = {"median": 2.0, "min": 1.0, "max": 3.0}
    ways = {"forward": spread, "backward": spread}
    sizes = {"teacher": 1, "plain_step": 4, "distillation_step": 7}
    result = {
        "seconds": dict.fromkeys(("teacher", "plain_step", "distillation_step"), spread),
        "ratios": {"step_over_plain": spread},
        "operations": {"plain_step": 4, "distillation_step": 5},
        "memory": {name: {"peak": size * tables.GIB} for name, size in sizes.items()},
        "sampled_layer": {"places": 1234, "seconds": {"gather": ways}},
    }
    rows = {name: of_a_run(name, result) for name in ("compile", "batching", "recorded")}
    assert rows["compile"][0].endswith("| 2 (1 to 3) | 2 (1 to 3) | 2 (1 to 3) | 7.00 |")
    assert rows["recorded"][0].endswith("| 2 | 2 | **2.00** (1.00 to 3.00) | 1.25 |")
    assert len(rows["batching"]) == 2
    # 1.15 x 4 + 1 = 5.6, of which 7 is 1.25.
    memory = of_a_run("steps", result, shown="memory")
    assert memory[0].endswith("| 1.00 | 4.00 | 5.60 | 7.00 | **1.25** |")
    assert of_a_run("sampling", result)[0].endswith("gather | 320 x 320 | 1,234 | 2e+03 | 2e+03 |")


@pytest.fixture
def of_a_run():
    """The rows of a table on a CPU all of whose measurements have the same figures."""

    def rows(name: str, result: dict, shown: str = "") -> list[str]:
        found = {
            m.name: result | {"precision": "float32", "arguments": m.arguments("cpu")}
            for m in MEASUREMENTS
            if m.table == name
        }
        text = tables.TABLES[shown or name](found, "cpu")
        return text.partition("\n\n")[0].splitlines()[2:]

    return rows


def test_commands_are_listed(capsys):
    program("--list", "--only", "general_900")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("python tools/benchmark.py --config-file configs/distill/dab_detr")
    assert "count:900" in line


def test_unknown_names_are_a_sentence(capsys):
    with pytest.raises(SystemExit):
        program("--only", "stepps")
    assert "did you mean steps?" in capsys.readouterr().err
    with pytest.raises(UsageError, match="The page has a table 'stepps'"):
        tables.updated(PAGE.replace("steps", "stepps"), {"cpu": {"x": {}}})


def test_a_damaged_line_is_a_sentence(tmp_path: Path):
    file = tmp_path / "cpu.jsonl"
    file.write_text('{"name": "x"}\n{"nam')
    with pytest.raises(UsageError, match=r"Line 2 of .*cpu.jsonl is no result"):
        tables.read_results(file)


def test_a_device_without_figures_has_one_command():
    marks = ("<!-- measured on cuda: where -->", "<!-- measured on cuda: steps -->")
    page = "".join(f"{mark}\n<!-- end -->\n" for mark in marks)
    found = tables.updated(page, {})
    assert found.count("python tools/performance.py --device cuda") == 1
    assert "Nothing has been measured on a card" in found
