"""Every command and link of the documents works: its target, program, config, keys and flags exist.

Commands are not run. Each program is stopped right after it has parsed its arguments, and the
config that they name is loaded with its overrides. A command of an unknown shape fails, so that
nothing gets into a document unchecked.
"""

import argparse
import ast
import contextlib
import functools
import importlib.util
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from kddetr.engine import load_config
from kddetr.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "projects/KDDETR/README.md")
) + tuple(sorted(ROOT.glob("docs/*.md")))
LANGUAGES = {"bash", "python", "text", "json", "bibtex"}
EXTRAS = ("transformers",)  # packages of an extra that a snippet imports

# Commands that a reader needs and a test cannot try, each with the reason.
NOT_TRIED = {
    r"git clone \S+( \S+)?": "needs the network",
    r"(python -m )?pip install (--no-build-isolation )?"
    r"git\+https://github\.com/facebookresearch/detectron2(\.git)?": "needs the network",
    r"cd [\w./-]+": "only changes the folder",
    r"(source|\.) \.venv/bin/activate": "only changes the shell",
    r"export DETECTRON2_DATASETS=\S+": "names a folder of the reader's",
    r"python train_net\.py --config-file \.\./my_project/.*": "tests/distillation runs it",
}


class Parsed(BaseException):
    """Raised with the parsed arguments; not an Exception, so that no program catches it."""


class Block(NamedTuple):
    """A fenced block: where it starts, its language and its text."""

    place: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    fence = re.compile(r"^[ \t]*```([^\n`]*)\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for match in fence.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Block(f"{path.relative_to(ROOT)}:{line}", match[1].strip(), match[2])


def prose(path: Path) -> str:
    """The text of a page without its fenced blocks."""
    return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands() -> Iterator[str]:
    """The lines of the bash blocks, and `make ...` where the prose mentions it."""
    for block in blocks():
        if block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.strip() and not line.lstrip().startswith("#"):
                    yield " ".join(line.split())
    for path in PAGES:
        for match in re.finditer(r"`((?:\w+=\S+ )*make [^`]+)`", prose(path)):
            yield " ".join(match[1].split())


def check(command: str) -> None:
    """Fails unless the command, as a reader would type it, is one that works here."""
    words = shlex.split(command, comments=True)
    while "&&" in words:
        at = words.index("&&")
        check(shlex.join(words[:at]))
        words = words[at + 1 :]
    if any(re.fullmatch(pattern, " ".join(words)) for pattern in NOT_TRIED):
        return
    variables = []
    while re.match(r"[A-Za-z_]\w*=", words[0]):
        variables.append(words.pop(0))
    program = words[0].removeprefix(".venv/bin/")
    if program == "make":
        check_make(words[1:], dict(variable.split("=", 1) for variable in variables))
    elif program == "torchrun":
        script = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
        assert script is not None, f"torchrun starts no program: {command}"
        check_program(tuple(words[script:]))
    elif program == "sbatch":
        script = next(i for i, word in enumerate(words) if word.endswith(".sh"))
        assert (ROOT / words[script]).is_file(), f"{words[script]} does not exist"
        check_program(("train_net.py", "--config-file", *words[script + 1 :]))
    elif program in ("python", "python3") and words[1].endswith(".py"):
        check_program(tuple(words[1:]))
    elif program in ("python", "python3") and words[1:3] == ["-m", "pytest"]:
        missing = [word for word in words[3:] if "/" in word and not (ROOT / word).exists()]
        assert not missing, f"{', '.join(missing)} does not exist"
    else:
        pytest.fail(f"no checker knows this command: {command}")


def check_make(arguments: list[str], variables: dict[str, str]) -> None:
    """make would find its targets, and the programs that it starts would take their arguments."""
    assert any("=" not in word for word in arguments), "make without a target"
    of_this_run = ("MAKEFLAGS", "MFLAGS", "ARGS")  # where `make test ARGS=...` runs this test
    environment = {k: v for k, v in os.environ.items() if k not in of_this_run}
    environment.update(variables)
    dry_run = ["make", "--dry-run", "--no-print-directory", *arguments]
    done = subprocess.run(dry_run, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"\S*python (tools/[\w/]+\.py.*)", line.strip())
        if match:
            check_program(tuple(shlex.split(match[1])))


@functools.cache
def check_program(words: tuple[str, ...]) -> None:
    """The program exists and takes these arguments; its config loads with its overrides."""
    source = ROOT / words[0]
    assert source.is_file(), f"{words[0]} does not exist"
    # A program that parses nothing would be run by the check.
    text = source.read_text(encoding="utf-8")
    parses = r"argparse|argument_parser|parse_args\(|engine\.program import main"
    assert re.search(parses, text), words[0]
    arguments = parse(words)
    if config := getattr(arguments, "config_file", None):
        load_config(str(ROOT / config), getattr(arguments, "opts", None) or [])


def parse(words: tuple[str, ...]) -> argparse.Namespace:
    """The arguments that a program parses when it is started with these words, in this process."""

    def stopping(name: str):
        inside = getattr(argparse.ArgumentParser, name)

        def parse_and_stop(self, args=None, namespace=None):
            raise Parsed(inside(self, args, namespace))

        return parse_and_stop

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, stopping(name))
        patch.setattr(sys, "argv", list(words))
        patch.syspath_prepend(ROOT / Path(words[0]).parent)
        patch.chdir(ROOT)
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        except Parsed as stop:
            return stop.args[0]
        except SystemExit:
            pytest.fail(f"{shlex.join(words)}: {said.getvalue().strip()[-500:]}")
    raise AssertionError(f"{words[0]} ended without parsing its arguments")


