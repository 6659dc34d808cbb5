"""Two-stage detection: every token proposes a box, and the best proposals become queries.

Shape letters: B images, S tokens, M levels, K classes, N selected proposals, C embedding width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...structures import Predictions
from .matcher import Target
from .memory import Memory, cell_grid, valid_extent
from .traceable import best

BASE_SIZE = 0.05  # of a proposal on the finest level; it doubles from each level to the next
MARGIN = 0.01  # all four numbers of a usable proposal lie in (0.01, 0.99)


@dataclass(frozen=True)
class Proposals:
    """The boxes and class logits that the tokens propose.

    Attributes:
        logits: (B, S, K) class logits of all tokens.
        unactivated: (B, S, 4) box logits of all tokens, +inf where a token has no usable box. The
            sigmoid of these is the box (1, 1, 1, 1), which has the size of the image and is centred
            on its bottom right corner.
        scores: (B, S) by which the tokens are selected, without a gradient; -inf where a token has
            no usable box.
        selected: (B, N) indices of the tokens with the best scores, best first.
    """

    logits: Tensor
    unactivated: Tensor
    scores: Tensor
    selected: Tensor

    @property
    def boxes(self) -> Tensor:
        """(B, N, 4) boxes of the selected tokens, ``cxcywh`` in [0, 1]."""
        return self.rows_of_selected(self.unactivated).sigmoid()

    def rows_of_selected(self, values: Tensor) -> Tensor:
        """The rows of the selected tokens, (B, S, D) to (B, N, D)."""
        return values.gather(1, self.selected[..., None].expand(-1, -1, values.shape[-1]))

    def of_selected_tokens(self) -> Predictions:
        """The predictions of the selected tokens, (1, B, N, ...)."""
        return Predictions(self.rows_of_selected(self.logits)[None], self.boxes[None])


class ProposalHead(nn.Module):
    """A class head and a box head for every token, and the selection of the best tokens (Zhu et
    al., Deformable DETR).

    Args:
        embed_dim, count: C, N.
        class_head, box_head: of the tokens.
        class_agnostic: the score of a token is its first class logit, which is trained to say
            whether there is an object of any class (Deformable DETR). Otherwise the score is the
            largest class logit (DINO).
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
        """The proposals of the tokens, computed once per memory.

        Tokens without a usable box are selected last. The public implementations let them compete
        with the score of an empty token. A trained model selects none of them in either case. An
        untrained one could, and its queries for an image would then depend on the padding.

        An image with fewer than N tokens has as many proposals as tokens. Where fewer than N tokens
        are usable (images under about 200 pixels for N = 900), the other proposals are the box (1,
        1, 1, 1), see :class:`Proposals`.
        """
        return memory.cached(id(self), lambda: self._propose(memory))

    def choose(self, memory: Memory, selected: Tensor) -> None:
        """Make these tokens (B, N) the selected ones of a memory whose proposals nobody has asked
        for, whatever their scores.
        """
        memory.cached(id(self), lambda: replace(self._propose(memory), selected=selected))

    def predictions_and_targets(
        self, memory: Memory, targets: Sequence[Target]
    ) -> tuple[Predictions, Sequence[Target]]:
        """What the criterion compares: the predictions of the selected tokens and the targets, or,
        if class-agnostic, the predictions of all tokens and targets that are all of class 0.
        """
        proposals = self(memory)
        if not self.class_agnostic:
            return proposals.of_selected_tokens(), targets
        objects = [Target(torch.zeros_like(t.labels), t.boxes) for t in targets]
        boxes = proposals.unactivated.sigmoid()
        return Predictions(proposals.logits[None], boxes[None]), objects

    def features(self, memory: Memory, usable: Tensor) -> Tensor:
        """The input of the heads, (B, S, C), made from tokens that are 0 where not ``usable``."""
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
        _, selected = best(scores, self.count)
        return Proposals(logits, unactivated, scores, selected)


def initial_proposals(shapes: Sequence[tuple[int, int]], padding: Tensor) -> Tensor:
    """The box from which each token's proposal is predicted: centred on its cell, with a size that
    depends on the level.

    It is given as (B, S, 4) logits of ``cxcywh``, +inf where the token is padding or a number of
    the box is not in (0.01, 0.99). For shapes and padding see :class:`Memory`.
    """
    proposals = []
    sizes = [height * width for height, width in shapes]
    paddings = padding.split(sizes, dim=1)
    for level, ((height, width), outside) in enumerate(zip(shapes, paddings, strict=True)):
        extent = valid_extent(outside.view(-1, height, width))
        centre = cell_grid(height, width, padding.device) / extent[:, None]
        size = torch.full_like(centre, BASE_SIZE * 2.0**level)
        proposals.append(torch.cat([centre, size], dim=-1))
    boxes = torch.cat(proposals, dim=1)
    usable = ((boxes > MARGIN) & (boxes < 1 - MARGIN)).all(-1) & ~padding
    return torch.logit(boxes).masked_fill(~usable[..., None], math.inf)
