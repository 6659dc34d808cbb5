"""Where the distillation points come from. A sampler is any callable from a teacher and its memory
to named :class:`~kddetr.structures.Queries`.
"""

from .general import GeneralSampler, normal_logit_boxes, uniform_boxes
from .joint import JointSampler
from .specific import SpecificSampler

__all__ = [
    "GeneralSampler",
    "JointSampler",
    "SpecificSampler",
    "normal_logit_boxes",
    "uniform_boxes",
]
