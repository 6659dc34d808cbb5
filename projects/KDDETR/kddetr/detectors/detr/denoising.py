"""Contrastive denoising (DINO, section 3.3): besides its own queries a detector in training gets
ground-truth boxes with noise, to be put right, and others with more noise, to be turned down.

One group holds every box of an image twice, S positive slots and then S negative ones, S being the
largest number of boxes in the batch; images with fewer boxes leave slots empty. Groups do not see
one another, the detector's own queries see none of them, and they see the detector's own.

Shape letters: B images, G groups, S boxes of the fullest image, T boxes of all images, K classes,
C embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from ...structures import Queries
from .matcher import Matches, Target

OWN = "own"


@dataclass(frozen=True)
class Noise:
    """The random part. Rows are half groups: positives of group 0, its negatives, positives of
    group 1, ...; columns are the boxes of image 0, then of image 1, ...

    Attributes:
        labels: (2G, T) int64, what each box is said to be.
        sign: (2G, T, 4), -1 or 1, the direction in which each corner coordinate moves.
        part: (2G, T, 4) in [0, 1), how far it moves; negatives move one half size further.
    """

    labels: Tensor
    sign: Tensor
    part: Tensor


@dataclass(frozen=True)
class DenoisingQueries:
    """Noised boxes as queries, and what they should find.

    Attributes:
        queries: (B, 2 * S * G, ...), one named group each.
        image, slot, target: (G * T,) which positive slot of which image is which of its boxes.
        groups: G.
    """

    queries: Queries
    image: Tensor
    slot: Tensor
    target: Tensor
    groups: int

    def join(self, own: Queries) -> Queries:
        """These queries and then the detector's ``own``, which do not see them."""
        joined = Queries.join([self.queries, own.named(OWN)])
        return replace(joined, attends_to=dict.fromkeys(self.queries.groups, (OWN,)))

    def matches(self, layers: int) -> Matches:
        """Every positive slot with its own box, in every layer."""
        layer = torch.arange(layers, device=self.slot.device)
        repeated = (t.repeat(layers) for t in (self.image, self.slot, self.target))
        return Matches(layer.repeat_interleave(len(self.slot)), *repeated)


class ContrastiveDenoising(nn.Module):
    """Makes denoising queries of the ground truth.

    Args:
        num_classes: K.
        embed_dim: C.
        number: G * S at most, but at least one group; the fuller an image, the fewer groups. 0: no
            denoising; the label embedding, which published weights have, is then there and not
            trained.
        label_noise: half of this share of the labels is replaced by a random class.
        box_noise: 1 moves a corner by up to half the box's size (positives) or from half to the
            whole of it (negatives). The configuration file of the DINO project says 0.4, and all
            its published commands 1.
        eps: of the clamped logit that boxes pass through.

    Raises:
        ValueError: a negative number.
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
        if number < 0:
            raise ValueError(f"{number} denoising pairs: take at least 1, or 0 for no denoising.")
        self.label_embedding = nn.Embedding(num_classes, embed_dim)
        self.label_embedding.requires_grad_(number > 0)
        self.number = number
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.eps = eps

    def forward(self, targets: Sequence[Target], noise: Noise | None = None) -> DenoisingQueries:
        """Queries for a batch, one target an image; without any box one empty group.

        Args:
            targets: ground truth.
            noise: drawn anew where None, from PyTorch's global CPU generator.
        """
        counts = [len(target.labels) for target in targets]
        slots = max(1, *counts)
        groups = max(1, self.number // slots) if any(counts) else 1
        labels = torch.cat([target.labels for target in targets])
        boxes = torch.cat([target.boxes for target in targets])
        if noise is None:
            noise = self.draw(labels, groups)
        device = self.label_embedding.weight.device
        image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(device)
        target = torch.cat([torch.arange(count) for count in counts]).to(device)
        half = torch.arange(2 * groups, device=device)[:, None]
        slot = half * slots + target  # (2G, T)

        # An empty slot has no content and sits in the middle of the image.
        total = 2 * slots * groups
        content = torch.zeros(len(counts), total, self.label_embedding.embedding_dim, device=device)
        places = torch.full((len(counts), total, 4), 0.5, device=device)
        where = (image.expand_as(slot), slot)
        content = content.index_put(where, self.label_embedding(noise.labels).to(content.dtype))
        moved = inverse_sigmoid(self.move(boxes, noise), eps=self.eps).sigmoid()
        places = places.index_put(where, moved)
        names = {f"denoising_{i}": 2 * slots for i in range(groups)}
        positive = slot[0::2]
        return DenoisingQueries(
            queries=Queries(places, content=content, groups=names),
            image=image.repeat(groups),
            slot=positive.flatten(),
            target=target.repeat(groups),
            groups=groups,
        )

    def draw(self, labels: Tensor, groups: int) -> Noise:
        """Noise for the (T,) labels of a batch."""
        shape = (2 * groups, len(labels))
        replaced = torch.rand(shape) < 0.5 * self.label_noise
        others = torch.randint(self.label_embedding.num_embeddings, shape)
        sign = torch.randint(2, (*shape, 4)) * 2.0 - 1
        part = torch.rand(*shape, 4)
        device = labels.device
        return Noise(
            torch.where(replaced.to(device), others.to(device), labels),
            sign.to(device),
            part.to(device),
        )

    def move(self, boxes: Tensor, noise: Noise) -> Tensor:
        """(T, 4) ``cxcywh`` boxes with their corners moved, (2G, T, 4); corners stay in the image,
        and may have changed places: a width or height can be negative.
        """
        distance = noise.part.clone()
        distance[1::2] += 1
        half = boxes[:, 2:].repeat(1, 2) / 2
        corners = cxcywh_to_xyxy(boxes) + noise.sign * distance * half * self.box_noise
        return xyxy_to_cxcywh(corners.clamp(0, 1))
