"""Make the environment that everything here runs in: torch, Detectron2, this project, the extras.

Needs a bare Python >= 3.10. What the environment has already, and works, is used as it is; run
again after an interruption, it goes on where it was. `make setup` calls it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from detectron2_release import VERSION as DETECTRON2_VERSION
from detectron2_release import build_wheel
from environment import Environment, SetupError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / "build" / "setup"
DISK_FOR_TORCH = 10e9  # bytes: 6 GB installed, the archives while they are unpacked, and a margin

TORCH_WORKS = """
import torch, torchvision
torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
"""
DETECTRON2_IS_THERE = "import detectron2; detectron2.__version__"  # a mere folder has no version
DETECTRON2_WORKS = "import detectron2.data, detectron2.engine, detectron2.modeling"
KERNEL_WORKS = """
import torch
from torch_ms_deform_attn import ms_deform_attn
centre, one = torch.full((1, 1, 1, 1, 1, 2), 0.5), torch.ones(1, 1, 1, 1, 1)
out = ms_deform_attn(torch.ones(1, 4, 1, 2), torch.tensor([[2, 2]]), torch.tensor([0]), centre, one)
torch.testing.assert_close(out, torch.ones(1, 1, 2))
"""
EXTRA_IS_THERE = """
import importlib.metadata as metadata
from packaging.requirements import Requirement
for wanted in map(Requirement, metadata.requires("kddetr")):
    if wanted.marker and wanted.marker.evaluate({{"extra": {!r}}}):
        assert metadata.version(wanted.name) in wanted.specifier
"""
SMOKE_TEST = """
import importlib.metadata as metadata, platform
import cv2, detectron2, kddetr, numpy, torch, torchvision
from detectron2.utils.collect_env import collect_env_info
torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
collect_env_info()
def version(name):
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"no {name}"
gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
print(", ".join([f"Python {platform.python_version()}", f"torch {torch.__version__} ({gpu})",
    f"torchvision {torchvision.__version__}", f"Detectron2 {detectron2.__version__}",
    f"numpy {numpy.__version__}", f"OpenCV {cv2.__version__}", version("faster-coco-eval"),
    version("torch-ms-deform-attn"), f"kddetr {metadata.version('kddetr')}"]))
"""


def main() -> int:
    """Set everything up; returns the exit status."""
    args = parse_arguments()
    folder = args.venv.absolute()
    env = Environment(folder, log=CACHE / "setup.log", pins=HERE / "pins.txt")
    env.log.write_text("", encoding="utf-8")
    log = os.path.relpath(env.log)
    print(f"Setting up {args.venv}: some minutes the first time (details in {log})", flush=True)
    steps: tuple[tuple[str, Callable[[Environment], str]], ...] = (
        ("environment", make_environment),
        ("build tools", install_build_tools),
        ("torch, torchvision", install_torch),
        ("OpenCV", install_opencv),  # a broken one breaks Detectron2's import
        ("Detectron2", install_detectron2),
        ("deformable attention", install_kernel),
        ("COCO metrics", install_coco_metrics),
        ("this project", install_project),
    )
    if args.extra:
        steps = ((f"extra {args.extra}", lambda env: install_extra(env, args.extra)),)
    try:
        for name, step in steps:
            print(f"  {name:<22}", end="", flush=True)
            start = time.monotonic()
            outcome = step(env)
            print(f"{outcome} ({time.monotonic() - start:.0f} s)", flush=True)
        if args.extra:
            return 0
        print(f"Ready: {env.output(SMOKE_TEST, doing='trying the finished environment')}")
    except SetupError as error:
        print()
        return fail(str(error))
    except KeyboardInterrupt:
        print()
        return fail("stopped; the same command goes on where it was")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="TORCH_SPEC in the environment replaces the tested torch pair, for another CUDA or "
        'for a CPU build: TORCH_SPEC="torch==A torchvision==B --index-url URL".',
    )
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="made if it is not there")
    parser.add_argument(
        "--extra",
        choices=("live", "docs"),
        help="add only this one to an environment that is set up",
    )
    return parser.parse_args()


def fail(sentence: str) -> int:
    print(f"Set-up failed: {sentence}.", file=sys.stderr, flush=True)
    return 1


def make_environment(env: Environment) -> str:
    """Make the environment, sharing the calling Python's packages if Detectron2 is one of them."""
    if env.runs("import pip"):
        outcome = "as found"
    else:
        outcome = "made"
        if subprocess.run(
            [sys.executable, "-c", "import ensurepip, venv"], capture_output=True
        ).returncode:
            raise SetupError(
                f"{sys.executable} cannot make environments; install its venv package "
                "(python3-venv on Debian and Ubuntu)"
            )
        status, text = env.call(sys.executable, "-m", "venv", env.folder)
        if status != 0 or not env.runs("import pip"):
            last = (text.strip().splitlines() or ["its Python or its pip does not run"])[-1]
            raise SetupError(f"{env.folder} cannot be used as an environment: {last}")
        if (
            subprocess.run(
                [sys.executable, "-c", DETECTRON2_IS_THERE], capture_output=True
            ).returncode
            == 0
        ):
            share_packages(env)
            outcome = f"made, sharing the packages of {sys.executable}"
    version = env.output("import sys; print(*sys.version_info[:3])", doing="starting Python")
    if tuple(map(int, version.split())) < (3, 10):
        raise SetupError(f"Python 3.10 or newer is needed, {env.folder} has {version}")
    return f"{outcome}, Python {version.replace(' ', '.')}"


