"""The model card of a checkpoint: what is in it is built again, and nothing else is called."""

import copy
import json

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import transforms as T
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BasicBlock
from omegaconf import OmegaConf
from torch import nn

from kddetr.checkpoint import (
    Checkpointer,
    CheckpointError,
    described,
    detector_in,
    input_in,
    read_card,
    read_checkpoint,
)
from kddetr.data import ShortestEdge
from kddetr.detectors import RegionDetector, TinyConvNet, dino
from kddetr.errors import UsageError
from tests.stock_models import tiny_faster_rcnn

CARD = {
    "format": 1,
    "model": {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2},
    "input": {"format": "RGB", "augmentations": []},
    "classes": ["cat", "Ümlaut"],
    "trained": {"versions": {"torch": "2"}},
    "teacher": None,
    "results": {},
}


def saved(folder, card=CARD, model=None, **extra):
    """The path of a checkpoint with a card."""
    Checkpointer(model or nn.Linear(3, 2), str(folder), card=card).save_weights("model", **extra)
    return str(folder / "model.pth")


def test_a_card_is_in_the_file_with_iterations_and_results(tmp_path):
    results = {"bbox/AP": 41.5, "bbox/APs": float("nan")}
    file = saved(tmp_path, iteration=8, results=results)
    card = read_card(file)
    assert card == CARD | {
        "trained": CARD["trained"] | {"iterations": 9},
        "results": {"bbox/AP": 41.5},
    }
    assert CARD["results"] == {} and read_checkpoint(file)["classes"] == CARD["classes"]
    loaded = Checkpointer(nn.Linear(3, 2)).load(file)
    assert loaded == {"iteration": 8, "classes": tuple(CARD["classes"])}
    torch.save({"model": nn.Linear(3, 2).state_dict()}, tmp_path / "old.pth")
    assert read_card(str(tmp_path / "old.pth")) is None


def test_the_card_of_a_detectron2_model_is_beside_its_file(tmp_path):
    model = RegionDetector(tiny_faster_rcnn())
    file = saved(tmp_path / "with", model=model, results={"bbox/AP": 1.0})
    plain = saved(tmp_path / "without", card=None, model=model)
    assert (tmp_path / "with/model.pth").read_bytes() == (
        (tmp_path / "without/model.pth").read_bytes()
    )
    assert read_card(file) == CARD | {"results": {"bbox/AP": 1.0}} and read_card(plain) is None
    Checkpointer(model, str(tmp_path / "with"), card=CARD).add_results("model", {}, iteration=0)
    assert read_card(file)["results"] == {}


@pytest.mark.parametrize(
    "damage",
    [
        *({"format": 2}, {"classes": [1]}, {"model": 3}, {"model": {"x": 1}}, {"results": []}),
        *({"results": {"bbox/AP": "high"}}, {"input": {}}, {"input": {"augmentations": [5]}}),
        *({"input": {"augmentations": [], key: "x"}} for key in ("pixel_mean", "min_size")),
    ],
    ids=str,
)
def test_a_damaged_or_later_card_is_refused(tmp_path, damage):
    torch.save({"model": nn.Linear(3, 2).state_dict(), "card": CARD | damage}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"The card of .*(damaged in|has the format 2)"):
        read_card(str(tmp_path / "x.pth"))


def test_a_described_detector_is_built_again():
    tree = OmegaConf.create({"classes": 2})
    tree.model = L(dino)(
        backbone=L(TinyConvNet)(channels=[4, 4], blocks=[0, 0], out_features=["stage1"]),
        num_classes="${classes}",
        in_features=("stage1",),
        extra_levels=1,
        num_queries=5,
        embed_dim=16,
        num_heads=2,
        feedforward_dim=8,
        encoder_layers=1,
        decoder_layers=1,
        groups=4,
    )
    card = CARD | {"model": described(tree.model)}
    assert json.loads(json.dumps(card)) == card
    built = instantiate(detector_in(card, "x.pth"))
    assert built.num_classes == 2
    built.load_state_dict(instantiate(tree.model).state_dict())


def test_classes_shapes_and_augmentations_are_described():
    stage = L(ResNet.make_stage)(
        block_class=BasicBlock, num_blocks=1, stride=1, in_channels=4, out_channels=4
    )
    node = described({"stage": stage, "shape": ShapeSpec(channels=3, stride=4)})
    checked = detector_in(CARD | {"model": node}, "x.pth")
    assert isinstance(instantiate(checked["stage"])[0], BasicBlock)
    assert instantiate(checked["shape"]) == ShapeSpec(channels=3, stride=4)
    steps = [L(ShortestEdge)(short_edge_length=32, max_size=64), L(T.RandomFlip)()]
    read = input_in(CARD | {"input": {"augmentations": described(steps)}}, "x.pth")
    assert [type(x) for x in instantiate(read["augmentations"])] == [ShortestEdge, T.RandomFlip]


