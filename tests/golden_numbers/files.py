"""Reading the golden files: every size, weight and setting comes from the file itself."""

import json
import os
from pathlib import Path

import numpy as np
import torch

DEFAULT = Path(__file__).parents[1] / "golden"
ATOL = 1e-5  # activations, logits, boxes: absolute, float32
RTOL = 1e-4  # losses and gradients: relative, with ATOL beside it


class Golden:
    """One file: tensors by key, the config it was made with, the weights under their own names."""

    def __init__(self, name: str) -> None:
        path = Path(os.environ.get("GOLDEN_DIR") or DEFAULT) / f"{name}.npz"
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        meta = json.loads(str(arrays.pop("meta/json")))
        self.config = meta["config"]
        self.aliases = meta.get("aliases", {})
        self.arrays = arrays

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key].copy())

    def keys(self, prefix: str) -> list[str]:
        """Keys below ``prefix/``, without it."""
        return [k[len(prefix) + 1 :] for k in self.arrays if k.startswith(prefix + "/")]

    def state(self, prefix: str = "sd") -> dict[str, torch.Tensor]:
        """Weights by name, every alias once more."""
        state = {name: self[f"{prefix}/{name}"] for name in self.keys(prefix)}
        return state | {alias: state[name] for alias, name in self.aliases.items()}

    def numbered(self, prefix: str) -> list[torch.Tensor]:
        """``prefix_0``, ``prefix_1``, ... as many as there are."""
        found = []
        while f"{prefix}_{len(found)}" in self.arrays:
            found.append(self[f"{prefix}_{len(found)}"])
        return found

    def check(self, key: str, actual: torch.Tensor, *, where: torch.Tensor | None = None) -> None:
        """Equal to 1e-5 absolute (integers: exactly), where ``where`` is True."""
        expected = self[key]
        assert expected.shape == actual.shape, (key, expected.shape, actual.shape)
        if where is not None:
            expected, actual = expected[where], actual[where]
        if expected.dtype.is_floating_point:
            torch.testing.assert_close(
                actual.detach().float(), expected, atol=ATOL, rtol=0, msg=lambda m: f"{key}: {m}"
            )
        else:
            assert torch.equal(actual, expected), key

    def check_relative(self, key: str, actual: torch.Tensor) -> None:
        """Losses and gradients: 1e-4 relative plus 1e-5 absolute."""
        torch.testing.assert_close(
            actual.detach().float(),
            self[key].float(),
            atol=ATOL,
            rtol=RTOL,
            msg=lambda m: f"{key}: {m}",
        )
