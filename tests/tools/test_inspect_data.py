"""The program that prints the report about labelled data."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.data.made_folders import TRUTH, picture, write_yolo

PROGRAM = Path(__file__).resolve().parents[2] / "tools/inspect_data.py"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["inspect_data.py", *map(str, arguments)])
    runpy.run_path(str(PROGRAM), run_name="__main__")


def test_it_prints_the_report_and_writes_the_page(tmp_path, monkeypatch, capsys):
    for name, boxes in TRUTH.items():
        picture(tmp_path / f"data/images/{name}.jpg")
        write_yolo(tmp_path / f"data/labels/{name}.txt", boxes)
    (tmp_path / "data/data.yaml").write_text("{names: [cat, dog], train: images}")
    run(monkeypatch, tmp_path / "data", "--output", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "YOLO data with 2 classes: cat, dog" in printed and "warning: " in printed
    assert "There is no validation split" in printed
    assert (tmp_path / "out/data.html").is_file() and (tmp_path / "out/labels/val.json").is_file()


def test_a_wrong_folder_is_one_sentence(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, tmp_path / "nowhere", "--output", tmp_path / "out")
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: There is no folder")
