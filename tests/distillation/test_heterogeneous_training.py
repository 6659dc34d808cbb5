"""Training a region detector with the Trainer, from the quickstart configs made tiny."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from engine_toy import write_dataset

from kddetr.detectors import DenseQueryDetector
from kddetr.engine import build, load_config
from tests.distillation.runs import final_checkpoint, interrupt, trained
from tests.stock_models import tiny_fcos, tiny_retinanet
from tests.tiny import assert_same_tensors
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


def test_weight_0_is_the_run_of_the_student_alone(dataset, tmp_path):
    """Including data, seeds, batch norms, optimizer and the names in the file."""

    def weights(cfg):
        trained(cfg)
        return final_checkpoint(cfg)["model"]

    alone = weights(config(ALONE, tmp_path / "a", dataset))
    zero = weights(config(DISTILLED, tmp_path / "b", dataset, "model.weight=0.0"))
    distilled = weights(config(DISTILLED, tmp_path / "c", dataset))
    assert_same_tensors(zero, alone)
    names = list(build(load_config(str(ROOT / ALONE)).model).stock.state_dict())
    assert names == list(alone) == list(distilled)
    different = [n for n in names if not torch.equal(alone[n], distilled[n])]
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

    trained(configured("whole"))
    interrupt(configured("interrupted"), at=2)
    trained(configured("interrupted"), resume=True)
    whole, resumed = (final_checkpoint(configured(name)) for name in ("whole", "interrupted"))
    assert whole["iteration"] == resumed["iteration"]
    assert_same_tensors(resumed["wrapper"], whole["wrapper"])
    assert list(whole["wrapper"]) == ([] if stock is None else ["student.loss_normalizer"])
    # Detectron2 compiles RetinaNet's loss during its first calls, which changes the last bits.
    if stock is not tiny_retinanet:
        assert_same_tensors(resumed["model"], whole["model"])


def test_resumed_is_uninterrupted_with_encodings_of_images_met_in_other_batches(dataset, tmp_path):
    """The cache is not saved: a resumed run encodes the images anew, in the batches it meets."""

    def configured(folder: str):
        cfg = config(DISTILLED, tmp_path / folder, dataset)
        cfg.model.teacher.dtype = "float32"  # float16 would round small differences away
        # Of 6 images: the whole run meets the last one when all others are known, and the resumed
        # run meets it among images that are new to it.
        cfg.dataloader.train.total_batch_size = 5
        return cfg

    interrupt(configured("interrupted"), at=1)
    caches = {
        name: trained(configured(name), resume=name == "interrupted").model.teacher._images
        for name in ("whole", "interrupted")
    }
    assert list(caches["whole"]) != list(caches["interrupted"])  # the order in which they were met
    for key, image in caches["interrupted"].items():
        assert torch.equal(image.tokens, caches["whole"][key].tokens), key
    whole, resumed = (final_checkpoint(configured(name)) for name in ("whole", "interrupted"))
    assert_same_tensors(resumed["model"], whole["model"])
