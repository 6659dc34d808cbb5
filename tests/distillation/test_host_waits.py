"""In a step, the host waits for a GPU in two places only: for the costs of the matcher, and for the
losses when they are read at its end (StepTrainer). Everything else is queued.
"""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from kddetr.engine.average import MovingAverage
from kddetr.parallel import BatchInParts
from kddetr.points import (
    AtAnswers,
    GeneralSampler,
    JointSampler,
    NearbySampler,
    SpecificSampler,
)
from kddetr.teachers import CachedEncoder
from tests.pretended_device import DEVICE, CountsWaits, OnDevice, to_pretended_device
from tests.tiny import FAMILIES, tiny_batch, tiny_detector, tiny_distiller

pytestmark = pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")


def waits_of_a_step(distiller, batch):
    """Not of the first one, in which the boxes of every sampler are checked."""
    distiller(batch)
    for module in (distiller, distiller.teacher):
        to_pretended_device(module)
    with CountsWaits() as counted:
        losses = distiller(batch)
    assert {loss.device for loss in losses.values()} == {DEVICE}
    return counted.waits


def is_the_matcher(waits):
    ((reason, place), count), *others = waits.items()
    return (reason, place[:10], count, others) == ("copy to the host", "matcher.py", 1, [])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_matcher_is_all_that_waits(family):
    """With images of two sizes, one of them unlabelled."""
    distiller = tiny_distiller(tiny_detector(family), tiny_detector(family, seed=1))
    batch = tiny_batch(((40, 56), (48, 40), (40, 56)), boxes=(2, None, 1))
    waits = waits_of_a_step(distiller, batch)
    assert is_the_matcher(waits), waits


@pytest.mark.parametrize("part", [NearbySampler(), AtAnswers()], ids=lambda p: type(p).__name__)
def test_neither_do_other_points_wait(part):
    """With images without boxes, which the teacher pads."""
    student, teacher = tiny_detector("dab_detr"), tiny_detector("dino", backbone_batching="padded")
    name = "sampler" if isinstance(part, NearbySampler) else "query_placement"
    distiller = tiny_distiller(student, teacher, **{name: part})
    waits = waits_of_a_step(distiller, tiny_batch(boxes=(0, 0)))
    assert is_the_matcher(waits), waits


@pytest.mark.parametrize(
    ("sampler", "reads"),
    [(SpecificSampler(), 0), (JointSampler([GeneralSampler(count=4), SpecificSampler()]), 1)],
)
def test_answers_from_the_cache_wait_once_at_most(sampler, reads):
    """Whether points that were joined are the teacher's own is read from the device, at once."""
    teacher = CachedEncoder(tiny_detector("dino", seed=1))
    distiller = tiny_distiller(tiny_detector("dino"), teacher, sampler=sampler)
    batch = tiny_batch(((40, 56), (40, 56)))
    for module in (distiller, teacher):
        to_pretended_device(module)
    with CountsWaits():
        distiller(batch)  # what is kept of the images goes to the CPU
    with CountsWaits() as counted:
        distiller(batch)
    assert sum(n for (_, place), n in counted.waits.items() if place[:7] != "matcher") == reads


@pytest.mark.parametrize("family", FAMILIES)
def test_the_backward_pass_and_the_clipping_do_not_wait(family):
    distiller = tiny_distiller(tiny_detector(family), tiny_detector(family, seed=1))
    total = sum(distiller(tiny_batch()).values())
    with CountsWaits(everywhere=True) as counted:
        total.backward()
        torch.nn.utils.clip_grad_norm_(distiller.parameters(), 0.1)
    assert not counted.waits


def test_counting_the_normalisers_of_a_batch_in_parts_does_not_wait():
    distiller = tiny_distiller(tiny_detector("dab_detr"), tiny_detector("dino", seed=1))
    parts = [tiny_batch(((40, 56),), boxes=(2,)), tiny_batch(((48, 40),), boxes=(None,))]
    distiller(parts[0])
    for module in (distiller, distiller.teacher):
        to_pretended_device(module)
    whole = BatchInParts(2)
    with CountsWaits() as counted, torch.no_grad():
        for number, part in enumerate(parts):
            with whole.counting(number):
                distiller.count_normalisers(part)
        whole.counted()
    assert not counted.waits


def test_averaging_the_weights_does_not_wait():
    model = tiny_detector()
    average = MovingAverage(model, decay=0.9, warmup=4)
    for module in (model, average.module):
        to_pretended_device(module)
    with CountsWaits() as counted:
        for _ in range(3):
            average.update_parameters(model)
    assert not counted.waits
    with CountsWaits() as counted:
        AveragedModel.update_parameters(average, model)
    assert counted.waits  # PyTorch's own would


def test_what_counts_as_waiting():
    """The pretended device computes what the CPU does, and notices what a GPU would wait for.

    PyTorch refuses to make a tensor from numbers, or to index with a list of them, where the device
    does not exist; on a GPU both would wait.
    """
    x = torch.arange(6.0).view(2, 3)
    y = OnDevice(x)
    pinned = torch.ones(3)
    for wait in (
        lambda: y.sum().item(),
        lambda: bool((y > 1).any()),
        lambda: y.cpu(),
        lambda: y.nonzero(),
        lambda: y[y > 1],
        lambda: y.masked_select(y > 1),
        lambda: y.repeat_interleave(OnDevice(torch.tensor([1, 2])), dim=0),
        lambda: pinned.to(DEVICE),
    ):
        with CountsWaits() as counted:
            wait()
        assert sum(counted.waits.values()) == 1
    with CountsWaits() as counted:
        z = (y.masked_fill(y > 1, 0.0) @ y.t())[0, 1:] + pinned[1:2].to(DEVICE, non_blocking=True)
        z = z.clone()
        z[0] = torch.zeros((), device=DEVICE)
        full = torch.full((2,), 3.0, device=DEVICE)
    assert not counted.waits
    assert full.device == DEVICE and z.held.tolist() == [0.0]
