"""The data report and the preflight of a plan, before its training."""

import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..data import Finding, inspect_data, write_data_page
from ..engine import check_config, check_launch, launch, load_config
from ..preflight import run_preflight
from .planning import Plan

PAGE = "data.html"


def measure_first(made: Plan, file: str, *, num_gpus: int, force: bool) -> None:
    """Look at the data, measure, and print what was found.

    The data report is written into the output folder as ``data.html``, the measurement as
    ``preflight.json``.

    Args:
        made: the plan.
        file: its config file.
        num_gpus: processes of the training.
        force: go on where the preflight refuses.

    Raises:
        UserError: the training makes no sense; the message says why.
    """
    cfg = load_config(file)
    device = check_launch(cfg, num_gpus)
    check_config(cfg)
    findings = made.findings
    if made.data is not None:
        short, long = made.image_size
        report = inspect_data(made.data, min_size=short, max_size=long)
        findings = [*findings, *report.findings]
        page = write_data_page(report, Path(made.folder, PAGE))
        # The others are among the warnings and refusals of the preflight.
        notes = [f"  note: {one.sentence}" for one in report.of_severity("note")]
        print(f"The data: {page}", *notes, sep="\n")
    arguments = (file, findings, force)
    launch(_measure, processes=num_gpus, device=device, args=arguments)


def _measure(file: str, findings: Sequence[Finding], force: bool) -> None:
    """The preflight in one process of the job."""
    log = logging.getLogger("kddetr")
    before = log.handlers[:]
    setup_logger(distributed_rank=comm.get_rank(), name="kddetr")
    try:
        report = run_preflight(load_config(file), findings=findings)
    finally:
        log.handlers[:] = before  # the training sets up its own
    if comm.is_main_process():
        print(report, flush=True)
    report.require(force=force)
