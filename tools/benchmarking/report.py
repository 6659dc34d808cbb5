"""The figures of a measurement as text."""

from typing import Any

from .memory import ALLOWED

GIB = 2**30
NAMES = {
    "data_loading": "data loading",
    "teacher": "teacher forward",
    "teacher_encode": "  of it encoding",
    "teacher_decode": "  of it decoding",
    "plain_step": "plain step",
    "distillation_step": "distillation step",
    "floor": "floor: teacher forward + plain step",
    "above_floor": "step - floor",
    "points": "step - plain step - encoding",
    "ideal": "ideal: floor x operations",
}


def report(figures: dict[str, Any]) -> str:
    """What was measured, a line for each figure."""
    sections = (_head, _times, _operations, _memory, _shares, _sampling, _student)
    return "\n".join(line for section in sections for line in section(figures))


def _head(figures: dict[str, Any]) -> list[str]:
    where = figures["environment"]
    words = " ".join([figures["config"], *figures["overrides"]])
    return [
        words,
        f"  {figures['batch_size']} images, {figures['images']}; {figures['precision']} on"
        f" {where['processor']}, {where['threads']} thread(s); torch {where['torch']}, commit"
        f" {where['commit'] or 'unknown'}",
        *(f"  {note}" for note in figures["notes"]),
    ]


def _times(figures: dict[str, Any]) -> list[str]:
    if "seconds" not in figures:
        return []
    seconds = figures["seconds"]
    title = f"seconds of {figures['clock']}, median of {figures['repeats']} (smallest to largest)"
    lines = [title]
    if "data_loading" not in seconds:
        lines.append(f"  {'data loading':38} not measured: the images are not read from files")
    lines += [
        f"  {label:38} {_spread(seconds[name])}" for name, label in NAMES.items() if name in seconds
    ]
    for name, spread in figures["ratios"].items():
        if isinstance(spread, dict):
            lines.append(f"  {name:38} {_spread(spread)}")
    for name, rate in figures["images_per_second"].items():
        lines.append(f"  {'images a second, ' + NAMES[name]:38} {rate:8.3g}")
    return lines


def _operations(figures: dict[str, Any]) -> list[str]:
    if "operations" not in figures:
        return []
    lines = ["counted operations, in 10^9; deformable attention in its grid_sample form"]
    lines += [f"  {NAMES[n]:38} {count / 1e9:8.1f}" for n, count in figures["operations"].items()]
    return lines


def _memory(figures: dict[str, Any]) -> list[str]:
    if "memory" not in figures:
        return []
    lines = ["peak memory in GiB, of it weights and states of the optimizer; kept for backward"]
    for name, sizes in figures["memory"].items():
        kept = sizes.get("kept_for_backward")
        kept = "" if kept is None else f"; {kept / GIB:6.3f}"
        peak, fixed = sizes["peak"] / GIB, sizes["fixed"] / GIB
        lines.append(f"  {NAMES[name]:38} {peak:8.3f}, {fixed:6.3f}{kept}")
    labels = {
        "peak_over_plain": "(distillation - teacher) / plain",
        "peak_over_bound": f"distillation / ({ALLOWED} plain + teacher)",
    }
    for name, label in labels.items():
        if name in figures["ratios"]:
            lines.append(f"  {label:38} {figures['ratios'][name]:8.3f}")
    return lines


def _sampling(figures: dict[str, Any]) -> list[str]:
    if "sampled_layer" not in figures:
        return []
    found = figures["sampled_layer"]
    lines = [f"seconds of the sampling of one layer of the encoder, {found['places']:,} places"]
    for name, seconds in found["seconds"].items():
        for way, spread in seconds.items():
            lines.append(f"  {name + ', ' + way:38} {_spread(spread)}")
    return lines


def _shares(figures: dict[str, Any]) -> list[str]:
    lines = []
    for kind, shares in figures.get("shares", {}).items():
        lines.append(f"shares of a {NAMES[kind]}")
        for name, share in shares.items():
            lines.append(f"  {name.replace('_', ' '):38} {100 * share:7.2f} %")
    return lines


def _student(figures: dict[str, Any]) -> list[str]:
    if "student_alone" not in figures:
        return []
    alone = figures["student_alone"]
    lines = [
        f"the student alone, a {figures['student']}",
        f"  {'parameters, in 10^6':38} {alone['parameters'] / 1e6:8.2f}",
        f"  {'operations of an image, in 10^9':38} {alone['operations'] / 1e9:8.2f}",
    ]
    for name, found in alone.items():
        if not name.startswith("batch_"):
            continue
        label = f"seconds at {name.replace('_', ' ')}"
        lines += [
            f"  {label:38} {_spread(found['seconds'])}, {found['images_per_second']:.3g} images/s,"
            f" before the network {100 * found['preprocessing']:.1f} %,"
            f" after it {100 * found['postprocessing']:.1f} %"
        ]
    return lines


def _spread(figures: dict[str, Any]) -> str:
    return f"{figures['median']:8.4g} ({figures['min']:.4g} to {figures['max']:.4g})"
