"""A trained detector that takes images of any kind, made from its checkpoint alone.

An image is resized as in the evaluation of the training, and its colours are put in order. A
detector that is fed otherwise loses many points of AP without an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Instances
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from ..checkpoint import Checkpointer
from ..data import DetectionMapper
from ..data.images import UNREADABLE, image_array, read_image
from ..engine import resolve_device
from ..errors import DatasetError, UsageError, did_you_mean
from ..ranges import whole
from ..returned import described
from .flow import batches
from .source import Source, source_of

PRECISIONS = ("float32", "float16", "bfloat16")
ImageLike = str | Path | Image.Image | np.ndarray


class Predictor:
    """A detector that predicts the objects in images.

        predictor = Predictor("student.pth")
        found = predictor("image.jpg")        # Instances of Detectron2
        found.pred_boxes, found.scores, [predictor.classes[i] for i in found.pred_classes]

    Args:
        weights: a checkpoint of this project with its model card, the output folder of a run
            (which stands for its ``model_best.pth``, or else for its ``model_final.pth``), or any
            file of weights with ``config`` or ``model``.
        config: the config of the training, as a file or as ``load_config`` returns it, where the
            file has no card.
        model: the detector itself, where neither describes it.
        augmentations: Detectron2's transforms or augmentations that resize an image, instead of
            those of the card or config.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        precision: "float32", or "float16" and "bfloat16", in which matrix products are computed
            faster on a GPU that has them; detections then differ a little.
        threshold: detections with a lower score are left out. 0 keeps all, as an evaluation needs
            them; to look at, 0.3 is a good start.
        only: names of classes; detections of others are left out. None keeps all.
        batch_size: the most images in a batch. Only images of one size get into a batch, so that
            detections do not depend on it beyond rounding.
        array_format: the order of the channels of **numpy arrays**, which cannot be seen in them:
            "RGB", as Pillow, imageio, matplotlib and torchvision have it, or "BGR", as **OpenCV's**
            ``imread`` and Detectron2's DefaultPredictor have it. With the wrong order a detector
            loses AP, and nothing says so. Files and images of Pillow have an order of their own.
        as_dicts: return plain dictionaries, see :meth:`as_dicts`, instead of Instances.

    Attributes:
        model: the detector, in evaluation mode and without gradients.
        classes: names in the order of its classes; their numbers where no names are known.
        metadata: the same for Detectron2's Visualizer.
        card: the model card of the file, None without one.

    Raises:
        CheckpointError, ConfigError: the file cannot be read, its detector is not known, or the
            weights do not fit it completely.
        UsageError, ValueError: an argument is wrong.
    """

    def __init__(
        self,
        weights: str | Path,
        *,
        config: str | Path | DictConfig | None = None,
        model: nn.Module | None = None,
        augmentations: Sequence[Any] | None = None,
        device: str = "auto",
        precision: str = "float32",
        threshold: float = 0.0,
        only: Sequence[str] | None = None,
        batch_size: int = 4,
        array_format: str = "RGB",
        as_dicts: bool = False,
    ):
        whole(1, batch_size=batch_size)
        if not 0 <= threshold <= 1:
            raise UsageError(f"threshold must be from 0 to 1, not {threshold}.")
        if array_format not in ("RGB", "BGR"):
            raise UsageError(f"array_format must be RGB or BGR, not {array_format!r}.")
        self.device = resolve_device(device, "device")
        self._precision = _precision(precision, self.device)
        source: Source = source_of(str(weights), config=config, model=model)
        steps = source.augmentations(str(weights)) if augmentations is None else augmentations
        self._mapper = DetectionMapper(is_train=False, augmentations=steps, bits=source.bits)
        loaded = Checkpointer(source.model).load(str(weights), strict=True)
        self.model = source.model.to(self.device).eval().requires_grad_(False)
        self.card = source.card
        known = list(loaded.get("classes") or source.classes)
        count = getattr(self.model, "num_classes", len(known))
        self.classes: list[str] = known or [str(i) for i in range(count)]
        self.metadata = Metadata(name=str(weights), thing_classes=self.classes)
        self.threshold, self.batch_size = threshold, batch_size
        self._only = None if only is None else torch.tensor(self._numbers(only, str(weights)))
        self._array_format, self._as_dicts = array_format, as_dicts

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> Any:
        """Predict the objects in an image, or in each image of a list or tuple.

        Args:
            images: the path of an image file, an image of Pillow, or an (H, W, 3) uint8 array in
                the order of ``array_format``; grey (H, W) and (H, W, 4) arrays are taken too, the
                latter without their last channel. An image that its EXIF entry turns is turned.

        Returns:
            For an image its ``Instances`` on the CPU, with ``pred_boxes`` (XYXY in pixels of the
            upright image), ``scores`` (0 to 1, the highest first) and ``pred_classes``; or
            dictionaries, see :meth:`as_dicts`. For several images a list of these.

        Raises:
            DatasetError: a file cannot be read.
            UsageError: an image is of another kind, or a path is that of a folder.
        """
        if isinstance(images, list | tuple):
            inputs = (self.prepare(self.read(image)) for image in images)
            parts = batches(inputs, self.batch_size, lambda x: x["image"].shape)
            found = [one for batch in parts for one in self.detect(batch)]
        else:
            found = self.detect([self.prepare(self.read(images))])
        if self._as_dicts:
            found = [self.as_dicts(instances) for instances in found]
        return found if isinstance(images, list | tuple) else found[0]

    def read(self, image: ImageLike) -> np.ndarray:
        """An image as (H, W, 3) uint8 RGB, upright; see :meth:`__call__`."""
        bits = self._mapper.bits
        if isinstance(image, str | Path):
            if Path(image).is_dir():
                raise UsageError(
                    f"{image} is a folder: give the paths of the images in it as a list, or the"
                    " folder to tools/predict.py."
                )
            return read_image(str(image), "RGB", bits)
        if isinstance(image, Image.Image):
            name = getattr(image, "filename", "") or "given"
            try:
                return image_array(image, name, "RGB", bits)
            except UNREADABLE as error:
                raise DatasetError(f"The image {name} cannot be read: {error}.") from error
        if not isinstance(image, np.ndarray):
            raise UsageError(
                "An image must be the path of a file, an image of Pillow or a numpy array, not"
                f" {described(image)}."
            )
        return _rgb(image, self._array_format)

    def prepare(self, pixels: np.ndarray) -> dict[str, Any]:
        """An (H, W, 3) uint8 RGB image as an input of :attr:`model`, resized as in evaluation."""
        return self._mapper.map_image(pixels, {})

    @torch.inference_mode()
    def detect(self, inputs: Sequence[dict[str, Any]]) -> list[Instances]:
        """The objects in prepared images, which are one batch, as ``Instances`` on the CPU."""
        with torch.autocast(self.device.type, self._precision, self._precision is not None):
            outputs = self.model(list(inputs))
        found = [output["instances"].to("cpu") for output in outputs]
        if self.threshold:
            found = [instances[instances.scores >= self.threshold] for instances in found]
        if self._only is not None:
            found = [one[torch.isin(one.pred_classes, self._only)] for one in found]
        return found

    def _numbers(self, names: Sequence[str], weights: str) -> list[int]:
        """The numbers of classes by their names."""
        for name in names:
            if name not in self.classes:
                hint = did_you_mean(name, self.classes)
                raise UsageError(f"The detector in {weights} has no class {name!r}; {hint}")
        return [self.classes.index(name) for name in names]

    def as_dicts(self, instances: Instances) -> list[dict[str, Any]]:
        """The objects in an image as plain dictionaries.

        Returns:
            For each ``class`` (its name), ``class_id``, ``score`` and ``box``: [x0, y0, x1, y1] in
            pixels of the upright image.
        """
        boxes, scores, classes = (
            x.tolist()
            for x in (instances.pred_boxes.tensor, instances.scores, instances.pred_classes)
        )
        return [
            {"class": self.classes[k], "class_id": k, "score": score, "box": box}
            for k, score, box in zip(classes, scores, boxes, strict=True)
        ]


def _precision(name: str, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision; None for float32."""
    if name not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, not {name!r}.")
    if name == "float16" and device.type == "cpu":
        raise UsageError("precision float16 needs CUDA: take bfloat16 or float32 on the CPU.")
    return None if name == "float32" else getattr(torch, name)


def _rgb(image: np.ndarray, order: str) -> np.ndarray:
    """An array as (H, W, 3) uint8 RGB."""
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.ndim != 3 or image.shape[2] not in (3, 4) or not image.size:
        more = ": transpose it with array.transpose(1, 2, 0)" if 3 in image.shape[:1] else ""
        raise UsageError(
            f"An array must be (H, W, 3), (H, W) or (H, W, 4), not {image.shape}{more}."
        )
    if image.dtype != np.uint8:
        raise UsageError(
            f"An array must be uint8 from 0 to 255, not {image.dtype}: scale its values to 0 to 255"
            " and convert it with array.astype('uint8')."
        )
    image = image[:, :, :3]
    return np.ascontiguousarray(image if order == "RGB" else image[:, :, ::-1])
