"""Random numbers that are a function of the iteration.

Every step seeds the generators with (seed, iteration, rank). A resumed run therefore draws the same
numbers as an uninterrupted one, whatever evaluation and data loading have drawn in between.
"""

import contextlib
import random
from collections.abc import Iterator

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


@contextlib.contextmanager
def kept_random_states() -> Iterator[None]:
    """Leaves the global generators of Python, NumPy and PyTorch, those of the GPUs included, as
    they were, whatever is drawn inside.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    of_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.cuda.set_rng_state_all(of_gpus)
