"""The three pictures are drawn for all kinds of input, and wrong input is refused."""

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from kddetr import visualization
from kddetr.structures import Queries
from kddetr.visualization import ap_curves, detections_side_by_side, points_over_image
from kddetr.visualization.labels import place_labels

ROOM = Path(visualization.__file__).parent
NAMES = [str(i) for i in range(10)]


def picture(height: int = 128, width: int = 128) -> np.ndarray:
    """A ramp, since noise takes long to compress."""
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (height, width, 3)))


def truth(boxes, classes, size=(128, 128)) -> Instances:
    return Instances(
        size,
        gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_classes=torch.tensor(classes, dtype=torch.int64),
    )


def found(boxes, classes, scores, size=(128, 128)) -> Instances:
    return Instances(
        size,
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        pred_classes=torch.tensor(classes, dtype=torch.int64),
        scores=torch.tensor(scores, dtype=torch.float32),
    )


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures in the order in which they are saved."""
    saved, savefig = [], Figure.savefig

    def record(figure, *args, **options):
        saved.append(figure)
        savefig(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", record)
    return saved


def overlapping_texts(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of a figure whose rectangles overlap by more than a pixel."""
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent().padded(-0.5)) for text in texts]
    return [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.overlaps(y)]


BOXES = [[10, 10, 40, 50], [60, 60, 200, 130]]  # the second leaves the image


class TestDetections:
    def test_grid_of_models_and_images(self, tmp_path: Path):
        columns = {
            "ground truth": [truth(BOXES, [7, 1]), truth([], [])],
            "teacher": [found(BOXES, [7, 2], [0.9, 0.5]), found([], [], [])],
            "student": [found(BOXES, [7, 1], [0.9, 0.1]), found(BOXES[:1], [3], [0.31])],
        }
        path = detections_side_by_side(
            [picture(), picture()],
            columns,
            class_names=NAMES,
            path=tmp_path / "new" / "grid.png",
            titles=["1.png", "2 $x.png"],
        )
        width, height = size_of(path)
        assert 800 < width <= 2400 and 600 < height < 2 * width

    def test_one_image_of_any_shape_and_no_ground_truth(self, tmp_path: Path):
        for height, width in ((480, 640), (900, 100), (37, 64)):
            detections = found(BOXES, [0, 1], [0.9, 0.8], (height, width))
            path = detections_side_by_side(
                [picture(height, width)],
                {"model": [detections]},
                class_names=["traffic light", "person"],
                path=tmp_path / "one.jpg",
            )
            w, h = size_of(path)
            assert 250 < w <= 2400 and h < 4 * w

    def test_captions_count_above_the_threshold(self, figures, tmp_path: Path):
        def captions(columns) -> list[str]:
            detections_side_by_side(
                [picture()], columns, class_names=NAMES, path=tmp_path / "a.png"
            )
            return [axes.get_xlabel() for axes in figures[-1].axes]

        detections = found([*BOXES, BOXES[0]], [7, 1, 7], [0.4, 0.29, 0.9])
        columns = {"ground truth": [truth(BOXES, [7, 1])], "model": [detections]}
        assert captions(columns) == ["2 objects", "1 found, 1 missed, 1 false"]
        assert captions({"model": [detections]}) == ["2 detections"]

    def test_many_columns_and_long_names_do_not_overlap(self, figures, tmp_path: Path):
        sizes = ((96, 128), (300, 100), (30, 128))
        names = [f"model {i} {'with a long name ' * (i % 3)}" for i in range(7)]
        columns = {"ground truth": [truth(BOXES, [7, 1], size) for size in sizes]} | {
            name: [found(BOXES, [7, 1], [0.9, 0.9], size) for size in sizes] for name in names
        }
        detections_side_by_side(
            [picture(*size) for size in sizes],
            columns,
            class_names=["a class with a very long name"] * 10,
            path=tmp_path / "many.png",
            titles=["1.png", "a/folder/with/a/long/name/2.png", "3.png"],
        )
        assert overlapping_texts(figures[0]) == []

    @pytest.mark.parametrize(
        "images, detections, message",
        [
            ([picture()], [], "0 images, not 1"),
            ([picture(64, 64)], [found(BOXES, [1, 1], [0.9, 0.9])], "rescale"),
            ([picture()], [found(BOXES, [1, 10], [0.9, 0.9])], "class 10"),
            ([picture() / 255.0], [found(BOXES, [1, 1], [0.9, 0.9])], "uint8"),
            ([], [], "at least one image"),
        ],
    )
    def test_wrong_input_is_refused(self, images, detections, message, tmp_path: Path):
        with pytest.raises(ValueError, match=message):
            detections_side_by_side(
                images, {"model": detections}, class_names=NAMES, path=tmp_path / "no.png"
            )


def test_labels_stay_in_the_picture_and_off_one_another():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 100, (12, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 40, (12, 2))], axis=1)
    sizes = np.tile([24.0, 8.0], (12, 1))
    places = [p for p in place_labels(boxes, sizes, frame=(128, 128)) if p is not None]
    assert len(places) >= 10
    for i, (x, y) in enumerate(places):
        assert 0 <= x <= 128 - 24 and 0 <= y <= 128 - 8
        assert all(abs(x - u) >= 24 - 1e-9 or abs(y - v) >= 8 - 1e-9 for u, v in places[:i])


def test_label_wider_than_the_picture_is_centred():
    box = np.array([[0.0, 20.0, 10.0, 30.0]])
    assert place_labels(box, np.array([[30.0, 8.0]]), frame=(10, 100)) == [(-10.0, 12.0)]


