"""Files of Detectron2's model zoo: its ImageNet ResNets, of Caffe2's names and of torchvision's,
its detectors, and those of Detectron; each loads as Detectron2 itself loads it, or says why not.
"""

import logging
import pickle
import re

import numpy as np
import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names
from torch import nn

from kddetr.checkpoint import Checkpointer, CheckpointError, load_pretrained
from kddetr.detectors import RegionDetector, dab_detr, model_zoo_detector
from tests.tiny_config import SMALL_ZOO

FPN, C4 = "faster_rcnn_R_50_FPN_1x", "faster_rcnn_R_50_C4_1x"
CAFFE = ["MODEL.PIXEL_STD", [1.0, 1.0, 1.0]]
# As Detectron2's documentation has it for torchvision's weights.
TORCHVISION = [
    *("INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53]),
    *("MODEL.PIXEL_STD", [58.395, 57.12, 57.375], "MODEL.RESNETS.STRIDE_IN_1X1", False),
]
GROUP_NORM = [
    *("MODEL.RESNETS.NORM", "GN", "MODEL.RESNETS.STRIDE_IN_1X1", False),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 32, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", 32),
]


def tiny(seed: int, name: str = FPN, overrides=CAFFE, classes: int = 80) -> RegionDetector:
    """A Faster R-CNN R50 of the model zoo with random weights and statistics."""
    torch.manual_seed(seed)
    model = model_zoo_detector(
        f"COCO-Detection/{name}.yaml", num_classes=classes, overrides=[*SMALL_ZOO, *overrides]
    )
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and "pixel" not in name:
                nn.init.uniform_(value, 0.5, 1.5)
    return model


def transformer() -> nn.Module:
    """A DAB-DETR with the ResNet-50 of these detectors."""
    sizes = {
        "embed_dim": 16,
        "num_heads": 4,
        "feedforward_dim": 8,
        "encoder_layers": 1,
        "decoder_layers": 1,
    }
    return dab_detr(
        backbone=tiny(2, overrides=TORCHVISION).stock.backbone.bottom_up,
        in_feature="res5",
        num_classes=3,
        num_queries=4,
        **sizes,
    )


def arrays(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in state.items()}


def written(path, data: dict) -> str:
    path.write_bytes(pickle.dumps(data, protocol=2))
    return str(path)


def caffe2_name(name: str) -> str:
    """Caffe2's name of a weight in Detectron2's ResNet: Detectron2's own renaming, inverted."""
    name = re.sub(r"^stem\.conv1\.norm", "res_conv1.norm", name)
    name = re.sub(r"^stem\.conv1", "conv1", name).replace("shortcut", "branch1")
    for number, letter in zip("123", "abc"):
        name = re.sub(rf"(res\d\.\d+)\.conv{number}", rf"\1.branch2{letter}", name)
    for ours, theirs in (("weight", "gamma"), ("bias", "beta")):
        name = name.replace(f"norm.{ours}", f"bn_{theirs}")
    return name.replace("norm.running", "bn_running").replace("weight", "w").replace(".", "_")


def msra_arrays(overrides=CAFFE) -> dict[str, np.ndarray]:
    """Entries like those of detectron2://ImageNetPretrained/MSRA/R-50.pkl."""
    state = tiny(1, overrides=overrides).stock.backbone.bottom_up.state_dict()
    found = {caffe2_name(name): value for name, value in arrays(state).items()}
    assert {"conv1_w", "res_conv1_bn_beta", "res2_0_branch2a_w", "res5_2_branch2c_bn_gamma"} <= (
        found.keys()
    )
    assert sorted(convert_basic_c2_names(list(found))) == sorted(state)
    found |= {"fc1000_w": np.zeros((9, 64), np.float32), "fc1000_b": np.zeros(9, np.float32)}
    return found | {"conv1_b": np.zeros(4, np.float32), "conv1_w_momentum": np.ones(4, np.float32)}


def folded(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same as in Detectron's own files: batch norms are scale and shift alone."""
    short = {"_bn_gamma": "_bn_s", "_bn_beta": "_bn_b"}
    return {
        re.sub("_bn_gamma$|_bn_beta$", lambda match: short[match[0]], name): value
        for name, value in found.items()
        if "running" not in name
    }


@pytest.fixture
def msra(tmp_path) -> str:
    return written(tmp_path / "R-50.pkl", msra_arrays())


def assert_as_detectron2_loads_it(path: str, name: str = FPN, overrides=CAFFE) -> nn.Module:
    """Load a file here and with Detectron2, and compare; returns Detectron2's model."""
    ours, theirs = (tiny(2, name, overrides) for _ in range(2))
    Checkpointer(ours).load(path)
    DetectionCheckpointer(theirs.stock).load(path)
    expected = theirs.stock.state_dict()
    for key, value in ours.stock.state_dict().items():
        assert torch.equal(value, expected[key]), key
    return theirs.stock


@pytest.mark.parametrize("name", [FPN, C4])
def test_msra_weights_load_as_detectron2_loads_them(msra, name, caplog):
    stock = assert_as_detectron2_loads_it(msra, name)
    source = tiny(1).stock.backbone.bottom_up.state_dict()
    inside = "backbone.bottom_up." if name == FPN else "backbone."
    for key, value in source.items():
        place = "roi_heads." if name == C4 and key.startswith("res5") else inside
        assert torch.equal(stock.state_dict()[place + key], value), key
    assert "left over" not in caplog.text  # Detectron2 has no use for that bias either
    assert "running_mean" not in caplog.text


def test_folded_batch_norms(tmp_path, caplog):
    path = written(tmp_path / "R-50.pkl", folded(msra_arrays()))
    stock = assert_as_detectron2_loads_it(path)
    norm = stock.backbone.bottom_up.stem.conv1.norm
    assert not norm.running_mean.any() and (norm.running_var == 1).all()
    assert "running_mean" not in caplog.text
    batch_norms = tiny(2, overrides=[*CAFFE, "MODEL.RESNETS.NORM", "BN"])
    with pytest.raises(CheckpointError, match=r"without the statistics .* FrozenBN"):
        Checkpointer(batch_norms).load(path)
    in_the_pyramid = tiny(2, overrides=[*CAFFE, "MODEL.FPN.NORM", "BN"])
    Checkpointer(in_the_pyramid).load(path)


def test_group_norm_has_no_statistics(tmp_path, caplog):
    found = folded(msra_arrays([*CAFFE, *GROUP_NORM]))
    found = {re.sub("(res_)?(.*)_bn_([sb])$", r"\2_gn_\3", k): v for k, v in found.items()}
    assert {"conv1_gn_s", "res2_0_branch2a_gn_b"} <= found.keys()
    path = written(tmp_path / "R-50-GN.pkl", found)
    assert_as_detectron2_loads_it(path, overrides=[*CAFFE, *GROUP_NORM])
    assert "left over" not in caplog.text and "stride" not in caplog.text


def test_a_caffe2_resnext_comes_with_divided_pixels_or_without(tmp_path):
    """Detectron2's recipes with X-101-32x8d divide, and those with MSRA's do not."""
    groups = ["MODEL.RESNETS.NUM_GROUPS", 2]
    path = written(tmp_path / "X.pkl", msra_arrays([*CAFFE, *groups]))
    for std in (1.0, 57.0):
        assert_as_detectron2_loads_it(path, overrides=[*groups, "MODEL.PIXEL_STD", [std] * 3])
    with pytest.raises(CheckpointError, match="trained on BGR pixels and the model takes RGB"):
        Checkpointer(transformer()).load(path)


def detectron_arrays() -> dict[str, np.ndarray]:
    """A whole Faster R-CNN in Detectron's names, where the background is the first class."""
    stock = tiny(1).stock
    state = arrays(stock.state_dict())
    found = folded(msra_arrays())
    last = {2: "res2_2", 3: "res3_3", 4: "res4_5", 5: "res5_2"}
    rpn = "proposal_generator.rpn_head."
    names = {
        **{
            f"backbone.fpn_{a}{i}": f"fpn_{b}{blob}_sum{c}"
            for a, b, c in (("lateral", "inner_", "_lateral"), ("output", "", ""))
            for i, blob in last.items()
        },
        f"{rpn}conv": "conv_rpn_fpn2",
        f"{rpn}objectness_logits": "rpn_cls_logits_fpn2",
        f"{rpn}anchor_deltas": "rpn_bbox_pred_fpn2",
        "roi_heads.box_head.fc1": "fc6",
        "roi_heads.box_head.fc2": "fc7",
    }
    for ours, theirs in names.items():
        for long, short in (("weight", "w"), ("bias", "b")):
            found[f"{theirs}_{short}"] = state[f"{ours}.{long}"]
            found[f"{theirs}_{short}_momentum"] = state[f"{ours}.{long}"]
    for part, rows in (("cls_score", 1), ("bbox_pred", 4)):
        for long, short in (("weight", "w"), ("bias", "b")):
            value = state[f"roi_heads.box_predictor.{part}.{long}"]
            kept = value[:-1] if rows == 1 else value
            background = value[-1:] if rows == 1 else np.full_like(value[:4], 7)
            found[f"{part}_{short}"] = np.concatenate([background, kept])
    return found | {"__preserve__/fc1000_b": np.zeros(3, np.float32)}


def test_a_detector_of_detectron(tmp_path, caplog):
    path = written(tmp_path / "model_final.pkl", {"blobs": detectron_arrays(), "cfg": "MODEL: {}"})
    assert_as_detectron2_loads_it(path)
    loaded, source = load_pretrained(tiny(2), path).stock.state_dict(), tiny(1).stock.state_dict()
    assert all(torch.equal(loaded[key], source[key]) for key in source if "running" not in key)
    with pytest.raises(CheckpointError, match="has num_classes=80 and the model 7"):
        load_pretrained(tiny(2, classes=7), path)


def test_names_that_make_no_sense(tmp_path):
    found = msra_arrays() | {"fpn_inner_resx_2_sum_lateral_w": np.ones(3, np.float32)}
    with pytest.raises(CheckpointError, match="names of a Caffe2 model"):
        Checkpointer(tiny(2)).load(written(tmp_path / "strange.pkl", found))


def torchvision_name(name: str) -> str:
    """torchvision's name of a weight in Detectron2's ResNet."""
    name = re.sub(r"^stem\.", "", name)
    name = re.sub(r"^res(\d)", lambda match: f"layer{int(match[1]) - 1}", name)
    name = re.sub(r"conv(\d)\.norm", r"bn\1", name)
    return name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")


@pytest.fixture
def torchvision_files(tmp_path) -> list[str]:
    """One network twice: torchvision's own file, and that file converted by Detectron2's tool."""
    state = tiny(1, overrides=TORCHVISION).stock.backbone.bottom_up.state_dict()
    fc = torch.ones(9, 128)
    own = {torchvision_name(key): value for key, value in state.items()} | {"fc.weight": fc}
    assert {*own, "fc.bias"} == {
        name
        for name in torchvision.models.resnet50(weights=None).state_dict()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(own, tmp_path / "r50.pth")
    converted = arrays(state | {"stem.fc.weight": fc})
    data = {"model": converted, "__author__": "torchvision", "matching_heuristics": True}
    return [str(tmp_path / "r50.pth"), written(tmp_path / "torchvision-R-50.pkl", data)]


@pytest.mark.parametrize("name", [FPN, C4])
def test_torchvision_weights_in_an_rcnn(torchvision_files, name, caplog):
    own, converted = torchvision_files
    stock = assert_as_detectron2_loads_it(converted, name, TORCHVISION)
    assert "left over" not in caplog.text and "stride" not in caplog.text
    other = tiny(2, name, TORCHVISION)
    Checkpointer(other).load(own)
    expected = stock.state_dict()
    assert all(torch.equal(v, expected[key]) for key, v in other.stock.state_dict().items())


def test_torchvision_weights_in_a_transformer(torchvision_files, caplog):
    first, second = transformer(), transformer()
    Checkpointer(first).load(torchvision_files[0])
    Checkpointer(second).load(torchvision_files[1])
    assert "left over" not in caplog.text
    source = torch.load(torchvision_files[0])
    for key, value in first.backbone.state_dict().items():
        assert torch.equal(value, second.backbone.state_dict()[key])
    assert torch.equal(first.backbone.res5[2].conv3.weight, source["layer4.2.conv3.weight"])


def one_sentence(error: pytest.ExceptionInfo) -> None:
    message = str(error.value)
    assert "\n" not in message and len(message) < 500 and message.count(". ") == 0


def test_bgr_weights_are_refused_where_rgb_comes(msra, tmp_path):
    path = written(tmp_path / "model_final.pkl", {"blobs": detectron_arrays()})
    for file in (msra, path):
        with pytest.raises(
            CheckpointError, match=r"trained on BGR .* the model takes RGB"
        ) as error:
            Checkpointer(transformer()).load(file)
        one_sentence(error)
        assert "take torchvision's" in str(error.value)
    with pytest.raises(CheckpointError, match=r"input_format=BGR.*pixel_std=\[1,1,1\]") as error:
        Checkpointer(tiny(2, overrides=TORCHVISION)).load(msra)
    one_sentence(error)
    # The right order of the channels alone is not enough.
    divided = tiny(2, overrides=["MODEL.PIXEL_STD", [57.375, 57.12, 58.395]])
    with pytest.raises(CheckpointError, match="that are not divided and the model takes BGR"):
        Checkpointer(divided).load(msra)


def test_rgb_weights_are_refused_where_bgr_comes(torchvision_files, tmp_path, caplog):
    stock = tiny(2)
    for file in torchvision_files:
        with pytest.raises(
            CheckpointError, match=r"trained on RGB .* the model takes BGR"
        ) as error:
            Checkpointer(stock).load(file)
        one_sentence(error)
        assert "input_format=RGB" in str(error.value) and "MSRA/R-50.pkl" in str(error.value)
    # Others use torchvision's names for Caffe's weights; they have no classifier.
    headless = {k: v for k, v in torch.load(torchvision_files[0]).items() if k[:3] != "fc."}
    torch.save(headless, tmp_path / "headless.pth")
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        Checkpointer(stock).load(str(tmp_path / "headless.pth"))
    assert "if the file is torchvision's" in caplog.text


def test_a_network_without_pixel_statistics_is_not_checked(msra):
    """A bare network loads files of either kind."""
    network = tiny(2).stock.backbone.bottom_up
    Checkpointer(network).load(msra)
    source = tiny(1).stock.backbone.bottom_up.state_dict()
    assert all(torch.equal(value, source[key]) for key, value in network.state_dict().items())


def test_another_stride_is_warned_of(msra, torchvision_files, caplog):
    late = tiny(2, overrides=[*CAFFE, "MODEL.RESNETS.STRIDE_IN_1X1", False])
    Checkpointer(late).load(msra)
    assert "set the backbone's stride_in_1x1=True" in caplog.text
    early = tiny(2, overrides=[*TORCHVISION, "MODEL.RESNETS.STRIDE_IN_1X1", True])
    Checkpointer(early).load(torchvision_files[0])
    assert "set the backbone's stride_in_1x1=False" in caplog.text


def test_another_depth_is_warned_of(msra, caplog):
    deeper = tiny(2, overrides=[*CAFFE, "MODEL.RESNETS.DEPTH", 101])
    Checkpointer(deeper).load(msra)
    assert "has a ResNet-50 and the model a ResNet-101" in caplog.text


def zoo_file(path, more: dict | None = None) -> str:
    """A detector as in the model zoo: arrays, with anchors and pixel statistics among them."""
    state = arrays(tiny(1).stock.state_dict())
    anchors = {f"proposal_generator.anchor_generator.cell_anchors.{i}": np.ones(3) for i in "01234"}
    pixels = {"pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [1.0, 1.0, 1.0]} | (more or {})
    state |= anchors | {k: np.array(v, np.float32).reshape(3, 1, 1) for k, v in pixels.items()}
    return written(path, {"model": state, "__author__": "Detectron2 Model Zoo"})


def test_a_detector_of_the_zoo_loads_completely(tmp_path, caplog):
    path = zoo_file(tmp_path / "model_final.pkl")
    with caplog.at_level(logging.INFO, logger="kddetr"):
        loaded = load_pretrained(tiny(2), path)
        Checkpointer(tiny(2)).load(path, strict=True)
    assert "left over" not in caplog.text and "missing" not in caplog.text
    source = tiny(1).stock.state_dict()
    for name, value in loaded.stock.state_dict().items():
        assert torch.equal(value, source[name]), name
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_a_detector_of_other_pixels(tmp_path, caplog):
    path = zoo_file(tmp_path / "model_final.pkl", {"pixel_std": [57.375, 57.12, 58.395]})
    with pytest.raises(CheckpointError, match=r"with pixel_std=\[57.375,57.12,58.395\] and the"):
        load_pretrained(tiny(2), path)
    Checkpointer(tiny(2)).load(path)
    assert "features will be wrong" in caplog.text


def test_heads_of_other_classes_are_trained_anew(tmp_path, caplog):
    path, model = zoo_file(tmp_path / "model_final.pkl"), tiny(2, classes=7)
    before = {key: value.clone() for key, value in model.stock.state_dict().items()}
    Checkpointer(model).load(path)
    assert "has num_classes=80 and the model 7: what fits is loaded" in caplog.text
    source = tiny(1).stock.state_dict()
    for key, value in model.stock.state_dict().items():
        expected = before if ".box_predictor." in key else source
        assert torch.equal(value, expected[key]), key
    with pytest.raises(CheckpointError, match="has num_classes=80 and the model 7; set that"):
        load_pretrained(tiny(2, classes=7), path)


def test_a_cascades_classes_are_counted(tmp_path, caplog):
    name = "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"

    def build(classes: int) -> RegionDetector:
        options = [*SMALL_ZOO, *CAFFE]
        return model_zoo_detector(name, num_classes=classes, overrides=options, boxes_only=True)

    torch.save({"model": build(80).stock.state_dict()}, tmp_path / "cascade.pth")
    Checkpointer(build(7)).load(str(tmp_path / "cascade.pth"))
    assert "has num_classes=80 and the model 7" in caplog.text
    with pytest.raises(CheckpointError, match="has num_classes=80 and the model 7"):
        load_pretrained(build(7), str(tmp_path / "cascade.pth"))
