"""A small copy of the bundled data set, and a COCO-format folder that a test may change."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from kddetr.quickstart import QuickstartSpec, make_quickstart_data, register_quickstart

NAMES = [f"quickstart_{n}" for n in ("train", "train_labeled", "train_unlabeled", "val", "test")]
SPEC = QuickstartSpec(images=(12, 4, 4), labeled=5)


def _unregister(names: Iterable[str]) -> None:
    for name in set(names) & set(DatasetCatalog.list()):
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


@pytest.fixture(scope="session")
def spec() -> QuickstartSpec:
    return SPEC


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory) -> Path:
    return make_quickstart_data(tmp_path_factory.mktemp("q") / "data", spec=SPEC, progress=False)


@pytest.fixture()
def registered(quickstart):
    """The five quickstart names, which belong to the small copy during a test."""
    _unregister(NAMES)
    register_quickstart(quickstart)
    yield NAMES
    _unregister(NAMES)
    register_quickstart()


@pytest.fixture()
def forget():
    """Unregister, after a test, the data sets that it registered."""
    before = set(DatasetCatalog.list())
    yield
    _unregister(set(DatasetCatalog.list()) - before)


@pytest.fixture()
def paths(folder, forget) -> dict[str, str]:
    """The two paths that a config needs to use the folder below."""
    return {"json_file": str(folder / "instances.json"), "image_root": str(folder / "images")}


def _note(id: int, image: int, category: int, bbox: list[int], iscrowd: int = 0) -> dict:
    area = bbox[2] * bbox[3]
    keys = {"id": id, "image_id": image, "category_id": category}
    return keys | {"bbox": bbox, "area": area, "iscrowd": iscrowd}


@pytest.fixture()
def folder(tmp_path) -> Path:
    """Three images of 40 x 30, the last without boxes, with categories 7 and 3."""
    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.new("RGB", (40, 30), (50 * i, 9, 99)).save(tmp_path / f"images/{i}.png")
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(3)],
        "annotations": [
            _note(1, 0, 7, [1, 2, 10, 12]),
            _note(2, 0, 3, [5, 5, 4, 4], iscrowd=1),
            _note(3, 1, 3, [30, 20, 50, 50]),
            _note(4, 1, 3, [3, 3, 0, 5]),
        ],
        "categories": [{"id": 7, "name": "late"}, {"id": 3, "name": "early"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    return tmp_path


@pytest.fixture()
def edit(folder):
    """A function that changes the folder's annotation file, see ``tests.data.changes``."""

    def change(function):
        path = folder / "instances.json"
        document = json.loads(path.read_text())
        function(document)
        path.write_text(json.dumps(document))

    return change
