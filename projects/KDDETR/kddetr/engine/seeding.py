"""Random numbers that are a function of the iteration.

Every step seeds the generators with (seed, iteration, rank). A resumed run therefore draws the same
numbers as an uninterrupted one, whatever evaluation and data loading have drawn in between.
"""

import random

import numpy as np
import torch


def seed_everything(seed: int, *position: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch.

    Args:
        seed: of the run, at least 0.
        position: further numbers, e.g. iteration and rank; different ones give independent streams.
    """
    words = np.random.SeedSequence([seed, *position]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))
