"""docs/performance.md is what its files of results say, and a series of measurements resumes."""

import json
import sys
from pathlib import Path

import pytest

import benchmark
import performance
from benchmarking import tables
from benchmarking.arguments import parser
from benchmarking.plan import MEASUREMENTS, Measurement
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
    assert shown >= {("cpu", name) for name in tables.TABLES}
    assert ("cuda", "where") in shown


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=lambda m: m.name)
def test_every_measurement_is_a_command_of_the_benchmark(measurement):
    for device in measurement.devices:
        args = parser(None).parse_args(measurement.arguments(device))
        assert (ROOT / args.config_file).is_file()
        assert args.threads == (1 if device == "cpu" else None)
        assert tuple(args.opts) == measurement.overrides


def test_measurements_have_names_of_their_own():
    names = [m.name for m in MEASUREMENTS]
    assert len(set(names)) == len(names)
    assert not {*names} & {m.table for m in MEASUREMENTS}
    assert {m.table for m in MEASUREMENTS} <= set(tables.TABLES)


def test_a_measurement_is_made_once_and_shown(docs, monkeypatch, capsys):
    def run_here(arguments: list[str]) -> bool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["benchmark.py", *arguments])
            benchmark.main()
        return True

    monkeypatch.setattr(performance, "benchmark", run_here)
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
    monkeypatch.setattr(performance, "benchmark", lambda _: pytest.fail("it ran"))
    assert performance.run(TINY, "cpu", file, again=False)


def test_a_failed_measurement_is_named(docs, monkeypatch, capsys):
    monkeypatch.setattr(performance, "benchmark", lambda _: False)
    with pytest.raises(SystemExit) as stopped:
        program("--docs", str(docs))
    assert stopped.value.code == 2
    assert "These could not be measured: tiny_64" in capsys.readouterr().err


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
