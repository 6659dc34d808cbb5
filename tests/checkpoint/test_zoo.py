"""Files of Detectron2's model zoo by the names of its configs; nothing is fetched here."""

import urllib.error

import pytest
import torch
from detectron2 import model_zoo
from detectron2.utils.file_io import PathManager
from omegaconf import OmegaConf

from kddetr.checkpoint import CheckpointError, local_file, read_checkpoint, zoo_address
from kddetr.engine import apply_overrides, train_defaults
from kddetr.engine.checks import check_config

R50 = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
LAZY = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"


def test_what_a_config_starts_from():
    assert zoo_address(f"model_zoo://{FASTER}") == R50
    assert zoo_address(f"model_zoo://{LAZY}") == R50
    other = "Misc/mask_rcnn_R_50_FPN_3x_gn.yaml"
    assert zoo_address(f"model_zoo://{other}") == "catalog://ImageNetPretrained/FAIR/R-50-GN"


def test_what_was_trained_with_it():
    for name in (FASTER, LAZY):
        address = zoo_address(f"model_zoo://trained/{name}")
        assert address == model_zoo.get_checkpoint_url(name)
        assert address.endswith(".pkl") and name.rpartition(".")[0] in address


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("COCO-Detection/faster_rcnn_R50_FPN_1x.yaml", f"did you mean {FASTER}"),
        ("trained/COCO-Detection/faster_rcnn_R50_FPN_1x.yaml", f"did you mean {FASTER}"),
        ("trained/Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic.yaml", "is not published"),
        ("Misc/scratch_mask_rcnn_R_50_FPN_3x_gn.yaml", "starts from no file"),
        ("common/models/mask_rcnn_fpn.py", "starts from no file"),
        ("nothing/like/it", "its [0-9]+ names are like"),
        ("../../../outside.py", "has no config '../../../outside.py'"),
    ],
)
def test_unknown_names(name, words):
    with pytest.raises(CheckpointError, match=words) as error:
        local_file(f"model_zoo://{name}")
    message = str(error.value)
    assert f"model_zoo://{name}" in message and "\n" not in message and message.count(". ") == 0


def test_a_file_is_fetched_and_read(tmp_path, monkeypatch):
    file = tmp_path / "R-50.pth"
    torch.save({"conv1_w": torch.ones(2)}, file)
    asked = []
    fetch = type(PathManager).get_local_path

    def get_local_path(manager, path, *args, **options):
        if not path.startswith("detectron2://"):
            return fetch(manager, path, *args, **options)
        asked.append(path)
        return str(file)

    monkeypatch.setattr(type(PathManager), "get_local_path", get_local_path)
    path = f"model_zoo://{FASTER}"
    assert local_file(path) == str(file) and asked == [R50]
    assert torch.equal(read_checkpoint(path)["conv1_w"], torch.ones(2))


def test_what_cannot_be_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))  # not what this machine may have already

    def unreachable(*args, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("iopath.common.file_io.download", unreachable)
    for path in (f"model_zoo://trained/{FASTER}", f"model_zoo://{FASTER}"):
        with pytest.raises(CheckpointError, match=r"cannot be fetched: .*no network"):
            local_file(path)
    # nor is it only found out once the model is built
    cfg = OmegaConf.create({"train": train_defaults(), "model": {}})
    cfg.train.device, cfg.train.init_checkpoint = "cpu", path
    with pytest.raises(CheckpointError, match=r"train\.init_checkpoint: .*no network"):
        check_config(cfg)
    cfg.train.init_checkpoint = "model_zoo://nothing"
    with pytest.raises(CheckpointError, match=r"train\.init_checkpoint: .*no config 'nothing'"):
        check_config(cfg)


@pytest.mark.parametrize("path", ["catalog://ImageNetPretrained/MSRA/R-5", "catalog://nothing"])
def test_catalogues_own_errors(path):
    with pytest.raises(CheckpointError, match=f"The checkpoint {path} cannot be fetched"):
        local_file(path)


def test_names_survive_the_command_line():
    cfg = OmegaConf.create({"train": {"init_checkpoint": ""}})
    for name in (FASTER, f"trained/{LAZY}"):
        apply_overrides(cfg, [f"train.init_checkpoint=model_zoo://{name}"])
        assert cfg.train.init_checkpoint == f"model_zoo://{name}"
