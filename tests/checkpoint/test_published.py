"""Golden weights under every project's names load, and give the golden numbers."""

import argparse
import copy
import re

import numpy as np
import pytest
import torch
import torchvision
from detectron2.data.datasets.builtin_meta import _get_builtin_metadata
from safetensors.torch import save_file
from torch import nn

from kddetr.checkpoint import (
    Checkpointer,
    CheckpointError,
    converted,
    detectron2_names,
    load_pretrained,
)
from kddetr.checkpoint.backbones import own_names
from kddetr.checkpoint.heads import CATEGORY_IDS
from kddetr.detectors import resnet
from tests.checkpoint import other_names
from tests.checkpoint.other_names import State
from tests.checkpoint.test_published_names import needs
from tests.golden_numbers import models
from tests.golden_numbers.files import Golden
from tests.golden_numbers.models import feature_names

DEFORMABLE = ("deformable_detr_plain", "deformable_detr_refine", "deformable_detr_two_stage")
DEFORMABLE_SOURCES = [
    dict,  # detrex's own names, which the golden files have
    other_names.deformable_official,
    other_names.deformable_hugging_face,
]
SOURCES = {
    "dab_detr": [dict, other_names.dab_official, other_names.dab_hugging_face],
    **dict.fromkeys(DEFORMABLE, DEFORMABLE_SOURCES),
    "dino_eval": [dict, other_names.dino_official],
    "dino_train_dn": [dict, other_names.dino_official],
}
CASES = [(name, source) for name, sources in SOURCES.items() for source in sources]
BUILDERS = {"dab": models.golden_dab_detr, "def": models.golden_deformable_detr}
BUILDERS["din"] = models.golden_dino


def golden(name: str, classes: int = 0) -> Golden:
    z = Golden(name)
    z.config["classes"] = classes or z.config["classes"]
    return z


def untrained(z: Golden, name: str, monkeypatch, **changes) -> nn.Module:
    """A detector of a golden file's sizes without its weights."""
    z.config.update(changes)
    with monkeypatch.context() as patch:
        patch.setattr(models, "filled", lambda model, state: model)
        return BUILDERS[name[:3]](z)


def author_of(source) -> str:
    """``official``, ``huggingface`` or ``detrex``, whose names the golden files have."""
    name = source.__name__
    return "huggingface" if "hugging" in name else "official" if "official" in name else "detrex"


def with_settings(z: Golden, name: str, author: str) -> Golden:
    """The same with the settings that an author's files need, which a golden file may not have."""
    settings, theirs = needs(name, author), copy.copy(z)
    theirs.config = z.config | {
        "temperature": settings["temperature"],
        "pos_offset": settings["offset"],
        "inverse_sigmoid_eps": settings["eps"],
        "anchor_temperature": 10000,
    }
    return theirs


def loaded(z: Golden, name: str, monkeypatch, file: str, author: str) -> nn.Module:
    """A detector of a golden file's sizes and settings with the weights of a published file.

    The weights load only into a model with the settings of their author; they are taken from there.
    """
    theirs = with_settings(z, name, author)
    model = load_pretrained(untrained(theirs, name, monkeypatch), file)
    result = untrained(z, name, monkeypatch).eval()
    result.load_state_dict(model.state_dict(), strict=True)
    return result


