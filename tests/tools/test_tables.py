"""The program tables.py: which run counts for which cell, and the commands for empty cells."""

import json
import shlex
from pathlib import Path

import pytest
from detectron2.config import LazyConfig

import tables
from kddetr.engine import build, load_config
from kddetr.losses import ForegroundWeight, PublishedLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from paper import ABLATION, LINES
from tables import Recipe, Results, ablation_table, find_runs, main_table, report, wanted

ROOT = Path(__file__).parents[2]
BASELINE = "configs/detectors/dab_detr_r18.py"
PAIR = "configs/distill/dab_detr_r18_from_dab_detr_r50.py"


def write_run(folder, config, *overrides, ap=30.0, finished=True):
    """Writes the files that a training leaves in its folder."""
    cfg = load_config(str(ROOT / config), overrides)
    folder.mkdir(parents=True)
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    last = {"iteration": cfg.train.max_iter, "bbox/AP": ap, "bbox/AP50": ap + 20, "bbox/AP75": ap}
    lines = [{"iteration": 9, "bbox/AP": 1.0}, *([last] if finished else [])]
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    (folder / "model_final.pth").write_bytes(b"weights")
    return folder


def results(folder) -> Results:
    return Results(find_runs(folder)[0], wanted())


def row(table: str, *start: str) -> list[str]:
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]
    return next(line for line in cells if line[: len(start)] == list(start))


def test_finished_runs_fill_their_cells(tmp_path):
    write_run(tmp_path / "a", BASELINE, ap=36.0)
    write_run(tmp_path / "b", BASELINE, "train.seed=1", "train.device=cpu", ap=36.4)
    write_run(tmp_path / "teacher", "configs/detectors/dab_detr_r50.py", ap=42.3)
    # a run with another batch size counts too
    changes = ["model.teacher.checkpoint=t.pth", "dataloader.train.total_batch_size=64"]
    write_run(tmp_path / "deep/er", PAIR, *changes, ap=41.0)
    write_run(tmp_path / "begun", "configs/detectors/dino_r18.py", finished=False)
    found = results(tmp_path)
    assert row(main_table(found), "DAB-DETR R18") == [
        *("DAB-DETR R18", "DAB-DETR R50", "50", "36.2 / 36.2", "41.4 / 41.0", "+5.2 / +4.8"),
        "- / 42.3",
    ]
    assert row(main_table(found), "DAB-DETR R50")[3:6] == ["42.1 / 42.3", "45.7 / -", "+3.6 / -"]
    assert row(main_table(found), "DINO R18")[3] == "44.0 / -"
    assert row(ablation_table(found), "yes", "yes", "yes")[3:] == [
        *("41.4 / 41.0", "61.4 / 61.0", "44.2 / 41.0")
    ]
    assert row(ablation_table(found), "", "", "")[3] == "36.2 / 36.2"


@pytest.mark.parametrize(
    "change",
    [
        "train.max_iter=1000",
        "optimizer.lr=3e-4",
        "model.num_queries=100",
        "train.init_checkpoint=other.pth",
        "dataloader.train.dataset.names=coco_2017_val",
        "train.amp.dtype=float16",
        "train.batch_scaling.reference=8",
    ],
)
def test_run_of_a_changed_recipe_does_not_count(tmp_path, change):
    write_run(tmp_path / "a", BASELINE, change, ap=36.0)
    assert row(main_table(results(tmp_path)), "DAB-DETR R18")[3] == "36.2 / -"
    key = "optimizer.lr" if "reference" in change else change.partition("=")[0]
    text = report(tmp_path)
    assert f"{tmp_path / 'a'}: AP 36.0, differs from {BASELINE}: " in text and f"{key} is " in text


@pytest.mark.parametrize(
    ("batch", "iterations", "cell"),
    [(16, 369650, "41.0"), (64, 92400, "41.0"), (16, 369000, "-"), (64, 92600, "-")],
)
def test_lengths_that_differ_by_rounding_count(tmp_path, batch, iterations, cell):
    """Runs that were saved when lengths were rounded in another way still fill their cells."""
    changes = ["model.teacher.checkpoint=t.pth", f"dataloader.train.total_batch_size={batch}"]
    write_run(tmp_path / "a", PAIR, *changes, f"train.max_iter={iterations}", ap=41.0)
    found = results(tmp_path)
    assert row(main_table(found), "DAB-DETR R18")[4] == f"41.4 / {cell}"
    assert any(f"train.max_iter is {iterations}, not" in t for t in found.others) == (cell == "-")


MANY = [
    *("optimizer.lr=2e-4", "optimizer.weight_decay=2e-4", "train.max_iter=1000"),
    *("model.num_heads=4", "model.encoder_layers=4", "model.decoder_layers=4"),
    *("model.embed_dim=128", "model.num_queries=100", "model.feedforward_dim=1024"),
    *("model.num_detections=100", "model.dropout=0.1", "model.in_feature=res4"),
    *("model.backbone.depth=34", "model.backbone.freeze_at=0", "train.clip_grad.max_norm=1"),
]
SIZES = "dataloader.train.mapper.augmentations.1.short_edge_length"


