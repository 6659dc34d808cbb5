"""What all tests share: the number of threads, and loggers that no test leaves changed."""

import logging
import os
from collections.abc import Iterator

import pytest
import torch
from detectron2.utils.logger import setup_logger

# One thread, unless the environment says how many: tests are small, and the processes that they
# start share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
# Without a GPU, Triton's kernels run in its interpreter; it reads this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the searches in tests/fuzz."""
    parser.addoption(
        "--fuzz", type=int, default=0, metavar="N", help="a long search of N examples in tests/fuzz"
    )
    parser.addoption(
        "--fuzz-seed", default="0", metavar="S[/I]", help="other examples, or only number I of them"
    )


LOGGERS = ("kddetr", "detectron2", "fvcore", "detectron2.engine.train_loop")


@pytest.fixture(autouse=True)
def same_loggers() -> Iterator[None]:
    """Remove what a program that ran inside a test has added: its handlers write to the output of
    that test, which is closed afterwards.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(log.handlers[:], log.filters[:], log.level, log.propagate) for log in loggers]
    yield
    for log, (handlers, filters, level, propagate) in zip(loggers, before, strict=True):
        log.handlers[:], log.filters[:] = handlers, filters
        log.setLevel(level)
        log.propagate = propagate
    setup_logger.cache_clear()  # it would not add handlers to a logger that it has seen
