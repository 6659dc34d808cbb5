"""One Python environment seen from outside: ask whether code runs in it, have its pip install.

What the commands print goes to a log; a failure becomes one sentence that says what to do.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

# What pip and compilers print -> what it means and what to do about it. The first match wins.
REASONS = (
    (r"No space left on device|Errno 28", "the disk is full; free about 10 GB and run it again"),
    (
        r"NewConnectionError|Failed to establish|connection broken|Max retries|Name or service not"
        r"|name resolution|Network is unreachable|ConnectTimeout|Read timed out|ProxyError"
        r"|Failed to connect|SSLError|CERTIFICATE_VERIFY",
        "the package registry cannot be reached; check the network and pip's settings "
        "(PIP_INDEX_URL names a mirror) and run it again",
    ),
    (
        r"DO NOT MATCH THE HASHES",
        "the archive that came is not the one that was recorded (its sha256 differs); "
        "nothing of it was run, check where pip downloads from",
    ),
    (
        r"unable to execute|Python\.h: No such file|Failed building wheel for",
        "it does not compile here; a working C++ compiler (g++) and the Python headers are needed",
    ),
    (r"ResolutionImpossible|conflicting dependencies", "versions in the environment conflict"),
    (r"No matching distribution found for (\S+)", "the registry offers no fitting version of {0}"),
    (r"Permission denied|Errno 13", "a folder may not be written to"),
)


class SetupError(Exception):
    """The set-up cannot go on; the message is one sentence for the person who started it."""


class Environment:
    """The environment in `folder`; output of its commands is appended to `log`."""

    def __init__(self, folder: Path, *, log: Path, pins: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.log = log
        self.pins = pins
        log.parent.mkdir(parents=True, exist_ok=True)

    def call(self, *command: str | Path) -> tuple[int, str]:
        """Run a command; returns its exit status and what it printed, which also is logged."""
        done = subprocess.run(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with self.log.open("a", encoding="utf-8") as log:
            shown = " ".join(map(str, command))
            log.write(f"\n$ {shown}\n{done.stdout}[exit status {done.returncode}]\n")
        return done.returncode, done.stdout

    def runs(self, code: str) -> bool:
        """Whether `code` runs to its end in this environment."""
        return self.python.exists() and self.call(self.python, "-c", code)[0] == 0

    def output(self, code: str, *, doing: str) -> str:
        """The last line that `code` prints; SetupError with its last line when it fails."""
        status, text = self.call(self.python, "-c", code)
        last = (text.strip().splitlines() or ["no output"])[-1]
        if status != 0:
            raise SetupError(f"{doing} failed: {last} (details in {os.path.relpath(self.log)})")
        return last

    def installed(self) -> dict[str, str]:
        """Version of every installed distribution, by its normalised name."""
        code = (
            "import importlib.metadata as m, json; "
            "print(json.dumps([(d.metadata['Name'], d.version) for d in m.distributions()]))"
        )
        found = json.loads(self.output(code, doing="listing the installed packages"))
        # the first one on the path is the one that gets imported
        return {normalise(name): version for name, version in reversed(found) if name}

    def constraints(self) -> Path:
        """Write today's constraints: the tested pins of packages that the environment lacks.

        What is there already stays, unless setup.cfg's bounds rule it out. torch and torchvision
        are held where they are in any case: everything compiled depends on that exact pair.
        """
        installed = self.installed()
        lines = [f"{n}=={installed[n]}" for n in ("torch", "torchvision") if n in installed]
        for line in self.pins.read_text(encoding="utf-8").splitlines():
            name = normalise(re.split(r"[=;\s#]", line.strip(), maxsplit=1)[0])
            if name and name not in installed:
                lines.append(line)
        path = self.log.parent / "constraints.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def pip(self, command: str, *args: str | Path, doing: str, pinned: bool = True) -> None:
        """Run one of pip's commands; SetupError with the reason in one sentence when it fails."""
        if pinned:
            args = ("-c", self.constraints(), *args)
        status, text = self.call(
            self.python, "-m", "pip", "--disable-pip-version-check", command, *args
        )
        if status != 0:
            raise SetupError(
                f"{doing} failed: {reason(text)} (details in {os.path.relpath(self.log)})"
            )


def normalise(name: str) -> str:
    """A distribution's name as the registry compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def reason(text: str) -> str:
    """What a failed command's output means, or its last error line when that is not known."""
    for pattern, meaning in REASONS:
        if match := re.search(pattern, text):
            return meaning.format(*match.groups())
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\w*Error|ERROR|error)\b", line)]
    return (errors or lines or ["no output"])[-1]
