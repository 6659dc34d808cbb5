"""Numbers that all training processes agree on."""

from detectron2.utils import comm
from torch import Tensor, distributed


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a scalar over all processes, without a gradient.

    It serves as a normaliser. DistributedDataParallel averages the gradients of the processes. So
    when each process divides its sum by the mean normaliser, the result is the sum over all images
    divided by the normaliser of all images.
    """
    value = value.detach().clone()
    if comm.get_world_size() > 1:
        distributed.all_reduce(value)
        value = value / comm.get_world_size()
    return value
