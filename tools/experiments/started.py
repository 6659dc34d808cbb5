"""What is noted in the folder of a run when it is started.

The project may be changed while a run is trained, so its end is too late to ask for the commit.
"""

import json
from typing import Any

import torch

from benchmarking.environment import environment
from runs import ROOT, Run

FILE = "started.json"
THEN = " then "  # between the commits of a run that was resumed after the project had changed


def note_start(run: Run) -> None:
    """Note what decides the run that is about to be started or resumed, in its folder."""
    found, file = facts(run), run.output / FILE
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))["commit"]
        same = before.split(THEN)[-1] == found["commit"]
        found["commit"] = before if same else before + THEN + found["commit"]
    file.write_text(json.dumps(found), encoding="utf-8")


def noted(run: Run) -> dict[str, Any]:
    """What was noted, or else, for a run of an earlier program, what holds now."""
    file = run.output / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else facts(run)


def facts(run: Run) -> dict[str, Any]:
    """``settings`` (the fingerprint of the config), ``teacher`` (that of its weights, where another
    run made them), and the versions, the commit and the machine.
    """
    weights = run.weights()
    return {
        "settings": recipe(run.config, run.overrides),
        **({"teacher": weights} if weights else {}),
        **environment(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
    }


def recipe(config: str, overrides: list[str]) -> str:
    """A fingerprint of what decides the results of all seeds and lengths of a training."""
    seedless = [x for x in overrides if not x.startswith("train.seed=")]
    return Run("", config, ROOT, 1, seedless).recipe()
