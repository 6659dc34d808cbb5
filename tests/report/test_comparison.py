"""Runs are grouped by their settings and paired by their seeds; what differs is said."""

import pytest

import report
from kddetr.errors import UsageError
from kddetr.report import compare_runs, comparison_text, read_run, train_pairs
from tests.report.runs import PAIR, STUDENT, make_run, write_run

PAIRS = [(20.0, 23.0), (22.0, 25.5), (21.0, 23.5)]  # AP alone and distilled, by seed


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds of a student alone, and of the same student distilled."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    for seed, (alone, distilled) in enumerate(PAIRS):
        found["alone", seed] = make_run(root / f"a{seed}", alone, STUDENT, seed=seed)
        found["distilled", seed] = make_run(root / f"d{seed}", distilled, seed=seed)
    for run in found.values():
        write_run(run)
    return found


def test_pairs_have_the_same_seed_whatever_the_order(runs):
    order = sorted(runs, key=lambda key: (-key[1], key[0] == "alone"))
    found = compare_runs([runs[key] for key in order])
    assert [group.name for group in found.groups] == ["alone", "distilled"]
    (one,) = found.differences
    assert one.values == {0: 3.0, 1: 3.5, 2: 2.5}
    assert "distilled is better than alone by 3.0 AP [1.8, 4.2] over 3 pairs" in one.claim


def test_of_a_metric_to_minimise_less_is_better(tmp_path):
    runs = []
    for seed, (alone, distilled) in enumerate(PAIRS):
        changes = {"seed": seed, "best_mode": "min", "best_metric": "bbox/AP"}
        runs.append(make_run(tmp_path / f"a{seed}", distilled, STUDENT, **changes))
        runs.append(make_run(tmp_path / f"d{seed}", alone, **changes))
    (one,) = compare_runs(runs).differences
    assert "distilled is better than alone by 3.0 AP [1.8, 4.2]" in one.claim and one.mean == -3
    assert one.kind == "good"
    for run in runs:  # judged by another metric than that which is minimised
        run.cfg.train.best_metric = "loss"
    assert "worse" in compare_runs(runs).differences[0].claim


def test_a_pair_without_a_number_is_no_missing_seed(runs, tmp_path):
    broken = make_run(tmp_path / "broken", float("nan"), seed=0)
    (one,) = compare_runs([runs["alone", 0], broken]).differences
    assert "no pair of runs that both have a number for AP" in one.claim
    assert "seed in common" not in one.claim


def test_a_distillation_of_weight_0_is_the_student_alone(runs, tmp_path):
    zero = make_run(tmp_path / "zero", 20.5, seed=3, model__weight=0)
    found = compare_runs([runs["alone", 0], zero, runs["distilled", 0]])
    assert [(group.name, len(group.runs)) for group in found.groups] == [
        ("alone", 2),
        ("distilled", 1),
    ]


def test_what_does_not_decide_a_result_makes_no_group(runs, tmp_path):
    changes = {"log_period": 1, "report": False, "device": "cpu", "eval_period": 3}
    other = make_run(tmp_path, 24.0, seed=7, dataloader__test__num_workers=1, **changes)
    assert len(compare_runs([runs["distilled", 0], other]).groups) == 1


def test_groups_are_named_by_what_differs(runs, tmp_path):
    strong = make_run(tmp_path / "strong", 24.0, model__weight=2)
    long = make_run(tmp_path / "long", 21.0, STUDENT, max_iter=40)
    found = compare_runs([runs["alone", 0], runs["distilled", 0], strong, long])
    assert [group.name for group in found.groups] == [
        *("alone, max_iter=20", "alone, max_iter=40"),
        *("distilled", "distilled, weight=2"),
    ]
    notes = " ".join(found.notes)
    assert "different numbers of iterations" in notes and "is not finished" in notes
    # A distilled student is compared with the student that trained as long.
    assert [one.baseline.name for one in found.differences[1:]] == ["alone, max_iter=20"] * 2


def test_two_runs_of_one_seed_or_of_other_data_are_refused(runs, tmp_path):
    again = make_run(tmp_path / "again", 23.0, seed=0)
    with pytest.raises(UsageError, match="the same settings and the same seed, 0"):
        compare_runs([runs["distilled", 0], again])
    for which in ("train", "test"):
        changes = {f"dataloader__{which}__dataset__names": "quickstart_other"}
        with pytest.raises(UsageError, match="have different data"):
            compare_runs([runs["distilled", 0], make_run(tmp_path, 23.0, **changes)])


def test_one_pair_and_no_pair_claim_nothing(runs):
    one = compare_runs([runs["alone", 0], runs["distilled", 0]])
    assert "no interval" in one.differences[0].claim and one.differences[0].bounds is None
    none = compare_runs([runs["alone", 0], runs["distilled", 1]])
    assert "no seed in common" in none.differences[0].claim
    assert "no partner" in " ".join(none.notes)
    only = compare_runs([runs["alone", 0], runs["alone", 1]])
    assert "nothing but their seeds" in comparison_text(only)


def test_the_program_prints_a_table_and_writes_a_page(runs, tmp_path, capsys):
    file = tmp_path / "compare.html"
    report.main([*(str(run.folder) for run in runs.values()), "--output", str(file)])
    out, page = capsys.readouterr().out, file.read_text()
    assert "distilled  3     24.0 ± 1.3  +3.0 [+1.8, +4.2]" in out
    for words in ("21.0 ± 1.0", "distilled is better than alone by 3.0 AP [1.8, 4.2]"):
        assert words in out and words in page
    assert page.count("<svg") == 2 and "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")  # the name of SVG's elements


def test_finished_runs_are_not_trained_again(tmp_path):
    trained, said = [], []

    def train(way: str, seed: int) -> None:
        trained.append((way, seed))
        if trained == [("alone", 0), ("distilled", 0)]:
            raise KeyboardInterrupt
        ap, config = (20.0, STUDENT) if way == "alone" else (23.0, PAIR)
        write_run(make_run(tmp_path / f"{way}_{seed}", ap, config, seed=seed))

    def pairs():
        return train_pairs(
            ["alone", "distilled"],
            [0],
            folder_of=lambda way, seed: tmp_path / f"{way}_{seed}",
            train=train,
            say=said.append,
        )

    with pytest.raises(KeyboardInterrupt):
        pairs()
    assert pairs().differences[0].values == {0: 3.0}
    assert trained == [("alone", 0), ("distilled", 0), ("distilled", 0)]
    assert sum("found finished" in line for line in said) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "There is no folder"),
        ("", "no line that can be read"),
        ("{not json\n[1]\n", "no line that can be read"),
        ('{"iteration": 1}', "has no evaluation"),
    ],
)
def test_a_folder_that_is_no_run_is_one_sentence(text, words, tmp_path, runs, capsys):
    folder = tmp_path / "odd"
    if text is not None:
        write_run(make_run(folder, 20.0, STUDENT))
        (folder / "metrics.json").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        report.main([str(runs["alone", 0].folder), str(folder)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and words in error and error.count("\n") == 1


def test_a_folder_without_a_config_is_no_run(tmp_path):
    with pytest.raises(UsageError, match=r"has no config\.yaml"):
        read_run(tmp_path)
