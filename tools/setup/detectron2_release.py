"""Detectron2 0.6 as a pure Python wheel that works with today's numpy, Pillow, torch and Python.

The registry's mirror of the release has no C++ sources, and no model zoo where its setup.py looks.
Every edit below must hit as often as it did on the tested archive, or nothing is installed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

from environment import Environment, SetupError

NAME, VERSION = "pb1-detectron2", "0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"

# Detectron2's environment report calls the first two functions unguarded, so a stand-in that only
# raises is not enough.
COMPILED_STAND_IN = '''"""Stand-in for the compiled operators, which this build leaves out."""


def get_compiler_version():
    return "not compiled"


def get_cuda_version():
    return "not compiled"


def has_cuda():
    return False


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(f"Detectron2 was built without compiled operators: no detectron2._C.{name}")
'''


class Edit(NamedTuple):
    """Replace `pattern` in the files that `glob` names; it must occur `count` times in all."""

    glob: str
    pattern: str
    replacement: str
    count: int


EDITS = (
    # no C++ sources came along; old pins and packages that only caffe2 export needs are in the way
    Edit("setup.py", r"ext_modules=get_extensions\(\)", "ext_modules=[]", 1),
    Edit("setup.py", r'"iopath>=0\.1\.7,<0\.1\.10"', '"iopath>=0.1.7"', 1),
    Edit("setup.py", r'"black==[^"]*",', "", 1),
    Edit("setup.py", r'"(?:future|pydot)",[^\n]*', "", 2),
    # aliases that numpy and Pillow have dropped
    Edit(
        "{detectron2,projects}/**/*.py",
        r"\bnp\.(bool|int|float|object|str|complex)\b",
        r"\1",
        19,
    ),
    Edit("detectron2/data/transforms/transform.py", r"\bImage\.LINEAR\b", "Image.BILINEAR", 1),
    # random.sample() no longer takes a set
    Edit(
        "detectron2/data/common.py",
        r"sample\(self\._fallback_candidates",
        "sample(list(self._fallback_candidates)",
        1,
    ),
    # pkg_resources warns in setuptools 80 and is gone in 82
    Edit(
        "detectron2/model_zoo/model_zoo.py",
        r"import pkg_resources",
        "from importlib.resources import files",
        1,
    ),
    Edit(
        "detectron2/model_zoo/model_zoo.py",
        r"pkg_resources\.resource_filename\(\s*"
        r'"detectron2\.model_zoo",\s*os\.path\.join\("configs", config_path\)\s*\)',
        'str(files("detectron2.model_zoo").joinpath("configs", config_path))',
        1,
    ),
)


def build_wheel(environment: Environment, cache: Path) -> Path:
    """The wheel of the patched release, kept in `cache` for as long as this file stays as it is.

    Needs torch in the environment, because the release's setup.py imports it.
    """
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    folder = cache / f"detectron2-{recipe}"
    built = sorted(folder.glob("*.whl"))
    if not built:
        work = cache / "detectron2-work"
        shutil.rmtree(work, ignore_errors=True)
        source = unpack(download(environment, work), work)
        patch(source)
        options = ("--no-deps", "--no-build-isolation", "--wheel-dir", work / "wheel")
        environment.pip("wheel", *options, source, doing="building Detectron2", pinned=False)
        (work / "wheel").replace(folder)  # whole or not at all, so that a kill leaves no half wheel
        shutil.rmtree(work)
        built = sorted(folder.glob("*.whl"))
    return built[0]


def download(environment: Environment, folder: Path) -> Path:
    """Fetch the source archive; pip compares its sha256 before it runs anything of it."""
    folder.mkdir(parents=True)
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{NAME}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    options = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--require-hashes")
    target = ("--dest", folder, "--requirement", wanted)
    environment.pip("download", *options, *target, doing="downloading Detectron2", pinned=False)
    return next(folder.glob("*.tar.gz"))


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the archive beside itself; SetupError unless it is byte for byte the recorded one."""
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise SetupError(f"{archive.name} is not the recorded Detectron2 archive (sha256 differs)")
    with tarfile.open(archive) as tar:
        # the filter came with a late bug-fix release of 3.10 and 3.11
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, **safe)
    return folder / f"{NAME}-{VERSION}"


def patch(source: Path) -> None:
    """Apply the edits in place; SetupError if the source is not what the edits were written for."""
    for edit in EDITS:
        hits = 0
        for path in expand(source, edit.glob):
            text, changed = re.subn(edit.pattern, edit.replacement, path.read_text("utf-8"))
            hits += changed
            if changed:
                path.write_text(text, "utf-8")
        if hits != edit.count:
            raise SetupError(
                f"patching Detectron2 failed: {edit.pattern!r} was found {hits} times in "
                f"{edit.glob}, expected {edit.count}"
            )
    # setup.py packages the model zoo's configs from a top-level folder that the archive lacks
    shutil.move(source / "detectron2" / "model_zoo" / "configs", source / "configs")
    (source / "detectron2" / "_C.py").write_text(COMPILED_STAND_IN, "utf-8")


def expand(source: Path, glob: str) -> list[Path]:
    """The files under `source` that `glob` names; `{a,b}/rest` stands for two globs."""
    match = re.fullmatch(r"\{(.+)\}(.*)", glob)
    globs = [name + match[2] for name in match[1].split(",")] if match else [glob]
    return [path for pattern in globs for path in sorted(source.glob(pattern))]
