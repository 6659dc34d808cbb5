"""A region detector through the Trainer, from the real configs made tiny."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from engine_toy import write_dataset

from kddetr.checkpoint import read_checkpoint
from kddetr.detectors import DenseQueryDetector
from kddetr.engine import Trainer, build, load_config
from tests.stock_models import tiny_fcos, tiny_retinanet
from tests.tiny_config import tiny_config

ROOT = Path(__file__).parents[2]
ALONE = "configs/quickstart/faster_rcnn_alone.py"
DISTILLED = "configs/quickstart/faster_rcnn_distilled.py"
KEEP = {"period": 1, "max_to_keep": 1}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data"), "heterogeneous_tiny")


def config(path: str, folder: Path, dataset: str, *changes: str):
    folder.mkdir(exist_ok=True)
    cfg = load_config(str(ROOT / path), list(changes))
    return tiny_config(cfg, folder, dataset, max_iter=4, checkpointer=KEEP)


def final(cfg, resume: bool = False) -> dict:
    """The whole last checkpoint of a run."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return read_checkpoint(f"{cfg.train.output_dir}/model_final.pth")


def assert_equal(a: dict, b: dict) -> None:
    assert list(a) == list(b)
    assert [n for n in a if not torch.equal(a[n], b[n])] == []


def test_weight_0_is_the_run_of_the_student_alone(dataset, tmp_path):
    """Data, seeds, batch norms, optimiser and file included."""
    alone = final(config(ALONE, tmp_path / "a", dataset))
    nothing = final(config(DISTILLED, tmp_path / "b", dataset, "model.weight=0.0"))
    distilled = final(config(DISTILLED, tmp_path / "c", dataset))
    assert_equal(alone["model"], nothing["model"])
    names = list(build(load_config(str(ROOT / ALONE)).model).stock.state_dict())
    assert names == list(alone["model"]) == list(distilled["model"])
    different = [n for n in names if not torch.equal(alone["model"][n], distilled["model"][n])]
    assert any("backbone" in n for n in different) and any("box_head" in n for n in different)


@pytest.mark.parametrize("stock", [None, tiny_retinanet, tiny_fcos])
def test_resumed_is_uninterrupted(stock, dataset, tmp_path):
    """Also where the stock model keeps a running mean that it does not save."""

    def configured(folder: str):
        cfg = config(DISTILLED, tmp_path / folder, dataset)
        if stock is not None:
            cfg.model.student = L(DenseQueryDetector)(
                stock=L(stock)(seed=1), num_queries=5, input_format="BGR"
            )
        return cfg

    whole = final(configured("whole"))
    cfg = configured("killed")
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    step = trainer.run_step

    def dies():
        if trainer.iter == 2:
            raise KeyboardInterrupt
        step()

    trainer.run_step = dies
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    resumed = final(configured("killed"), resume=True)
    assert whole["iteration"] == resumed["iteration"]
    assert_equal(whole["wrapper"], resumed["wrapper"])
    assert list(whole["wrapper"]) == ([] if stock is None else ["student.loss_normalizer"])
    # Detectron2 compiles RetinaNet's loss at its first calls, and its last bits change with that.
    if stock is not tiny_retinanet:
        assert_equal(whole["model"], resumed["model"])
