"""Queries without an answer, which a recorded teacher has where an image has fewer answers than
others: predictions that count nothing in a loss.
"""

from torch import Tensor

from .structures import Predictions

# The logit of every class where there is no answer; its sigmoid is exactly 0 in float32.
NO_ANSWER = -200.0


def answered(predictions: Predictions) -> Tensor:
    """(B, N), which queries have an answer in the last layer; of a live detector all of them."""
    return (predictions.logits[-1] > NO_ANSWER).any(-1)
