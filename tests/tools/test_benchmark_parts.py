"""The parts of the benchmark, each on tiny models whose figures are known."""

import os
import re
from inspect import signature
from itertools import count, pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d, ROIAlign
from torch import nn

from benchmarking.alone import first_and_last, measure_alone
from benchmarking.batches import RandomImages, random_batch
from benchmarking.clock import Clock, Spread
from benchmarking.fixed_answers import FixedAnswers
from benchmarking.memory import (
    allocated,
    bound,
    kept_for_backward,
    measure_memory,
    memory_ratio,
    size_of,
)
from benchmarking.operations import count_operations, counted
from benchmarking.sampling import first_call, measure_sampling
from benchmarking.shares import Timers, shares_of, time_shares, timed_parts
from benchmarking.steps import run_step, time_steps
from benchmarking.weights import batch_statistics, is_here, is_recorded, replace_missing, untrained
from kddetr.detectors.detr.sampling import IMPLEMENTATIONS, sample_values
from kddetr.engine import build, load_config
from kddetr.errors import UsageError
from kddetr.points import GeneralSampler
from kddetr.structures import QueryableDetector
from kddetr.teachers import CachedEncoder
from tests.tiny import FAMILIES, tiny_batch, tiny_detector
from tests.tools.subjects import subject_of, tiny_pair

CPU = torch.device("cpu")


def steps_of(subject, repeats: int = 2, warmup: int = 1) -> dict[str, Spread]:
    return time_steps(subject, Clock(CPU), repeats=repeats, warmup=warmup)


def test_kinds_are_interleaved():
    subject, order = tiny_pair(), []
    encode, student = subject.teacher.encode, subject.student
    subject.teacher.encode = lambda inputs: order.append("teacher") or encode(inputs)
    student.register_forward_hook(lambda *_: order.append("plain"))
    subject.distiller.register_forward_hook(lambda *_: order.append("distillation"))
    seconds = steps_of(subject)
    # The distillation step asks the teacher, too.
    assert order == ["teacher", "plain", "teacher", "distillation"] * 3
    assert {len(spread.values) for spread in seconds.values()} == {2}


def test_measured_steps_leave_the_weights_as_they_are():
    subject = tiny_pair()
    before = {name: value.clone() for name, value in subject.student.state_dict().items()}
    steps_of(subject, repeats=1, warmup=0)
    assert all(p.grad is not None for p in subject.student.parameters() if p.requires_grad)
    for name, value in subject.student.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_cached_teacher_has_met_the_images_before():
    teacher = tiny_detector("dino", seed=1)
    subject = subject_of(
        tiny_detector("dino"), CachedEncoder(teacher), tiny_batch(((40, 56), (40, 56)))
    )
    calls = []
    teacher.backbone.register_forward_hook(lambda *_: calls.append(1))
    assert count_operations(subject, subject.source.next())["teacher"] == 0
    assert len(calls) == 2  # each image once, and none of them while operations were counted
    steps_of(subject, repeats=1, warmup=0)
    assert len(calls) == 2


def test_spreads_are_compared_within_repetitions():
    a, b = Spread([2.0, 8.0, 3.0]), Spread([1.0, 2.0, 3.0])
    assert (a / b).values == [2.0, 4.0, 1.0] and (a / b).median == 2.0
    assert (a + b).values == [3.0, 10.0, 6.0] and (a - b).values == [1.0, 6.0, 0.0]
    assert (2 * a.median, (a * 2).median) == (6.0, 6.0)
    assert b.figures() == {"median": 2.0, "min": 1.0, "max": 3.0, "values": [1.0, 2.0, 3.0]}


def test_operations_of_a_known_model_are_counted():
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 8 * 8, 7))
    images = torch.rand(2, 3, 8, 8)
    forward = 2 * 2 * (8 * 8 * 5 * 3 * 9 + 5 * 8 * 8 * 7)
    assert counted(lambda: model(images)) == forward
    # Backward each layer costs as much for its weights as for its input, which the first lacks.
    convolution = 2 * 2 * 8 * 8 * 5 * 3 * 9
    assert counted(lambda: model(images).sum().backward()) == 3 * forward - convolution


def test_attention_on_a_cpu_is_counted():
    q, k = torch.rand(2, 4, 6, 8, requires_grad=True), torch.rand(2, 4, 10, 8)
    product = 2 * (2 * 4) * 6 * 10 * 8
    assert counted(lambda: F.scaled_dot_product_attention(q, k, k)) == 2 * product
    found = counted(lambda: F.scaled_dot_product_attention(q, k, k).sum().backward())
    assert found == 2 * product + 5 * product  # the scores are computed once more


