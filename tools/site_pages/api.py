"""The API pages: one for each public package, with everything in its ``__all__``."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "projects" / "KDDETR"

# In the order of the navigation: what a reader meets first comes first.
PACKAGES = (
    "kddetr",
    "kddetr.structures",
    "kddetr.points",
    "kddetr.losses",
    "kddetr.teachers",
    "kddetr.detectors",
    "kddetr.data",
    "kddetr.engine",
    "kddetr.checkpoint",
    "kddetr.export",
    "kddetr.visualization",
    "kddetr.quickstart",
    "kddetr.baselines",
    "kddetr.gap",
    "kddetr.boxes",
    "kddetr.errors",
)


def api_pages() -> dict[str, str]:
    """The Markdown of each page by its place in the site, such as ``api/kddetr.points.md``."""
    return {place_of(name): _page(name) for name in PACKAGES}


def place_of(package: str) -> str:
    """The page of a package, relative to docs/."""
    return f"api/{package}.md"


def modules() -> Iterator[tuple[str, str]]:
    """Each file of the package, relative to the repository, and the page that describes it."""
    for file in sorted((SOURCE / "kddetr").rglob("*.py")):
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        covering = [p for p in PACKAGES if name == p or name.startswith(f"{p}.")]
        if covering[1:] or name == "kddetr":
            yield str(file.relative_to(ROOT)), place_of(max(covering, key=len))


def _page(package: str) -> str:
    path = SOURCE.joinpath(*package.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = _exported(ast.parse(file.read_text(encoding="utf-8")))
    options = "    options:\n      show_root_heading: false\n      show_root_toc_entry: false\n"
    head = f"# {package}\n\n::: {package}\n{options}"
    if names is None:  # a module without the list: everything public that it defines
        return head
    return head + "      members: false\n" + "".join(f"\n::: {package}.{n}\n" for n in names)


def _exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return None