@pytest.mark.parametrize("command", dict.fromkeys(commands()), ids=lambda text: text[:80])
def test_command_works(command: str):
    check(command)


def test_pages_have_commands():
    """The test above would have nothing to do if the fences were written in another way."""
    assert len(set(commands())) > 30


def test_every_block_says_what_it_is():
    for block in blocks():
        assert block.language in LANGUAGES, f"{block.place}: a block of {block.language!r}"
        if block.language == "text":
            hidden = re.search(r"^\s*(\$ |make |python |torchrun )", block.text, re.MULTILINE)
            assert not hidden, f"{block.place}: a command in a block that is not bash"


def test_python_snippets_compile_and_import():
    """Their imports work; those of a package of an extra only where it is installed."""
    absent = {name for name in EXTRAS if importlib.util.find_spec(name) is None}
    for block in blocks():
        if block.language == "python":
            tree = ast.parse(block.text, filename=block.place)
            imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
            run_elsewhere = block.text.startswith("# my_project/")  # by tests/distillation
            beside = any(isinstance(n, ast.ImportFrom) and n.level for n in imports)
            imports = [n for n in imports if getattr(n, "module", None) not in absent]
            if not (run_elsewhere or beside):
                exec(compile(ast.Module(imports, []), block.place, "exec"), {})


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ +(.+?) *$", prose(path), re.MULTILINE)
    texts = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


def dead_links(path: Path) -> list[str]:
    """Links of a page to a file that does not exist, or to a heading that is not on its page."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)[^)]*\)|src=\"([^\"]+)\"", prose(path)):
        target, _, anchor = "".join(link).partition("#")
        if re.match(r"\w+:", target):
            continue
        file = path.parent / target if target else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append("".join(link))
    return dead


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path):
    assert not dead_links(path)


def test_dead_links_are_noticed(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `page` of [links](page.md)\n[a](#a-page-of-links) [b](page.md#a-page-of-links)\n"
        "[c](page.md#gone) [d](gone.md) [e](#gone) [f](https://example.com/page#gone)\n"
    )
    assert dead_links(page) == ["page.md#gone", "gone.md", "#gone"]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.yml")), ids=lambda path: path.name)
def test_files_for_the_forge_are_valid(path: Path):
    """They parse, and every step of a workflow uses an action at a version or runs a command."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    for job in tree.get("jobs", {}).values():
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
            for line in step.get("run", "").splitlines():
                if line.startswith("make "):
                    check(re.sub(r"\$\{\{[^}]*\}\}", "value", line))


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("make qickstart", "No rule to make target"),
        ("make", "without a target"),
        ("python tools/no_such_program.py", "does not exist"),
        ("python tools/setup/install.py --no-such-flag", "unrecognized arguments"),
        ("python train_net.py --config-file configs/detectors/dino_r50.py --flag", "unrecognized"),
        ("python -m pytest tests/no_such_folder", "does not exist"),
        ("curl example.com | sh", "no checker knows"),
    ],
)
def test_wrong_commands_are_noticed(command: str, complaint: str):
    with pytest.raises((AssertionError, pytest.fail.Exception), match=complaint):
        check(command)


def test_wrong_configs_are_noticed():
    command = "python train_net.py --config-file configs/detectors/{}"
    with pytest.raises(ConfigError, match="did you mean dino_r50"):
        check(command.format("dino_r5.py"))
    with pytest.raises(ConfigError, match="num_classes"):
        check(command.format("dino_r50.py model.num_clases=3"))


def test_right_commands_pass():
    check("GOLDEN_DIR=folder make test-golden")
    check("make VENV=.venv setup && python tools/setup/install.py --venv .venv")
