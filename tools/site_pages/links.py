"""Links of the Markdown files, which are written for readers of the repository, as links of the
site.

A link from one page of docs/ to another is left alone. A link to a file outside of docs/ leads to
the page that shows this file on the site, such as the API page of a module; where there is none,
the text of the link stays without it, because the repository has no public address.
"""

import posixpath
import re
from collections.abc import Mapping

_FENCE = re.compile(r"(^[ \t]*```.*?^[ \t]*```[ \t]*$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")


def site_links(text: str, *, source: str, page: str, shown: Mapping[str, str]) -> str:
    """The Markdown of a page with the links that it needs on the site.

    Args:
        text: Markdown; fenced blocks stay as they are.
        source: the file that the text is from, relative to the repository.
        page: the page of the site that shows it, relative to docs/.
        shown: from files outside of docs/ to the pages that show them.
    """

    def rewritten(match: re.Match) -> str:
        target, *anchor = match["target"].partition("#")
        if re.match(r"\w+:", target) or not target:
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        address = file.removeprefix("docs/") if file.startswith("docs/") else shown.get(file)
        if address is None:
            return match["text"]
        relative = posixpath.relpath(address, posixpath.dirname(page) or ".")
        return f"{match['image']}[{match['text']}]({relative}{''.join(anchor)})"

    parts = _FENCE.split(text)
    return "".join(part if i % 2 else _LINK.sub(rewritten, part) for i, part in enumerate(parts))
