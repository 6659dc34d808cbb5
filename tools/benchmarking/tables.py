"""The tables of docs/performance.md, made from the files of results."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kddetr.errors import UsageError

from .memory import ALLOWED, bound
from .plan import MEASUREMENTS

GIB = 2**30
BLOCK = re.compile(r"(<!-- measured on (\w+): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Results = dict[str, dict[str, Any]]  # the figures of each measurement, by its name


def read_results(file: Path) -> Results:
    """The last line of each measurement; nothing where the file does not exist.

    Raises:
        UsageError: a line is no result.
    """
    if not file.exists():
        return {}
    found: Results = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            result = json.loads(line)
            found[result["name"]] = result
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"Line {number} of {file} is no result of a measurement: remove it."
            ) from error
    return found


def updated(page: str, results: dict[str, Results]) -> str:
    """The page with new tables between its markers, ``<!-- measured on DEVICE: TABLE -->`` and
    ``<!-- end -->``; the text around them stays.

    Args:
        page: the Markdown text.
        results: of each device.

    Raises:
        UsageError: a marker names an unknown table.
    """

    def fill(match: re.Match[str]) -> str:
        start, device, name, end = match.groups()
        if name not in TABLES:
            raise UsageError(f"The page has a table {name!r}; known are {', '.join(TABLES)}.")
        found = results.get(device, {})
        # Of a device without any figures only the sentence that says so.
        text = TABLES[name](found, device) if found or name == "where" else ""
        return f"{start}{text}{end}"

    return BLOCK.sub(fill, page)


def where(results: Results, device: str) -> str:
    """One sentence about the machine, the versions and the commit of the figures."""
    if not results:
        kind = "card: none was at hand" if device == "cuda" else "CPU yet"
        return (
            f"Nothing has been measured on a {kind}. One command measures all of it, and writes the"
            f" tables here:\n\n```bash\npython tools/performance.py --device {device}\n```\n"
        )
    facts = [result["environment"] for result in results.values()]

    def all_of(key: str) -> str:
        return ", ".join(dict.fromkeys(str(fact[key]) for fact in facts))

    threads = "" if device == "cuda" else f", {all_of('threads')} thread"
    return (
        f"Measured on {all_of('processor')}{threads}, with PyTorch {all_of('torch')} and Detectron2"
        f" {all_of('detectron2')}, at commit {all_of('commit')}; batches of 2 images unless a table"
        " says otherwise.\n"
    )


def _steps(results: Results, device: str) -> str:
    head = ["pair", "size", "teacher, s", "plain, s", "distillation, s", "step / floor"]
    head += ["step / ideal", "images/s"]
    rows = []
    for label, result in _rows(results, device, "steps", "seconds"):
        seconds = (result["seconds"][n] for n in ("teacher", "plain_step", "distillation_step"))
        ratios = (result["ratios"][name] for name in ("step_over_floor", "step_over_ideal"))
        rate = result["images_per_second"]["distillation_step"]
        cells = [*map(_middle, seconds), *map(_ratio, ratios), f"{rate:.3g}"]
        rows.append([label, _size(result), *cells])
    return _table(head, rows, "steps", device)


def _shares(results: Results, device: str) -> str:
    parts = ("teacher_encode", "teacher_decode", "student_points_forward")
    parts += ("student_points_backward", "loss", "matching", "rest")
    head = ["pair", "size", "teacher encodes", "teacher decodes", "points forward"]
    head += ["points backward", "loss", "matching", "rest (the plain step)"]
    rows = []
    for label, result in _rows(results, device, "steps", "shares"):
        shares = result["shares"]["distillation_step"]
        rows.append([label, _size(result), *(_percent(shares[part]) for part in parts)])
    return _table(head, rows, "steps", device)


def _objects(results: Results, device: str) -> str:
    rows = []
    for label, result in _rows(results, device, "objects", "shares"):
        shares = result["shares"]["distillation_step"]
        rows.append([label, _percent(shares["loss"]), _percent(shares["matching"])])
    head = ["900 queries, 30 objects an image", "loss", "matching"]
    return _table(head, rows, "objects", device)


def _memory(results: Results, device: str) -> str:
    head = ["pair", "size", "teacher forward, GiB", "plain step, GiB"]
    head += [f"bound: {ALLOWED} x plain + teacher, GiB", "distillation step, GiB"]
    head += ["distillation / bound"]
    rows = []
    for label, result in _rows(results, device, "steps", "memory"):
        sizes = result["memory"]
        of_step = sizes["distillation_step"]["peak"]
        peaks = [sizes["teacher"]["peak"], sizes["plain_step"]["peak"], bound(sizes), of_step]
        ratio = of_step / bound(sizes)
        cells = [*(f"{peak / GIB:.2f}" for peak in peaks), f"**{ratio:.2f}**"]
        rows.append([label, _size(result), *cells])
    return _table(head, rows, "steps", device)


def _recorded(results: Results, device: str) -> str:
    """Recorded and live are runs of their own, each with the same plain step beside it."""
    head = ["student, teacher", "size", "plain, s", "distillation, s", "step / plain"]
    head += ["operations / plain"]
    rows = []
    for label, result in _rows(results, device, "recorded", "seconds"):
        seconds = (result["seconds"][name] for name in ("plain_step", "distillation_step"))
        operations = result["operations"]
        more = operations["distillation_step"] / operations["plain_step"]
        ratio = _ratio(result["ratios"]["step_over_plain"])
        rows.append([label, _size(result), *map(_middle, seconds), ratio, f"{more:.2f}"])
    return _table(head, rows, "recorded", device)


def _variants(results: Results, device: str, table: str) -> str:
    """Steps of the same pair in several ways."""
    head = ["pair", "size", "teacher, s", "plain, s", "distillation, s", "distillation, GiB"]
    rows = []
    for label, result in _rows(results, device, table, "seconds"):
        seconds = (result["seconds"][n] for n in ("teacher", "plain_step", "distillation_step"))
        peak = result["memory"]["distillation_step"]["peak"] / GIB
        rows.append([label, _size(result), *map(_spread, seconds), f"{peak:.2f}"])
    return _table(head, rows, table, device)


def _sampling(results: Results, device: str) -> str:
    head = ["sampling of one encoder layer", "size", "places", "forward, ms", "backward, ms"]
    rows = []
    for label, result in _rows(results, device, "sampling", "sampled_layer"):
        found = result["sampled_layer"]
        for name, seconds in found["seconds"].items():
            times = (f"{1000 * seconds[way]['median']:.3g}" for way in ("forward", "backward"))
            rows.append([f"{label}, {name}", _size(result), f"{found['places']:,}", *times])
    return _table(head, rows, "sampling", device)


def _activations(results: Results, device: str) -> str:
    head = ["a plain step of DINO R50, 2 images of 800 x 1333", "kept for backward, GiB", "peak"]
    rows = []
    for label, result in _rows(results, device, "activations", "memory"):
        sizes = result["memory"]["plain_step"]
        kept, peak = (sizes[name] / GIB for name in ("kept_for_backward", "peak"))
        rows.append([label, f"{kept:.2f}", f"{peak:.2f}"])
    return _table(head, rows, "activations", device)


def _points(results: Results, device: str) -> str:
    head = ["DAB-DETR R18 from R50, 320 x 320", "floor, s", "distillation, s", "above the floor, s"]
    head += ["all that the points cost, s"]
    found = list(_rows(results, device, "points", "seconds"))
    rows, costs = [], []
    for label, result in found:
        seconds = result["seconds"]
        cost = [seconds[name]["median"] for name in ("above_floor", "points")]
        costs.append(cost)
        values = [seconds[name]["median"] for name in ("floor", "distillation_step")]
        rows.append([label, *(f"{value:.3g}" for value in (*values, *cost))])
    if len(costs) == 2:
        ratios = [f"**{b / a:.2f}**" for a, b in zip(*costs, strict=True)]
        rows.append(["ratio", "", "", *ratios])
    return _table(head, rows, "points", device)


def _adapter(results: Results, device: str) -> str:
    head = ["one image, 300 + 300 points", "size", "plain, s", "with the points, s", "ratio"]
    rows = []
    for label, result in _rows(results, device, "adapter", "seconds"):
        seconds = (result["seconds"][name] for name in ("plain_step", "distillation_step"))
        ratio = _ratio(result["ratios"]["step_over_plain"])
        rows.append([label, _size(result), *map(_middle, seconds), ratio])
    return _table(head, rows, "adapter", device)


def _student(results: Results, device: str, table: str = "steps") -> str:
    head = ["student", "size", "parameters", "10^9 operations", "1 image, ms", "8 images, images/s"]
    head += ["pre-processing", "post-processing"]
    rows = []
    for label, result in _rows(results, device, table, "student_alone"):
        if result["overrides"]:
            continue  # the same student
        alone = result["student_alone"]
        one, eight = alone["batch_1"], alone["batch_8"]
        rows.append(
            [
                label.split(" from ")[0],
                _size(result),
                f"{_amount(alone['parameters'] / 1e6)} M",
                _amount(alone["operations"] / 1e9),
                f"{1000 * one['seconds']['median']:.3g}",
                f"{eight['images_per_second']:.3g}",
                _percent(one["preprocessing"]),
                _percent(one["postprocessing"]),
            ]
        )
    return _table(head, rows, table, device)


TABLES: dict[str, Callable[[Results, str], str]] = {
    "where": where,
    "steps": _steps,
    "shares": _shares,
    "objects": _objects,
    "memory": _memory,
    "activations": _activations,
    "recorded": _recorded,
    "precision": partial(_variants, table="precision"),
    "compile": partial(_variants, table="compile"),
    "batching": partial(_variants, table="batching"),
    "sampling": _sampling,
    "points": _points,
    "adapter": _adapter,
    "student": _student,
    "students": partial(_student, table="students"),
}


def _rows(
    results: Results, device: str, table: str, key: str
) -> Iterable[tuple[str, dict[str, Any]]]:
    """The label and the figures of each measurement of a table that has this key."""
    for measurement in MEASUREMENTS:
        result = results.get(measurement.name, {})
        shown = measurement.table == table and device in measurement.devices
        if shown and key in result:
            precision = result["precision"]
            suffix = "" if precision == "float32" else f", {precision}"
            yield measurement.label + suffix, result


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], table: str, device: str) -> str:
    names = [m.name for m in MEASUREMENTS if m.table == table and device in m.devices]
    command = f"python tools/performance.py --device {device} --only {table}"
    if not rows:
        return f"Not measured yet on `{device}`; {len(names)} runs of\n\n```bash\n{command}\n```\n"
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join([*lines, "", "```bash", command, "```", ""])


def _size(result: dict[str, Any]) -> str:
    words = result["arguments"]
    at = words.index("--image-size")
    return f"{words[at + 1]} x {words[at + 2]}"


def _amount(number: float) -> str:
    return f"{number:.1f}" if number >= 1 else f"{number:.2f}"


def _middle(spread: dict[str, float]) -> str:
    return f"{spread['median']:.3g}"


def _spread(spread: dict[str, float]) -> str:
    return f"{spread['median']:.3g} ({spread['min']:.3g} to {spread['max']:.3g})"


def _ratio(spread: dict[str, float]) -> str:
    return f"**{spread['median']:.2f}** ({spread['min']:.2f} to {spread['max']:.2f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
