"""The program step_memory.py: the memory that recomputed activations save, and the report."""

import subprocess
import sys

import pytest
import torch

from step_memory import exit_when_out_of_memory, main, random_batch, step
from tests.tiny import FAMILIES, tiny_detector


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_activations_are_not_kept(family):
    kept = {}
    for recompute in (False, True):
        model = tiny_detector(family, checkpoint_activations=recompute).train()
        optimizer = torch.optim.AdamW(model.parameters())
        torch.manual_seed(0)
        batch = random_batch(1, (64, 96), 2, model.num_classes)
        kept[recompute] = step(model, optimizer, batch, None)
    assert 0 < kept[True] < 0.8 * kept[False]


@pytest.mark.slow
def test_the_program_reports():
    command = [sys.executable, "tools/step_memory.py", "--config-file"]
    command += ["configs/quickstart/dino_alone.py", "--size", "64", "64", "--steps", "1"]
    done = subprocess.run(
        [*command, "model.checkpoint_activations=true", "train.device=cpu"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "kept for the backward pass" in done.stdout


def test_lack_of_gpu_memory_is_reported_in_a_sentence(capsys):
    message = "CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has a total capacity of 1 GiB"
    with pytest.raises(SystemExit) as stopped, exit_when_out_of_memory():
        raise torch.OutOfMemoryError(message)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: CUDA out of memory: use fewer or smaller images.\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "0"], "argument --images: 0 is less than 1"),
        (["--images", "2x"], "argument --images: 2x is not a whole number"),
        (["--size", "1", "64"], "argument --size: 1 is less than 32"),
        (["--config-file", "configs/common/sgd.py"], "The config has no model"),
    ],
)
def test_wrong_arguments_are_a_sentence(words, message, monkeypatch, capsys):
    command = ["step_memory.py", "--config-file", "configs/quickstart/alone.py", *words]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stopped, exit_when_out_of_memory():
        main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
