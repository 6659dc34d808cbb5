"""Names of earlier versions: an error says today's name, and a saved config is translated."""

import importlib.util
import logging
from pathlib import Path

import pytest
from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from omegaconf import OmegaConf

from kddetr.engine import ConfigError, load_config
from kddetr.engine.config.renamed import translated
from kddetr.renamed import MODULES, NAMES, current_name

ROOT = Path(__file__).parents[2]
SAVED = Path(__file__).parent / "saved_configs"  # written by the version before the new names
QUICKSTART = str(ROOT / "configs/quickstart/faster_rcnn_distilled.py")


def leaves(cfg) -> dict[str, object]:
    """The values of a config by dotted key, with callables for the names of callables."""

    def walk(node, path: str):
        if not isinstance(node, dict | list):
            is_name = path.endswith("_target_") and isinstance(node, str)
            yield path, locate(node) if is_name else node
            return
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from walk(value, f"{path}.{key}")

    return dict(walk(OmegaConf.to_container(cfg, resolve=False), ""))


def without_speed(found):
    """Without what came later for the sake of speed: options, a loader, a default of precision."""
    later = ("fused", "keep_images", "batch_size", "dataloader.test._target_", "amp.enabled")
    return {path: value for path, value in found.items() if not path.endswith(later)}


@pytest.mark.parametrize(
    ("saved", "recipe"),
    [
        ("faster_rcnn_distilled", "quickstart/faster_rcnn_distilled"),
        (
            "deformable_detr_two_stage_pair",
            "distill/deformable_detr_two_stage_r18_from_deformable_detr_two_stage_r50",
        ),
    ],
)
def test_a_saved_config_of_before_is_the_recipe_of_today(saved, recipe, tmp_path, caplog):
    file = tmp_path / "config.yaml"
    file.write_bytes((SAVED / f"{saved}.yaml").read_bytes())
    with caplog.at_level(logging.WARNING):
        cfg = load_config(str(file))
    today = leaves(load_config(str(ROOT / f"configs/{recipe}.py")))
    assert without_speed(leaves(cfg)) == without_speed(today)
    messages = [text for text in caplog.messages if "earlier version" in text]
    assert len(messages) == 1 and "variant" in messages[0] and "DistillationLoss" in messages[0]
    caplog.clear()
    LazyConfig.save(cfg, str(tmp_path / "again.yaml"))
    assert leaves(load_config(str(tmp_path / "again.yaml"))) == leaves(cfg)
    assert not caplog.messages  # what it saves has today's names


@pytest.mark.parametrize(
    ("flags", "variant"),
    [
        ({"refine": False}, "plain"),
        ({"refine": True}, "refine"),
        ({"two_stage": True}, "two_stage"),
        ({"anchor_queries": True, "two_stage": False}, "anchors"),
        ({"two_stage": False}, "refine"),
    ],
)
def test_flags_of_deformable_detr(flags, variant):
    node = {"_target_": "kddetr.detectors.deformable_detr", "points": 2, **flags}
    expected = {"_target_": node["_target_"], "num_sampling_points": 2, "variant": variant}
    assert translated(node, {}) == expected


def test_all_arguments_of_the_former_loss():
    node = {
        "_target_": "kddetr.losses.distillation.DistillationLoss",
        "class_weight": 3.0,
        "box_weight": 4.0,
        "giou_weight": 6.0,
        "temperature": 7.0,
        "foreground": False,
        "reduction": "published",
        "class_gap": "bce",
        "eps": 0.0,
    }
    losses = "kddetr.losses"
    assert translated(node, {}) == {
        "_target_": f"{losses}.PublishedLoss",
        "class_loss": {
            "_target_": f"{losses}.BinaryCrossEntropy",
            "weight": 3.0,
            "temperature": 7.0,
        },
        "box_losses": [
            {"_target_": f"{losses}.L1Loss", "weight": 4.0},
            {"_target_": f"{losses}.GIoULoss", "weight": 6.0, "eps": 0.0},
        ],
        "weighting": {"_target_": f"{losses}.EqualWeight"},
    }


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "model.placement=null",
            "model.placement is now called model.query_placement.",
        ),
        (
            "model.placement.count=3",
            "model.placement is now called model.query_placement.",
        ),
        (
            "model.teacher.detector.model.width=8",
            "model.teacher.detector.model.width is now called"
            " model.teacher.detector.model.embed_dim.",
        ),
        (
            "model.teacher.detector.model={points: 2}",
            "model.teacher.detector.model.points is now called"
            " model.teacher.detector.model.num_sampling_points.",
        ),
        (
            "model.teacher.detector.model.refine=true",
            "model.teacher.detector.model.refine is now called"
            " model.teacher.detector.model.variant (plain, anchors, two_stage, refine).",
        ),
        (
            "model.loss.class_weight=1",
            "model.loss.class_weight is now called model.loss.class_loss.weight.",
        ),
        (
            "model.loss.reduction=published",
            "model.loss.reduction is now called model.loss._target_"
            " (kddetr.losses.WeightedMeanLoss or kddetr.losses.PublishedLoss).",
        ),
    ],
)
def test_an_override_with_a_former_name(override, sentence):
    with pytest.raises(ConfigError) as error:
        load_config(QUICKSTART, [override])
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("from kddetr.detectors import dino\nmodel = L(dino)(hidden=3)", "model.feedforward_dim"),
        ("from kddetr import KDDETR\nmodel = L(KDDETR)(placement=None)", "model.query_placement"),
        ("model = L('kddetr.checkpoint.Vocabulary')()", "kddetr.teachers.Vocabulary"),
        (
            "model = L('kddetr.detectors.dab_detr.dab_detr')()",
            "kddetr.detectors.detr.dab_detr.dab_detr",
        ),
        (
            "from kddetr.losses import DistillationLoss\nmodel = L(DistillationLoss)()",
            "take kddetr.losses.WeightedMeanLoss or kddetr.losses.PublishedLoss",
        ),
        ("from kddetr.detectors.regions import RegionDetector", "kddetr.detectors.stock.regions"),
    ],
)
def test_a_config_file_with_a_former_name(tmp_path, text, words):
    file = tmp_path / "config.py"
    file.write_text(f"from detectron2.config import LazyCall as L\n{text}\n")
    with pytest.raises(ConfigError) as error:
        load_config(str(file))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_importing_a_former_name(name):
    module, _, attribute = name.rpartition(".")
    with pytest.raises(ImportError) as error:
        exec(f"from {module} import {attribute}", {})
    assert str(error.value) == f"{name} is now called {NAMES[name]}: import it from there."
    assert locate(NAMES[name]) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        importlib.import_module(module).nothing  # noqa: B018


def test_every_new_module_exists_and_no_former_one_does():
    for old, new in MODULES.items():
        importlib.import_module(new)
        assert importlib.util.find_spec(old) is None, old
    assert current_name("kddetr.detectors.swin.swin") == "kddetr.detectors.backbones.swin.swin"
    assert current_name("kddetr.losses.gaps.kl_gap") == "kddetr.losses.KLDivergence"
    for unchanged in ("kddetr.detectors.swin", "kddetr.losses.KLDivergence", "torch.optim.AdamW"):
        assert current_name(unchanged) is None
