"""Filters for warnings of libraries that a user of this package can do nothing about.

It is imported before everything else in the package, because the libraries warn when they are
imported.
"""

import logging
import warnings

for _message in (
    r".*torch\.jit\.script.* is deprecated",
    r"torch\.meshgrid",
    r".*pkg_resources is deprecated",
    r"TypedStorage is deprecated",
):
    warnings.filterwarnings("ignore", message=_message)
# The last warns of configs of Detectron2's own model zoo; nobody else's YAML is loaded with code.
for _name in (
    *("torch.utils.cpp_extension", "torch.fx._symbolic_trace"),
    "fvcore.common.config",
):
    logging.getLogger(_name).setLevel(logging.ERROR)
