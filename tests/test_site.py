"""The documentation site has every page, every config key and every logged name, and the messages
that it explains are those of the programs.

`make docs` builds the site, which fails where a link leads nowhere.
"""

import ast
import functools
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml

from kddetr import KDDETR, data, detectors, losses, points, teachers
from kddetr.engine import CocoEvaluator
from kddetr.engine.config.defaults import TrainSection
from site_pages.config_keys import page, shares_with
from site_pages.links import site_links
from tests.documented_names import undescribed

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def pages_of_the_navigation() -> list[str]:
    # The base loader passes over the tag of a function that only mkdocs needs.
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), yaml.BaseLoader)

    def walk(node: object) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            for inner in node if isinstance(node, list) else node.values():
                yield from walk(inner)

    return list(walk(config["nav"]))


def test_every_page_is_in_the_navigation_once():
    named = pages_of_the_navigation()
    assert len(set(named)) == len(named)
    written = {file.name for file in DOCS.glob("*.md")}
    of_other_files = {"index.md", "changelog.md", "contributing.md", "paper.md"}
    assert set(named) == written | of_other_files | {"api"}


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](export.md#formats)", "[a](export.md#formats)"),
        ("[a](#formats)", "[a](#formats)"),
        ("![a](curves.jpg)", "![a](curves.jpg)"),
        ("[a](https://example.com/x)", "[a](https://example.com/x)"),
        ("[`a`](../projects/a.py)", "[`a`](api/a.md)"),
        ("[a](../README.md#install)", "[a](index.md#install)"),
        ("[a](../configs/b.py) or [`c`](../c)", "a or `c`"),
        ("```text\n[a](../configs/b.py)\n```", "```text\n[a](../configs/b.py)\n```"),
    ],
)
def test_links_of_a_page_lead_to_pages(link: str, expected: str):
    shown = {"projects/a.py": "api/a.md", "README.md": "index.md"}
    assert site_links(link, source="docs/page.md", page="page.md", shown=shown) == expected


def test_links_of_other_files_are_seen_from_their_page():
    """A page may lie in another folder than the file that it shows."""
    text = "[a](../../docs/export.md) ![b](../../docs/curves.jpg)"
    found = site_links(text, source="projects/KDDETR/README.md", page="x/paper.md", shown={})
    assert found == "[a](../export.md) ![b](../curves.jpg)"


def test_the_page_of_config_keys_is_that_of_the_source():
    written = (DOCS / "config_keys.md").read_text(encoding="utf-8")
    assert written == page(), "run `python tools/config_page.py`, and commit what it writes"


@functools.cache
def rows() -> list[tuple[str, str, str]]:
    """The (heading, key, meaning) of each row of the page."""
    found, heading = [], ""
    for line in page().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif row := re.fullmatch(r"\| `([^`]+)` \| (?:.*?) \| (.*) \|", line):
            found.append((heading, row[1], row[2]))
    return found


def keys_of(section: type, prefix: str) -> Iterator[str]:
    for entry in fields(section):
        name = f"{prefix}.{entry.name}"
        yield from keys_of(entry.type, name) if is_dataclass(entry.type) else (name,)


def test_every_key_of_the_train_section_is_on_the_page_once():
    found = Counter(key for _, key, _ in rows() if key.startswith("train."))
    assert found == Counter(keys_of(TrainSection, "train"))


def is_a_part(thing: object) -> bool:
    """Whether a config may name it: a class, and no protocol."""
    return inspect.isclass(thing) and thing not in (losses.DistillationLoss, losses.PointTerm)


ROOMS = (points, losses, teachers)
PUBLIC = [
    *(t for room in ROOMS for t in map(room.__dict__.get, room.__all__) if is_a_part(t)),
    *(data.build_train_loader, data.build_test_loader, data.DetectionMapper, data.load_coco_format),
    *(detectors.dab_detr, detectors.deformable_detr, detectors.dino, detectors.resnet),
    *(KDDETR, CocoEvaluator),
]


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_every_argument_is_on_the_page_once(thing):
    """Under the heading of its class or function, or under the one that this heading refers to."""
    headings = [thing]
    while parent := shares_with(headings[-1]):
        headings.append(parent)
    names = {heading.__name__ for heading in headings}
    found = Counter(key.rsplit(".", 1)[-1].lstrip("*") for h, key, _ in rows() if h in names)
    assert found == Counter(inspect.signature(thing).parameters.keys())


def test_everything_that_a_config_calls_is_on_the_page():
    """Of this package; the controls and rivals of configs/evidence are in the API pages."""
    headings, missing = {heading for heading, _, _ in rows()}, {}
    for file in (ROOT / "configs").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        imports = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
        ours = {a.name for n in imports if n.module.startswith("kddetr") for a in n.names}
        lazy = [n for n in nodes if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "L"]
        called = {getattr(n.args[0], "id", "") for n in lazy}
        if "evidence" not in file.parts:
            missing |= dict.fromkeys((ours & called) - headings, file.name)
    # What takes no arguments has no rows.
    assert {name for name in missing if f"### {name}\n" not in page()} == set()


def test_every_key_has_a_meaning():
    assert [key for _, key, meaning in rows() if not meaning] == []


def test_undescribed_names_are_noticed():
    """Which names a run logs is seen in tests/test_configs.py and tests/engine/test_watch.py."""
    assert undescribed(["total_loss", "loss_class_3", "kd_mine/class"]) == []
    assert undescribed(["total_los", "loss_class_x", "gap/general/area"]) != []


def said() -> list[str]:
    """Every text of the programs, with a line break for each value inside of it."""
    texts = [(ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n\t", "")]
    sources = [ROOT / "train_net.py", *ROOT.glob("tools/setup/*.py")]
    for file in [*sources, *ROOT.glob("projects/KDDETR/kddetr/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                values = (getattr(part, "value", None) for part in node.values)
                texts.append("".join(v if isinstance(v, str) else "\n" for v in values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def is_said(message: str, texts: list[str]) -> bool:
    """Whether a text has all parts of the message, between which "..." stands for something."""
    parts = [part.strip(" '") for part in message.split("...")]
    pattern = re.compile(".*".join(map(re.escape, filter(None, parts))), re.DOTALL)
    return any(parts[-1] in text and pattern.search(text) for text in texts)


def test_every_message_that_is_explained_is_one_of_the_programs():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    texts = said()
    assert [message for message in quoted if not is_said(message, texts)] == []
    assert len(quoted) > 30


def test_messages_that_nobody_says_are_noticed():
    assert is_said("has no '...'; ...", ["the config has no '\n'; \n"])
    assert not is_said("has no '...'; ...", ["the config has \n"])