def run(z: Golden, model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and boxes of all layers for the features in the file."""
    if "in/feat" in z.arrays:
        features, paddings = {"res5": z["in/feat"]}, [z["in/mask"]]
    else:
        features = {name: z[f"in/feat_{name}"] for name in feature_names(z)}
        paddings = z.numbered("in/mask")
    sizes = [tuple(size) for size in z["in/image_sizes"].tolist()]
    with torch.no_grad():
        memory = model.encode_features(features, paddings, sizes)
        answers = model.decode(memory, model.queries(memory))
    return answers.logits, answers.boxes


def check(z: Golden, model: nn.Module) -> None:
    """The predictions are those of the source implementation."""
    logits, boxes = run(z, model)
    z.check("out/logits", logits[..., : z["out/logits"].shape[-1]])
    z.check("out/boxes", boxes)


def write(state: State, path, *, flat: bool = False) -> str:
    if str(path).endswith(".safetensors"):
        # This format refuses two names of one tensor; such a file holds the first only.
        kept, seen = {}, set()
        for name, value in state.items():
            if value.data_ptr() not in seen:
                seen.add(value.data_ptr())
                kept[name] = value.contiguous()
        save_file(kept, str(path))
    else:
        torch.save(state if flat else {"model": state, "epoch": 49}, path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "source"), CASES, ids=[f"{name}-{source.__name__}" for name, source in CASES]
)
def test_golden_numbers_from_published_names(tmp_path, monkeypatch, name, source):
    z = golden(name)
    state = source(z.state())
    suffix = "safetensors" if "hugging" in source.__name__ else "pth"
    file = write(state, tmp_path / f"x.{suffix}")
    check(z, loaded(z, name, monkeypatch, file, author_of(source)))


@pytest.mark.parametrize("name", DEFORMABLE)
def test_older_hugging_face_names(tmp_path, monkeypatch, name):
    z = golden(name)
    state = other_names.deformable_hugging_face(z.state(), old=True)
    file = write(state, tmp_path / "pytorch_model.bin", flat=True)
    check(z, loaded(z, name, monkeypatch, file, "huggingface"))
    folder = str(tmp_path)  # as a clone of a Hugging Face repository
    check(z, loaded(z, name, monkeypatch, folder, "huggingface"))


def with_category_ids(state: State, heads: int) -> State:
    """Golden weights of 5 classes as those of 91 COCO categories, of which 86 are never found."""
    ids = CATEGORY_IDS[:5]
    spread = {}
    for name, value in state.items():
        head = re.search(r"class_embed(?:\.(\d+))?\.(weight|bias)$", name)
        if not head and name != "label_enc.weight":
            spread[name] = value
            continue
        rows = torch.zeros(92 if name == "label_enc.weight" else 91, *value.shape[1:])
        if name.endswith("bias"):
            rows -= 20.0
        # In two stages without labels, row 0 of the encoder's head finds the objects.
        binary = "pos_trans.weight" in "".join(state) and head and head[1] == str(heads)
        rows[list(range(5)) if binary else ids] = value
        spread[name] = rows
    return spread


@pytest.mark.parametrize("name", SOURCES)
def test_category_ids_become_classes(tmp_path, monkeypatch, name):
    """91 rows in a file become the 80 classes in the right order, or stay 91, as the model has."""
    z = golden(name)
    labels = with_category_ids(z.state(), z.config["dec_layers"])
    source = SOURCES[name][1]
    file = write(source(labels), tmp_path / "x.pth")
    model = loaded(golden(name, classes=80), name, monkeypatch, file, "official")
    check(z, model)
    if name.startswith("dino"):
        table = model.state_dict().get("denoising.label_embedding.weight", z["sd/label_enc.weight"])
        assert torch.equal(table[:5], z["sd/label_enc.weight"])
    kept = loaded(golden(name, classes=91), name, monkeypatch, file, "official").state_dict()
    row = CATEGORY_IDS[4]
    assert torch.equal(
        kept["decoder.class_heads.0.weight"][row],
        model.state_dict()["decoder.class_heads.0.weight"][4],
    )


def test_category_ids_are_cocos():
    known = _get_builtin_metadata("coco")["thing_dataset_id_to_contiguous_id"]
    assert {i: k for k, i in enumerate(CATEGORY_IDS)} == known


@pytest.fixture(scope="module")
def imagenet() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize(
    ("source", "prefix", "names"),
    [
        (dict, "backbone.", detectron2_names),
        (other_names.dab_official, "backbone.0.body.", dict),
        (other_names.dab_hugging_face, "model.backbone.conv_encoder.model._backbone.", dict),
        (other_names.dab_hugging_face, "model.backbone.conv_encoder.model.", dict),
        (other_names.dab_hugging_face, "model.backbone.model.", dict),
        (None, "", dict),
        (None, "", detectron2_names),
    ],
)
def test_backbones_of_published_detectors(imagenet, source, prefix, names):
    bare = {k: v for k, v in imagenet.state_dict().items() if not k.startswith("fc.")}
    bare = {f"{prefix}{name}": value for name, value in names(bare).items()}
    if source is None:
        state = own_names(bare | {"fc.weight": torch.zeros(1)}, "x.pth")
    else:
        found = converted(source(golden("dab_detr").state()) | bare, "x.pth").state
        state = {k[9:]: v for k, v in found.items() if k.startswith("backbone.")}
    backbone = resnet(depth=18, out_features=["res2", "res5"]).eval()
    backbone.load_state_dict(state, strict=True)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = imagenet.layer1(imagenet.maxpool(imagenet.relu(imagenet.bn1(imagenet.conv1(image)))))
        seen = backbone(image)
        torch.testing.assert_close(seen["res2"], x)
        x = imagenet.layer4(imagenet.layer3(imagenet.layer2(x)))
        torch.testing.assert_close(seen["res5"], x)


def test_layouts_of_published_files(tmp_path, monkeypatch):
    """With a training script's options, numpy numbers, counters and averages in the file."""
    z = golden("dab_detr")
    state = {f"module.{k}": v for k, v in other_names.dab_official(z.state()).items()}
    state["module.neck.num_batches_tracked"] = torch.tensor(3)
    state["module.total_ops"] = torch.zeros(1)
    beside = {"args": argparse.Namespace(lr=1e-4), "best": np.float64(0.4), "epoch": 3}
    for key in ("model", "ema_model", "ema_state", "state_dict"):
        torch.save({key: state, **beside}, tmp_path / "x.pth")
        check(z, loaded(z, "dab_detr", monkeypatch, str(tmp_path / "x.pth"), "official"))


def test_options_in_a_file_are_compared_with_the_model(tmp_path, monkeypatch):
    z = with_settings(golden("dab_detr"), "dab_detr", "official")
    args = argparse.Namespace(pe_temperatureH=7, pe_temperatureW=7, dilation=False)
    state = other_names.dab_official(z.state())
    torch.save({"model": state, "args": args}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"set model\.temperature=7\.$"):
        load_pretrained(untrained(z, "dab_detr", monkeypatch), str(tmp_path / "x.pth"))


def test_the_checkpointer_takes_them_too(tmp_path, monkeypatch, caplog):
    z = golden("dino_eval")
    file = write(other_names.dino_official(z.state()), tmp_path / "x.pth")
    model = untrained(with_settings(z, "dino_eval", "official"), "dino_eval", monkeypatch)
    with caplog.at_level("INFO", logger="kddetr"):
        rest = Checkpointer(model).load(file, strict=True)
    assert "is recognised as DINO of its authors' project, 5 classes" in caplog.text
    assert rest == {"epoch": 49}
    same = loaded(z, "dino_eval", monkeypatch, file, "official").state_dict()
    assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())


