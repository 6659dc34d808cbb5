"""Where the distillation points come from. A sampler is any callable from the teacher and the
student, each with what it has encoded, to named :class:`~kddetr.structures.Queries`.
"""

from .general import GeneralSampler, normal_logit_boxes, uniform_boxes
from .joint import JointSampler
from .nearby import AtAnswers, NearbySampler, jittered
from .proposed import StudentSampler
from .specific import SpecificSampler

__all__ = [
    "AtAnswers",
    "GeneralSampler",
    "JointSampler",
    "NearbySampler",
    "SpecificSampler",
    "StudentSampler",
    "jittered",
    "normal_logit_boxes",
    "uniform_boxes",
]