@pytest.mark.parametrize("changes", [[f"{SIZES}={list(range(320, 610, 32))}"], MANY], ids=len)
def test_every_other_run_is_listed_and_a_list_is_one_difference(tmp_path, changes):
    folder = write_run(tmp_path / "a", BASELINE, *changes, ap=36.0)
    begun = write_run(tmp_path / "b", BASELINE, "optimizer.lr=1", finished=False)
    whole = write_run(tmp_path / "c", BASELINE, finished=False)
    listed = results(tmp_path).others
    assert [text.partition(":")[0] for text in listed] == [str(x) for x in (folder, begun, whole)]
    assert f"AP 36.0, differs from {BASELINE}: " in listed[0]
    assert listed[1].startswith(f"{begun}: not finished, differs from {BASELINE}: optimizer.lr is ")
    assert listed[2] == f"{whole}: not finished, a run of {BASELINE}"
    run, recipe = tables.Found(folder, load_config(f"{folder}/config.yaml")), wanted()[1]
    assert recipe.config in BASELINE
    assert len(tables.differences(run, recipe)) == len(changes)


def test_runs_with_damaged_files_are_listed_too(tmp_path):
    for name, file, text in (
        ("bytes", "config.yaml", b"\xff\xfe\x00"),
        ("empty", "config.yaml", b""),
        ("other", "metrics.json", b'[1, 2]\n{"iteration": "x"}\n{"iteration"'),
        ("text", "metrics.json", b'{"iteration": 9999999, "bbox/AP": "x"}'),
        ("list", "metrics.json", b'{"iteration": 9999999, "bbox/AP": 1, "bbox/AP50": [1]}'),
        ("no_iteration", "metrics.json", b'{"bbox/AP": 30}'),
        ("no_text", "metrics.json", b"\xff\xfe"),
        ("deep", "metrics.json", b"[" * 99999 + b"\n"),
        ("long", "metrics.json", b'{"bbox/AP": 3, "iteration": ' + b"9" * 9999 + b"}"),
    ):
        (write_run(tmp_path / name, BASELINE) / file).write_bytes(text)
    (write_run(tmp_path / "without", BASELINE) / "config.yaml").unlink()
    text = report(tmp_path)
    assert all(f"  {folder}: " in text for folder in tmp_path.iterdir())


def test_a_list_of_calls_is_one_difference_where_its_length_differs(tmp_path):
    base = load_config(str(ROOT / PAIR))
    base.model.sampler.samplers = base.model.sampler.samplers[:1]
    (recipe,) = (line.pair for line in LINES if line.pair.config in PAIR)
    assert tables.differences(tables.Found(tmp_path, base), recipe) == [
        "model.sampler.samplers is a list of 1, not a list of 2"
    ]


def test_run_from_a_copy_of_the_imagenet_weights_counts(tmp_path):
    name = load_config(str(ROOT / BASELINE)).train.init_checkpoint.rpartition("/")[2]
    write_run(tmp_path / "a", BASELINE, f"train.init_checkpoint=somewhere/{name}")
    assert row(main_table(results(tmp_path)), "DAB-DETR R18")[3] == "36.2 / 30.0"


@pytest.mark.parametrize(("changes", "cell"), [([], "41.0"), (["train.max_iter=9"], "-")])
def test_teacher_from_a_run_of_another_recipe_does_not_count(tmp_path, changes, cell):
    teacher = write_run(tmp_path / "t", "configs/detectors/dab_detr_r50.py", *changes)
    checkpoint = f"model.teacher.checkpoint={teacher}/model_final.pth"
    write_run(tmp_path / "s", PAIR, checkpoint, ap=41.0)
    found = results(tmp_path)
    assert row(main_table(found), "DAB-DETR R18")[4] == f"41.4 / {cell}"
    assert any(f"its teacher comes from {teacher}" in text for text in found.others) == bool(
        changes
    )


def test_runs_of_the_ablation_go_to_their_own_cells(tmp_path):
    for number, point in enumerate(ABLATION):
        config = f"configs/{point.recipe.config}.py"
        write_run(tmp_path / f"{number}", config, *point.recipe.changes, ap=10.0 + number)
    found = results(tmp_path)
    rows = ablation_table(found).splitlines()[2:]
    assert [line.split("|")[4].split("/")[1].strip() for line in rows] == [
        f"{10 + number:.1f}" for number in range(6)
    ]
    assert not found.others


@pytest.mark.parametrize("point", ABLATION[1:], ids=lambda p: p.recipe.folder)
def test_changes_of_the_ablation_give_its_points_and_weights(point):
    model = load_config(str(ROOT / PAIR), point.recipe.changes).model
    sampler, loss = build(model.sampler), build(model.loss)
    assert isinstance(sampler, JointSampler)
    expected = [GeneralSampler] * point.general + [SpecificSampler] * point.specific
    assert [type(one) for one in sampler.samplers] == expected
    if point.general:
        general, whole = sampler.samplers[0], build(load_config(str(ROOT / PAIR)).model.sampler)
        assert vars(general) == vars(whole.samplers[0])
    assert isinstance(loss, PublishedLoss)
    assert isinstance(loss.weighting, ForegroundWeight) is point.foreground


