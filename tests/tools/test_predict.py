"""The program predict.py: images, folders, patterns and videos; nothing is overwritten."""

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from kddetr.data import load_coco_format
from kddetr.prediction import Predictor, find_inputs
from predict import main
from tests.prediction.trained import NAMES, save_trained


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_trained(tmp_path_factory.mktemp("trained"))[1]


@pytest.fixture
def pictures(tmp_path):
    """A folder with a PNG, a grey JPEG in a folder below, and a TIFF."""
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for name, shape in (("a.png", (30, 40, 3)), ("below/b.jpg", (40, 30)), ("c.tif", (20, 50, 3))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return folder


def write_video(file, frames=5, size=(40, 30)):
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 7, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 40 * i, np.uint8))
    writer.release()
    return file


def test_a_folder_is_drawn_and_written_as_coco_json(weights, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--weights", weights, "--output", str(out), "--threshold", "0.2", "--json"]
    main([*arguments, str(pictures)])
    assert "in 3 images" in capsys.readouterr().out
    files = {str(file.relative_to(out)) for file in out.rglob("*.*")}
    assert files == {"a.jpg", "below/b.jpg", "c.jpg", "predictions.json"}
    with Image.open(out / "a.jpg") as drawn:
        assert drawn.size == (640, 480)  # 16 times as large
    document = json.loads((out / "predictions.json").read_text())
    assert [x["file_name"] for x in document["images"]] == ["a.png", "below/b.jpg", "c.tif"]
    assert [x["name"] for x in document["categories"]] == NAMES
    predictor = Predictor(weights, threshold=0.2)
    coco = COCO(str(out / "predictions.json"))
    for image in document["images"]:
        expected = predictor(pictures / image["file_name"])
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        np.testing.assert_allclose(
            [x["score"] for x in found], expected.scores, rtol=1e-5, atol=1e-6
        )
        assert [x["category_id"] - 1 for x in found] == expected.pred_classes.tolist()
    records = load_coco_format(json_file=str(out / "predictions.json"), image_root=str(pictures))
    assert sum(len(x["annotations"]) for x in records) == len(document["annotations"]) > 0
    with pytest.raises(SystemExit):
        main([*arguments, str(pictures)])
    assert "a.jpg exists" in capsys.readouterr().err
    main([*arguments, str(pictures), "--force"])


def test_a_video_is_drawn_frame_by_frame_beside_another_detector(weights, tmp_path, capsys):
    video, out = write_video(tmp_path / "clip.avi"), tmp_path / "out"
    teacher = shutil.copy(weights, tmp_path / "teacher.pth")
    arguments = ["--weights", weights, "--compare", str(teacher), "--output", str(out), "--json"]
    main([*arguments, str(video), "--no-pictures"])
    assert [x.name for x in out.iterdir()] == ["predictions.json"]
    main([*arguments, str(video), "--force"])
    assert "in 5 images" in capsys.readouterr().out
    reader = cv2.VideoCapture(str(out / "clip.mp4"))
    assert (reader.get(cv2.CAP_PROP_FRAME_COUNT), reader.get(cv2.CAP_PROP_FPS)) == (5, 7)
    assert reader.get(cv2.CAP_PROP_FRAME_WIDTH) > 2 * 640
    names = [x["file_name"] for x in json.loads((out / "predictions.json").read_text())["images"]]
    assert names == [f"clip.avi#{i:06d}" for i in range(1, 6)]
    assert sorted(x.name for x in out.iterdir()) == ["clip.mp4", "predictions.json"]


def test_what_cannot_be_read_is_named_and_the_rest_is_done(weights, pictures, tmp_path, capsys):
    (pictures / "cut.png").write_bytes((pictures / "a.png").read_bytes()[:99])
    (pictures / "broken.mp4").write_bytes(b"no video" * 99)
    with pytest.raises(SystemExit) as stopped:
        main(["--weights", weights, "--output", str(tmp_path / "out"), str(pictures / "*")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert "cut.png" in error and "broken.mp4 cannot be read" in error
    assert {x.name for x in (tmp_path / "out").iterdir()} == {"a.jpg", "c.jpg"}


def test_no_two_inputs_have_one_name(pictures):
    (pictures / "below" / "b.png").write_bytes((pictures / "a.png").read_bytes())
    found = find_inputs([str(pictures / "below"), str(pictures), str(pictures / "*.tif")])
    assert [one.name for one in found] == ["below/b.jpg", "below/b.png", "a.png", "c.tif"]
    drawn = ["below/b.jpg.jpg", "below/b.png.jpg", "a.jpg", "c.jpg"]
    assert [one.drawn for one in found] == drawn
    assert [one.name for one in find_inputs([str(pictures / "below")])] == ["b.jpg", "b.png"]


def test_no_two_pictures_have_one_name(tmp_path):
    """Not even where an earlier picture a.png.jpg lies beside a.png and a.tif."""
    for name in ("a.png", "a.tif", "a.png.jpg", "a.avi", "a.mp4", "b.JPG"):
        (tmp_path / name).touch()
    drawn = {one.name: one.drawn for one in find_inputs([str(tmp_path)])}
    assert len(set(drawn.values())) == len(drawn) == 6
    assert drawn["a.png"] == "a.png.jpg" and drawn["a.png.jpg"] == "a.png.jpg.jpg"
    assert drawn["b.JPG"] == "b.jpg"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["picture"], "does not exist; did you mean pictures?"),
        (["pictures/*.webp"], "No image and no video matches"),
        (["empty"], "holds no image and no video"),
        (["note.txt"], "neither an image nor a video"),
        (["pictures/below", "--output", "pictures/below"], "is one of the images themselves"),
        (["pictures", "--weights", "student.pt"], "does not exist"),
        (["pictures", "--compare", "{weights}"], "the same file"),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    weights, pictures, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("")
    given = [word.format(weights=weights) for word in arguments]
    with pytest.raises(SystemExit) as stopped:
        main(["--weights", weights, *given])
    assert stopped.value.code == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "output").exists()
