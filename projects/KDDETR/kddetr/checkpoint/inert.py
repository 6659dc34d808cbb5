"""Stand-ins for objects that training programs save beside the weights; no code of theirs is run.

A LazyConfig trainer leaves omegaconf's containers in the state of its optimizer, and others save
their options with paths, dates and schedules. The stand-ins only keep what the file says of such an
object. From those of omegaconf, :func:`plain` makes ordinary lists, dictionaries and numbers again;
the others mean nothing here.
"""

from typing import Any


class Inert:
    """In place of an object of another package. It keeps its state, and does nothing."""

    content: Any = None

    def __init__(self, *_: Any) -> None:
        """Takes no notice of what the object would be made of."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__ = {"content": state}

    def __reduce__(self) -> tuple:
        return dict, ()  # saved again, it is an empty dictionary


class _Plain:
    """In place of a container that is a kind of dictionary or list: makes an ordinary one."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a container with attributes of its own")


class _Dictionary(_Plain):
    def __new__(cls, *_: Any) -> dict:
        return {}


class _List(_Plain):
    def __new__(cls, values: Any = (), *_: Any) -> list:
        return list(values)


_INERT = {
    "omegaconf.base": "Metadata ContainerMetadata SCMode UnionNode",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.nodes": "AnyNode StringNode IntegerNode FloatNode BooleanNode BytesNode PathNode"
    " EnumNode InterpolationResultNode",
    "fvcore.common.param_scheduler": "ParamScheduler ConstantParamScheduler CosineParamScheduler"
    " ExponentialParamScheduler LinearParamScheduler CompositeParamScheduler"
    " MultiStepParamScheduler StepParamScheduler StepWithFixedGammaParamScheduler"
    " PolynomialDecayParamScheduler",
    "detectron2.solver.lr_scheduler": "WarmupParamScheduler LRMultiplier",
    "datetime": "datetime date time timedelta timezone",
    "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "torch.torch_version": "TorchVersion",
    "types": "SimpleNamespace",
    "typing": "Any Dict List Tuple Union Optional",
    # Types as such, which omegaconf notes beside each value; Python 2's names are in old protocols.
    "builtins": "int float complex str bool list dict tuple object",
    "__builtin__": "int long float complex str unicode bool list dict tuple object",
}
# (module, name) in a file -> what is made instead.
OBJECTS: dict[tuple[str, str], type] = {
    (module, name): Inert for module, names in _INERT.items() for name in names.split()
}
OBJECTS["collections", "defaultdict"] = _Dictionary
OBJECTS["collections", "deque"] = _List
for _module in ("lightning", "pytorch_lightning", "lightning_fabric"):
    for _place in ("utilities.parsing", "utilities.data", "fabric.utilities.data"):
        OBJECTS[f"{_module}.{_place}", "AttributeDict"] = _Dictionary


def plain(value: Any, seen: set[int] | None = None) -> Any:
    """What was read, with ordinary values in place of omegaconf's; containers are changed in place.

    Args:
        value: a container, or any object.
        seen: the ids of the containers that have been walked.
    """
    seen = set() if seen is None else seen
    if isinstance(value, Inert):
        content = value.content if isinstance(value.content, dict) else {}
        inside = next((key for key in ("_content", "_val") if key in content), None)
        return value if inside is None else plain(content[inside], seen)
    if type(value) is tuple:
        return tuple(plain(item, seen) for item in value)
    if id(value) in seen or not isinstance(value, dict | list):
        return value
    seen.add(id(value))
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        value[key] = plain(item, seen)
    return value
