"""Train the bundled teacher again, and write its weights to the file of the package.

It takes about 20 minutes on one idle core. A stopped run goes on from its last checkpoint.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyCall as L

from kddetr.checkpoint import (
    asset,
    atomic_write,
    card_in,
    described,
    read_checkpoint,
    weights_of,
    write_card,
)
from kddetr.data import ShortestEdge
from kddetr.engine import load_config
from kddetr.errors import CheckpointError
from kddetr.quickstart import make_quickstart_data, quickstart_root
from kddetr.quickstart.digits import QuickstartSpec
from runs import ROOT, Run, program, run_all, shown

CONFIG = "configs/quickstart/teacher.py"


def shipped_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """The model card with a resizing to the size of the bundled images, which leaves these as they
    are, so that a photograph can be given to the detector too.
    """
    size, longest = QuickstartSpec.image_size, 4 * QuickstartSpec.image_size
    steps = described([L(ShortestEdge)(short_edge_length=size, max_size=longest)])
    resizing = {"augmentations": steps, "min_size": size, "max_size": longest}
    return {**card, "input": {**card["input"], **resizing}}


def weights_and_card(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights of a checkpoint, and its model card.

    Raises:
        CheckpointError: it has no card.
    """
    data = read_checkpoint(str(file))
    card = card_in(data, str(file))
    if card is None:
        raise CheckpointError(
            f"{shown(file)} has no model card, because an earlier version of this project has"
            f" trained it: remove the folder {shown(file.parent)}, and start this program again to"
            " train the teacher anew."
        )
    return dict(weights_of(data, str(file))), card


def main() -> None:
    """Parse the command line, train, export."""
    parser = argparse.ArgumentParser(description=__doc__)
    bundled, what = asset("kddetr://quickstart_teacher.pth"), "default: the file of the package"
    parser.add_argument("--to", type=Path, default=bundled, help=f"file to write ({what})")
    to = parser.parse_args().to
    make_quickstart_data(quickstart_root())
    train = load_config(str(ROOT / CONFIG)).train
    run = Run("teacher", CONFIG, ROOT / train.output_dir, train.max_iter)
    run_all([run])
    weights, card = weights_and_card(run.checkpoint)
    atomic_write(str(to), lambda stream: torch.save({"model": weights}, stream))
    write_card(str(to), shipped_card(card))
    print(
        f"{shown(to)}: {to.stat().st_size / 2**20:.1f} MiB, AP {run.evaluations()[-1][1][1]:.1f} on"
        " the validation images"
    )


if __name__ == "__main__":
    with program():
        main()