def share_packages(env: Environment) -> None:
    """Put the calling Python's packages behind the environment's own on its path.

    venv's --system-site-packages would do only if the caller is not itself a virtual environment.
    """
    folders = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    target = Path(env.output(code, doing="finding the environment's packages"))
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders]
    (target / "kddetr_shared.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")


def install_build_tools(env: Environment) -> str:
    env.pip(
        "install", "setuptools>=77.0.3,<81", "wheel", "packaging", doing="installing setuptools"
    )
    return f"setuptools {env.installed()['setuptools']}"


def install_torch(env: Environment) -> str:
    """Use a torch and torchvision that work together, else install TORCH_SPEC or the pins."""
    outcome = "as found"
    if not env.runs(TORCH_WORKS):
        outcome = "installed"
        tested = (HERE / "torch.txt").read_text(encoding="utf-8")
        spec = shlex.split(os.environ.get("TORCH_SPEC", ""))
        if not spec:
            found = env.installed().get("torch")
            if found and f"torch=={found.split('+')[0]}\n" not in tested:
                raise SetupError(
                    f"torch {found} is in {env.folder} without a torchvision that works with it; "
                    "install that torchvision, or say which pair to install: "
                    'make setup TORCH_SPEC="torch==A torchvision==B"'
                )
            free = shutil.disk_usage(env.folder).free
            if free < DISK_FOR_TORCH:
                raise SetupError(
                    f"torch needs about {DISK_FOR_TORCH / 1e9:.0f} GB, {env.folder} has "
                    f"{free / 1e9:.1f} GB left; make room, or name a smaller build in TORCH_SPEC"
                )
            spec = ["-r", str(HERE / "torch.txt")]
        print("downloading, up to 3 GB ... ", end="", flush=True)
        env.pip("install", *spec, doing="installing torch", pinned=False)
        env.output(TORCH_WORKS + "print()", doing="importing torch and torchvision")
    versions = env.installed()
    return f"{versions['torch']} and {versions['torchvision']}, {outcome}"


def install_detectron2(env: Environment) -> str:
    if env.runs(DETECTRON2_IS_THERE):
        env.output(DETECTRON2_WORKS + "; print()", doing="importing the Detectron2 that was found")
        return "as found"
    wheel = build_wheel(env, CACHE)
    env.pip("install", wheel, doing="installing Detectron2")
    env.output(DETECTRON2_WORKS + "; print()", doing="importing Detectron2")
    return f"{DETECTRON2_VERSION} from the registry's mirror, patched"


def install_kernel(env: Environment) -> str:
    """The optional compiled kernel, which is only as good as its build.

    Built afresh each time: pip's cache does not know for which torch a wheel was compiled.
    """
    if env.runs(KERNEL_WORKS):
        return "compiled kernel, as found"
    options = ("--no-build-isolation", "--no-deps", "--no-cache-dir", "--force-reinstall")
    try:
        print("compiling ... ", end="", flush=True)
        env.pip("install", *options, "torch-ms-deform-attn", doing="compiling the kernel")
        env.output(KERNEL_WORKS + "print()", doing="trying the compiled kernel")
        return "compiled kernel"
    except SetupError as error:
        if "torch-ms-deform-attn" in env.installed():
            env.pip("uninstall", "-y", "torch-ms-deform-attn", doing="removing it", pinned=False)
        return f"plain PyTorch (same answers, slower): {error}"


def install_coco_metrics(env: Environment) -> str:
    if not env.runs("import faster_coco_eval"):
        try:
            env.pip("install", "faster-coco-eval", doing="installing faster-coco-eval")
        except SetupError as error:
            return f"pycocotools (same numbers, slower): {error}"
    return "faster-coco-eval"


def install_opencv(env: Environment) -> str:
    """opencv-python where its window libraries load, else the headless build."""
    if env.runs("import cv2"):
        return "as found"
    env.pip("install", "opencv-python", doing="installing OpenCV")
    if env.runs("import cv2"):
        return "opencv-python"
    # both packages own the folder cv2, so the first must go before the second comes
    env.pip("uninstall", "-y", "opencv-python", doing="removing opencv-python", pinned=False)
    env.pip("install", "opencv-python-headless", doing="installing OpenCV without windows")
    env.output("import cv2; print()", doing="importing OpenCV")
    return "opencv-python-headless (opencv-python does not load here)"


def install_extra(env: Environment, extra: str) -> str:
    if env.runs(EXTRA_IS_THERE.format(extra)):
        return "as found"
    options = ("--no-build-isolation", "--editable", f"{ROOT}[{extra}]")
    env.pip("install", *options, doing=f"installing the extra {extra}")
    return "installed"


def install_project(env: Environment) -> str:
    extras = "quickstart,tensorboard,timm,export,dev"
    options = ("--no-build-isolation", "--editable", f"{ROOT}[{extras}]")
    env.pip("install", *options, doing="installing this project")
    return f"editable, with {extras.replace(',', ', ')}"


if __name__ == "__main__":
    sys.exit(main())
