"""Files of real-time detectors: of the Hub, of the original projects, and written for others."""

import json
import logging
import re

import pytest
import torch
from safetensors.torch import load_file

from kddetr.checkpoint import Checkpointer, CheckpointError, load_pretrained
from kddetr.detectors import huggingface_arguments, huggingface_detector
from kddetr.errors import StorageError, UsageError
from tests.tiny import CLASSES, tiny_batch
from tests.tiny_huggingface import REASON, tiny_huggingface

pytest.importorskip("transformers", reason=REASON)
NAMES = ["ant", "bee", "cat"]


def detections(detector) -> list[torch.Tensor]:
    with torch.no_grad():
        return [x["instances"].scores for x in detector.eval()(tiny_batch())]


@pytest.mark.parametrize("member", ["rt_detr_v2", "d_fine"])
def test_a_saved_folder_describes_and_gives_back_the_detector(member, tmp_path):
    """Its weights have the names of earlier versions of the package, like those of the Hub."""
    detector = tiny_huggingface(member, pixel_mean=[124, 116, 104], pixel_std=[58, 57, 57])
    folder = str(tmp_path / "folder")
    detector.save(folder, NAMES)
    arguments = huggingface_arguments(folder)
    assert arguments["model_type"] == member and arguments["num_classes"] == CLASSES
    assert arguments["image_size"] == [64, 64] and arguments["pixel_mean"] == [124, 116, 104]
    torch.manual_seed(9)
    again = load_pretrained(huggingface_detector(**arguments, num_detections=10), folder)
    assert again.trained_classes == tuple(NAMES)
    for found, expected in zip(detections(again), detections(detector), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert load_file(f"{folder}/model.safetensors").keys() - detector.stock.state_dict().keys()


# Names of the original projects and those of the package, in pairs.
AUTHORS = {
    "backbone.conv1.conv1_2.conv.weight": "backbone.model.embedder.embedder.1.convolution.weight",
    "backbone.res_layers.0.blocks.0.short.norm.bias": (
        "backbone.model.encoder.stages.0.layers.0.shortcut.normalization.bias"
    ),
    "backbone.res_layers.2.blocks.0.short.conv.norm.running_mean": (
        "backbone.model.encoder.stages.2.layers.0.shortcut.1.normalization.running_mean"
    ),
    "backbone.res_layers.3.blocks.0.branch2b.conv.weight": (
        "backbone.model.encoder.stages.3.layers.0.layer.1.convolution.weight"
    ),
    "encoder.input_proj.2.conv.weight": "encoder_input_proj.2.0.weight",
    "encoder.encoder.0.layers.0.linear2.bias": "encoder.aifi.0.layers.0.mlp.fc2.bias",
    "encoder.encoder.0.layers.0.self_attn.out_proj.bias": (
        "encoder.aifi.0.layers.0.self_attn.o_proj.bias"
    ),
    "encoder.encoder.0.layers.0.norm2.weight": "encoder.aifi.0.layers.0.final_layer_norm.weight",
    "encoder.fpn_blocks.1.bottlenecks.2.conv1.norm.weight": (
        "encoder.fpn_blocks.1.bottlenecks.2.conv1.norm.weight"
    ),
    "decoder.input_proj.1.norm.running_var": "decoder_input_proj.1.1.running_var",
    "decoder.decoder.layers.1.cross_attn.value_proj.weight": (
        "decoder.layers.1.encoder_attn.value_proj.weight"
    ),
    "decoder.decoder.layers.1.norm2.bias": "decoder.layers.1.encoder_attn_layer_norm.bias",
    "decoder.decoder.layers.0.linear1.weight": "decoder.layers.0.mlp.fc1.weight",
    "decoder.query_pos_head.layers.1.bias": "decoder.query_pos_head.layers.1.bias",
    "decoder.enc_output.norm.weight": "enc_output.1.weight",
    "decoder.enc_bbox_head.layers.2.weight": "enc_bbox_head.layers.2.weight",
    "decoder.enc_score_head.weight": "enc_score_head.weight",
    "decoder.dec_score_head.0.weight": "decoder.class_embed.0.weight",
    "decoder.dec_bbox_head.1.layers.0.bias": "decoder.bbox_embed.1.layers.0.bias",
    "decoder.denoising_class_embed.weight": "denoising_class_embed.weight",
}
FINE = {
    "backbone.stem.stem2a.bn.weight": "backbone.model.embedder.stem2a.normalization.weight",
    "backbone.stages.2.blocks.0.layers.0.conv2.bn.bias": (
        "backbone.model.encoder.stages.2.blocks.0.layers.0.conv2.normalization.bias"
    ),
    "backbone.stages.1.downsample.conv.weight": (
        "backbone.model.encoder.stages.1.downsample.convolution.weight"
    ),
    "encoder.fpn_blocks.0.cv1.conv.weight": "encoder.fpn_blocks.0.conv1.conv.weight",
    "encoder.pan_blocks.1.cv3.0.bottlenecks.0.conv1.norm.bias": (
        "encoder.pan_blocks.1.csp_rep2.bottlenecks.0.conv1.norm.bias"
    ),
    "encoder.pan_blocks.1.cv2.1.norm.bias": "encoder.pan_blocks.1.conv2.norm.bias",
    "encoder.downsample_convs.1.0.cv2.conv.weight": "encoder.downsample_convs.1.conv2.conv.weight",
    "encoder.encoder.0.layers.0.linear2.bias": "encoder.aifi.0.layers.0.mlp.layers.1.bias",
    "decoder.decoder.layers.1.gateway.norm.bias": "decoder.layers.1.gateway.norm.bias",
    "decoder.decoder.layers.0.norm3.weight": "decoder.layers.0.final_layer_norm.weight",
    "decoder.decoder.layers.0.cross_attn.num_points_scale": (
        "decoder.layers.0.encoder_attn.num_points_scale"
    ),
    "decoder.decoder.lqe_layers.1.reg_conf.layers.0.weight": (
        "decoder.lqe_layers.1.reg_conf.layers.0.weight"
    ),
    "decoder.pre_bbox_head.layers.2.bias": "decoder.pre_bbox_head.layers.2.bias",
    "decoder.up": "decoder.up",
    "decoder.reg_scale": "decoder.reg_scale",
    "decoder.enc_score_head.weight": "enc_score_head.weight",
    "decoder.dec_score_head.0.weight": "decoder.class_embed.0.weight",
}


@pytest.mark.parametrize(("member", "pairs"), [("rt_detr_v2", AUTHORS), ("d_fine", FINE)])
def test_files_of_the_original_projects(member, pairs, tmp_path, caplog):
    """All kinds of names that they have, in the layout of a training with a moving average."""
    own = tiny_huggingface(member, seed=1).stock.state_dict()
    other = tiny_huggingface(member, seed=2)
    state = {theirs: own[f"model.{ours}"].clone() for theirs, ours in pairs.items()}
    attention = "decoder.layers.0.self_attn."
    parts = [own[f"model.{attention}{kind}_proj.weight"] for kind in "qkv"]
    state["decoder.decoder.layers.0.self_attn.in_proj_weight"] = torch.cat(parts)
    state["decoder.anchors"] = torch.zeros(1, 9, 4)
    if "decoder.reg_scale" in state:
        state["decoder.reg_scale"] = state["decoder.reg_scale"].long()
    file = tmp_path / "theirs.pth"
    torch.save({"last_epoch": 71, "ema": {"module": state, "updates": 9}}, file)
    with caplog.at_level(logging.WARNING):
        Checkpointer(other).load(str(file))
    assert not re.search("left over|another shape", caplog.text)
    for ours in (*pairs.values(), *(f"{attention}{kind}_proj.weight" for kind in "qkv")):
        found = other.stock.state_dict()[f"model.{ours}"]
        assert torch.equal(found, own[f"model.{ours}"]), ours
    with pytest.raises(CheckpointError, match="all of it has to"):
        load_pretrained(other, str(file))


def test_other_classes_are_trained_anew_with_a_word(tmp_path, caplog):
    file = str(tmp_path / "folder")
    tiny_huggingface(seed=1).save(file)
    other = tiny_huggingface(num_classes=5)
    head = other.stock.model.enc_score_head.weight.clone()
    with caplog.at_level(logging.WARNING):
        Checkpointer(other).load(file)
    assert "num_classes=3 and the model 5" in caplog.text
    assert "of another shape" in caplog.text
    assert torch.equal(other.stock.model.enc_score_head.weight, head)
    with pytest.raises(CheckpointError, match="num_classes=3 and the model 5; set that number"):
        load_pretrained(other, file)
    wide = tiny_huggingface(settings={"d_model": 32})
    with pytest.raises(CheckpointError, match="d_model=16 and the model 32"):
        Checkpointer(wide).load(file)


def test_a_folder_of_others_is_not_overwritten(tmp_path):
    detector = tiny_huggingface()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="holds other files"):
        detector.save(str(tmp_path))
    with pytest.raises(UsageError, match="2 names were given for 3 classes"):
        detector.save(str(tmp_path / "new"), NAMES[:2])
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    detector.save(str(tmp_path / "new"), NAMES)
    detector.save(str(tmp_path / "new"))  # of an earlier time
    assert json.loads((tmp_path / "new/config.json").read_text())["id2label"]["0"] == "LABEL_0"


