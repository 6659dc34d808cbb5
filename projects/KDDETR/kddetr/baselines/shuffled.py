"""A control: the teacher's answers are about another image."""

from torch import Tensor, nn

from ..errors import UsageError
from ..structures import DistillationLoss, Predictions, Queries, compared_layers


class ShuffledAnswers(nn.Module):
    """Another loss, for which each image has the teacher's answers about the next of its batch.

    The points and the distribution of the answers stay those of KD-DETR, but the answers say
    nothing about the image. What this control gains is therefore not knowledge about images. The
    weights that a weighting computes from the answers, such as the foreground weights, are about
    the other image too. Where each image has points of its own (the proposals of a DINO), the
    answers also are about other places than those where the student is asked.

    Args:
        loss: compares the predictions, and uses nothing else of the teacher: the shuffled ones are
            not bound to their images.
    """

    def __init__(self, loss: DistillationLoss) -> None:
        super().__init__()
        self.loss = loss
        self.student_layers, self.teacher_layers = compared_layers(loss)

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
