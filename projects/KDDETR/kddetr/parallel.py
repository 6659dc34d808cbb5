"""What several training processes agree on."""

from detectron2.utils import comm
from torch import Tensor, distributed


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a number over all processes, without a gradient.

    DistributedDataParallel averages gradients, so a sum divided by the mean normaliser is, over
    all processes, the sum over all images divided by the normaliser of all images.
    """
    value = value.detach().clone()
    if comm.get_world_size() > 1:
        distributed.all_reduce(value)
        value = value / comm.get_world_size()
    return value