def test_names_that_cannot_be_fetched_are_one_sentence(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append((name, revision))
        raise OSError("offline mode is enabled.\nTo disable it ...")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    detector = tiny_huggingface()
    for address, words in (
        ("hf://rtdetr", "names no model"),
        ("hf://PekingU/rtdetr_v2_r18vd@main", r"offline mode is enabled\.\): check the name"),
    ):
        with pytest.raises(CheckpointError, match=words) as error:
            Checkpointer(detector).load(address)
        assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        huggingface_arguments("hf://PekingU/rtdetr_v2_r18vd")
    assert asked == [("PekingU/rtdetr_v2_r18vd", "main"), ("PekingU/rtdetr_v2_r18vd", None)]
    # A model that has been fetched is read like any folder.
    detector.save(str(tmp_path / "folder"), NAMES)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "folder")
    )
    loaded = Checkpointer(tiny_huggingface(seed=3)).load("hf://a/b", strict=True)
    assert loaded["classes"] == tuple(NAMES)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "yolos"}, "no reference boxes"),
        ({"model_type": None}, "no detector known here"),
    ],
)
def test_other_folders_are_refused(changes, words, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rt_detr"} | changes))
    with pytest.raises(UsageError, match=words):
        huggingface_arguments(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        huggingface_arguments(str(tmp_path))
    with pytest.raises(UsageError, match=r"has no config\.json"):
        huggingface_arguments(str(tmp_path / "nothing"))


def test_images_that_are_prepared_otherwise_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rt_detr"}))
    prepared = {"size": {"shortest_edge": 800}, "do_pad": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(prepared))
    with pytest.raises(UsageError, match=r"do_pad=True, size=\{'shortest_edge': 800\}"):
        huggingface_arguments(str(tmp_path))
