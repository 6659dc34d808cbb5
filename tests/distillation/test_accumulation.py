"""A batch in parts has the gradient of the whole batch."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from kddetr.detectors import detectron2_detector
from kddetr.engine import ConfigError
from kddetr.engine.step import StepTrainer
from kddetr.errors import UsageError
from kddetr.losses import LayerByLayer, PerImageLoss, PublishedLoss, WeightedMeanLoss
from kddetr.parallel import BatchInParts, computed_once, normaliser
from kddetr.points import JointSampler, SpecificSampler
from tests.stock_models import tiny_faster_rcnn
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller
from tests.tiny_huggingface import tiny_huggingface

SIZES = ((40, 56), (48, 40), (40, 40), (56, 48))
# The first stage of a two-stage transformer also scores the padding of a batch, which is another
# one in its parts.
ONE_SIZE = ((48, 40),) * 4


def gradients(model, batch, parts: int, **options) -> dict[str, torch.Tensor]:
    """The gradient of a step without an update, and the losses."""
    model.zero_grad()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    trainer = StepTrainer(
        model=model,
        data_loader=iter(lambda: batch, None),
        optimizer=optimizer,
        seed=0,
        accumulate=parts,
        **options,
    )
    with EventStorage() as storage:
        trainer.run_step()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    losses = {n: torch.tensor(h.latest()) for n, h in storage.histories().items()}
    return found | {n: x for n, x in losses.items() if "loss" in n or n.startswith("kd")}


def first_queries(teacher, student):
    """A sampler whose points are a second group."""
    return teacher.queries().first(3).named("general").detach()


def assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """The bar is 1e-5 of the size of the whole gradient, and of each loss."""
    assert found.keys() == wanted.keys()
    size = torch.stack([x.norm() for n, x in wanted.items() if x.dim()]).norm()
    for name, value in wanted.items():
        scale = size if value.dim() else value.abs() + 1e-3
        assert (found[name] - value).norm() <= 1e-5 * scale, name


@pytest.mark.parametrize("boxes", [(3, 0, 5, 1), (2, None, 0, 4), (0, 0, 1, 0)], ids=str)
@pytest.mark.parametrize("family", ["dab_detr", "deformable_detr_two_stage", "dino"])
def test_a_detection_transformer(family, boxes):
    """Divided by the boxes of the whole batch, also where that is less than one for each part."""
    options = {"denoising_number": 0} if family == "dino" else {}
    model = tiny_detector(family, **options).train()
    batch = tiny_batch(SIZES if family == "dab_detr" else ONE_SIZE, boxes=boxes)
    assert_equal(gradients(model, batch, 4), gradients(model, batch, 1))


@pytest.mark.parametrize("boxes", [(3, 0, 5, 1), (2, None, 0, 0)], ids=str)
def test_a_real_time_detector(boxes):
    """The package transformers divides by the boxes of what it is given. Parts have two images,
    because a single one is computed with other rounding, and these random weights sample at kinks.
    """
    model = tiny_huggingface("rt_detr", settings={"num_denoising": 0}).train()
    for module in model.modules():
        if hasattr(module, "running_var"):  # statistics of a part are not those of the batch
            module.eval().train = lambda mode=True, module=module: module
    batch = tiny_batch(((64, 64),) * 4, boxes=boxes)
    whole = gradients(model, batch, 1)
    model.encode = _counted(model.encode, asked := [])
    assert_equal(gradients(model, batch, 2), whole)
    assert len(asked) == 2  # and no losses are computed to count boxes


def _counted(function, calls):
    return lambda *arguments: calls.append(arguments) or function(*arguments)


@pytest.mark.parametrize(
    "loss",
    [WeightedMeanLoss(), PublishedLoss(), PerImageLoss(), LayerByLayer(WeightedMeanLoss())],
    ids=lambda loss: type(loss).__name__,
)
def test_a_distiller(loss):
    """The teacher is asked once about each image, and about some that have no labels."""
    teacher = tiny_detector("dino", seed=1)
    sampler = JointSampler([SpecificSampler(), first_queries])  # without random numbers
    model = tiny_distiller(tiny_detector("dab_detr"), teacher, sampler=sampler, loss=loss)
    batch = tiny_batch(ONE_SIZE, boxes=(3, 1, None, 0))
    whole = gradients(model, batch, 1)
    asked, ask = [], model.ask_teacher
    model.ask_teacher = lambda inputs, memory: asked.extend(inputs) or ask(inputs, memory)
    assert_equal(gradients(model, batch, 2), whole)
    assert sorted(x["image_id"] for x in asked) == [0, 1, 2, 3]


def test_an_rcnn(monkeypatch):
    """Its losses are means over as many anchors and regions of every image."""
    monkeypatch.setattr(torch, "randperm", lambda n, **options: torch.arange(n, **options))
    limits = {"proposal_generator.batch_size_per_image": 8, "roi_heads.batch_size_per_image": 4}
    model = detectron2_detector(tiny_faster_rcnn(**limits)).train()
    batch = tiny_batch(((64, 80),) * 4, boxes=(3, 2, 1, 2))
    assert_equal(gradients(model, batch, 2), gradients(model, batch, 1))


def test_counting_leaves_no_trace():
    """Statistics of normalisations change once a part, and random numbers do not depend on it."""
    student = tiny_detector("dab_detr")
    student.neck.norm = torch.nn.BatchNorm2d(1)
    model = tiny_distiller(student, tiny_detector("dino", seed=1))
    encode = student.encode

    def counted(inputs):
        student.neck.norm(torch.zeros(1, 1, 2, 2))
        return encode(inputs)

    student.encode = counted
    batch = tiny_batch(SIZES, boxes=(3, 0, 5, 1))
    first = gradients(model, batch, 2)
    assert student.neck.norm.num_batches_tracked == 2
    again = gradients(model, batch, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_batch_that_cannot_be_divided_is_refused():
    model = tiny_detector().train()
    with pytest.raises(ConfigError, match="the 3 images of an iteration cannot be divided into 2"):
        gradients(model, tiny_batch(SIZES[:3], boxes=(1, 1, 1)), 2)


def test_normalisers_of_a_batch_in_parts():
    counts, batch = (3.0, 0.0, 5.0), BatchInParts(3)
    made = []
    for number, count in enumerate(counts):
        with batch.counting(number):
            normaliser(torch.tensor(count), least=1, name="boxes")
            normaliser(torch.tensor(2 * count), least=1)
            computed_once("answer", lambda number=number: made.append(number) or number)
    batch.counted()
    for number, count in enumerate(counts):
        with batch.using(number):
            for _ in range(2):  # of the same name, as often as one likes
                assert normaliser(torch.tensor(count), least=1, name="boxes") == 8 / 3
            assert normaliser(torch.tensor(2 * count), least=20) == pytest.approx(20 / 3)
            assert computed_once("answer", lambda: None) == number
            with pytest.raises(UsageError, match="the same normalisers in every part"):
                normaliser(torch.tensor(1.0), least=1)
    assert made == [0, 1, 2]
    assert normaliser(torch.tensor(0.0), least=1) == 1  # outside of it