def test_label_that_fits_nowhere_is_left_out():
    box = np.array([[0.0, 0.0, 10.0, 10.0]] * 2)
    first, second = place_labels(box, np.array([[10.0, 10.0]] * 2), frame=(10, 10))
    assert first == (0, 0) and second is None


class TestPoints:
    @pytest.mark.parametrize(
        "size, groups",
        [(4, {"specific": 20, "general": 30}), (4, {}), (2, {"none": 0, "all": 50})],
    )
    def test_boxes_or_centres_in_any_groups(self, size, groups, tmp_path: Path):
        points = Queries(boxes=torch.rand(1, 50, size), groups=groups)
        path = points_over_image(
            picture(96, 128), points, torch.rand(50), path=tmp_path / "p.png", title="points"
        )
        width, height = size_of(path)
        assert 500 < width <= 2400 and 300 < height <= 2400

    def test_weights_of_zero_and_of_one(self, figures, tmp_path: Path):
        points = Queries(boxes=torch.rand(1, 8, 4))
        for weights, outlines in ((torch.zeros(8), 0), (torch.ones(8), 8)):
            points_over_image(picture(), points, weights, path=tmp_path / "w.png")
            assert len(figures[-1].axes[0].patches) == outlines

    @pytest.mark.parametrize("size", [(96, 128), (300, 100), (30, 128)], ids=str)
    def test_captions_and_names_do_not_overlap(self, size, figures, tmp_path: Path):
        names = ("general", "specific", "the student's own proposals", "nearby", "none")
        groups = dict(zip(names, (10, 10, 10, 10, 0)))
        points = Queries(boxes=torch.rand(1, 40, 4), groups=groups)
        points_over_image(
            picture(*size), points, torch.rand(40), path=tmp_path / "p.png", title="a title " * 20
        )
        assert overlapping_texts(figures[0]) == []

    def test_wrong_input_is_refused(self, tmp_path: Path):
        points, path = Queries(boxes=torch.rand(2, 8, 4)), tmp_path / "no.png"
        with pytest.raises(ValueError, match=r"Queries\.select"):
            points_over_image(picture(), points, torch.rand(8), path=path)
        with pytest.raises(ValueError, match=r"give \(8,\)"):
            points_over_image(picture(), points.select([0]), torch.rand(1, 8), path=path)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 4000)], ids=str)
def test_thin_images_are_drawn(size, tmp_path: Path):
    height, width = size
    boxes = [[0, 0, width, height], [0, 0, 0, 0], [float("nan")] * 4]
    columns = {
        "ground truth": [truth(boxes[:1], [0], size)],
        "model": [found(boxes, [0, 0, 0], [0.9, 0.8, 0.7], size)],
    }
    path = tmp_path / "thin.png"
    detections_side_by_side([picture(*size)], columns, class_names=["a"], path=path)
    assert max(size_of(path)) <= 2400
    points = Queries(boxes=torch.rand(1, 8, 4))
    points_over_image(picture(*size), points, torch.rand(8), path=path)
    assert max(size_of(path)) <= 2400


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 1), (9, 9, 4), (0, 9, 3)], ids=str)
def test_grey_transparent_and_empty_images_are_refused_in_a_sentence(shape, tmp_path: Path):
    image, path = np.zeros(shape, np.uint8), tmp_path / "no.png"
    with pytest.raises(ValueError, match="read_image reads any image file"):
        points_over_image(image, Queries(boxes=torch.rand(1, 8, 4)), torch.rand(8), path=path)
    column = {"model": [found([], [], [], shape[:2])]}
    with pytest.raises(ValueError, match="read_image reads any image file"):
        detections_side_by_side([image], column, class_names=["a"], path=path)


class TestCurves:
    def test_runs_of_all_lengths(self, figures, tmp_path: Path):
        curves = {
            "alone": [(100 * i, 9.0 * i, 3.0 * i) for i in range(40)],
            "one evaluation": [(100, 9.0, 12.0)],
            "none": [],
            "not a number": [(100, 9.0, float("nan")), (200, 20.0, 1.0)],
            "a long name for the legend to break its row of entries with": [(0, 0, 0)],
        }
        path = ap_curves(curves, path=tmp_path / "ap.png", reference={"teacher": 70.0})
        width, height = size_of(path)
        assert 1000 <= width <= 2400 and 400 <= height < width
        labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
        assert labels[:4] == [
            "teacher: 70.0",
            "alone: 117.0",
            "one evaluation: 12.0",
            "none: no AP",
        ]
        assert labels[4] == "not a number: 1.0"
        assert overlapping_texts(figures[0]) == []

    def test_a_single_empty_run(self, tmp_path: Path):
        nothing = {"teacher": float("nan")}
        path = ap_curves({"alone": []}, path=tmp_path / "ap.pdf", reference=nothing)
        assert path.stat().st_size

    def test_wrong_input_is_refused(self, tmp_path: Path):
        with pytest.raises(ValueError, match="at least one run"):
            ap_curves({}, path=tmp_path / "no.png")
        with pytest.raises(ValueError, match="'alone' must be a list"):
            ap_curves({"alone": [(1, 2)]}, path=tmp_path / "no.png")


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_pyplot_is_not_used(path: Path):
    """Pyplot chooses a backend for the whole process of the user."""
    text = path.read_text(encoding="utf-8")
    assert "pyplot" not in text.replace("without pyplot", "")


def test_settings_of_the_user_are_ignored_and_restored(figures, tmp_path: Path):
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True}):
        ap_curves({"alone": [(1, 1, 1)]}, path=tmp_path / "ap.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert figures[0].axes[0].xaxis.label.get_size() < 12
