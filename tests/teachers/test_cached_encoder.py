"""A cached encoder gives the predictions of its detector, and the same bits in any batch."""

from dataclasses import replace

import pytest
import torch

from kddetr.detectors import RegionDetector
from kddetr.errors import UsageError
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from kddetr.predictions import LAST
from kddetr.structures import EncodedDetector, Predictions, Queries
from kddetr.teachers import CachedEncoder, Vocabulary
from tests.in_double import precision
from tests.stock_models import tiny_faster_rcnn
from tests.tiny import FAMILIES, tiny_batch, tiny_detector, tiny_distiller

SIZE = (40, 56)
EMBEDDINGS = ["deformable_detr", "deformable_detr_plain"]  # one-stage: queries without boxes


def images(count: int) -> list[dict]:
    return tiny_batch((SIZE,) * count, boxes=(1,) * count)


def predictions(detector, batch):
    memory = detector.encode(batch)
    return detector.decode(memory, detector.queries(memory))


@pytest.fixture(params=FAMILIES)
def detector(request):
    return tiny_detector(request.param).eval()


@torch.no_grad()
def test_predictions_are_those_of_the_detector(detector):
    cached = CachedEncoder(detector, dtype="float32")
    batch = images(2)
    expected = predictions(detector, batch)
    for order in ([0, 1], [1, 0], [1]):
        found = predictions(cached, [batch[i] for i in order])
        # The detector encodes both images in one batch, which changes the last bits.
        torch.testing.assert_close(found.logits, expected.logits[:, order], atol=1e-5, rtol=0)
        torch.testing.assert_close(found.boxes, expected.boxes[:, order], atol=1e-5, rtol=0)


@torch.no_grad()
def test_float16_tokens_and_bfloat16_autocast_change_predictions_a_little(detector):
    batch = images(2)
    expected = predictions(detector, batch)
    own = detector.queries(
        detector.encode(batch)
    )  # with rounded tokens, proposals may be reordered
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cached = CachedEncoder(detector)
        found = cached.decode(cached.encode(batch), own)
    torch.testing.assert_close(found.boxes, expected.boxes, atol=0.1, rtol=0)


@torch.no_grad()
def test_what_was_kept_in_mixed_precision_is_asked_without_it(detector):
    """As after a training step, when the gap is computed on test images of the same size."""
    batch, cached = images(3), CachedEncoder(detector, dtype="float32")
    sampler = JointSampler([GeneralSampler(count=4), SpecificSampler()])

    def found(of: list[dict]) -> Predictions:
        encoded = EncodedDetector(cached, cached.encode(of), of)
        torch.manual_seed(0)
        return encoded.decode(sampler(encoded, encoded))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found(batch[:2])
    for of in (batch[:2], batch[2:]):  # those that are kept, and a new one
        assert found(of).logits.dtype == torch.float32
    wanted = predictions(detector, batch[2:])
    torch.testing.assert_close(
        predictions(cached, batch[2:]).logits, wanted.logits, atol=1e-5, rtol=0
    )


def test_the_tokens_of_an_image_do_not_depend_on_the_batch_it_was_first_met_in(detector):
    """Otherwise a resumed run, which meets images in other batches, would differ from a whole one.

    The same code runs on the same image alone each time, so the bits are the same.
    """
    batch = images(4)

    def tokens(*before: list[int]) -> torch.Tensor:
        """Of image 0, in a new cache that has encoded these batches before."""
        cached = CachedEncoder(detector, dtype="float32")
        for indices in before:
            cached.encode([batch[i] for i in indices])
        return cached.encode(batch[:1]).tokens[0]

    expected = tokens()
    for before in ([[0, 1]], [[1, 0]], [[1, 2, 0]], [[3, 0, 2, 1]], [[1], [1, 0]], [[2, 1], [0]]):
        assert torch.equal(tokens(*before), expected), before


def test_the_detector_encodes_each_image_once():
    detector = tiny_detector().eval()
    encoded = []
    encode = detector.encode
    detector.encode = lambda inputs: encoded.extend(x["image_id"] for x in inputs) or encode(inputs)
    cached, batch = CachedEncoder(detector), images(3)
    for indices in ([0, 1], [1, 2], [2, 0], [1, 1]):
        cached.encode([batch[i] for i in indices])
    assert encoded == [0, 1, 2]


def test_images_of_two_files_with_the_same_id_are_kept_apart():
    cached, batch = CachedEncoder(tiny_detector().eval()), images(2)
    for name, x in zip("ab", batch, strict=True):
        x.update(image_id=0, file_name=name)
    tokens = cached.encode(batch).tokens
    assert not torch.equal(tokens[0], tokens[1])


