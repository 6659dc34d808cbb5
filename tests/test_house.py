"""Rules for the source code: imports point one way, files are small, messages and docstrings whole.

A *room* is a module or a folder of the package, such as ``structures`` or ``detectors``.
"""

import ast
import importlib
import inspect
import os
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "projects" / "KDDETR" / "kddetr"

# The rooms that each room may import besides itself: structures <- detectors, points, losses and
# teachers <- distiller <- engine. Nothing imports the baselines. The package's __init__ may import
# all others. A new room is added here.
BASE = {
    "boxes",
    "errors",
    "parallel",
    "predictions",
    "queries",
    "ranges",
    "renamed",
    "returned",
    "structures",
    "transfer",
}
MAY_IMPORT = {
    "boxes": set(),
    "errors": set(),
    "parallel": {"errors"},
    "predictions": {"errors", "transfer"},
    "queries": {"errors", "transfer"},
    "quiet": set(),
    "ranges": set(),
    "renamed": {"errors"},
    "returned": {"errors", "structures"},
    "structures": {"errors", "predictions", "queries", "renamed"},
    "transfer": set(),
    "hub": {"errors"},
    "zoo": {"errors"},
    "detectors": {*BASE, "hub", "zoo"},
    "points": BASE,
    "losses": BASE,
    "baselines": {*BASE, "detectors", "losses", "points"},
    "data": BASE,
    "teachers": {*BASE, "checkpoint", "data", "detectors"},
    "distiller": {*BASE, "projection"},
    "projection": {"structures"},
    "checkpoint": {*BASE, "hub", "zoo"},
    "gap": {*BASE, "losses"},
    "engine": {*BASE, "checkpoint", "data", "gap", "teachers"},
    "export": {*BASE, "detectors"},
    "preflight": {*BASE, "checkpoint", "data", "detectors", "engine", "teachers"},
    "prediction": {*BASE, "checkpoint", "data", "engine", "visualization"},
    "quickstart": {*BASE, "data"},
    "recipes": {
        *BASE,
        *("checkpoint", "data", "detectors", "distiller", "engine", "losses", "points"),
        *("hub", "preflight", "report", "teachers", "zoo"),
    },
    "report": {*BASE, "checkpoint", "data", "engine", "gap", "losses", "teachers", "visualization"},
    "visualization": BASE,
}
# Folders inside of a room that may import only some of its other modules.
INSIDE = {
    "data/layouts": {"coco", "folders", "images", "paths"},
    "engine/config": set(),
    "engine/evaluation": {"config"},
}
DISTILLATION = {"points", "losses", "teachers", "distiller", "engine"}

MOST_LINES_OF_A_MODULE = 350
MOST_LINES_OF_ANOTHER_FILE = 400  # tests, tools and configs
MOST_LINES_OF_A_FUNCTION = 60  # signature and docstring not counted
LINE_LENGTH = 100

# Written with brackets so that this file does not match its own patterns.
UNWANTED = {
    "a path of somebody's machine": r"(?<![\w.~$}*-])/(?:work|farm|tmp|root|home|Users|mnt)/\w",
    "a package registry's host": r"py[p]i\.org|python[h]osted|npm[j]s|deb\.deb[i]an",
    "an unfinished mark": r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b|@[@]",
}


def project_files() -> list[Path]:
    """All files that git tracks or would add; without git, all but built and hidden ones."""
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


