"""Distillation points: where teacher and student are compared.

A sampler is any callable that gets the teacher and the student, each bound to the encoded images
(:class:`~kddetr.structures.EncodedDetector`), and returns named groups of
:class:`~kddetr.structures.Queries`.
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
