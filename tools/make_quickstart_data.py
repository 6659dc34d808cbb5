#!/usr/bin/env python
"""Write the bundled data, digits on photographs, as PNG and COCO JSON, unless it exists."""

import argparse
import time

from kddetr.errors import exit_on_user_error
from kddetr.quickstart import make_quickstart_data, quickstart_root


def main() -> None:
    """Parse the command line and make the data."""
    parser = argparse.ArgumentParser(description=__doc__)
    where = quickstart_root()
    parser.add_argument("--root", default=where, help=f"folder to write (default: {where})")
    args = parser.parse_args()
    start = time.perf_counter()
    root = make_quickstart_data(args.root)
    print(f"quickstart data is in {root} ({time.perf_counter() - start:.1f} s)")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
