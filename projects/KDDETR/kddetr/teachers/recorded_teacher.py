"""A teacher without a network: its answers were recorded before training.

The teacher of a training is asked about the same images in every epoch. Where only its own queries
are asked, its answers can be written down once, and a training then costs little more than that of
the student alone, however large the teacher is.

Shape letters: B images, N answers of each image, K classes, C embedding width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..data.affine import AFFINE
from ..detectors.inputs import check_inputs
from ..errors import UsageError
from ..structures import Predictions, Queries
from ..transfer import to_device
from .answers import Answers
from .record import Record, RecordedImage, file_digest

_WHOLE_IMAGE = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
_UNLIKELY = torch.tensor([-10.0])  # the logit of every class where an image has no answer
_NOTHING = Answers(
    boxes=_WHOLE_IMAGE,
    classes=torch.tensor([[0]]),
    logits=_UNLIKELY[None],
    rest=_UNLIKELY,
    queries=_WHOLE_IMAGE,
    rows=torch.tensor([0]),
)


@dataclass(frozen=True)
class RecordedMemory:
    """The recorded answers for a batch of images, as they are in the augmented images.

    Attributes:
        queries: (B, N, ...) that the teacher was asked, those with the best answers first.
        answers: (1, B, N, ...) its predictions there.
    """

    queries: Queries
    answers: Predictions


class RecordedTeacher(nn.Module):
    """A :class:`~kddetr.structures.QueryableDetector` that answers from a record.

    It knows the answers to the recorded queries only: the distillation points have to be those of
    :class:`~kddetr.points.SpecificSampler`. The answers follow an image through flips, resizes,
    crops and every other affine augmentation of :class:`~kddetr.data.DetectionMapper`.

    N is the same for all images: the largest number of answers that the record has for an image. An
    image with fewer answers has them again, from the last to the first, and these do not count, see
    :class:`~kddetr.structures.Predictions`. So what a student is asked about an image does not
    depend on the other images of its batch. The student's queries attend to one another; one that
    attends to each of the others equally often gets what it gets without the repetitions. An image
    without any answer has queries at the whole image.

    Args:
        path: the folder of a record, which ``tools/record_teacher.py`` makes.

    Attributes:
        trained_classes: the names of its K classes.

    Raises:
        UsageError: there is no record, or it is unfinished or damaged.
    """

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.record = Record(path)
        self.trained_classes = self.record.classes
        content = self.record.content
        # Moves along with the student's weights, and so tells the device too.
        table = torch.zeros(0, 0) if content is None else content
        self.register_buffer("content", table, persistent=False)
        self._found: dict[str, bytes] = {}  # the digests of the files that were read

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return len(self.record.classes)

    @property
    def query_parts(self) -> Mapping[str, int]:
        """See :class:`~kddetr.structures.QueryableDetector`."""
        return {"content": self.content.shape[1]} if self.record.content is not None else {}

    @torch.no_grad()
    def encode(self, inputs: list[dict[str, Any]]) -> RecordedMemory:
        """The recorded answers for the images of a batch.

        An image is found by the bytes of its file, which are read when it is met for the first
        time.

        Raises:
            UsageError: an image is not in the record, or its file has changed since, or how it was
                augmented is not known.
        """
        check_inputs(inputs)
        rows = [self._padded(self._moved(x)) for x in inputs]
        logits, boxes, asked, content_rows, answered = (
            to_device(torch.stack(part), self.content.device) for part in zip(*rows, strict=True)
        )
        content = None if self.record.content is None else self.content[content_rows].float()
        answers = Predictions(logits[None], boxes[None], answered=answered[None])
        return RecordedMemory(Queries(asked, content=content), answers)

    def queries(self, memory: RecordedMemory) -> Queries:
        """The recorded (B, N, ...) queries, those with the best answers first."""
        return memory.queries

    def make_queries(self, memory: RecordedMemory, boxes: Tensor) -> Queries:
        """Refused by a UsageError: only recorded queries can be answered."""
        _refuse()

    def random_queries(self, memory: RecordedMemory, images: int, count: int) -> Queries:
        """Refused by a UsageError: only recorded queries can be answered."""
        _refuse()

    def decode(self, memory: RecordedMemory, queries: Queries) -> Predictions:
        """The recorded predictions at the first of the recorded queries, (1, B, n, ...).

        Raises:
            UsageError: these are other queries.
        """
        boxes, count = queries.boxes, len(queries)
        known = memory.queries.boxes[:, :count]
        if boxes.shape != known.shape:
            _refuse()
        # A sampler that passes them on has the same memory; comparing values waits for a GPU.
        if not boxes.is_set_to(known) and not torch.equal(boxes, known):
            _refuse()
        (answers,) = memory.answers.split({"": count}).values()
        return answers

    def _moved(self, x: dict[str, Any]) -> Answers:
        """The answers for one image, in the augmented image."""
        image, answers = self._find(x)
        if AFFINE not in x:
            raise UsageError(
                "A recorded teacher has to know how an image was augmented, and the mapper does not"
                f" say it under the key {AFFINE!r}: take kddetr.data.DetectionMapper as mapper."
            )
        if x[AFFINE] is None:
            raise UsageError(
                f"How the boxes of {x['file_name']} move with its pixels is not known, because one"
                " of its augmentations is not affine or cannot move points: remove it from the"
                " mapper's augmentations."
            )
        return answers.moved(x[AFFINE], image.size, tuple(x["image"].shape[-2:]))

    def _find(self, x: dict[str, Any]) -> tuple[RecordedImage, Answers]:
        file = x.get("file_name")
        if not file:
            raise UsageError(
                "A recorded teacher finds an image by its file, and this one has no file_name: add"
                " it to the dataset dicts."
            )
        if file not in self._found:
            self._found[file] = file_digest(file)
        found = self.record.find(self._found[file])
        if found is None and self.record.has_name(file):
            raise UsageError(
                f"The image {file} has other bytes than when it was recorded in"
                f" {self.record.folder}: take the image that was recorded, or make the record again"
                " in another folder."
            )
        if found is None:
            raise UsageError(
                f"The image {file} is not in the record {self.record.folder}: record the teacher"
                " over all images of the training, those without labels included."
            )
        size = (x.get("height"), x.get("width"))
        if size != found[0].size:
            raise UsageError(
                f"The image {file} was recorded with {found[0].size[1]} x {found[0].size[0]} pixels"
                f" and is read with {size[1]} x {size[0]}: its height and width must be those of"
                " the upright file, as kddetr.data.DetectionMapper sets them."
            )
        return found

    def _padded(self, answers: Answers) -> tuple[Tensor, ...]:
        """(N, K) logits, (N, 4) boxes of answers and of queries, (N,) rows of the content, and (N,)
        whether these are answers that count.
        """
        most, count = max(1, self.record.most), len(answers)
        answers = answers if count else _NOTHING
        index = torch.arange(most)
        again = len(answers) - 1 - (index - len(answers)) % len(answers)
        padded = answers.select(torch.where(index < len(answers), index, again))
        logits = padded.all_logits(self.num_classes)
        return logits, padded.boxes, padded.queries.float(), padded.rows.long(), index < count


def _refuse() -> NoReturn:
    raise UsageError(
        "A recorded teacher can answer only the queries in its record, and not general points or"
        " others that are made during training: set model.sampler to a"
        " kddetr.points.SpecificSampler, and for a student that is to be asked near the answers"
        " model.query_placement to kddetr.points.AtAnswers."
    )
