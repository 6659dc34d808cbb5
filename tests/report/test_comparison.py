"""Runs are grouped by their settings and paired by their seeds; what differs is said."""

import json

import pytest

import report
from kddetr.errors import UsageError
from kddetr.report import compare_runs, comparison_text, read_run, train_pairs
from kddetr.report.compare_page import compare_page
from tests.report.runs import STUDENT, write_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three seeds of a student alone, and of the same student distilled."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    for seed, (alone, distilled) in enumerate([(20.0, 23.0), (22.0, 25.5), (21.0, 23.5)]):
        override = f"train.seed={seed}"
        found["alone", seed] = write_run(root / f"a{seed}", alone, override, config=STUDENT)
        found["distilled", seed] = write_run(root / f"d{seed}", distilled, override)
    return found


def compared(folders):
    return compare_runs([read_run(folder) for folder in folders])


def test_pairs_have_the_same_seed_whatever_the_order(folders):
    order = sorted(folders, key=lambda key: (-key[1], key[0] == "alone"))
    found = compared(folders[key] for key in order)
    assert [group.name for group in found.groups] == ["alone", "distilled"]
    (one,) = found.differences
    assert one.values == {0: 3.0, 1: 3.5, 2: 2.5}
    assert "distilled is better than alone by 3.0 AP [1.8, 4.2] over 3 pairs" in one.claim
    text, page = comparison_text(found), compare_page(found)
    for words in ("21.0 ± 1.0", "+3.0 [+1.8, +4.2]", one.claim):
        assert words in text and words in page


def test_a_distillation_of_weight_0_is_the_student_alone(folders, tmp_path):
    zero = write_run(tmp_path / "zero", 20.5, "model.weight=0", "train.seed=3")
    found = compared([folders["alone", 0], zero, folders["distilled", 0]])
    assert [len(group.runs) for group in found.groups] == [2, 1]
    assert found.groups[0].name == "alone"


def test_what_does_not_decide_a_result_makes_no_group(folders, tmp_path):
    other = write_run(
        tmp_path / "other",
        24.0,
        *("train.seed=7", "train.log_period=1", "train.report=false", "train.device=cpu"),
        "dataloader.test.num_workers=1",
    )
    assert len(compared([folders["distilled", 0], other]).groups) == 1


def test_groups_are_named_by_what_differs(folders, tmp_path):
    strong = write_run(tmp_path / "strong", 24.0, "model.weight=2")
    long = write_run(tmp_path / "long", 21.0, "train.max_iter=40", config=STUDENT)
    found = compared([folders["alone", 0], folders["distilled", 0], strong, long])
    names = [group.name for group in found.groups]
    assert names[:2] == ["alone, max_iter=20", "alone, max_iter=40"]
    assert names[3] == "distilled, weight=2.0" or names[3] == "distilled, weight=2"
    notes = " ".join(found.notes)
    assert "different numbers of iterations" in notes and "is not finished" in notes
    # The distilled student is compared with the student that trained as long.
    assert [one.baseline.name for one in found.differences[1:]] == [names[0]] * 2


def test_two_runs_of_one_seed_or_of_other_data_are_refused(folders, tmp_path):
    again = write_run(tmp_path / "again", 23.0, "train.seed=0")
    with pytest.raises(UsageError, match="the same settings and the same seed, 0"):
        compared([folders["distilled", 0], again])
    names = "dataloader.{}.dataset.names=quickstart_test"
    for which in ("train", "test"):
        other = write_run(tmp_path / which, 23.0, names.format(which))
        with pytest.raises(UsageError, match="have different data"):
            compared([folders["distilled", 0], other])


def test_one_pair_and_no_pair_claim_nothing(folders):
    one = compared([folders["alone", 0], folders["distilled", 0]])
    assert "no interval" in one.differences[0].claim and one.differences[0].bounds is None
    none = compared([folders["alone", 0], folders["distilled", 1]])
    assert "no seed in common" in none.differences[0].claim
    assert "no partner" in " ".join(none.notes)
    only = compared([folders["alone", 0], folders["alone", 1]])
    assert "nothing but their seeds" in comparison_text(only)


def test_the_program_prints_a_table_and_writes_a_page(folders, tmp_path, capsys):
    file = tmp_path / "compare.html"
    report.main([*map(str, folders.values()), "--output", str(file)])
    out = capsys.readouterr().out
    assert "distilled  3     24.0 ± 1.3  +3.0 [+1.8, +4.2]" in out
    page = file.read_text()
    assert (
        page.count("<svg") == 2
        and "<script" not in page
        and "http" not in page.replace("http://www.w3.org", "")
    )


def test_finished_runs_are_not_trained_again(tmp_path):
    trained, said = [], []

    def train(way: str, seed: int) -> None:
        trained.append((way, seed))
        if (way, seed) == ("distilled", 1) and trained.count((way, seed)) == 1:
            raise KeyboardInterrupt
        config = {"config": STUDENT} if way == "alone" else {}
        write_run(
            tmp_path / f"{way}_{seed}", 20.0 + 3 * (way != "alone"), f"train.seed={seed}", **config
        )

    def pairs():
        return train_pairs(
            ["alone", "distilled"],
            range(2),
            folder_of=lambda way, seed: tmp_path / f"{way}_{seed}",
            train=train,
            say=said.append,
        )

    with pytest.raises(KeyboardInterrupt):
        pairs()
    found = pairs()
    assert trained.count(("alone", 0)) == 1 and trained.count(("distilled", 1)) == 2
    assert found.differences[0].values == {0: 3.0, 1: 3.0}
    assert sum("found finished" in line for line in said) == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder, "There is no folder"),
        (lambda folder: folder.mkdir() or folder, "has no config.yaml"),
        (lambda folder: broken(folder, "{not json\n[1]\n"), "no line that can be read"),
        (lambda folder: broken(folder, json.dumps({"iteration": 1})), "has no evaluation"),
    ],
)
def test_a_folder_that_is_no_run_is_one_sentence(make, words, tmp_path, folders, capsys):
    folder = make(tmp_path / "odd")
    with pytest.raises(SystemExit) as stopped:
        report.main([str(folders["alone", 0]), str(folder)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and words in error and error.count("\n") == 1


def broken(folder, text: str):
    """A run whose metrics.json is this text."""
    write_run(folder, 20.0, config=STUDENT)
    (folder / "metrics.json").write_text(text)
    return folder
