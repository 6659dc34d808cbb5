"""The rules of the house: imports point one way, files stay small, no machine leaves its mark."""

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "projects" / "KDDETR" / "kddetr"

# What each room (module or folder of the package) may import besides itself. The package's
# __init__ gathers and may import all of them. A new room draws its arrows here.
VOCABULARY = {"boxes", "errors", "parallel", "structures"}
MAY_IMPORT = {
    "boxes": set(),
    "errors": set(),
    "parallel": set(),
    "structures": {"errors"},
    "zoo": {"errors"},
    "detectors": {*VOCABULARY, "zoo"},
    "points": VOCABULARY,
    "losses": VOCABULARY,
    "distiller": VOCABULARY,
    "data": VOCABULARY,
    "teachers": {*VOCABULARY, "data", "detectors"},
    "checkpoint": {*VOCABULARY, "zoo"},
    "engine": {*VOCABULARY, "checkpoint", "data", "teachers"},
    "quickstart": {*VOCABULARY, "data"},
    "visualization": VOCABULARY,
}

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60  # signature and docstring not counted
_FIGURE = "one call that reads like the figure of the paper; each part is a class of its own"
LONG_FOR_A_REASON = {"dab_detr": _FIGURE, "deformable_detr": _FIGURE, "dino": _FIGURE}

# Written with brackets so that this file does not match its own patterns.
UNWANTED = {
    "a path of somebody's machine": r"(?<![\w.~$}*-])/(?:work|farm|tmp|root|home|Users|mnt)/\w",
    "a package registry's host": r"py[p]i\.org|python[h]osted|npm[j]s|deb\.deb[i]an",
    "an unfinished mark": r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b|@[@]",
}


def project_files() -> list[Path]:
    """Files that git has or would add; without git, those that .gitignore would let through."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if (ROOT / ".git").exists():
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]
    made = {"build", "output", "datasets", "__pycache__"}
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if (not name.startswith(".") or name == ".ci")
            and name not in made
            and not name.endswith(".egg-info")
        ]
        found += [Path(folder) / name for name in names]
    return found


def python_files() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py"]


def room_of(path: Path) -> str:
    """`detectors` for kddetr/detectors/dab_detr.py, `structures` for kddetr/structures.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Rooms of the package that a module imports anywhere in it, functions included."""
    package = ("kddetr", *path.relative_to(PACKAGE).parts[:-1])
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            # `from kddetr import losses` and `from .. import losses` name the room last
            names += [f"{module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "kddetr" and len(part) > 1}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in MAY_IMPORT, f"draw the arrows of the new room {room!r} in {Path(__file__).name}"
    beyond = imported_rooms(path) - {room} - MAY_IMPORT[room]
    assert not beyond, f"{room} may not import {', '.join(sorted(beyond))}"


def test_rooms_can_be_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The test above would notice each way of writing an import."""
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    module = tmp_path / "detectors" / "thief.py"
    module.parent.mkdir()
    for line in (
        "import kddetr.losses.gap",
        "from kddetr import losses",
        "from kddetr.losses import gap",
        "from .. import losses",
        "from ..losses.gap import Gap",
        "def late():\n    from ..losses import gap",
    ):
        module.write_text(line)
        assert imported_rooms(module) == {"losses"}, line
    module.write_text("from .decoder import Decoder\nimport torch.nn.functional as F")
    assert imported_rooms(module) <= {"detectors"}


def test_files_and_functions_stay_small():
    long = []
    for path in python_files():
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT)
        if (lines := text.count("\n")) > MOST_LINES_OF_A_FILE:
            long.append(f"{name} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = body_lines(node)
                if lines > MOST_LINES_OF_A_FUNCTION and node.name not in LONG_FOR_A_REASON:
                    long.append(f"{name}:{node.lineno}: {node.name} has {lines} lines")
    assert not long, "split them by what they do:\n" + "\n".join(long)


def test_nothing_of_one_machine_gets_in():
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or an array
        for what, pattern in UNWANTED.items():
            for match in re.finditer(pattern, text):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{path.relative_to(ROOT)}:{line}: {what}: {match[0]}")
    assert not found, "\n".join(found)


def test_unwanted_patterns_match_what_they_are_for():
    def hits(text: str) -> list[str]:
        return [what for what, pattern in UNWANTED.items() if re.search(pattern, text)]

    machine, host, mark = UNWANTED
    assert hits("see /" + "home/me/coco and file:///" + "tmp/x") == [machine]
    assert hits("https://" + "pypi." + "org/simple") == [host]
    assert hits("# TO" + "DO: later") == [mark]
    assert hits("https://example.com/work/x ~/tmp/y output/tmp/z datasets/coco") == []


def test_every_dependency_is_bounded_and_pinned():
    """setup.cfg has a lower bound for each, the set-up a tested version that satisfies it."""
    from configparser import ConfigParser

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    wanted = [Requirement(line) for text in lines for line in text.split("\n") if line.strip()]
    pins = {}
    for file in ("pins.txt", "torch.txt"):
        for line in (ROOT / "tools" / "setup" / file).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                pin = Requirement(line)
                pins[canonicalize_name(pin.name)] = next(iter(pin.specifier)).version
    assert wanted
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        assert any(part.operator == ">=" for part in requirement.specifier), f"{name}: no bound"
        assert name in pins, f"{name}: no tested version in tools/setup"
        assert pins[name] in requirement.specifier, f"{name}: {pins[name]} is out of bounds"
