"""Real-time detectors at full size: equal to the package's own, read by others, and exported."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.tiny_huggingface import MEMBERS, REASON, tiny_huggingface

pytest.importorskip("transformers", reason=REASON)

# isort: split
from kddetr.detectors import huggingface_detector
from kddetr.detectors.detr.matcher import target_of
from kddetr.detectors.hf.images import batch_of
from kddetr.engine import build, launch, load_config
from kddetr.export import SquareGraph, compare, export_file, open_file
from tests.distillation.test_huggingface import PAIRS, check_pair
from tests.export.graphs import CARD
from tests.in_double import precision
from tests.live.huggingface_processes import save_step
from tests.tiny import tiny_batch

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
SIZE = (160, 224)  # neither square nor the size of the training
NAMES = ["ant", "bee", "cat"]
# A config, or the arguments of a detector, and millions of parameters where they are published.
FULL_SIZE = {
    "rtdetr_v2_r18": 20,
    "rtdetr_v2_r101": 76,
    "dfine_s": 10,
    "dfine_x": 62,
    "rt_detr of its default size": 42,
    "deimv2 of its default size": None,
    "deimv2 with a DINOv3": None,
}
DINOV3 = {
    "backbone_config": {
        "model_type": "dinov3_vit",
        "hidden_size": 192,
        "num_attention_heads": 3,
        "out_indices": [5, 8, 11],
    }
}


def full_size(name: str) -> nn.Module:
    """The detector with random weights, whose statistics let an image through."""
    torch.manual_seed(0)
    config = ROOT / f"configs/detectors/{name}.py"
    if config.is_file():
        node = load_config(str(config)).model
        node.image_size, node.train_sizes = SIZE, []
        detector = build(node)
    else:
        settings = DINOV3 if "DINOv3" in name else {}
        detector = huggingface_detector(
            name.partition(" ")[0], num_classes=80, image_size=SIZE, settings=settings
        )
    generator = torch.Generator().manual_seed(1)
    for part, value in detector.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if part.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.dim() == 1 and value.numel() > 1 and part.endswith("weight"):
            value.copy_(1 + 0.1 * noise)
        elif value.dim() == 1 and value.numel() > 1 and part.endswith(("bias", "mean")):
            value.copy_(0.1 * noise)
        elif value.dim() > 1 and part.endswith("weight"):
            value.copy_(noise * value[0].numel() ** -0.5)
    return detector


def pixels(batch: list[dict]) -> torch.Tensor:
    return batch_of(batch, SIZE, torch.device("cpu")) / 255


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", FULL_SIZE)
def test_equal_to_the_package(name, dtype):
    """Outputs in evaluation mode, and losses in training mode with their denoising queries."""
    with precision(dtype):
        detector, batch = full_size(name), tiny_batch()
        outputs, losses = (1e-6, 1e-5) if dtype is torch.float32 else (1e-12, 1e-12)
        with torch.no_grad():
            memory = detector.eval().encode(batch)
            found = detector.decode(memory, detector.queries(memory))
            expected = detector.stock(pixels(batch))
        for ours, theirs in ((found.logits, expected.logits), (found.boxes, expected.pred_boxes)):
            torch.testing.assert_close(ours[-1], theirs, atol=outputs, rtol=0)
        assert found.boxes[-1].std(1).mean() > 0.01, "all queries predict the same"
        state = {k: v.clone() for k, v in detector.state_dict().items()}
        torch.manual_seed(5)
        found = detector.train()(batch)
        detector.load_state_dict(state)  # the statistics of batch norms have moved
        targets = [target_of(x["instances"], torch.device("cpu")) for x in batch]
        labels = [{"class_labels": t.labels, "boxes": t.boxes} for t in targets]
        torch.manual_seed(5)
        expected = detector.stock(pixels(batch), labels=labels).loss_dict
        assert found.keys() == expected.keys() and any("_dn_" in name for name in found)
        for term, value in expected.items():
            torch.testing.assert_close(found[term], value, atol=losses, rtol=losses, msg=term)


@pytest.mark.parametrize("name", [name for name, millions in FULL_SIZE.items() if millions])
def test_sizes_are_the_published_ones(name):
    count = sum(p.numel() for p in full_size(name).parameters())
    assert int(count / 1e6) == FULL_SIZE[name]


@pytest.mark.parametrize(("teacher", "student"), PAIRS)
def test_any_teacher_with_any_student(teacher, student):
    check_pair(teacher, student)


def test_a_student_is_read_by_a_process_without_this_project(tmp_path):
    """The package alone finds the same objects, by its model and by its pipeline."""
    detector, folder = tiny_huggingface(num_detections=6).eval(), str(tmp_path / "folder")
    detector.save(folder, NAMES)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    program = f"""
