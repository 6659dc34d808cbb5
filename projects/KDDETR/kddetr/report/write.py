"""Writing the pages: the report of a run, and the comparison of runs."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from .compare_page import compare_page
from .comparison import Comparison
from .findings import gather
from .rendering import write_page
from .run import read_run
from .run_page import run_page

PAGE = "report.html"
IMAGES = 300  # of the sample of the test images


def write_report(
    folder: str | Path,
    model: nn.Module | None = None,
    *,
    alone: Sequence[str | Path] = (),
    images: int = IMAGES,
    seconds: float | None = None,
) -> Path:
    """Write ``report.html`` into the output folder of a run; an earlier one is replaced.

    Args:
        folder: the output folder of the run.
        model: the model with its final weights, where it is at hand; None: it is loaded.
        alone: output folders of runs of the same student without a teacher; none: they are looked
            for in the folders beside this one.
        images: how many test images the detectors are asked about at most; 0: none.
        seconds: about how long it may take; None: as long as it takes.

    Returns:
        the file.

    Raises:
        UserError: a folder is not that of a run, or the runs cannot be compared.
        StorageError: the page cannot be written.
    """
    run = read_run(folder)
    others = [read_run(one) for one in alone]
    found = gather(run, model, alone=others, images=images, seconds=seconds)
    return write_page(run_page(found), run.folder / PAGE)


def write_comparison(comparison: Comparison, file: str | Path) -> Path:
    """Write the page that compares runs, and return its file; an earlier one is replaced."""
    return write_page(compare_page(comparison), Path(file))
