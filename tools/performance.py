"""Measures everything that docs/performance.md shows, and writes its tables.

    python tools/performance.py --device cpu

Each measurement is a run of tools/benchmark.py in a process of its own, and a line of
docs/performance/DEVICE.jsonl. One that is there already, with the same command, is not repeated, so
the program can be stopped at any time and started again. The tables between the markers of the page
are made from these files; the text around them stays.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
from benchmarking.plan import MEASUREMENTS, Measurement
from benchmarking.tables import read_results, updated
from kddetr.errors import UsageError, did_you_mean, exit_on_user_error

ROOT = Path(__file__).resolve().parents[1]
DEVICES = ("cpu", "cuda")


def main() -> None:
    """Parse the command line, measure what is missing, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", choices=DEVICES, default="cpu", help="default cpu")
    add("--only", nargs="+", metavar="NAME", help="measurements, or tables, by their names")
    add("--again", action="store_true", help="also repeat what has been measured")
    add("--list", action="store_true", help="print the commands, and measure nothing")
    add("--page-only", action="store_true", help="write the tables, and measure nothing")
    add("--docs", type=Path, default=ROOT / "docs", help="the folder of performance.md")
    args = parser.parse_args()
    chosen = [] if args.page_only else choose(args.device, args.only)
    if args.list:
        lines = [line for m in chosen for line in (*m.before, command(m, args.device))]
        print("\n".join(dict.fromkeys(map(shlex.join, lines))))
        return
    failed = []
    for measurement in chosen:
        if not run(measurement, args.device, results_file(args.docs, args.device), args.again):
            failed.append(measurement.name)
        write_page(args.docs)
    write_page(args.docs)
    if failed:
        raise UsageError(f"These could not be measured: {', '.join(failed)}; see above.")


def choose(device: str, names: Sequence[str] | None) -> list[Measurement]:
    """The measurements of a device with these names, or of the tables with these names.

    Raises:
        UsageError: there is none with a name.
    """
    there = [m for m in MEASUREMENTS if device in m.devices]
    known = {m.name for m in there} | {m.table for m in there}
    for name in names or ():
        if name not in known:
            raise UsageError(f"There is no measurement {name!r}; {did_you_mean(name, known)}")
    return [m for m in there if not names or m.name in names or m.table in names]


def command(measurement: Measurement, device: str) -> list[str]:
    """The command line of a measurement, without the file that it writes."""
    return ["python", "tools/benchmark.py", *measurement.arguments(device)]


def results_file(docs: Path, device: str) -> Path:
    """The file with a line for each measurement on a device."""
    return docs / "performance" / f"{device}.jsonl"


def run(measurement: Measurement, device: str, file: Path, again: bool) -> bool:
    """Measure, and replace the measurement's line in the file; False where the program failed."""
    results = read_results(file)
    arguments = measurement.arguments(device)
    if not again and results.get(measurement.name, {}).get("arguments") == arguments:
        print(f"{measurement.name}: measured already", flush=True)
        return True
    for words in (*measurement.before, command(measurement, device)):
        print(f"{measurement.name}: {shlex.join(words)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "figures.json"
        if not all(map(program, measurement.before)):
            return False
        python, tool, *rest = command(measurement, device)
        if not program([python, tool, "--json", str(found), *rest]):
            return False
        figures = json.loads(found.read_text(encoding="utf-8"))
    results[measurement.name] = {"name": measurement.name, "arguments": arguments, **figures}
    order = {m.name: i for i, m in enumerate(MEASUREMENTS)}
    lines = sorted(results.values(), key=lambda line: order.get(line["name"], len(order)))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return True


def program(words: Sequence[str]) -> bool:
    """Run ``python FILE ...`` in a process of its own; returns whether it succeeded."""
    return subprocess.run([sys.executable, *words[1:]], cwd=ROOT, check=False).returncode == 0


def write_page(docs: Path) -> None:
    """Write the tables of docs/performance.md from the files of results."""
    page = docs / "performance.md"
    page.write_text(current(docs), encoding="utf-8")


def current(docs: Path) -> str:
    """The text of docs/performance.md with the tables that the files of results give."""
    results = {device: read_results(results_file(docs, device)) for device in DEVICES}
    return updated((docs / "performance.md").read_text(encoding="utf-8"), results)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
