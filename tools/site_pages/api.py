"""The API pages: one for each public package, with the classes and functions of its
``__all__``.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "projects" / "KDDETR"
# What a reader meets first comes first; other packages follow by their names, and then the modules.
FIRST = ("structures", "points", "losses", "teachers", "detectors", "data", "engine")
MODULES = ("gap", "boxes", "errors")


def packages() -> list[str]:
    """What has a page, such as ``kddetr.points``: packages with an ``__all__``, and MODULES."""
    rooms = {
        file.parent.name
        for file in (SOURCE / "kddetr").glob("*/__init__.py")
        if _list_of(file, "__all__")
    }
    others = sorted(rooms - set(FIRST))
    return ["kddetr", *(f"kddetr.{name}" for name in (*FIRST, *others, *MODULES))]


def api_pages() -> dict[str, str]:
    """The Markdown of each page by its place in the site, such as ``api/kddetr.points.md``."""
    return {place_of(name): _page(name) for name in packages()}


def place_of(package: str) -> str:
    """The page of a package, relative to docs/."""
    return f"api/{package}.md"


def modules() -> Iterator[tuple[str, str]]:
    """Each file of the package, relative to the repository, and the page that describes it."""
    names = set(packages())
    face = ast.parse((SOURCE / "kddetr" / "__init__.py").read_text(encoding="utf-8")).body
    exported = {f"kddetr.{node.module}" for node in face if isinstance(node, ast.ImportFrom)}
    for file in sorted((SOURCE / "kddetr").rglob("*.py")):
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        room = ".".join(name.split(".")[:2])
        if room in names | exported:
            yield str(file.relative_to(ROOT)), place_of(room if room in names else "kddetr")


def _page(package: str) -> str:
    path = SOURCE.joinpath(*package.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    options = "    options:\n      show_root_heading: false\n      show_root_toc_entry: false\n"
    head = f"# {package}\n\n::: {package}\n{options}"
    names = _list_of(file, "__all__")
    if not names:  # a module without the list: everything public that it defines
        return head
    later = _list_of(file, "_LATER") or {}  # from names to the packages that they are imported from
    where = {name: f"{package}.{later[name]}" for name in later}
    # A function that is called as its module is hidden behind it.
    where |= {name: f"{package}.{name}" for name in names if (path / f"{name}.py").is_file()}
    shown = (name for name in names if not name.isupper())  # constants have no docstring
    described = "".join(f"\n::: {where.get(name, package)}.{name}\n" for name in shown)
    return f"{head}      members: false\n{described}"


def _list_of(file: Path, name: str) -> list | dict | None:
    """The literal that a module assigns to a name; None where it does not."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return ast.literal_eval(node.value)
    return None
