"""A control: the teacher's answers are about another image."""

from torch import Tensor, nn

from ..errors import UsageError
from ..structures import DistillationLoss, Predictions, Queries


class ShuffledAnswers(nn.Module):
    """Another loss, for which each image has the teacher's answers about the next of its batch.

    Points, weights and the distribution of the answers stay those of KD-DETR, but the answers say
    nothing about the image. What this control gains is therefore not knowledge about images.

    Args:
        loss: compares the predictions.
    """

    def __init__(self, loss: DistillationLoss) -> None:
        super().__init__()
        self.loss = loss
        self.student_layers = getattr(loss, "student_layers", None)
        self.teacher_layers = getattr(loss, "teacher_layers", None)

    def forward(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """The losses of the shuffled pairs.

        Raises:
            UsageError: the batch has a single image.
        """
        images = teacher.logits.shape[1]
        if images == 1:
            raise UsageError(
                "ShuffledAnswers gives each image the answers about another image of the batch, and"
                " this batch has a single image: set dataloader.train.total_batch_size to at least"
                " 2 for each process."
            )
        return self.loss(student, teacher.of_images([*range(1, images), 0]), points)
