"""Addresses ``model_zoo://NAME`` for files of Detectron2's model zoo, by the names of its configs.

``model_zoo://NAME`` is the file from which the config NAME starts, most often ImageNet's ResNet;
``model_zoo://trained/NAME`` is the detector that was trained with it.
"""

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
from omegaconf import OmegaConf

from ..errors import CheckpointError, UsageError
from ..zoo import zoo_with

PREFIX = "model_zoo://"
TRAINED = "trained/"


def zoo_address(path: str) -> str:
    """The address of the file that ``model_zoo://NAME`` or ``model_zoo://trained/NAME`` stands for.

    Args:
        path: NAME is that of a config in the zoo, ``COCO-Detection/retinanet_R_50_FPN_1x.yaml``, or
            of a LazyConfig, ``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py``.

    Raises:
        CheckpointError: there is no such config (the message gives names that are close), it starts
            from no file, or its detector is not published.
    """
    name = path.removeprefix(PREFIX)
    wanted = name.startswith(TRAINED)
    name = name.removeprefix(TRAINED)
    try:
        model_zoo = zoo_with(name)
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if wanted:
        try:
            return model_zoo.get_checkpoint_url(name)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: the detector of {name} is not published; {PREFIX}{name} is what its"
                " training starts from."
            ) from error
    cfg = model_zoo.get_config(name)
    if isinstance(cfg, CfgNode):
        address = cfg.MODEL.WEIGHTS
    else:
        address = OmegaConf.select(cfg, "train.init_checkpoint")
    if not address:
        raise CheckpointError(f"{path}: the config {name} starts from no file; name another one.")
    return address


class _ZooHandler(PathHandler):
    """Lets Detectron2's path manager fetch and read these files; it cannot write them."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, **kwargs) -> str:
        return PathManager.get_local_path(zoo_address(path), **kwargs)

    def _open(self, path: str, mode: str = "r", **kwargs):
        return PathManager.open(zoo_address(path), mode, **kwargs)


PathManager.register_handler(_ZooHandler(), allow_override=True)
