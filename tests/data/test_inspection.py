"""The report about labelled data: a broken data set for each finding, and the page."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from kddetr.data import find_data, inspect_data, write_data_page
from tests.data.made_folders import SIZE, TRUTH, picture, write_coco

pytestmark = pytest.mark.usefixtures("forget")

# Two classes with 12 boxes each: enough not to be rare.
SOUND = {str(i): [("cat", (2, 3, 20, 16)), ("dog", (20, 5, 12, 14))] for i in range(12)}


class Made:
    """A sound data set that a test breaks, and what is found in it then."""

    def __init__(self, root):
        self.root = root
        for split in ("train", "val"):
            for name in SOUND:
                picture(root / f"data/{split}/{name}.png")
            self.write(split, SOUND)

    def write(self, split, truth, **options):
        return write_coco(self.root / f"data/{split}/labels.json", truth, **options)

    def change(self, function, split="train"):
        path = self.root / f"data/{split}/labels.json"
        document = json.loads(path.read_text())
        function(document)
        path.write_text(json.dumps(document))

    def report(self, **options):
        data = find_data(self.root / "data", self.root / "work")
        # Nothing is enlarged, so that boxes of 8 pixels are not tiny.
        return inspect_data(data, min_size=30, max_size=40, **options)

    def only(self, kind):
        """The only finding, which is of this kind."""
        (finding,) = self.report().findings
        assert finding.kind == kind
        return finding


@pytest.fixture()
def made(tmp_path):
    return Made(tmp_path)


def test_sound_data_have_no_finding_and_right_numbers(made):
    report = made.report()
    assert report.findings == [] and report.lines()[-1] == "Nothing odd was found."
    counts = report.counts["train"]
    assert (counts.images, counts.boxes, counts.empty, counts.ignored) == (12, 24, 0, 0)
    assert counts.of_class.tolist() == [12, 12] and counts.evaluated == (24, 0, 0)
    assert counts.per_image.tolist() == [2] * 12
    np.testing.assert_allclose(counts.sides[:2], [320**0.5, 168**0.5])
    assert len(report.samples) == 6 and report.samples[0].boxes.shape == (2, 4)


def test_sizes_are_those_of_the_file_and_of_the_resized_image(made):
    data = find_data(made.root / "data", made.root / "work")
    # The short side of 30 becomes 60, and 17.9 and 13.0 pixels become 35.8 and 25.9.
    assert inspect_data(data, min_size=60, max_size=999).counts["val"].trained == (12, 12, 0)
    assert inspect_data(data, min_size=60, max_size=40).counts["val"].trained == (24, 0, 0)
    assert inspect_data(data, min_size=300, max_size=999).counts["val"].trained == (0, 0, 24)


def test_broken_images(made):
    path = made.root / "data/train/3.png"
    path.write_bytes(path.read_bytes()[:100])
    finding = made.only("broken images")
    assert finding.severity == "error" and "3.png" in finding.sentence and finding.count == 1
    (image,) = finding.images
    assert image.file == str(path) and len(image.boxes) == 2


def test_images_of_another_size(made):
    picture(made.root / "data/val/3.png", size=(30, 40))
    finding = made.only("other sizes")
    assert finding.severity == "error" and "30 x 40" in finding.sentence


def test_dark_images_of_16_bits(made):
    for name in SOUND:
        pixels = np.random.default_rng(int(name)).integers(0, 4096, SIZE[::-1], dtype=np.uint16)
        Image.fromarray(pixels).save(made.root / f"data/train/{name}.png")
    assert made.only("unused bits").severity == "error"


@pytest.mark.parametrize("kind", ["file", "pixels"])
def test_copies_across_splits(made, kind):
    source, copy = made.root / "data/train/1.png", made.root / "data/val/2.png"
    if kind == "file":
        shutil.copy(source, copy)
        shutil.copy(source, made.root / "data/train/0.png")
    else:
        Image.open(source).save(copy.with_suffix(".bmp"))
        copy.with_suffix(".bmp").rename(copy)  # Pillow looks at the content
    finding = made.only("shared images")
    assert (finding.severity, finding.count) == ("warning", 1)
    assert [image.split for image in finding.images] == ["train", "val"]


def test_copies_in_a_split(made):
    shutil.copy(made.root / "data/train/1.png", made.root / "data/train/2.png")
    finding = made.only("copies")
    assert (finding.severity, finding.count) == ("note", 1)
    assert [image.file[-5:] for image in finding.images] == ["1.png", "2.png"]


def test_empty_images(made):
    made.write("val", SOUND | {"0": []})
    finding = made.only("empty images")
    assert (finding.severity, finding.count) == ("note", 1) and "1 of 24" in finding.sentence
    made.write("val", {name: [] for name in SOUND} | {"0": SOUND["0"]})
    made.change(lambda d: d["annotations"].clear())
    made.write("train", {name: [] for name in SOUND} | {"0": SOUND["0"]})
    empty = [one for one in made.report().findings if one.kind == "empty images"]
    assert (empty[0].severity, empty[0].count) == ("warning", 22)


BOXES = {
    "boxes without area": (5, 5, 0, 9),
    "boxes outside": (50, 5, 9, 9),
    "boxes beyond the edge": (35, 5, 12, 12),
    "repeated boxes": (2, 3, 20, 16),
    "tiny boxes": (9, 9, 4, 12),
}


@pytest.mark.parametrize("kind", BOXES)
def test_odd_boxes_are_counted_and_marked(made, kind):
    made.write("train", SOUND | {"4": [*SOUND["4"], ("cat", BOXES[kind])]})
    finding = made.only(kind)
    notes = ("boxes beyond the edge", "tiny boxes")
    assert finding.count == 1 and finding.sentence.startswith("1 box has ")
    assert finding.severity == ("note" if kind in notes else "warning")
    (image,) = finding.images
    assert image.file.endswith("train/4.png") and image.odd.tolist() == [False, False, True]


def test_many_tiny_boxes_are_a_warning_and_depend_on_the_input_size(made):
    made.write("train", {name: [*boxes, ("cat", (9, 9, 4, 12))] for name, boxes in SOUND.items()})
    assert made.only("tiny boxes").severity == "warning"
    data = find_data(made.root / "data", made.root / "work")
    assert inspect_data(data, min_size=60, max_size=80).findings == []


def test_boxes_in_fractions_and_corners(made):
    fractions = {n: [(c, tuple(v / 40 for v in box)) for c, box in b] for n, b in SOUND.items()}
    made.write("train", fractions)
    kinds = {one.kind: one.severity for one in made.report().findings}
    assert kinds.pop("other units") == "error" and {*kinds} <= {"tiny boxes"}
    corners = {n: [("cat", (20, 15, 38, 28)), ("dog", (5, 5, 25, 29))] for n in SOUND}
    made.write("train", corners)
    assert any(
        one.kind == "other units" and "corners" in one.sentence for one in made.report().findings
    )


def test_crowded_images(made):
    many = [("cat", (i % 20, i // 20, 8 + i % 3, 9)) for i in range(101)]
    made.write("val", SOUND | {"0": many})
    finding = made.only("crowded images")
    assert finding.severity == "note" and "max_dets_per_image" in finding.sentence


def test_crowds_are_not_counted(made):
    made.change(lambda d: d["annotations"][0].update(iscrowd=1, bbox=[1, 1, 0, 0]))
    report = made.report()
    assert report.findings == []
    assert (report.counts["train"].boxes, report.counts["train"].ignored) == (23, 1)


def cats(truth):
    return {name: [box for box in boxes if box[0] == "cat"] for name, boxes in truth.items()}


@pytest.mark.parametrize(
    ("train", "val", "kind", "words"),
    [
        (cats(SOUND), SOUND, "classes only in val", "'dog' has boxes in the validation"),
        (SOUND, cats(SOUND), "classes not in val", "'dog' has no box in the validation"),
        (cats(SOUND), cats(SOUND), "classes without boxes", "'dog' has no box"),
        (cats(SOUND) | {"0": SOUND["0"]}, SOUND, "rare classes", "'dog' has fewer than 10"),
    ],
)
def test_classes_without_boxes_or_with_few(made, train, val, kind, words):
    made.write("train", train)
    made.write("val", val)
    finding = made.only(kind)
    assert finding.severity == "warning" and words in finding.sentence and finding.count == 1


def test_imbalance(made):
    many = [("cat", (i % 20, i // 20, 8 + i % 4, 9 + i % 3)) for i in range(100)]
    made.write("train", {name: [*many, ("dog", (3, 4, 9, 9))] for name in SOUND})
    finding = made.only("imbalance")
    assert "'cat' has 1,200" in finding.sentence and "'dog' has 12" in finding.sentence


def test_a_limit_is_said(made):
    report = made.report(max_images=5)
    assert any("5 of the 24 images were decoded" in note for note in report.notes)


def test_the_worst_comes_first(made):
    (made.root / "data/train/3.png").write_bytes(b"")
    made.write("val", SOUND | {"0": [*TRUTH["0"], ("cat", (5, 5, 0, 9))], "1": []})
    severities = [finding.severity for finding in made.report().findings]
    order = ["error", "warning", "note"]
    assert severities == sorted(severities, key=order.index) and {*severities} == {*order}


def test_the_page_holds_everything_by_itself(made, tmp_path):
    (made.root / "data/train/3.png").write_bytes(b"")
    made.write("train", SOUND | {"4": [("<b>&cat", (50, 5, 9, 9))]}, ids={"<b>&cat": 3} | IDS)
    made.write("val", SOUND, ids={"<b>&cat": 3} | IDS)
    report = made.report()
    page = write_data_page(report, tmp_path / "out/data.html").read_text()
    assert "&lt;b&gt;&amp;cat" in page and "<b>&cat" not in page
    for finding in report.findings:
        assert finding.kind in page
    assert "cannot be read" in page and page.count("data:image/jpeg") >= len(report.samples)
    assert not re.search(r"(?:src|href)=\"(?!data:)", page) and "<script" not in page


IDS = {"cat": 1, "dog": 2}
