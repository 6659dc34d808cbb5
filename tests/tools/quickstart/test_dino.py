"""The program dino.py: its table."""

from dino import STUDENTS, table


def test_gains_are_measured_within_a_seed():
    def run(test):
        return {"test": test, "iterations": 10, "seconds": 2.0, "parameters": 1_500_000}

    aps = {"dino_alone": 10.0, "dino_distilled": 14.0, "dab_alone": 1.0, "dab_distilled": 2.0}
    aps |= {"anchors_alone": 5.0, "anchors_distilled": 8.0}
    assert aps.keys() == STUDENTS.keys()
    seeds = [
        {"seed": seed} | {name: run(ap + shift) for name, ap in aps.items()}
        for seed, shift in ((0, 0.0), (1, 20.0))
    ]
    text = table({"teacher": run(70.0), "seeds": seeds})
    rows = {line.split("|")[1].strip(): line for line in text.splitlines()[2:]}
    assert rows["DINO from DINO"].count("+4.0 ± 0.0") == 1
    assert rows["the same, from DINO"].count("+1.0 ± 0.0") == 1
    assert "20.0 ± 14.1" in rows["DINO alone"] and "+" not in rows["DINO alone"]
    assert "70.0" in rows["DINO, the teacher"] and "1.50 M" in rows["DINO, the teacher"]
