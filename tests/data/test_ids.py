"""Ids of any legal kind tell entries apart; names tell classes apart."""

import pytest

from kddetr.data import load_coco_format
from tests.data.changes import every, put

pytestmark = pytest.mark.usefixtures("forget")


@pytest.mark.parametrize(
    "number",
    [
        lambda i: 2**63 + i,
        lambda i: 2**127 + i,
        lambda i: 20240115103000000 + i,
        lambda i: -i,
        lambda i: i / 4,
        lambda i: f"img_{i}",
    ],
    ids=["64 bits", "128 bits", "17 digits", "negative", "fractions", "text"],
)
def test_ids_of_any_kind_tell_images_and_categories_apart(paths, edit, number):
    expected = load_coco_format(**paths)
    for kind in ("images", "categories", "annotations"):
        edit(every(kind, id=lambda e: number(e["id"])))
    edit(every("annotations", image_id=lambda e: number(e["image_id"])))
    edit(every("annotations", category_id=lambda e: number(e["category_id"])))
    order = sorted(map(number, (3, 7)))
    found = load_coco_format(name="renumbered", **paths)
    assert {r["image_id"] for r in found} == {number(i) for i in range(3)}
    by_file = {r["file_name"].rsplit("/", 1)[1]: r["annotations"] for r in found}
    for record in expected:
        notes = by_file[record["file_name"].rsplit("/", 1)[1]]
        assert [n["bbox"] for n in notes] == [n["bbox"] for n in record["annotations"]]
        classes = [order.index(number((3, 7)[n["category_id"]])) for n in record["annotations"]]
        assert [n["category_id"] for n in notes] == classes


def test_class_names_that_look_the_same_are_warned_of(paths, edit, caplog):
    edit(put("categories", "name", " Early"))
    load_coco_format(**paths)
    assert "'early' and ' Early' differ only in case or spaces" in caplog.text
