"""An extension of griffe, which reads the source for mkdocstrings: docstrings as Markdown."""

from typing import Any

import griffe
from site_pages.docstrings import as_markdown, one_argument_a_line


class MarkdownDocstrings(griffe.Extension):
    """Changes the docstring of everything that is read, before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Where griffe has read a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = one_argument_a_line(as_markdown(obj.docstring.value))
