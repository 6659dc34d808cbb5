"""Makes the toy of these tests importable under one name in every process."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def toy():
    import engine_toy

    return engine_toy


@pytest.fixture
def dataset(toy, tmp_path):
    return toy.write_dataset(tmp_path / "data")
