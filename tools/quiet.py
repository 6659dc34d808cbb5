"""Import this first in a program: filters the noise of libraries under today's PyTorch."""

import logging
import warnings

for message in (r".*torch\.jit\.script.* is deprecated", r"torch\.meshgrid", r".*pkg_resources"):
    warnings.filterwarnings("ignore", message=message)
for noisy in ("torch.utils.cpp_extension", "torch.fx._symbolic_trace"):
    logging.getLogger(noisy).setLevel(logging.ERROR)
