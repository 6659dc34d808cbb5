"""The program heterogeneous.py: the runs, the files that it writes, and their table."""

import json
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf

import comparison
import heterogeneous
from comparison import LONGER, Comparison, write_lines
from heterogeneous import CONFIGS, read_results, run_lines, table
from kddetr.checkpoint import read_checkpoint
from kddetr.engine import Trainer, load_config
from quickstart import CONFIGS as QUICKSTART
from runs import ROOT, Run

SECONDS = {"alone": 10.0, "distilled": 15.0, "distilled_unlabeled": 20.0, LONGER: 15.0}
APS = {"alone": 10.0, LONGER: 11.0, "distilled": 14.0, "distilled_unlabeled": 18.0}


class FinishedRun(Run):
    """A finished run; its training took the time that SECONDS has for its name."""

    def evaluations(self):
        return [(self.iterations, (SECONDS[self.output.name], 5.0))]


def outcomes(shift: float = 0.0) -> dict[str, dict]:
    same = {"val": 5.0, "iterations": 7, "parameters": 1_250_000}
    return {
        name: {"AP": ap + shift, "AP50": 2 * ap, "AP75": ap / 2, "seconds": SECONDS[name], **same}
        for name, ap in APS.items()
    }


def result_lines() -> list[dict]:
    teacher = dict.fromkeys(("val", "iterations", "seconds", "gain"))
    teacher |= {"run": "teacher", "config": "t.py", "seed": None, "parameters": 2_000_000}
    lines = [teacher | {"AP": 70.0, "AP50": 90.0, "AP75": 60.0}]
    configs = dict.fromkeys(APS, "s.py")
    for seed, shift in ((0, 0.0), (1, 20.0)):
        lines += run_lines(seed, configs, outcomes(shift))
    return lines


def test_gains_are_measured_within_a_seed():
    rows = {line.split("|")[1].strip(): line for line in table(result_lines()).splitlines()}
    assert "| 24.0 ± 14.1 | 28.0 ± 0.0 | 7.0 ± 0.0 | +4.0 ± 0.0 | 7 | 15 |" in rows["distilled"]
    assert "| +8.0 ± 0.0 |" in rows["distilled + unlabelled"]
    assert "| +1.0 ± 0.0 |" in rows["student alone, distilled run's time"]
    assert "+" not in rows["student alone"] and "1.25 M" in rows["student alone"]
    assert rows["teacher"] == "| teacher | 2.00 M | 70.0 | 90.0 | 60.0 | | | |"


def test_table_in_the_document_is_made_from_the_results_file():
    lines = read_results(ROOT / "docs" / "heterogeneous_results.jsonl")
    assert table(lines) in (ROOT / "docs" / "heterogeneous.md").read_text()


def test_one_seed_has_no_spread():
    text = table([line for line in result_lines() if line["seed"] != 1])
    assert "±" not in text and "| distilled | 1.25 M | 14.0 | 28.0 | 7.0 | +4.0 |" in text


def test_table_of_a_file_trains_nothing(tmp_path, monkeypatch, capsys):
    file = tmp_path / "results.jsonl"
    write_lines(file, result_lines())
    assert read_results(file) == result_lines()
    monkeypatch.setattr(heterogeneous, "begin", lambda: pytest.fail("something is trained"))
    monkeypatch.setattr("sys.argv", ["heterogeneous.py", "--table", str(file)])
    heterogeneous.main()
    assert capsys.readouterr().out == table(result_lines()) + "\n"


@pytest.mark.parametrize("line", ["{cut", "[]", '{"run": "alone"}'])
def test_line_without_a_result_is_refused(tmp_path, line):
    file = tmp_path / "results.jsonl"
    write_lines(file, result_lines())
    file.write_text(file.read_text() + line)
    with pytest.raises(ValueError, match=rf"line {len(result_lines()) + 1}, is no result"):
        read_results(file)
    write_lines(file, result_lines()[:1])
    with pytest.raises(ValueError, match="a line of the student alone"):
        read_results(file)
    file.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        read_results(file)
    with pytest.raises(ValueError, match="There is no file"):
        read_results(tmp_path / "none.jsonl")