def test_a_moved_detector_gives_memories_of_its_own_dtype():
    cached, batch = CachedEncoder(tiny_detector().eval()), images(2)
    before = cached.encode(batch).tokens
    with precision(torch.float64):
        after = cached.double().encode(batch).tokens
    assert after.dtype == torch.float64
    torch.testing.assert_close(after.float(), before)


def test_changed_pixels_are_refused():
    cached, batch = CachedEncoder(tiny_detector().eval()), images(1)
    cached.encode(batch)
    pixels = batch[0]["image"]
    flips = (pixels.flip(-1), pixels.flip(-2), pixels.flip(0))
    for changed in (*flips, pixels.roll(1, -1), pixels[:, :, :48], pixels // 2):
        with pytest.raises(UsageError, match=r"Image \(None, 0\) has other pixels.*augmentations"):
            cached.encode([batch[0] | {"image": changed}])
    cached.encode(batch)


def test_inputs_that_cannot_be_cached_are_refused():
    cached = CachedEncoder(tiny_detector().eval())
    with pytest.raises(UsageError, match="images of one size"):
        cached.encode(tiny_batch())
    with pytest.raises(UsageError, match="needs an image_id"):
        cached.encode([{"image": images(1)[0]["image"]}])


def test_a_detector_that_is_not_a_transformer_is_refused():
    """The memory of an R-CNN has feature maps and proposals instead of tokens."""
    cached = CachedEncoder(RegionDetector(tiny_faster_rcnn()).eval())
    with pytest.raises(UsageError, match="of a detection transformer only"):
        cached.encode(images(1))


def wrapped(detector, dtype: str = "float32"):
    """The detector in both wrappers, as an encoded detector."""
    vocabulary = Vocabulary(detector=detector, classes=["a", "b", "c"], wanted=["c", "a"])
    teacher = CachedEncoder(vocabulary, dtype=dtype)
    return EncodedDetector(teacher, teacher.encode(images(2)))


@pytest.mark.parametrize("family", EMBEDDINGS)
@torch.no_grad()
def test_general_points_of_a_one_stage_deformable_detr_go_through_both_wrappers(family):
    detector = tiny_detector(family).eval()
    plain = EncodedDetector(detector, detector.encode(images(2)))
    found = {}
    for name, teacher in (("plain", plain), ("wrapped", wrapped(detector))):
        torch.manual_seed(0)
        points = GeneralSampler(count=5)(teacher, teacher)
        found[name] = points, teacher.decode(points)
    (points, expected), (same_points, selected) = found["plain"], found["wrapped"]
    assert points.groups == {"general": 5} and points.position.shape == (2, 5, 16)
    for part in ("boxes", "content", "position"):
        assert torch.equal(getattr(same_points, part), getattr(points, part))
    torch.testing.assert_close(selected.logits, expected.logits[..., [2, 0]])
    torch.testing.assert_close(selected.boxes, expected.boxes)


def test_a_wrapper_has_random_queries_only_where_its_detector_has():
    for detector in (tiny_detector(), tiny_detector("dino")):
        with pytest.raises(UsageError, match="made of boxes"):
            wrapped(detector.eval()).random_queries(1, 4)
    stock = RegionDetector(tiny_faster_rcnn()).eval()
    teacher = Vocabulary(detector=stock, classes=["a", "b", "c"], wanted=["a"])
    with pytest.raises(UsageError, match="made of boxes"):
        EncodedDetector(teacher, teacher.encode(images(1))).random_queries(1, 4)


def specific_and_general(teacher: EncodedDetector, seed: int = 0, count: int | None = None):
    torch.manual_seed(seed)
    samplers = [GeneralSampler(count=4), SpecificSampler(count=count), NamedGeneral()]
    return JointSampler(samplers)(teacher, teacher)


class NamedGeneral(GeneralSampler):
    """As many general points as there are own queries, in a group of another name."""

    def __init__(self):
        super().__init__(count=6)

    def __call__(self, teacher, student):
        return super().__call__(teacher, student).named("as_many")


@pytest.mark.parametrize("layers", [None, LAST])
@pytest.mark.parametrize("count", [None, 4])
@torch.no_grad()
def test_answers_from_the_cache_equal_those_of_a_decoding(detector, layers, count):
    cached = CachedEncoder(detector, dtype="float32")
    batch = images(3)
    for chosen in ([0, 1], [2, 0], [0, 1, 2]):  # unknown, partly known, known
        teacher = EncodedDetector(cached, cached.encode([batch[i] for i in chosen]))
        points = specific_and_general(teacher, count=count)
        found = teacher.decode(points, layers=layers)
        expected = detector.decode(teacher.memory, points).of_layers(layers)
        torch.testing.assert_close(found.logits, expected.logits, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-6, rtol=1e-5)
        assert found.layers == layers


@torch.no_grad()
def test_only_queries_that_are_not_the_detectors_own_are_decoded_again():
    detector, decoded = tiny_detector("dino").eval(), []
    decode = detector.decode

    def counting(memory, queries, layers=None):
        decoded.append((len(memory), len(queries)))
        return decode(memory, queries, layers)

    detector.decode = counting
    vocabulary = Vocabulary(
        detector=CachedEncoder(detector), classes=["a", "b", "c"], wanted=["c", "a"]
    )
    teacher = EncodedDetector(vocabulary, vocabulary.encode(images(2)))
    points = specific_and_general(teacher)
    first = teacher.decode(points, layers=LAST)
    assert decoded == [(1, 6), (1, 6), (2, 10)]
    again = teacher.decode(points, layers=LAST)
    assert decoded[3:] == [(2, 10)]
    assert torch.equal(first.logits, again.logits) and first.logits.shape[-1] == 2
    whole = teacher.decode(points)  # all layers are other answers
    assert decoded[4:] == [(1, 6), (1, 6), (2, 10)] and whole.num_layers == 2
    own = teacher.queries()
    moved = replace(own, boxes=own.boxes * 0.9)
    other = replace(own, content=own.content.roll(1, dims=1))
    for changed in (moved, other, own.select([1, 0])):
        decoded.clear()
        teacher.decode(changed, layers=LAST)
        assert decoded == [(2, 6)]


def test_answers_do_not_depend_on_the_batch_an_image_was_first_met_in(detector):
    """The same code runs on the same image alone each time, so the bits are the same."""
    batch = images(4)

    @torch.no_grad()
    def answers(*before: list[int]) -> tuple[Queries, Predictions]:
        cached = CachedEncoder(detector)
        for indices in [*before, [0]]:
            teacher = EncodedDetector(cached, cached.encode([batch[i] for i in indices]))
            own = teacher.queries()
            found = teacher.decode(own, layers=LAST)
        return own, found

    own, expected = answers()
    for before in ([[0, 1]], [[1, 2, 0]], [[3, 0, 2, 1], [1, 0]]):
        queries, found = answers(*before)
        assert torch.equal(queries.boxes, own.boxes)
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.boxes, expected.boxes)


