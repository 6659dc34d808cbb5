#!/usr/bin/env python
"""Write the bundled digits-on-photographs data as PNG and COCO JSON, unless it is there."""

import argparse
import time

import quiet  # noqa: F401  (before what warns)

from kddetr.quickstart import make_quickstart_data, quickstart_root


def main() -> None:
    """Parse the command line and make the data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", default=None, help=f"folder to write (default: {quickstart_root()})"
    )
    args = parser.parse_args()
    start = time.perf_counter()
    root = make_quickstart_data(args.root or quickstart_root())
    print(f"quickstart data is in {root} ({time.perf_counter() - start:.1f} s)")


if __name__ == "__main__":
    main()