@pytest.mark.parametrize("configs", [CONFIGS, QUICKSTART], ids=["heterogeneous", "quickstart"])
def test_compared_configs_differ_only_in_distillation_and_unlabelled_images(configs):
    """Student, optimizer, schedule, and the labelled images and their order are equal."""
    alone, distilled, more = (
        load_config(str(ROOT / configs[name]))
        for name in ("alone", "distilled", "distilled_unlabeled")
    )
    assert distilled.model.student == alone.model
    for part in ("optimizer", "lr_multiplier", "dataloader"):
        assert alone[part] == distilled[part]
        if part != "dataloader":
            assert alone[part] == more[part]
    assert more.model == distilled.model
    assert more.dataloader.train.unlabeled_per_batch == 4
    more.dataloader.train.unlabeled_per_batch = distilled.dataloader.train.unlabeled_per_batch
    assert more.dataloader == distilled.dataloader
    trains = [OmegaConf.to_container(cfg.train) for cfg in (alone, distilled, more)]
    assert len({one.pop("output_dir") for one in trains}) == 3
    assert trains[0] == trains[1] == trains[2]


def train(tmp_path, monkeypatch, seeds):
    """The runs of a comparison in which every run is finished, and the runs as they were begun."""
    begun = []
    monkeypatch.setattr(comparison, "Run", FinishedRun)
    monkeypatch.setattr(comparison, "run_all", lambda runs, say: begun.extend(runs))
    runs = Comparison(CONFIGS, tmp_path).train(seeds, 8, lambda text: None)
    return runs, begun


def test_one_seed_is_three_runs(tmp_path, monkeypatch):
    runs, begun = train(tmp_path, monkeypatch, [3])
    assert list(runs) == [3] and runs[3].keys() == CONFIGS.keys()
    assert begun == list(runs[3].values())
    for name, run in runs[3].items():
        assert (run.config, run.iterations) == (CONFIGS[name], 8)
        assert run.overrides == ["train.seed=3"]
        assert run.output == tmp_path / "seed3" / name


def test_several_seeds_give_the_student_alone_the_distilled_runs_time(tmp_path, monkeypatch):
    runs, begun = train(tmp_path, monkeypatch, [0, 1])
    assert len(begun) == 8
    for seed, group in runs.items():
        assert group[LONGER].iterations == 12  # 8 in 10 s, so 12 in the 15 s of the distilled one
        assert group[LONGER].config == CONFIGS["alone"]
        assert group[LONGER].overrides == [f"train.seed={seed}"]


def test_program_writes_its_measurements(tmp_path, monkeypatch, capsys):
    runs, _ = train(tmp_path, monkeypatch, [0, 1])
    shift = {run.output: 20.0 * seed for seed, group in runs.items() for run in group.values()}
    monkeypatch.setattr(heterogeneous, "begin", lambda: print)
    monkeypatch.setattr(Comparison, "train", lambda *_: runs)
    monkeypatch.setattr(heterogeneous, "teacher_line", lambda: result_lines()[0])
    monkeypatch.setattr(
        heterogeneous, "_finish", lambda run: outcomes(shift[run.output])[run.output.name]
    )
    arguments = ["heterogeneous.py", "--seeds", "2", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    heterogeneous.main()
    lines = read_results(tmp_path / "results.jsonl")
    assert len(lines) == 9 and {(line["run"], line["seed"]) for line in lines} == {
        ("teacher", None),
        *((name, seed) for name in APS for seed in (0, 1)),
    }
    assert all((ROOT / line["config"]).is_file() for line in lines[1:])
    assert table(lines) in capsys.readouterr().out
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["distilled"] == 14.0 and found["teacher"] == 70.0 and found["seed"] == 0
    assert [seed["distilled"] for seed in found["seeds"]] == [14.0, 34.0]
    assert found["seconds"]["alone"] == 10.0 and found["val"]["alone"] == 5.0
    one = json.loads((tmp_path / "seed1" / "results.json").read_text())
    assert one == found["seeds"][1]


def test_weights_of_the_student_have_the_names_of_detectron2(tmp_path, monkeypatch):
    """The file has nothing but the trained weights, under the names of the stock model."""
    run = Run("distilled", CONFIGS["distilled"], tmp_path, 8)
    torch.manual_seed(1)
    stock = Trainer.build_detector(load_config(str(ROOT / run.config))).stock
    torch.save({"model": stock.state_dict(), "trainer": {"iteration": 7}}, run.checkpoint)
    monkeypatch.setattr(heterogeneous, "outcome", lambda run, detector: detector)
    heterogeneous._finish(run)
    saved = read_checkpoint(str(tmp_path / "weights.pth"))
    assert saved.keys() == {"model"}
    assert saved["model"].keys() == stock.state_dict().keys()
    assert all(
        torch.equal(saved["model"][name], value) for name, value in stock.state_dict().items()
    )


@pytest.mark.slow
def test_program_ends_with_a_sentence_and_exit_code_2(tmp_path):
    command = [sys.executable, "tools/quickstart/heterogeneous.py", "--table", str(tmp_path / "no")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: There is no file") and done.stderr.count("\n") == 1
