"""Every name of a full-size published file is renamed, none is left over, and none is missing."""

import functools
import itertools
import json
import re
from pathlib import Path

import pytest
import torch

from kddetr.checkpoint import CheckpointError, adapted, converted
from kddetr.checkpoint.origins import ORIGINS
from kddetr.checkpoint.published import Converted
from kddetr.detectors import dab_detr, deformable_detr, dino, resnet, swin
from kddetr.detectors.detr.deformable_detr import VARIANTS

LISTS = json.loads((Path(__file__).parents[1] / "golden" / "checkpoint_keys.json").read_text())
BACKBONES = {
    "official": "official (all three)",
    "detrex": "detrex / detectron2",
    "huggingface": "huggingface DAB-DETR",
    "huggingface_v5": "huggingface Deformable DETR v5",
}
FILES = [
    (family, author)
    for family, authors in LISTS.items()
    if family.startswith(("dab", "deformable", "dino"))
    for author in authors
]


def unfolded(rows: list) -> dict[str, list[int]]:
    """``[name with {a-b} ranges, shape, number of names]`` to name -> shape."""
    names = {}
    for folded, shape, count in rows:
        parts = re.split(r"\{(\d+)-(\d+)\}", folded)
        ranges = [range(int(a), int(b) + 1) for a, b in zip(parts[1::3], parts[2::3], strict=True)]
        rest = parts[::3]
        found = [
            rest[0] + "".join(f"{i}{text}" for i, text in zip(numbers, rest[1:], strict=True))
            for numbers in itertools.product(*ranges)
        ]
        assert len(found) == count, folded
        names |= dict.fromkeys(found, shape)
    return names


def weight(name: str, shape: list[int], aliases: list) -> torch.Tensor:
    """A weight whose value depends on its name; two names of one weight give the same value."""
    for alias, original, _ in aliases:
        pattern = re.escape(alias).replace(r"\#", r"(\d+)")
        match = re.fullmatch(pattern, name)
        if match and alias == original:  # six names of one head
            name = re.sub(r"\.\d+\.", ".0.", name, count=1)
        elif match:
            # The activation of detrex's feed-forward is also part 1 of its first part.
            for number in (*match.groups(), "0", "1"):
                original = original.replace("#", number, 1)
            name = original
    seed = sum((i + 1) * ord(letter) for i, letter in enumerate(name))
    return torch.full((), seed / 1000).expand(shape)


def published_file(family: str, author: str) -> dict[str, torch.Tensor]:
    """Exactly the names and shapes of a published file; the tensors take no memory."""
    return dict(_published_file(family, author))


@functools.cache
def _published_file(family: str, author: str) -> dict[str, torch.Tensor]:
    listed = LISTS[family][author]
    aliases = sorted(listed.get("aliases", []), key=lambda row: row[0] == row[1])
    if author == "huggingface_v5" and family.endswith("refine"):
        # A fresh model of that library ties its class heads; those of a published file differ.
        aliases = [row for row in aliases if row[0] != row[1]]
    names = unfolded(listed["rows"]) | unfolded(LISTS["resnet50_backbone"][BACKBONES[author]])
    return {name: weight(name, shape, aliases) for name, shape in names.items()}


def needs(family: str, author: str) -> dict[str, float]:
    """The settings that such a file's weights were trained with."""
    flat = family.startswith("dab") or (family.startswith("dino") and author == "official")
    temperature, offset = (20.0, 0.0) if flat else (10000.0, -0.5)
    deformable = family.startswith("deformable") and author != "detrex"
    return {"temperature": temperature, "offset": offset, "eps": 1e-5 if deformable else 1e-3}


@functools.cache
def full_size(
    family: str, num_classes: int, shared_heads: bool = False, author: str = "detrex"
) -> torch.nn.Module:
    """This project's detector with the settings of an author's files; it takes no memory."""
    options = {"num_classes": num_classes, **needs(family, author)}
    with torch.device("meta"):
        if family.startswith("dab"):
            return dab_detr(backbone=resnet(depth=50, out_features=["res5"]), **options)
        options["backbone"] = resnet(depth=50)
        if family.startswith("dino"):
            return dino(shared_heads=shared_heads, **options)
        variant = next(name for name in VARIANTS if family.endswith(name))
        return deformable_detr(variant=variant, **options)


def shapes(state: dict) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


DETECTORS = {
    "dab_detr_r50": "DAB-DETR",
    "deformable_detr_r50_plain": "Deformable DETR",
    "deformable_detr_r50_refine": "Deformable DETR",
    "deformable_detr_r50_two_stage": "two-stage Deformable DETR",
    "dino_4scale_r50": "DINO",
}
AUTHORS = {
    "official": "its authors' project",
    "detrex": "detrex",
    "huggingface": "Hugging Face",
    "huggingface_v5": "Hugging Face",
}


@pytest.mark.parametrize(("family", "author"), FILES, ids=["-".join(f) for f in FILES])
def test_every_name_of_a_published_file(family, author):
    state = published_file(family, author)
    shared = family.startswith("dab") or family.endswith("plain")
    shared = shared or (family, author) == ("dino_4scale_r50", "official")
    found = converted(state, "x.pth")
    assert (found.origin.detector, found.origin.author) == (DETECTORS[family], AUTHORS[author])
    assert found.classes == (80 if author == "detrex" else 91)
    assert (found.heads == 1) == shared
    for classes in {80, found.classes}:
        model = full_size(family, classes, shared, author)
        fitted = adapted(state, model, "x.pth", strict=True)
        assert shapes(fitted) == shapes(model.state_dict())