def flags(command: str) -> tuple[str, list[str], dict[str, str]]:
    """Config, flags and overrides of a command."""
    words = shlex.split(command)
    assert words[:3] == ["python", "train_net.py", "--config-file"]
    overrides = [word for word in words[4:] if "=" in word]
    return words[3], words[4 : -len(overrides) or None], dict(o.split("=", 1) for o in overrides)


def test_commands_give_their_recipes(tmp_path):
    """A finished run of a command fills an empty cell."""
    todo = tables.commands(results(tmp_path), tmp_path)
    assert len(todo) == len(wanted())
    folders, written = set(), set()
    for command, recipe in zip(todo, wanted(), strict=True):
        config, _, said = flags(command)
        cfg = load_config(str(ROOT / config), [f"{k}={v}" for k, v in said.items()])
        assert not tables.differences(tables.Found(tmp_path, cfg), recipe)
        if recipe.teacher:
            assert said["model.teacher.checkpoint"] in written, "teachers come first"
            gpus = int(shlex.split(command)[5])
            if cfg.model.loss.get("reduction") == "published":  # else it is a mean
                assert cfg.dataloader.train.total_batch_size == 8 * gpus
        folders.add(cfg.train.output_dir)
        written.add(f"{cfg.train.output_dir}/model_final.pth")
    assert len(folders) == len(todo)


def test_commands_resume_and_use_existing_runs(tmp_path):
    teacher = write_run(tmp_path / "mine", "configs/detectors/dab_detr_r50.py")
    write_run(tmp_path / "dino_r50", "configs/detectors/dino_r50.py", "optimizer.lr=1")
    checkpoint = "model.teacher.checkpoint=old.pth"
    batch = "dataloader.train.total_batch_size=32"
    begun = write_run(tmp_path / "begun", PAIR, checkpoint, batch, finished=False)
    todo = [flags(command) for command in tables.commands(results(tmp_path), tmp_path)]
    configs = [config for config, _, _ in todo]
    # an unfinished run is resumed with its saved config
    assert todo[configs.index(f"{begun}/config.yaml")][1:] == (
        ["--num-gpus", "8", "--resume"],
        {"train.output_dir": str(begun)},
    )
    assert load_config(f"{begun}/config.yaml").dataloader.train.total_batch_size == 32
    # the folder of a run of another recipe is not used, nor are its weights as a teacher
    dino, dino_pair = "configs/detectors/dino_r50.py", "configs/distill/dino_r18_from_dino_r50.py"
    assert todo[configs.index(dino)][2] == {"train.output_dir": f"{tmp_path / 'dino_r50_2'}"}
    weights = todo[configs.index(dino_pair)][2]["model.teacher.checkpoint"]
    assert weights == f"{tmp_path / 'dino_r50_2'}/model_final.pth"
    # a finished run of the teacher is used
    assert "configs/detectors/dab_detr_r50.py" not in configs
    others = [said for config, _, said in todo if config == PAIR]
    assert len(others) == 4
    for said in others:
        assert said["model.teacher.checkpoint"] == f"{teacher}/model_final.pth"


def test_configs_of_every_line_fit_together():
    for recipe in wanted():
        assert (ROOT / f"configs/{recipe.config}.py").is_file()
        if recipe.teacher:
            cfg = tables.recipe_config(recipe)
            node = tables.recipe_config(recipe.teacher).model
            assert cfg.model.teacher.model == node, "the command's teacher is the config's"
    assert [line.student for line in LINES if line.alone is None] == ["Faster R-CNN R50"]
    for line in LINES:
        if line.alone:
            assert line.gain == pytest.approx(line.distilled - line.alone)
        assert tables.recipe_config(line.pair).model.student == (
            tables.recipe_config(line.baseline).model
        )


def test_report(tmp_path):
    text = report(tmp_path / "nothing")
    assert "| Faster R-CNN R50    | DINO R50             | ? (here 12)     | - / -    |" in text
    assert "37.9 AP by Detectron2's own table" in text and "Runs" not in text
    widths = {len(line) for line in main_table(results(tmp_path)).splitlines()}
    assert len(widths) == 1
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.yaml").write_text("_BASE_: x.yaml")
    assert f"{folder}: " in report(tmp_path)


def test_missing_folder_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tables.py", "--output", str(tmp_path / "nowhere")])
    tables.main()
    assert "There is no folder" in capsys.readouterr().out


def test_saved_config_of_a_recipe_equals_the_recipe(tmp_path):
    for number, recipe in enumerate(wanted()):
        config = f"configs/{recipe.config}.py"
        write_run(tmp_path / f"{number}", config, *recipe.changes)
    found = results(tmp_path)
    assert all(len(runs) == 1 for runs in found.finished.values()) and not found.others
    assert not tables.commands(found, tmp_path)
    assert isinstance(wanted()[0], Recipe)
