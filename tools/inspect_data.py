#!/usr/bin/env python
"""Print what is in a folder of labelled images and what is odd about it, and write an HTML page.

    python tools/inspect_data.py DATA

DATA is a folder in COCO's, YOLO's or Pascal VOC's layout, or the COCO file or data.yaml itself.
Nothing is written into it.
"""

import argparse
from pathlib import Path

from kddetr.data import find_data, inspect_data, write_data_page
from kddetr.errors import exit_on_user_error


def main() -> None:
    """Parse the command line, print the report and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", metavar="DATA")
    parser.add_argument(
        "--output",
        default="output/data",
        help="folder for the page and for converted labels (default: %(default)s)",
    )
    parser.add_argument("--min-size", type=int, default=800, help="short side in training")
    parser.add_argument("--max-size", type=int, default=1333, help="longest side in training")
    args = parser.parse_args()
    folder = Path(args.output)
    data = find_data(args.data, folder / "labels")
    report = inspect_data(data, min_size=args.min_size, max_size=args.max_size)
    print("\n".join(report.lines()))
    print(f"The page is {write_data_page(report, folder / 'data.html')}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
