"""Write docs/config_keys.md, the page of every config key, from the source of the package.

`make docs` runs it. A test fails where the page is not what the source gives.
"""

import argparse
from pathlib import Path

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
from kddetr.errors import exit_on_user_error

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "config_keys.md"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PAGE, help="the file (default: %(default)s)")
    args = parser.parse_args()
    with exit_on_user_error():
        from site_pages.config_keys import page  # needs griffelib, of the extra `docs`

        args.output.write_text(page(), encoding="utf-8")
        print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
