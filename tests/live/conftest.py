"""Tests against other packages run only with ``make test-live``."""

import importlib.util

import pytest

NEEDED = ("transformers", "timm", "onnx", "onnxruntime", "onnxscript")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that need other packages, which are slow to import."""
    reason = None
    if "live" not in config.option.markexpr:
        reason = "slow, and needs the extra `live`: run `make test-live`"
    else:
        absent = [n for n in NEEDED if importlib.util.find_spec(n) is None]
        if absent:
            reason = f"{' and '.join(absent)} not installed: `make test-live` installs the extra"
    if reason:
        for item in items:
            if item.get_closest_marker("live"):
                item.add_marker(pytest.mark.skip(reason=reason))
