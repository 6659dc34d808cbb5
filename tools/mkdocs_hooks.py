"""What mkdocs calls while it builds the site of mkdocs.yml: pages beside those of docs/, and links.

The README, the CHANGELOG and CONTRIBUTING are pages too, as they are; the API pages are made from the
docstrings.
"""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from site_pages.api import api_pages, modules
from site_pages.links import site_links

ROOT = Path(__file__).resolve().parents[1]
SHOWN = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "projects/KDDETR/README.md": "paper.md",
}


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages that are no files of docs/."""
    for source, page in SHOWN.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for page, text in api_pages().items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page."""
    name = page.file.src_uri
    source = next((s for s, shown in SHOWN.items() if shown == name), f"docs/{name}")
    return site_links(markdown, source=source, page=name, shown=SHOWN | dict(modules()))
