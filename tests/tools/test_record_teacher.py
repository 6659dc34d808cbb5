"""The program record_teacher.py: from a config or from results, resumed, and pseudo-labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kddetr.data import load_coco_format
from kddetr.teachers import recording
from kddetr.teachers.coco_results import UNSEEN
from kddetr.teachers.record import Record
from record_teacher import main
from tests.records import image_files

CONFIG = ["--config-file", "configs/quickstart/distilled.py"]
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "cow"}]


@pytest.fixture
def images(tmp_path) -> list[dict]:
    return image_files(tmp_path / "images")


@pytest.fixture
def results(images, tmp_path) -> dict[str, str]:
    """Detections of the three images, and the arguments that record them."""
    detections = [
        {"image_id": 0, "category_id": 7, "bbox": [10, 8, 20, 16], "score": 0.9},
        {"image_id": 0, "category_id": 3, "bbox": [10, 8, 20, 16], "score": 0.25},
        {"image_id": 0, "category_id": 3, "bbox": [11, 8, 20, 16], "score": 0.5},
        {"image_id": 2, "category_id": 9, "bbox": [0, 0, 48, 64], "score": 0.004},
    ]
    listed = [{"id": i, "file_name": f"{i}.png"} for i in range(3)]
    annotations = {"images": listed, "categories": CATEGORIES}
    (tmp_path / "results.json").write_text(json.dumps(detections))
    (tmp_path / "listed.json").write_text(json.dumps(annotations))
    return {
        "--results": str(tmp_path / "results.json"),
        "--annotations": str(tmp_path / "listed.json"),
        "--images": str(tmp_path / "images"),
        "--output": str(tmp_path / "record"),
    }


def words(arguments: dict[str, str]) -> list[str]:
    return [word for pair in arguments.items() for word in pair]


def failure(arguments: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_results_become_the_answers_that_are_assumed(results, tmp_path):
    main(words(results))
    record = Record(results["--output"])
    assert record.classes == ("cat", "dog", "cow")
    (seen, first), (_, none), (_, low) = record
    assert (seen.file_name, seen.size, seen.labeled) == ("0.png", (40, 56), False)
    expected = torch.tensor([[0.25, 0.9, UNSEEN], [0.5, UNSEEN, UNSEEN]])
    torch.testing.assert_close(first.all_logits(3).sigmoid(), expected, atol=1e-3, rtol=0)
    place = torch.tensor([20 / 56, 16 / 40, 20 / 56, 16 / 40])
    torch.testing.assert_close(first.boxes[0], place)
    assert torch.equal(first.queries, first.boxes.half())
    assert len(none) == 0
    expected = torch.tensor([[0.002, 0.002, 0.004]])
    torch.testing.assert_close(low.all_logits(3).sigmoid(), expected, atol=1e-4, rtol=0)
    assert "sha256" in record.card["teacher"] and "0.01" in record.card["teacher"]["assumed"]


def test_results_of_a_folder_find_their_images_by_name(results, tmp_path):
    main(words(results))
    del results["--annotations"]
    results["--output"] = str(tmp_path / "other")
    results["--categories"] = str(tmp_path / "listed.json")
    main(words(results))
    for (_, one), (_, other) in zip(Record(str(tmp_path / "record")), Record(results["--output"])):
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.logits, other.logits)


def test_results_of_two_images_of_one_name_are_refused(results, capsys):
    twin = Path(results["--images"]) / "further" / "0.png"
    twin.parent.mkdir()
    Image.new("RGB", (56, 40)).save(twin)
    del results["--annotations"]
    results["--categories"] = "a, b, c, d, e, f, g, h, i"
    assert "have both the image id 0: list the images" in failure(words(results), capsys)


def test_of_copies_of_an_image_the_one_with_answers_counts(results):
    folder = Path(results["--images"])
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    main(words(results))
    record = Record(results["--output"])
    (first, answers), (copy, none), _ = record
    assert (first.digest, len(answers), len(none)) == (copy.digest, 2, 0)
    assert len(record.find(copy.digest)[1]) == 2


def changed(results, change) -> None:
    path = Path(results["--results"])
    detections = json.loads(path.read_text())
    change(detections)
    path.write_text(json.dumps(detections))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[1].pop("score"), "detection 1: it has no score"),
        (lambda d: d[0].update(score=1.5), "is not a probability from 0 to 1"),
        (lambda d: d[0].update(bbox=[1, 2, 3]), "bbox must be four numbers"),
        (lambda d: d[0].update(bbox=[1, 2, -3, 4]), "bbox must be four numbers"),
        (lambda d: d[3].update(category_id=8), "its category 8 is not one of the categories"),
        (lambda d: d[3].update(image_id=77), "not among the 3 images, such as 77"),
        (lambda d: d.append("x"), "is no list of detections"),
        (lambda d: d.clear(), "has no detection"),
        (lambda d: d[0].update(score="0.9"), "bbox must be four numbers"),
        (lambda d: d[0].update(bbox="1234"), "bbox must be four numbers"),
        (lambda d: d[0].update(bbox=[0, 0, 10**400, 3]), "bbox must be four numbers"),
        (lambda d: d[0].update(image_id=[0]), "its image_id [0] is neither a number nor text"),
        (lambda d: d[0].update(image_id="0"), "such as '0', while the images have ids such as 0"),
        (lambda d: d.extend([d[0] | {"bbox": [0.1, 0.2, 0.3, 0.3]}] * 10), "look like fractions"),
        (lambda d: d.extend([d[0] | {"bbox": [30, 20, 50, 38]}] * 10), "look like corners"),
    ],
)
def test_wrong_results_are_a_sentence(change, message, results, capsys):
    changed(results, change)
    assert message in failure(words(results), capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name a teacher with --config-file or --results"),
        (["--pseudo-labels", "x.json"], "is not a record of a teacher"),
        (["--results", "r.json"], "name their folder with --images"),
        (["--results", "r.json", "--images", "."], "name a COCO file with the categories"),
        ([*CONFIG, "--results", "r.json"], "and not both"),
        ([*CONFIG, "--weights", "w.pth"], "--weights is for the config of a detector"),
        ([*CONFIG, "--annotations", "a.json"], "--annotations a.json does not go with --config"),
        (["--results", "r.json", "--weights", "w.pth"], "--weights w.pth does not go with --res"),
        (["--results", "r.json", "train.seed=1"], "train.seed=1 does not go with --results"),
        (["--results", "r.json", "--images", ".", "--categories", "a,a"], "empty or given twice"),
        ([*CONFIG, "--keep", "0"], "0 is not a whole number of at least 1"),
        ([*CONFIG, "--threshold", "2"], "--threshold 2 is not from 0 to 1"),
    ],
)
def test_wrong_arguments_are_a_sentence(arguments, message, tmp_path, capsys):
    assert message in failure([*arguments, "--output", str(tmp_path / "none")], capsys)


def test_an_empty_output_is_a_sentence(capsys):
    assert "--output is empty" in failure([*CONFIG, "--output", ""], capsys)


def test_a_stopped_run_goes_on_and_another_teacher_is_refused(results, monkeypatch, capsys):
    """The file that was not finished is not there, and those that were are not made again."""
    arguments = [*words(results), "--images-per-shard", "1"]
    write, made = recording.write_shard, []

    def killed(file, entries):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(file.name)
        write(file, entries)

    monkeypatch.setattr(recording, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    assert "2 of its 3 files are missing" in failure(
        ["--output", results["--output"], "--pseudo-labels", "x.json"], capsys
    )
    monkeypatch.setattr(recording, "write_shard", write)
    main(arguments)
    assert "answers_00000.safetensors is there already" in capsys.readouterr().out
    assert [len(answers) for _, answers in Record(results["--output"])] == [2, 0, 1]
    changed(results, lambda d: d.pop())
    assert "begun with another 'teacher'" in failure(arguments, capsys)


def test_pseudo_labels_are_training_data(results, tmp_path, capsys, monkeypatch):
    """Of equal boxes one label, of unsure answers and near duplicates none."""
    file = tmp_path / "made" / "labels.json"
    main([*words(results), "--pseudo-labels", str(file), "--threshold", "0.3"])
    assert f"2 boxes on 3 images; their image_root is {tmp_path / 'images'}" in (
        capsys.readouterr().out
    )
    records = load_coco_format(json_file=str(file), image_root=str(tmp_path / "images"))
    assert [len(x["annotations"]) for x in records] == [2, 0, 0]
    (dog, cat) = records[0]["annotations"]
    assert (dog["category_id"], cat["category_id"]) == (1, 0)
    np.testing.assert_allclose(dog["bbox"], [10, 8, 20, 16], atol=1e-4)
    main(["--output", results["--output"], "--pseudo-labels", str(file), "--threshold", "0.6"])
    assert "1 boxes on 3 images" in capsys.readouterr().out


def test_the_teacher_of_a_config_is_recorded_for_a_folder(tmp_path, capsys):
    """The bundled one, without its cache, although the images have different sizes."""
    (tmp_path / "images").mkdir()
    for i, size in enumerate([(64, 48), (48, 64)]):
        Image.new("RGB", size, (80, 90, 10)).save(tmp_path / f"images/{i}.png")
    output = str(tmp_path / "record")
    options = ["--images", str(tmp_path / "images"), "--keep", "7", "train.device=cpu"]
    main([*CONFIG, "--output", output, *options])
    assert "2 images, 7.0 answers" in capsys.readouterr().out
    record = Record(output)
    teacher = record.card["teacher"]
    assert record.classes == tuple("0123456789")
    assert list(teacher["checkpoints"]) == ["kddetr://quickstart_teacher.pth"]
    assert teacher["model"]["detector"]["_target_"] == "load_pretrained"
