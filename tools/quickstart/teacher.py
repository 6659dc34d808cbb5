"""Train the bundled teacher again, and write its weights to the file of the package.

It takes about 20 minutes on one idle core. A stopped run goes on from its last checkpoint.
"""

import argparse
from pathlib import Path

import torch

from kddetr.checkpoint import asset, atomic_write, read_checkpoint, weights_of, write_card
from kddetr.engine import load_config
from kddetr.quickstart import make_quickstart_data, quickstart_root
from runs import ROOT, Run, program, run_all, shown

CONFIG = "configs/quickstart/teacher.py"


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
    data = read_checkpoint(str(run.checkpoint))
    weights, classes = weights_of(data, str(run.checkpoint)), data["classes"]
    atomic_write(str(to), lambda stream: torch.save({"model": dict(weights)}, stream))
    write_card(str(to), classes)
    print(
        f"{shown(to)}: {to.stat().st_size / 2**20:.1f} MiB, AP {run.evaluations()[-1][1][1]:.1f} on"
        " the validation images"
    )


if __name__ == "__main__":
    with program():
        main()
