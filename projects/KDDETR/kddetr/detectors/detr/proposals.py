"""Two-stage detection: every encoder token proposes a box, and the best proposals become queries.

Shape letters: B images, S tokens, M levels, K classes, N selected proposals, C embedding width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...structures import Predictions
from .matcher import Target
from .memory import Memory

BASE_SIZE = 0.05  # of a proposal on the finest level; it doubles from level to level
MARGIN = 0.01  # a usable proposal has all four numbers inside (0.01, 0.99)


@dataclass(frozen=True)
class Proposals:
    """What the encoder proposes.

    Attributes:
        logits: (B, S, K) class logits of all tokens.
        unactivated: (B, S, 4) box logits of all tokens, +inf where a token may not propose.
        selected: (B, N) indices of the best tokens, best first.
    """

    logits: Tensor
    unactivated: Tensor
    selected: Tensor

    @property
    def boxes(self) -> Tensor:
        """(B, N, 4) ``cxcywh`` in [0, 1] of the selected ones."""
        return self.chosen(self.unactivated).sigmoid()

    def chosen(self, values: Tensor) -> Tensor:
        """The selected rows of (B, S, D), as (B, N, D)."""
        return values.gather(1, self.selected[..., None].expand(-1, -1, values.shape[-1]))

    def everywhere(self) -> Predictions:
        """The answers of all tokens, as one layer."""
        return Predictions(self.logits[None], self.unactivated.sigmoid()[None])

    def best(self) -> Predictions:
        """The answers of the selected tokens, as one layer."""
        return Predictions(self.chosen(self.logits)[None], self.boxes[None])


class ProposalHead(nn.Module):
    """Class and box of every token, and the choice among them (Zhu et al., Deformable DETR).

    Args:
        embed_dim: C.
        count: N.
        class_head, box_head: of the tokens.
        class_agnostic: the first class column says whether there is an object at all and decides
            (Deformable DETR); else the best class does (DINO).
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        count: int,
        class_head: nn.Module,
        box_head: nn.Module,
        class_agnostic: bool,
    ) -> None:
        super().__init__()
        self.output = nn.Linear(embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.class_head = class_head
        self.box_head = box_head
        self.count = count
        self.class_agnostic = class_agnostic
        nn.init.xavier_uniform_(self.output.weight)

    def forward(self, memory: Memory) -> Proposals:
        """Computed once per memory, whoever asks.

        Tokens that may not propose are chosen last. The public implementations let them compete
        with the score of an empty token; a trained model does not choose them either way, and an
        untrained one gives an image other queries if it was padded. An image of few tokens has no
        more proposals than tokens; one with fewer usable tokens than N (under about 200 pixels for
        N = 900) gets boxes of the whole image for the rest.
        """
        return memory.cached(id(self), lambda: self._propose(memory))

    def pairs(
        self, memory: Memory, targets: Sequence[Target]
    ) -> tuple[Predictions, Sequence[Target]]:
        """Answers and ground truth of the encoder's own loss.

        All tokens against boxes that are just an object, column 0; or the selected tokens against
        the real classes.
        """
        proposals = self(memory)
        if not self.class_agnostic:
            return proposals.best(), targets
        objects = [Target(torch.zeros_like(t.labels), t.boxes) for t in targets]
        return proposals.everywhere(), objects

    def features(self, memory: Memory, usable: Tensor) -> Tensor:
        """(B, S, C) that the heads look at; tokens that may not propose enter as 0."""
        tokens = memory.tokens.masked_fill(~usable[..., None], 0.0)
        return self.norm(self.output(tokens))

    def _propose(self, memory: Memory) -> Proposals:
        initial = initial_proposals(memory.shapes, memory.padding)
        usable = initial.isfinite().all(-1)
        x = self.features(memory, usable)
        logits = self.class_head(x).float()
        unactivated = self.box_head(x).float() + initial
        scores = logits[..., 0] if self.class_agnostic else logits.amax(-1)
        scores = scores.detach().masked_fill(~usable, -math.inf)
        best = scores.topk(min(self.count, scores.shape[1]), dim=1).indices
        return Proposals(logits, unactivated, best)


def initial_proposals(shapes: Sequence[tuple[int, int]], padding: Tensor) -> Tensor:
    """A box on every cell: centred there, of a size that goes with the level.

    Args:
        shapes: (H, W) of the M levels.
        padding: (B, S) bool.

    Returns:
        (B, S, 4) logits of ``cxcywh``, +inf where the cell is padding or the box comes too close to
        the border of the unit square.
    """
    proposals = []
    sizes = [height * width for height, width in shapes]
    parts = zip(shapes, padding.split(sizes, dim=1), strict=True)
    for level, ((height, width), outside) in enumerate(parts):
        valid = ~outside.view(-1, height, width)
        extent = torch.stack([valid[:, 0].sum(1), valid[:, :, 0].sum(1)], dim=-1).float()
        y, x = torch.meshgrid(
            torch.arange(height, device=padding.device) + 0.5,
            torch.arange(width, device=padding.device) + 0.5,
            indexing="ij",
        )
        centre = torch.stack([x.flatten(), y.flatten()], dim=-1) / extent[:, None]
        proposals.append(
            torch.cat([centre, torch.full_like(centre, BASE_SIZE * 2.0**level)], dim=-1)
        )
    boxes = torch.cat(proposals, dim=1)
    usable = ((boxes > MARGIN) & (boxes < 1 - MARGIN)).all(-1) & ~padding
    return torch.logit(boxes).masked_fill(~usable[..., None], math.inf)
