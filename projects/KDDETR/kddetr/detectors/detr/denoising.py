"""Contrastive denoising (DINO, section 3.3): ground-truth boxes with noise as additional queries in
training.

The queries of a group are S positive slots and then S negative ones, where S is the largest number
of boxes in an image of the batch. Each box of an image takes a positive slot, whose query learns to
predict the box, and a negative slot with more noise, whose query learns to predict background. An
image with fewer than S boxes has empty slots. The groups do not attend to one another. They attend
to the detector's own queries, but not the reverse.

Shape letters: B images, G groups, S slots, T boxes of all images, K classes, C embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from ...ranges import fraction, not_negative, whole
from ...structures import Predictions, Queries
from ...transfer import to_device
from ..batch import zeroed
from .criterion import SetCriterion
from .matcher import Matches, Target

OWN = "own"  # name of the group of the detector's own queries


@dataclass(frozen=True)
class Noise:
    """The random numbers of the denoising queries.

    The rows are half groups: the positive slots of group 0, its negative slots, the positive slots
    of group 1, and so on. The columns are the boxes of image 0, then of image 1, and so on.

    Attributes:
        labels: (2G, T) int64 class indices after the noise.
        sign: (2G, T, 4) -1 or 1, the direction in which each corner coordinate moves.
        part: (2G, T, 4) in [0, 1), how far it moves in half widths or heights of the box. In
            negative slots 1 is added to it.
    """

    labels: Tensor
    sign: Tensor
    part: Tensor


@dataclass(frozen=True)
class DenoisingQueries:
    """Ground-truth boxes with noise as queries, and the box that each has to predict.

    Attributes:
        queries: (B, 2 * S * G, ...) with G named groups.
        image, slot, target: (G * T,) index of the image, of the query and of the box in the image,
            for every positive slot that is not empty.
        num_groups: G.
    """

    queries: Queries
    image: Tensor
    slot: Tensor
    target: Tensor
    num_groups: int

    def join(self, own: Queries) -> Queries:
        """These queries and then the detector's ``own`` queries, which do not attend to them."""
        joined = Queries.join([self.queries, own.named(OWN)])
        return replace(joined, attends_to=dict.fromkeys(self.queries.groups, (OWN,)))

    def split(self, predictions: Predictions) -> tuple[Predictions, Predictions]:
        """The predictions at the joined queries as those at these and those at the own queries."""
        count = len(self.queries)
        parts = predictions.split({"denoising": count, OWN: predictions.logits.shape[2] - count})
        return parts["denoising"], parts[OWN]

    def losses(
        self, predictions: Predictions, targets: Sequence[Target], criterion: SetCriterion
    ) -> dict[str, Tensor]:
        """Losses at these queries, with the suffix ``_dn``: in every layer each positive slot has
        to find its box among the targets of its image. Without any box they are 0.
        """
        layers = predictions.num_layers
        layer = torch.arange(layers, device=self.slot.device).repeat_interleave(len(self.slot))
        repeated = (t.repeat(layers) for t in (self.image, self.slot, self.target))
        losses = criterion(
            predictions,
            targets,
            matches=Matches(layer, *repeated),
            repeats=self.num_groups,
            suffix="_dn",
        )
        return losses if len(self.slot) else zeroed(losses)


class ContrastiveDenoising(nn.Module):
    """Makes denoising queries from the ground truth.

    Args:
        num_classes: K.
        embed_dim: C.
        number: G is the largest number of groups with G * S <= number, and at least 1. 0: no
            denoising; then the label embedding exists, because published weights have it, but is
            not trained.
        label_noise: half of this fraction of the labels is replaced by random classes.
        box_noise: at least 0. With 1 a corner moves by up to half the size of its box (positive
            slots), or by half to all of it (negative slots). The configuration file of the DINO
            project has 0.4, but all its published commands have 1.
        eps: of the clamped logit that the boxes pass through, see
            :func:`kddetr.boxes.inverse_sigmoid`.

    Raises:
        ValueError: ``number`` or a noise is out of range.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dim: int,
        number: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        whole(0, **{"denoising_number (0: no denoising)": number})
        fraction(label_noise=label_noise)
        not_negative(box_noise=box_noise)
        self.label_embedding = nn.Embedding(num_classes, embed_dim)
        self.label_embedding.requires_grad_(number > 0)
        self.number = number
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.eps = eps

    def forward(self, targets: Sequence[Target], noise: Noise | None = None) -> DenoisingQueries:
        """The denoising queries of a batch; without any box, one group with empty slots.

        Args:
            targets: ground truth of each image.
            noise: the random numbers; None: drawn from PyTorch's global CPU generator.
        """
        counts = [len(target.labels) for target in targets]
        slots = max(1, *counts)
        groups = max(1, self.number // slots) if any(counts) else 1
        labels = torch.cat([target.labels for target in targets])
        boxes = torch.cat([target.boxes for target in targets])
        if noise is None:
            noise = self.draw(labels, groups)
        device = self.label_embedding.weight.device
        image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        target = torch.cat([torch.arange(count) for count in counts])
        image, target = to_device(image, device), to_device(target, device)
        half_group = torch.arange(2 * groups, device=device)[:, None]
        slot = half_group * slots + target  # (2G, T)

        # An empty slot has the content 0 and a box of half the image's size in its middle.
        total = 2 * slots * groups
        content = torch.zeros(len(counts), total, self.label_embedding.embedding_dim, device=device)
        references = torch.full((len(counts), total, 4), 0.5, device=device)
        index = (image.expand_as(slot), slot)
        content = content.index_put(index, self.label_embedding(noise.labels).to(content.dtype))
        moved = inverse_sigmoid(self.move(boxes, noise), eps=self.eps).sigmoid()
        references = references.index_put(index, moved)
        names = {f"denoising_{i}": 2 * slots for i in range(groups)}
        positive = slot[0::2]
        return DenoisingQueries(
            queries=Queries(references, content=content, groups=names),
            image=image.repeat(groups),
            slot=positive.flatten(),
            target=target.repeat(groups),
            num_groups=groups,
        )

    def draw(self, labels: Tensor, groups: int) -> Noise:
        """Random noise for the (T,) labels of a batch and their boxes."""
        shape = (2 * groups, len(labels))
        replaced = torch.rand(shape) < 0.5 * self.label_noise
        others = torch.randint(self.label_embedding.num_embeddings, shape)
        sign = torch.randint(2, (*shape, 4)) * 2.0 - 1
        part = torch.rand(*shape, 4)
        device = labels.device
        return Noise(
            torch.where(to_device(replaced, device), to_device(others, device), labels),
            to_device(sign, device),
            to_device(part, device),
        )

    def move(self, boxes: Tensor, noise: Noise) -> Tensor:
        """The (T, 4) boxes with their corners moved and then clipped to the image: (2G, T, 4)
        ``cxcywh``. A width or height is negative where two corners changed places.
        """
        distance = noise.part.clone()
        distance[1::2] += 1
        half = boxes[:, 2:].repeat(1, 2) / 2
        corners = cxcywh_to_xyxy(boxes) + noise.sign * distance * half * self.box_noise
        return xyxy_to_cxcywh(corners.clamp(0, 1))