def imported_modules(path: Path) -> list[list[str]]:
    """What a module imports of the package, at its top or inside a function: ["losses", "gap"]."""
    package = ("kddetr", *path.relative_to(PACKAGE).parts[:-1])
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            # In "from kddetr import losses" and "from .. import losses" the room comes last.
            names += [f"{module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return [part[1:] for part in parts if part[0] == "kddetr" and len(part) > 1]


def room_of(path: Path) -> str:
    """``detectors`` for kddetr/detectors/inputs.py, ``structures`` for kddetr/structures.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    """The rooms of the package that a module imports."""
    return {module[0] for module in imported_modules(path)}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The number of lines without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in MAY_IMPORT, f"add the new room {room!r} to MAY_IMPORT in {Path(__file__).name}"
    beyond = imported_rooms(path) - {room} - MAY_IMPORT[room]
    assert not beyond, f"{room} may not import {', '.join(sorted(beyond))}"


@pytest.mark.parametrize("folder", INSIDE)
def test_imports_point_one_way_inside_of_a_room(folder: str):
    room, own = folder.split("/")
    files = sorted((PACKAGE / folder).rglob("*.py"))
    assert files, f"there is no folder {folder}"
    for path in files:
        found = {[*module, room][1] for module in imported_modules(path) if module[0] == room}
        beyond = found - {own} - INSIDE[folder]
        assert not beyond, f"{path.relative_to(PACKAGE)} may not import {', '.join(sorted(beyond))}"


def test_no_module_imports_a_private_name_of_another():
    found = {
        f"{path.relative_to(PACKAGE)}: {'.'.join(module)}"
        for path in MODULES
        for module in imported_modules(path)
        if module[-1].startswith("_") and not module[-1].startswith("__")
    }
    assert not found, f"make these names public, or move what needs them: {sorted(found)}"


def test_detectors_import_nothing_of_distillation():
    """A detector answers any queries about an image, whether or not it is being distilled."""
    found = {
        str(path.relative_to(PACKAGE)): sorted(rooms)
        for path in MODULES
        if room_of(path) == "detectors" and (rooms := imported_rooms(path) & DISTILLATION)
    }
    assert not found, f"a detector must work without distillation, but these import it: {found}"


def test_the_rooms_of_every_kind_of_import_are_found(tmp_path: Path, monkeypatch):
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
        of_package = path.is_relative_to(PACKAGE)
        most = MOST_LINES_OF_A_MODULE if of_package else MOST_LINES_OF_ANOTHER_FILE
        if (lines := text.count("\n")) > most:
            long.append(f"{name} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = body_lines(node)
                if lines > MOST_LINES_OF_A_FUNCTION:
                    long.append(f"{name}:{node.lineno}: {node.name} has {lines} lines")
    assert not long, "split them by what they do:\n" + "\n".join(long)


# A line that holds one string literal; a long message is written as several such lines.
LITERAL = re.compile(r'\s*[rRfF]{0,2}"(.*)"[,)]*')


def short_literals(text: str) -> list[int]:
    """The numbers of lines that hold only a word or two of a message, with space left for more.

    Wrapping a message a second time leaves them: ``"the last "`` above ``"checkpoint."``.
    """
    lines, found = text.splitlines(), set()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.JoinedStr | ast.Constant):
            continue
        own = lines[node.lineno - 1 : node.end_lineno]
        if '"""' in own[0]:
            continue
        for number, (line, following) in enumerate(pairwise(own), node.lineno):
            part, rest = LITERAL.fullmatch(line), LITERAL.fullmatch(following)
            if not part or not rest or not (part[1].endswith(" ") or rest[1].startswith(" ")):
                continue
            words = rest[1].split()
            if len(part[1].split()) <= 2 and len(line) + 1 + len(words[0]) <= LINE_LENGTH:
                found.add(number)
    return sorted(found)


def test_messages_are_not_broken_after_a_word_or_two():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in python_files()
        for line in short_literals(path.read_text(encoding="utf-8"))
    ]
    assert not found, "fill each part of these strings to the line length:\n" + "\n".join(found)


def test_a_message_broken_after_a_word_is_found():
    whole = 'x = (\n    "a message that is long enough for two lines of a file, which is why it "\n'
    assert short_literals(whole + '    "the "\n    "last word."\n)') == [3]
    assert short_literals(whole + '    f"{the} "\n    "last word."\n)') == [3]
    assert short_literals(whole + '    "the"\n    " last word."\n)') == [3]
    assert short_literals(whole + '    "has a last word."\n)') == []
    assert short_literals('"""the\nlast\nword"""\ny = (\n    r"a|"\n    r"b"\n)') == []


def members(thing: type) -> Iterator[tuple[str, object]]:
    """The public methods and properties of a class that are defined there and override nothing."""
    for name, member in vars(thing).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        inherited = any(hasattr(base, name) for base in thing.__mro__[1:])
        if inspect.isfunction(function) and not name.startswith("_") and not inherited:
            yield name, function


def undocumented(module: ModuleType) -> Iterator[str]:
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and not thing.__doc__:
            yield f"{module.__name__}.{name}"
        for member, function in members(thing) if inspect.isclass(thing) else ():
            if not function.__doc__:
                yield f"{module.__name__}.{name}.{member}"


def test_everything_public_has_a_docstring():
    found = []
    for path in MODULES:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        if not module.__doc__:
            found.append(module.__name__)
        found += undocumented(module)
    assert not found, "describe in a sentence what each of these is:\n" + "\n".join(found)


def test_no_file_names_a_machine_a_registry_or_unfinished_work():
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


def test_the_unwanted_patterns_match_what_they_are_meant_for():
    def hits(text: str) -> list[str]:
        return [what for what, pattern in UNWANTED.items() if re.search(pattern, text)]

    machine, host, mark = UNWANTED
    assert hits("see /" + "home/me/coco and file:///" + "tmp/x") == [machine]
    assert hits("https://" + "pypi." + "org/simple") == [host]
    assert hits("# TO" + "DO: later") == [mark]
    assert hits("https://example.com/work/x ~/tmp/y output/tmp/z datasets/coco") == []


def test_every_dependency_is_bounded_and_pinned():
    """setup.cfg has a lower bound for each, and tools/setup a tested version within the bounds."""
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