def test_heads_that_all_layers_share(tmp_path, monkeypatch):
    """A model with one set of heads predicts the same as one with a copy for each layer."""
    z = with_settings(golden("dino_eval"), "dino_eval", "official")
    state = z.state()
    for name in [name for name in state if re.search(r"_embed\.[12]\.", name)]:
        state[name] = state[re.sub(r"(?<=_embed\.)[12]", "0", name)]
    file = write(other_names.dino_official(state), tmp_path / "x.pth")
    answers = []
    for separate in (False, True):
        model = untrained(z, "dino_eval", monkeypatch, separate_heads_per_layer=separate)
        model.denoising = None  # then the table in the file is left out
        load_pretrained(model, file)
        answers.append(run(z, model))
    assert len(model.decoder.class_heads) == 3
    for one, copied in zip(*answers, strict=True):
        torch.testing.assert_close(one, copied)


def refused(model: nn.Module, state: State, words: str, path, *, strict: bool = True) -> None:
    file = write(state, path / "bad.pth")
    before = [value.clone() for value in model.state_dict().values()]
    with pytest.raises(CheckpointError, match=words) as error:
        load_pretrained(model, file) if strict else Checkpointer(model).load(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1200
    assert all(map(torch.equal, before, model.state_dict().values()))


def test_files_with_missing_or_strange_names(tmp_path, monkeypatch):
    z = with_settings(golden("dino_eval"), "dino_eval", "detrex")
    model, state = untrained(z, "dino_eval", monkeypatch), z.state()
    unknown = {f"net.{i}.weight": torch.zeros(1) for i in range(40)}
    refused(model, unknown, r"None of the 40 weights.*left over 40: net\.0 \(weight\)", tmp_path)
    for strict in (True, False):  # a part of a published detector is never loaded
        part = {k: v for k, v in state.items() if "decoder.layers.1.norms.0" not in k}
        words = r"looks like DINO of detrex.*missing 2: decoder\.layers\.1\.self_norm \(weight, b"
        refused(model, part, words, tmp_path, strict=strict)
    part = {k: v for k, v in state.items() if "class_embed.1." not in k}
    refused(model, part, r"missing 2: decoder\.class_heads\.1 \(weight, bias\)", tmp_path)
    part = {k: v for k, v in state.items() if not k.startswith("neck.extra_convs")}
    refused(model, part, r"missing 4: neck\.extra\.0\.0 \(weight, bias\)", tmp_path)
    more = state | {"transformer.patterns.weight": torch.zeros(1)}
    refused(model, more, r"left over 1: transformer\.patterns \(weight\)", tmp_path)
    torn = state | {"transformer.decoder.class_embed.0.bias": torch.ones(5)}
    refused(model, torn, "two names of one weight, with different values", tmp_path)
    bare = state | {"backbone.patch.weight": torch.zeros(1)}
    refused(model, bare, r"neither a ResNet nor a Swin.*patch \(weight\)", tmp_path)


def test_files_of_another_detector(tmp_path, monkeypatch):
    z = golden("dino_eval")
    model, state = untrained(z, "dino_eval", monkeypatch), z.state()
    dab = other_names.dab_official(golden("dab_detr").state())
    refused(model, dab, "is DAB-DETR of .* and the model is another detector", tmp_path)
    wide = {
        k: v if k == "transformer.level_embeds" else torch.zeros([2 * n for n in v.shape])
        for k, v in state.items()
    }
    for strict in (True, False):
        refused(
            model,
            wide,
            "has embed_dim=64 and the model 32; set that",
            tmp_path,
            strict=strict,
        )
    fewer = untrained(golden("dino_eval"), "dino_eval", monkeypatch, classes=3)
    refused(fewer, state, "has num_classes=5 and the model 3; set that", tmp_path)
    z = with_settings(golden("deformable_detr_refine"), "deformable_detr", "detrex")
    plain = untrained(z, "def", monkeypatch, with_box_refine=False)
    refused(plain, z.state(), r"a head for each layer.*set model\.variant=refine\.$", tmp_path)
    z = with_settings(golden("deformable_detr_plain"), "deformable_detr", "detrex")
    refining = untrained(z, "def", monkeypatch, with_box_refine=True)
    plain = golden("deformable_detr_plain").state()
    refused(refining, plain, r"one head for all layers.*set model\.variant=plain\.$", tmp_path)


def test_heads_of_other_classes_are_trained_anew(tmp_path, monkeypatch, caplog):
    z = with_settings(golden("dab_detr"), "dab_detr", "official")
    file = write(other_names.dab_official(z.state()), tmp_path / "x.pth")
    model = untrained(z, "dab_detr", monkeypatch, classes=3)
    heads = model.decoder.class_heads[0].weight.clone()
    with caplog.at_level("WARNING", logger="kddetr"):
        Checkpointer(model).load(file)
    assert "has num_classes=5 and the model 3: what fits is loaded" in caplog.text
    assert torch.equal(model.decoder.class_heads[0].weight, heads)
    assert torch.equal(model.query_source.anchors, z["sd/anchor_box_embed.weight"])
