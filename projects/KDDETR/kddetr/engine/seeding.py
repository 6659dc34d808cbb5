"""Random numbers as a function of the iteration.

Every step starts its generators from (seed, iteration, rank), so a resumed run draws what the
uninterrupted one would have drawn, whatever was drawn in between by evaluation or data loading.
"""

import random

import numpy as np
import torch

__all__ = ["seed_everything"]


def seed_everything(seed: int, *position: int) -> None:
    """Seed Python's, numpy's and torch's global generators.

    Args:
        seed: the run's seed, not negative.
        position: where in the run, e.g. iteration and rank; other positions give unrelated streams.
    """
    words = np.random.SeedSequence([seed, *position]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))