def test_what_has_no_name_is_not_described():
    for value in (lambda: 0, torch.zeros(1), {"_target_": lambda: 0}):
        with pytest.raises(UsageError, match="cannot be described"):
            described(value)
        assert described(value, otherwise=lambda _: "?") in ("?", {"_target_": "?"})


FORBIDDEN = [
    {"_target_": "os.system", "command": "touch x"},
    {"_target_": "builtins.eval"},
    {"_target_": "torch.load"},
    {"_target_": "torch.nnx.Linear"},
    {"_target_": "torch.nn.modules.module.warnings.warn"},  # what a module has imported
    {"_target_": "torch.nn.modules"},
    {"_target_": "detectron2.modeling.mmdet_wrapper.MMDetBackbone"},
    {"_target_": {"_target_": "torch.nn.Linear"}},
    {"_target_": "detectron2.utils.registry.locate", "name": "os.system"},
    # Each of these reads an attribute, calls what it is given, or writes or fetches a file.
    {"_target_": "torch.nn.cpp.OrderedDictWrapper", "cpp_module": 0, "attr": "__dict__"},
    {"_target_": "torch.nn.cpp.OrderedDictWrapper.__getitem__", "self": {}, "key": "os"},
    {"_target_": "torch.nn.utils.stateless.functional_call", "module": 0, "args": "touch x"},
    {"_target_": "torch.nn.Module.apply", "self": 0, "fn": 0},
    {"_target_": "torch.nn.modules.module.register_module_forward_hook", "hook": 0},
    {"_target_": "detectron2.modeling.ResNet.freeze", "self": 0},
    {"_target_": "kddetr.detectors.hf.saving.save_folder", "folder": "x"},
    {"_target_": "kddetr.detectors.HuggingFaceDetector.save", "self": 0, "folder": "x"},
    {"_target_": "kddetr.detectors.huggingface_arguments", "source": "hf://a/b"},
    # Interpolations of omegaconf: the second makes a call.
    {"_target_": "torch.nn.Linear", "in_features": "${oc.env:HOME}"},
    {
        "_target_": "torch.nn.Linear",
        "in_features": "${oc.create:${oc.decode:'{_tar${oc.decode:get_}: os.getcwd}'}}",
    },
    {"_target_": "kddetr.data.load_coco_format"},
    {
        "_target_": "kddetr.detectors.model_zoo_detector",
        "name": "common/models/retinanet.py",
        "overrides": ["model.backbone._target_", "os.system"],
    },
]


@pytest.mark.parametrize("call", FORBIDDEN, ids=lambda call: str(call["_target_"])[:40])
def test_a_card_calls_nothing_else(call):
    for model in (call, {"_target_": "torch.nn.Sequential", "args": [[{"inner": call}]]}):
        with pytest.raises(CheckpointError, match="may only call what detectors are made of"):
            detector_in(CARD | {"model": model}, "x.pth")
    with pytest.raises(CheckpointError, match="may only call"):
        input_in(CARD | {"input": {"augmentations": [call]}}, "x.pth")


def test_layers_and_their_functions_may_be_named():
    named = [nn.LayerNorm, nn.functional.relu, ResNet.make_default_stages, TinyConvNet]
    assert [
        instantiate(x) for x in detector_in(CARD | {"model": {"x": described(named)}}, "x")["x"]
    ] == named


def test_a_card_of_many_containers_is_refused():
    tree = "deep"
    for _ in range(5000):
        tree = [tree]
    with pytest.raises(CheckpointError, match="more than 50 containers in one another"):
        detector_in(CARD | {"model": {"x": tree}}, "x.pth")


def test_gaps_and_missing_names_are_said():
    for read, key in ((detector_in, "model"), (input_in, "input")):
        with pytest.raises(CheckpointError, match="does not describe"):
            read(CARD | {key: None}, "x.pth")
    missing = copy.deepcopy(CARD["model"]) | {"_target_": "kddetr.detectors.yolo"}
    with pytest.raises(CheckpointError, match="which this installation does not have"):
        detector_in(CARD | {"model": missing}, "x.pth")