def test_deformable_attention_is_counted_in_one_form_whatever_runs():
    values = torch.rand(2, 20, 3, 4, requires_grad=True)  # 4 x 5 tokens, 3 heads of 4 channels
    locations, weights = torch.rand(2, 6, 3, 1, 2, 2), torch.rand(2, 6, 3, 1, 2)
    samples = 2 * 6 * 3 * 2 * 4

    def run() -> torch.Tensor:
        return sample_values(values, [(4, 5)], locations, weights)

    assert counted(run) == 8 * samples
    assert counted(lambda: run().sum().backward()) == 3 * 8 * samples


@pytest.mark.parametrize(("ratio", "samples"), [(2, 4), (0, 3 * 2)])
def test_region_pooling_is_counted(ratio, samples):
    maps = torch.rand(1, 5, 16, 16, requires_grad=True)
    # A bin is 2.5 pixels wide and 2 high.
    regions, pool = torch.tensor([[0, 1.0, 1.0, 11.0, 9.0]]), ROIAlign(4, 1.0, ratio)
    forward = 8 * 5 * 16 * samples
    assert counted(lambda: pool(maps, regions)) == forward
    assert counted(lambda: pool(maps, regions).sum().backward()) == 2 * forward


def test_operations_of_a_compiled_module_are_counted():
    model, x = nn.Linear(8, 16), torch.rand(4, 8)
    model.compile(backend="eager")
    assert counted(lambda: model(x)) == 2 * 4 * 8 * 16


def test_implementations_of_sampling_are_timed_forward_and_backward(monkeypatch):
    def broken(*_: object) -> None:
        raise ImportError("there is no such package")

    monkeypatch.setitem(IMPLEMENTATIONS, "library", broken)
    subject = tiny_pair("dino")
    values, shapes, locations, weights = first_call(subject, subject.source.next())
    assert values.shape[1] == sum(height * width for height, width in shapes)
    assert locations.shape[:-1] == weights.shape and locations.requires_grad
    before = set(IMPLEMENTATIONS)
    found = measure_sampling(subject, subject.source.next(), Ticks(), repeats=2, warmup=1)
    found = found["sampled_layer"]
    assert found["missing"]["library"] == "there is no such package"
    assert "need a GPU" in found["missing"]["triton"]
    assert set(found["seconds"]) == {"gather", "grid_sample"} and set(IMPLEMENTATIONS) == before
    for seconds in found["seconds"].values():
        assert {way: spread["values"] for way, spread in seconds.items()} == {
            "forward": [1.0, 1.0],
            "backward": [1.0, 1.0],
        }


def test_a_student_without_deformable_attention_samples_nothing():
    subject = tiny_pair("dab_detr")
    assert measure_sampling(subject, subject.source.next(), Ticks(), repeats=1, warmup=0) == {}


def test_memory_is_compared_with_its_bound():
    peaks = {"teacher": 10, "plain_step": 100, "distillation_step": 150}
    memory = {name: {"peak": peak} for name, peak in peaks.items()}
    assert bound(memory) == pytest.approx(1.15 * 100 + 10)
    ratios = memory_ratio(memory)
    assert ratios == pytest.approx({"peak_over_plain": 1.4, "peak_over_bound": 150 / 125})


def test_every_second_image_is_smaller_where_sizes_are_mixed():
    size = {"batch_size": 3, "boxes": 1, "num_classes": 2}
    source = RandomImages(size=(64, 96), mixed=True, **size)
    shapes = [tuple(x["image"].shape[1:]) for x in source.next()]
    assert shapes == [(64, 96), (48, 72), (64, 96)] and "and 48 x 72" in source.name
    assert all(x["instances"].image_size == s for x, s in zip(source.next(), shapes, strict=True))


def test_operations_of_a_distillation_step_grow_with_its_points():
    found = []
    for number in (4, 8, 12):
        subject = tiny_pair()
        subject.distiller.sampler = GeneralSampler(count=number)
        found.append(count_operations(subject, subject.source.next()))
    assert found[0]["plain_step"] == found[1]["plain_step"] > 0
    first, second = (b["distillation_step"] - a["distillation_step"] for a, b in pairwise(found))
    assert 0 < first <= second  # self-attention grows faster than the points


def test_allocations_at_the_largest_moment_are_counted():
    def run() -> torch.Tensor:
        first = torch.ones(1000, 1000)
        second = first + 1
        del first
        return (second * 2).sum()

    assert allocated(run) == pytest.approx(2 * 4e6, rel=0.001)