@torch.no_grad()
def test_a_sampler_that_draws_how_many_points_does_not_fill_the_memory():
    cached, batch = CachedEncoder(tiny_detector("dino").eval()), images(2)
    teacher = EncodedDetector(cached, cached.encode(batch))
    for count in range(1, 7):
        found = teacher.decode(teacher.queries().first(count))
        assert found.boxes.shape[2] == count
    assert all(len(image.answers) == 4 for image in teacher.memory.images)


def test_a_moved_detector_gives_answers_of_its_own_weights_and_dtype():
    cached, batch = CachedEncoder(tiny_detector("dino").eval(), dtype="float32"), images(2)

    def own_answers():
        teacher = EncodedDetector(cached, cached.encode(batch))
        return teacher.decode(teacher.queries(), layers=LAST)

    with torch.no_grad():
        before = own_answers()
        with precision(torch.float64):
            cached.double()
            after = own_answers()
    assert after.boxes.dtype == torch.float64
    torch.testing.assert_close(after.boxes.float(), before.boxes, atol=1e-5, rtol=1e-5)


def test_queries_with_a_gradient_are_decoded():
    detector = tiny_detector("dino").eval()
    cached = CachedEncoder(detector)
    teacher = EncodedDetector(cached, cached.encode(images(2)))
    own = teacher.queries()
    asked = replace(own, boxes=own.boxes.clone().requires_grad_())
    teacher.decode(asked).boxes.sum().backward()
    assert asked.boxes.grad.any()


def test_a_distillation_with_a_cache_has_the_losses_of_one_without(detector):
    batch, student = images(2), tiny_detector("deformable_detr_plain", seed=1)
    if "position" not in detector.query_parts:
        student = tiny_detector("dab_detr", seed=1)

    def losses(teacher) -> dict[str, float]:
        model = tiny_distiller(student, teacher)
        torch.manual_seed(0)
        return {name: value.item() for name, value in model(batch).items()}

    cached = CachedEncoder(detector, dtype="float32")
    expected = losses(detector)
    for _ in ("cold", "warm"):
        assert losses(cached) == pytest.approx(expected, rel=1e-3, abs=1e-5)
