"""Golden files: every size, weight and setting of a test comes from the file itself."""

import json
import os
from pathlib import Path

import numpy as np
import torch

from kddetr.detectors.detr.matcher import Matches, Target

FOLDER = Path(os.environ.get("GOLDEN_DIR") or Path(__file__).parents[1] / "golden")
ATOL = 1e-5  # activations, logits, boxes: absolute, float32
RTOL = 1e-4  # losses and gradients: relative, in addition to ATOL
PIXELS = 1e-2  # boxes in pixels: absolute


def golden_names(prefix: str) -> list[str]:
    """Names of the files in the folder that begin with ``prefix``.

    Where there is none, the prefix is the name: then the tests of that file fail, and no others.
    """
    return sorted(path.stem for path in FOLDER.glob(f"{prefix}*.npz")) or [prefix]


class Golden:
    """One file: tensors by key, the config that it was made with, and weights by name.

    Args:
        name: of the file, without its ending.
        dtype: of the floating-point tensors, float32 or float64.
    """

    def __init__(self, name: str, dtype: torch.dtype = torch.float32) -> None:
        with np.load(FOLDER / f"{name}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        meta = json.loads(str(arrays.pop("meta/json")))
        self.config = meta["config"]
        self.aliases = meta.get("aliases", {})
        self.name = name
        self.arrays = arrays
        self.dtype = dtype

    def __getitem__(self, key: str) -> torch.Tensor:
        tensor = torch.from_numpy(self.arrays[key].copy())
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def keys(self, prefix: str) -> list[str]:
        """Keys below ``prefix/``, without that prefix."""
        return [k[len(prefix) + 1 :] for k in self.arrays if k.startswith(prefix + "/")]

    def state(self, prefix: str = "sd") -> dict[str, torch.Tensor]:
        """Weights by name; a weight with several names is there under each of them."""
        state = {name: self[f"{prefix}/{name}"] for name in self.keys(prefix)}
        return state | {alias: state[name] for alias, name in self.aliases.items()}

    def numbered(self, prefix: str) -> list[torch.Tensor]:
        """``prefix_0``, ``prefix_1``, ... as many as there are."""
        tensors: list[torch.Tensor] = []
        while f"{prefix}_{len(tensors)}" in self:
            tensors.append(self[f"{prefix}_{len(tensors)}"])
        return tensors

    def shapes(self) -> list[tuple[int, int]]:
        """(height, width) of the feature levels."""
        return [tuple(s) for s in self["in/spatial_shapes"].tolist()]

    def targets(self, prefix: str, boxes: str = "boxes") -> list[Target]:
        """The ground truth of every image, from ``prefix/labels_0``, ``prefix/boxes_0``, ..."""
        pairs = zip(self.numbered(f"{prefix}/labels"), self.numbered(f"{prefix}/{boxes}"))
        return [Target(*pair) for pair in pairs]

    def check(
        self,
        key: str,
        actual: torch.Tensor,
        *,
        where: torch.Tensor | None = None,
        first: int | None = None,
        atol: float = ATOL,
        rtol: float = 0.0,
    ) -> None:
        """Equal to 1e-5 absolute, integers exactly.

        Args:
            key: of the expected values.
            actual: a tensor of the same shape.
            where: True where the values count; None: everywhere.
            first: compare only with so many of the first rows in the file; None: with all.
            atol, rtol: absolute and relative tolerance of floating-point values.
        """
        expected = self[key] if first is None else self[key][:first]
        assert expected.shape == actual.shape, (key, expected.shape, actual.shape)
        if where is not None:
            expected, actual = expected[where], actual[where]
        actual = actual.detach()
        if expected.is_floating_point():
            actual = actual.to(expected.dtype)
        else:
            atol = rtol = 0.0
        torch.testing.assert_close(
            actual, expected, atol=atol, rtol=rtol, msg=lambda m: f"{key}: {m}"
        )

    def check_relative(self, key: str, actual: torch.Tensor) -> None:
        """Losses and gradients: equal to 1e-4 relative plus 1e-5 absolute."""
        self.check(key, actual, rtol=RTOL)

    def check_pixels(self, key: str, actual: torch.Tensor) -> None:
        """Boxes in pixels: equal to 1e-2 absolute."""
        self.check(key, actual, atol=PIXELS)

    def check_logits_of_boxes(self, key: str, boxes: torch.Tensor) -> None:
        """Boxes in [0, 1] against recorded logits: equal to 1e-5 absolute after the sigmoid, and
        before it where the logit is below 3.

        The logit of a number p changes by 1 / (p (1 - p)) times as much as p does. At p = 0.999,
        where denoising clamps its boxes, the rounding of p alone, 6e-8, is 6e-5 in the logit. Below
        a logit of 3 it is at most 1.3e-6.
        """
        expected = self[key]
        torch.testing.assert_close(
            boxes, expected.sigmoid(), atol=ATOL, rtol=0, msg=lambda m: f"{key}: {m}"
        )
        self.check(key, torch.logit(boxes), where=expected.abs() < 3)

    def check_matches(self, prefix: str, matches: Matches, layer: int, images: int) -> None:
        """Indices of the matched queries and boxes of every image in a layer, exactly."""
        for i in range(images):
            found = (matches.layer == layer) & (matches.image == i)
            self.check(f"{prefix}/src_{i}", matches.query[found])
            self.check(f"{prefix}/tgt_{i}", matches.target[found])