@pytest.mark.parametrize("family", [f for f, author in FILES if author == "huggingface_v5"])
def test_names_of_hugging_faces_hub(family):
    """Files on the hub have older names, and hold a shared tensor only once."""
    state = published_file(family, "huggingface_v5")
    old = {}
    for name, value in state.items():
        name = name.replace(".mlp.fc", ".fc").replace("self_attn.o_proj", "self_attn.out_proj")
        old[name.replace("model.backbone.model.", "model.backbone.conv_encoder.model.")] = value
    once = {k: v for k, v in old.items() if not re.match(r"model\.decoder\.(class|bbox)_embed", k)}
    if family.endswith("plain"):
        once = {k: v for k, v in once.items() if not re.match(r"(class|bbox)_embed\.[1-5]", k)}
    model = full_size(family, 91, author="huggingface_v5")
    for given in (old, once):
        fitted = adapted(given, model, "x.safetensors", strict=True)
        assert shapes(fitted) == shapes(model.state_dict())


def test_the_published_student():
    state = published_file("dab_detr_r50", "official")
    plain = converted(state, "x.pth")
    state["aux_refpoints"] = torch.zeros(300, 4)
    student = converted(state, "x.pth")
    assert student.origin.author == "the KD-DETR project"
    assert shapes(student.state) == shapes(plain.state)


def test_shared_and_separate_dino_heads_in_models_of_both_kinds():
    official = published_file("dino_4scale_r50", "official")
    model = full_size("dino", 80, False, "official")
    fitted = adapted(official, model, "x.pth", strict=True)
    assert shapes(fitted) == shapes(model.state_dict())
    for end in ("weight", "bias"):
        for layer in range(6):
            ours = fitted[f"decoder.class_heads.{layer}.{end}"]
            assert torch.equal(ours, fitted[f"decoder.class_heads.0.{end}"])
    detrex = published_file("dino_4scale_r50", "detrex")
    with pytest.raises(
        CheckpointError, match=r"a head for each layer.*; set model\.shared_heads=F"
    ):
        adapted(detrex, full_size("dino", 80, True), "x.pth")
    # The same after a conversion by the tool.
    own = converted(official, "x.pth").state
    fitted = adapted(own, full_size("dino", 91, False), "x.pth", strict=True)
    assert shapes(fitted) == shapes(full_size("dino", 91, False).state_dict())


def swin_of_its_authors(name: str) -> str:
    """The name of a Swin's weight in the files of DINO's authors, from this project's."""
    if match := re.fullmatch(r"norms\.res(\d)\.(.*)", name):
        return f"norm{int(match[1]) - 2}.{match[2]}"
    name = name.removeprefix("timm.").replace("layers_", "layers.")
    if match := re.fullmatch(r"layers\.(\d)\.downsample\.(.*)", name):
        return f"layers.{int(match[1]) - 1}.downsample.{match[2]}"
    return name


@pytest.mark.parametrize(
    ("author", "prefix"), [("official", "backbone.0."), ("detrex", "backbone.")]
)
def test_dino_with_a_swin(author, prefix):
    pytest.importorskip("timm")
    model = dino(
        backbone=swin(size="tiny"),
        num_classes=80,
        shared_heads=author == "official",
        **needs("dino", author),
    )
    state = published_file("dino_4scale_r50", author)
    state = {k: v for k, v in state.items() if not k.startswith("backbone.")}
    for level, channels in enumerate((192, 384, 768, 768)):
        for name in (f"input_proj.{level}.0.weight", f"neck.convs.{level}.conv.weight"):
            if name in state:
                state[name] = state[name][:, :1].expand(-1, channels, -1, -1)
    if author == "detrex":
        name = "neck.extra_convs.0.conv.weight"
        state[name] = state[name][:, :1].expand(-1, 768, -1, -1)
    for name, value in model.state_dict().items():
        if name.startswith("backbone."):
            state[prefix + swin_of_its_authors(name.removeprefix("backbone."))] = value
    state[f"{prefix}layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    found = converted(state, "x.pth")
    assert (found.config, found.backbone) == ("dino", "swin_t")
    assert shapes(adapted(state, model, "x.pth", strict=True)) == shapes(model.state_dict())


def test_five_scales():
    """The authors have all projections in one list; the 3 x 3 convolution makes the extra level."""
    state = published_file("dino_4scale_r50", "official")
    projections = {k: v for k, v in state.items() if k.startswith("input_proj.")}
    state = {k: v for k, v in state.items() if k not in projections}
    for name, value in projections.items():
        level = int(name.split(".")[1])
        state[f"input_proj.{level + 1}{name[12:]}"] = value
        if level == 0:
            state[name] = value[:, :256] if value.dim() == 4 else value
    state["transformer.level_embed"] = torch.zeros(5, 256)
    found = converted(state, "x.pth")
    assert (found.config, found.backbone) == ("dino_5scale", "r50")
    assert found.state["neck.levels.3.0.weight"].shape == (256, 2048, 1, 1)
    assert found.state["neck.extra.0.0.weight"].shape == (256, 2048, 3, 3)


@pytest.mark.parametrize(("blocks", "name"), [(6, "swin_t"), (18, "swin_s")])
def test_the_depth_of_a_swin_shows_which_it_is(blocks, name):
    """Swin-T and Swin-S have the same channels."""
    state = {"backbone.timm.patch_embed.proj.weight": torch.zeros(96, 3, 4, 4)}
    for block in range(blocks):
        state[f"backbone.timm.layers_2.blocks.{block}.norm1.weight"] = torch.zeros(384)
    assert Converted(ORIGINS["DINO of detrex"], state, {}).backbone == name