import json, sys
sys.modules["kddetr"] = sys.modules["detectron2"] = None
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection, pipeline
model = AutoModelForObjectDetection.from_pretrained({folder!r})
processor = AutoImageProcessor.from_pretrained({folder!r})
image = Image.open({str(tmp_path / "image.png")!r})
outputs = model(**processor(images=image, return_tensors="pt"))
found = processor.post_process_object_detection(outputs, 0.0, [(50, 70)])[0]
piped = pipeline("object-detection", model={folder!r}, threshold=0.0)(image)
print(json.dumps([
    found["scores"].tolist(), found["boxes"].tolist(),
    [model.config.id2label[i] for i in found["labels"].tolist()],
    sorted([x["score"], x["label"]] for x in piped)]))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 0, run.stderr
    scores, boxes, labels, piped = json.loads(run.stdout.splitlines()[-1])
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    memory = detector.encode([{"image": image}])
    with torch.no_grad():
        found = detector([{"image": image}])[0]["instances"]
    assert len(memory) == 1 and len(found) > 2
    edges = torch.tensor([70.0, 50, 70, 50])
    theirs = torch.minimum(torch.tensor(boxes).clamp(min=0), edges)
    # Scores can be equal, so each object is looked up by its class and its box.
    for score, box, label in zip(found.scores, found.pred_boxes.tensor, found.pred_classes):
        same = [i for i, name in enumerate(labels) if name == NAMES[label]]
        nearest = min(same, key=lambda i, box=box: (theirs[i] - box).abs().max().item())
        torch.testing.assert_close(box, theirs[nearest], atol=1e-2, rtol=0)
        assert scores[nearest] == pytest.approx(score.item(), abs=2e-4)
    assert {label for _, label in piped} <= set(NAMES)
    best = max(piped)
    assert best[0] == pytest.approx(max(scores), abs=1e-3)


@pytest.mark.parametrize("member", MEMBERS)
def test_onnx(member, tmp_path):
    graph = SquareGraph(tiny_huggingface(member).eval().requires_grad_(False)).eval()
    file = tmp_path / "model.onnx"
    torch.manual_seed(0)
    two = torch.rand(2, 3, 64, 64) * 255, torch.tensor([[40, 56], [480, 640]])
    export_file(graph, file, "onnx", two, CARD, sampling="grid_sample")
    run, card = open_file(file, "onnx")
    assert card == CARD
    one = torch.rand(1, 3, 64, 64) * 255, torch.tensor([[80, 100]])
    for given in (two, one):
        found = compare(run(*given), graph(*given), 640)
        assert found.apart == 0, found
    graph.detector(tiny_batch())  # which the export has not spoilt


@pytest.mark.parametrize("member", ["rt_detr_v2", "d_fine"])
def test_two_processes_of_which_one_has_no_boxes(member, tmp_path):
    """They have the same losses by name, and every weight gets the same gradient in both."""
    launch(save_step, processes=2, device=torch.device("cpu"), args=(str(tmp_path), member))
    (names, first), (others, second) = (
        torch.load(tmp_path / f"{member}-{rank}.pth") for rank in (0, 1)
    )
    assert names == others
    for name, gradient in first.items():
        assert torch.equal(gradient, second[name]), name