def test_allocations_agree_with_the_peak_of_the_process():
    """The kernel's own peak, which Linux sets back here; ru_maxrss has it since the beginning."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not os.access(reset, os.W_OK):
        pytest.skip("this system does not set the peak of a process back")

    def run() -> None:
        images = torch.ones(8, 8, 512, 512, requires_grad=True)  # 64 MiB, mapped by itself
        F.conv2d(images, torch.ones(8, 8, 1, 1)).relu().exp().sum().backward()

    def kibibytes(name: str) -> int:
        return int(re.search(rf"{name}:\s+(\d+) kB", status.read_text())[1])

    found = allocated(run)
    before = kibibytes("VmRSS")
    reset.write_text("5")
    run()
    assert found > 2e8
    assert found == pytest.approx(1024 * (kibibytes("VmHWM") - before), rel=0.1)


def test_peak_memory_holds_weights_states_and_what_is_kept():
    subject = tiny_pair()
    memory = measure_memory(subject, subject.source.next())
    student = [*subject.student.parameters(), *subject.student.buffers()]
    trained = size_of(p for p in subject.student.parameters() if p.requires_grad)
    steps = size_of(torch.tensor(0.0) for _ in subject.student.parameters())  # AdamW counts them
    found = memory["plain_step"]
    assert size_of(student) + 2 * trained <= found["fixed"]
    assert found["fixed"] <= size_of(student) + 2 * trained + 64 * len(student) + steps
    teacher = [*subject.teacher.parameters(), *subject.teacher.buffers()]
    assert memory["teacher"]["fixed"] == size_of(teacher)
    assert memory["distillation_step"]["fixed"] == found["fixed"] + size_of(teacher)
    for kind in ("plain_step", "distillation_step"):
        sizes = memory[kind]
        assert sizes["peak"] >= sizes["fixed"] + sizes["kept_for_backward"] > sizes["fixed"]


def test_a_sparse_tensor_has_the_bytes_of_its_indices_and_values():
    entries = torch.tensor([[0, 2, 2], [1, 0, 3]])
    sparse = torch.sparse_coo_tensor(entries, torch.ones(3), (4, 5), check_invariants=True)
    assert size_of([sparse]) == 6 * 8 + 3 * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_activations_are_not_kept(family):
    kept = {}
    for recompute in (False, True):
        subject = subject_of(tiny_detector(family, checkpoint_activations=recompute))
        batch = random_batch([(64, 96)], 2, subject.student.num_classes)
        kept[recompute] = kept_for_backward(subject, subject.student, batch)
    assert 0 < kept[True] < 0.8 * kept[False]


class Ticks:
    """A clock that advances by 1 whenever it is read."""

    waits = counts_processor_time = False

    def __init__(self) -> None:
        self.ticks = count()

    def now(self) -> float:
        return float(next(self.ticks))


def test_a_part_inside_of_another_is_not_counted_twice():
    timers = Timers(Ticks())
    inner = timers.around("inner", lambda: None)
    outer = timers.around("outer", lambda: inner() or inner())
    outer()
    # The outer part is open for 5 ticks, and each inner one for 1 of them.
    assert dict(timers.seconds) == {"inner": 2.0, "outer": 3.0}
    belongs = timers.around("other", lambda: None, outside="outer")
    timers.around("outer", belongs)()
    assert "other" not in timers.seconds


def test_timers_leave_no_trace():
    subject = tiny_pair("dino")
    parts = [subject.student, subject.teacher, subject.distiller.loss, subject.plain.grad_scaler]
    parts += [subject.student.criterion, subject.distilling.grad_scaler]
    before = [dict(vars(part)) for part in parts]
    with timed_parts(subject, Timers(Clock(CPU))):
        assert [dict(vars(part)) for part in parts] != before
    assert [dict(vars(part)) for part in parts] == before


def test_every_part_of_a_step_is_timed():
    subject, timers = tiny_pair("dino"), Timers(Ticks())
    with timed_parts(subject, timers):
        run_step(subject, subject.distilling, subject.source.next())
    timed = {name for name, seconds in timers.seconds.items() if seconds > 0}
    assert timed == {
        *("teacher_encode", "teacher_decode", "student_points_forward", "matching", "loss"),
        *("loss_backward", "backward", "ground truth"),
    }


def test_shares_follow_their_definitions():
    step = {"whole": 20.0, "backward": 9.0, "loss_backward": 1.0, "loss": 1.0, "matching": 2.0}
    step |= {"teacher_encode": 3.0, "teacher_decode": 1.0, "student_points_forward": 2.0}
    plain = {"whole": 10.0, "backward": 4.0, "matching": 2.0}
    shares = shares_of({"plain_step": [plain], "distillation_step": [step]})
    assert shares["plain_step"] == {"matching": 0.2, "rest": 0.8}
    found = shares["distillation_step"]
    assert found["student_points_backward"] == (9 - 4 - 1) / 20 and found["loss"] == 2 / 20
    assert found["rest"] == pytest.approx(1 - (2 + 3 + 1 + 2 + 4 + 2) / 20)


def test_shares_of_a_plain_detector():
    shares = time_shares(subject_of(tiny_detector()), Clock(CPU), repeats=1, warmup=0)
    assert set(shares) == {"plain_step"} and set(shares["plain_step"]) == {"matching", "rest"}


@pytest.mark.parametrize("family", ["dab_detr", "deformable_detr"])
def test_the_student_alone_is_left_in_training_mode(family):
    subject = subject_of(tiny_detector(family))
    clock, batch = Clock(CPU), subject.source.next()
    found = measure_alone(subject, batch, clock, repeats=1, warmup=0)
    assert subject.student.training
    assert found["parameters"] == sum(p.numel() for p in subject.student.parameters())
    first, last = first_and_last(subject.student.eval(), batch)
    assert first is next(m for m in subject.student.backbone.modules() if isinstance(m, nn.Conv2d))
    heads = subject.student.decoder
    assert last in [*heads.class_heads.modules(), *heads.box_heads.modules()]


def test_missing_files_are_replaced_by_random_weights():
    cfg = load_config("configs/distill/dino_r18_from_dino_r50.py")
    assert replace_missing(cfg.model) == [""]
    assert cfg.model.teacher["_target_"] is untrained
    cfg = load_config("configs/quickstart/distilled.py")
    assert replace_missing(cfg.model) == []
    cfg.model.teacher.detector.checkpoint = "no/such/file.pth"
    assert replace_missing(cfg.model) == ["no/such/file.pth"]
    teacher = build(cfg.model.teacher)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not is_here("https://example.com/weights.pth")  # it is not fetched


def test_a_recorded_teacher_is_recognised():
    """It is measured on the images of the config, because it knows no others."""
    assert is_recorded(load_config("configs/quickstart/distilled_recorded.py").model)
    assert not is_recorded(load_config("configs/quickstart/distilled.py").model)


@pytest.mark.parametrize("name", ["decode", "queries"])
def test_timed_methods_keep_their_arguments(name):
    """A distiller asks a decode for the layers that the loss compares, where it can give them."""
    subject = tiny_pair()
    before = signature(getattr(subject.teacher, name))
    with timed_parts(subject, Timers(Clock(CPU))):
        assert signature(getattr(subject.teacher, name)) == before


def test_fixed_answers_are_a_queryable_detector_with_boxes_around_the_objects():
    batch = random_batch([(64, 96)] * 2, 2, 5)
    teacher = FixedAnswers.around(batch, 5)
    assert isinstance(teacher, QueryableDetector)
    memory = teacher.encode(batch)
    queries = teacher.make_queries(memory, torch.rand(1, 700, 4))
    answers = teacher.decode(memory, queries)
    assert answers.logits.shape == (1, 2, 700, 5) and answers.boxes.shape == (1, 2, 700, 4)
    own = teacher.queries(memory)
    assert torch.equal(teacher.decode(memory, own).boxes[0], own.boxes)
    corners = batch[0]["instances"].gt_boxes.tensor / torch.tensor([96, 64, 96, 64])
    centres, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    distance = (own.boxes[0, :, None, :2] - centres).abs()
    assert (distance <= 0.2 * sizes + 1e-6).all(-1).any(-1).all()
    with pytest.raises(UsageError, match="--boxes 1 or more"):
        FixedAnswers.around(random_batch([(64, 96)] * 2, 0, 5), 5)


def test_statistics_of_frozen_norms_are_those_of_the_batch_inside_the_context_only():
    norm = FrozenBatchNorm2d(3)
    given = 5 + 7 * torch.randn(2, 3, 8, 8)
    with batch_statistics(nn.Sequential(norm)):
        found = norm(given)
    assert found.mean((0, 2, 3)).abs().max() < 1e-4
    assert (found.var((0, 2, 3)) - 1).abs().max() < 1e-3
    assert norm(2 * given).mean() > 0.1
