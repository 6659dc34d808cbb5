"""Every command of the READMEs works: its target, program, config, keys and flags exist.

Commands are not run but parsed by the programs themselves. A command of a shape that no checker
knows fails, so that nothing gets into a README unchecked.
"""

import ast
import functools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kddetr.engine import load_config

ROOT = Path(__file__).resolve().parents[1]
READMES = tuple(
    ROOT / name for name in ("README.md", "projects/KDDETR/README.md", "docs/heterogeneous.md")
)
LANGUAGES = {"bash", "python", "text", "json", "bibtex"}

# Commands that a reader needs and a test cannot try, each with the reason why not.
TAKEN_ON_TRUST = {
    r"git clone \S+( \S+)?": "needs the network",
    r"(python -m )?pip install (--no-build-isolation )?"
    r"git\+https://github\.com/facebookresearch/detectron2(\.git)?": "needs the network",
    r"cd [\w./-]+": "only moves about",
    r"(source|\.) \.venv/bin/activate": "only moves about",
    r"export DETECTRON2_DATASETS=\S+": "names a folder of the reader's",
}

# Stands in for `python program arguments`, which stops right after it has parsed its arguments. The
# packages that all programs begin with are imported once; each program runs in a fork of that.
PARSE_ONLY = """
import argparse, json, os, runpy, signal, sys, traceback
import kddetr.engine
parse = argparse.ArgumentParser.parse_args
def parse_and_stop(self, args=None, namespace=None):
    found = vars(parse(self, args, namespace))
    print("PARSED " + json.dumps(found, default=str))
    sys.exit(0)
argparse.ArgumentParser.parse_args = parse_and_stop
for line in sys.stdin:
    reading, writing = os.pipe()
    if os.fork() == 0:
        signal.alarm(120)  # one that hangs has said nothing
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(writing, 1), os.dup2(writing, 2)
        sys.argv = json.loads(line)
        sys.path.insert(0, sys.argv[0].rpartition("/")[0] or ".")
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as stop:
            print(stop.code)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        print(json.dumps(said.read()), flush=True)
    os.wait()
"""


class Block(NamedTuple):
    """A fenced block: where it starts, its language and its text."""

    place: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    fence = re.compile(r"^[ \t]*```([^\n`]*)\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
    for path in filter(Path.exists, READMES):
        text = path.read_text(encoding="utf-8")
        for match in fence.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Block(f"{path.relative_to(ROOT)}:{line}", match[1].strip(), match[2])


def commands() -> Iterator[tuple[str, str]]:
    """Where and what: the lines of the bash blocks, and `make ...` where the prose mentions it."""
    for block in blocks():
        if block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                if line.strip() and not line.lstrip().startswith("#"):
                    yield block.place, " ".join(line.split())
    for path in filter(Path.exists, READMES):
        prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for match in re.finditer(r"`((?:\w+=\S+ )*make [^`]+)`", prose):
            yield str(path.relative_to(ROOT)), " ".join(match[1].split())


def check(command: str) -> None:
    """Fails unless the command, as a reader would type it, is one that works here."""
    words = shlex.split(command, comments=True)
    while "&&" in words:
        at = words.index("&&")
        check(shlex.join(words[:at]))
        words = words[at + 1 :]
    if any(re.fullmatch(pattern, " ".join(words)) for pattern in TAKEN_ON_TRUST):
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
    elif program in ("python", "python3") and words[1].endswith(".py"):
        check_program(tuple(words[1:]))
    else:
        pytest.fail(f"no checker knows this command: {command}")


def check_make(arguments: list[str], variables: dict[str, str]) -> None:
    """make would find its targets, and the programs that it starts would take their arguments."""
    assert any("=" not in word for word in arguments), "make without a target"
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS")}
    environment.update(variables)
    dry_run = ["make", "--dry-run", "--no-print-directory", *arguments]
    done = subprocess.run(dry_run, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"\S*python (tools/[\w/]+\.py.*)", line.strip())
        if match:
            check_program(tuple(shlex.split(match[1])))


@functools.cache
def parser() -> subprocess.Popen:
    """The process that parses, started when first needed."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PARSE_ONLY],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module", autouse=True)
def parser_ends():
    """With the last test of this file."""
    yield
    if parser.cache_info().currsize:
        parser().communicate()  # closes its input, the end of its loop
        parser.cache_clear()


def run_parser(words: tuple[str, ...]) -> str:
    """What a program says while it parses its arguments."""
    process = parser()
    process.stdin.write(json.dumps(words) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


@functools.cache
def check_program(words: tuple[str, ...]) -> None:
    """The program is there and takes these arguments; its config loads with its overrides."""
    source = ROOT / words[0]
    assert source.is_file(), f"{words[0]} does not exist"
    # a program that parses nothing would be run by the check
    text = source.read_text(encoding="utf-8")
    assert re.search(r"argparse|argument_parser|parse_args\(", text), words[0]
    said = run_parser(words)
    parsed = re.search(r"^PARSED (.*)$", said, re.MULTILINE)
    assert parsed, f"{' '.join(words)}: {said.strip()[-500:]}"
    arguments = json.loads(parsed[1])
    if arguments.get("config_file"):
        load_config(str(ROOT / arguments["config_file"]), arguments.get("opts") or [])


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_readme_is_there_with_commands(path: Path):
    assert path.is_file()
    assert any(place.startswith(f"{path.relative_to(ROOT)}:") for place, _ in commands())


@pytest.mark.parametrize(
    "command", dict.fromkeys(command for _, command in commands()), ids=lambda text: text[:80]
)
def test_command_works(command: str):
    check(command)


def test_every_block_says_what_it_is():
    for block in blocks():
        assert block.language in LANGUAGES, f"{block.place}: a block of {block.language!r}"
        if block.language == "text":
            hidden = re.search(r"^\s*(\$ |make |python |torchrun )", block.text, re.MULTILINE)
            assert not hidden, f"{block.place}: a command in a block that is not bash"


def test_python_snippets_compile_and_import():
    for block in blocks():
        if block.language == "python":
            tree = ast.parse(block.text, filename=block.place)
            imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), block.place, "exec"), {})


def test_links_lead_somewhere():
    missing = []
    for path in filter(Path.exists, READMES):
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)|src=\"([^\"]+)\"", text):
            target = "".join(link)
            if not re.match(r"\w+:", target) and not (path.parent / target).exists():
                missing.append(f"{path.relative_to(ROOT)}: {target}")
    assert not missing


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("make qickstart", "No rule to make target"),
        ("make", "without a target"),
        ("python tools/no_such_program.py", "does not exist"),
        ("python tools/setup/install.py --no-such-flag", "unrecognized arguments"),
        ("curl example.com | sh", "no checker knows"),
    ],
)
def test_wrong_commands_are_noticed(command: str, complaint: str):
    with pytest.raises((AssertionError, pytest.fail.Exception), match=complaint):
        check(command)


def test_right_commands_pass():
    check("GOLDEN_DIR=folder make test-golden")
    check("make VENV=.venv setup && python tools/setup/install.py --venv .venv")
