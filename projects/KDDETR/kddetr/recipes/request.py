"""What the user asks for on the command line, or in Python."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Request:
    """The wishes for a training.

    Attributes:
        data: a folder of labelled images, or the file that lists them; empty: none.
        model: the detector to train, see :mod:`.students`; empty: that of ``weights``.
        teacher: the teacher's file, see :func:`~.recognize.recognize`; empty: no distillation.
        weights: a file that the training starts from; empty: as in the recipe. Without ``model``
            it is the file of a detector, which is trained on.
        unlabeled: a folder of images without labels; empty: none.
        output: the output folder; empty: one named after data and detector.
        teacher_config: a config of the teacher, for a file that does not say enough.
        teacher_classes: class names of a teacher whose file does not say them, see
            :func:`~.classes.teacher_classes`.
        same_classes: ``DATA=TEACHER`` pairs of class names.
        image_size: the short side of a test image in pixels, 0 for images as they are; None: that
            of the teacher, or of the recipe.
        num_gpus: processes.
        overrides: ``key=value``; those of ``teacher.KEY`` are settings of the teacher.
    """

    data: str = ""
    model: str = ""
    teacher: str = ""
    weights: str = ""
    unlabeled: str = ""
    output: str = ""
    teacher_config: str = ""
    teacher_classes: str = ""
    same_classes: Sequence[str] = ()
    image_size: int | None = None
    num_gpus: int = 1
    overrides: Sequence[str] = field(default_factory=tuple)

    @property
    def what(self) -> str:
        """What the detector to train is called on the command line."""
        return "student" if self.teacher else "model"

    @property
    def teacher_settings(self) -> list[str]:
        """The overrides of the teacher's own config, without their beginning."""
        of_teacher = [text for text in self.overrides if text.startswith("teacher.")]
        return [text.removeprefix("teacher.") for text in of_teacher]

    @property
    def config_overrides(self) -> list[str]:
        """The other overrides."""
        return [text for text in self.overrides if not text.startswith("teacher.")]

    def given(self, key: str) -> Any:
        """The value that an override gives to a key; None where there is none."""
        for text in reversed(self.config_overrides):
            name, _, value = text.partition("=")
            if name.lstrip("+") == key:
                return yaml.safe_load(value)
        return None

    def count_given(self, key: str) -> int | None:
        """A number of at least 1 that an override gives to a key; None for any other value, which
        is refused where the config is loaded.
        """
        value = self.given(key)
        return value if type(value) is int and value >= 1 else None

    @property
    def folder(self) -> str:
        """The output folder."""
        if folder := self.given("train.output_dir") or self.output:
            return str(folder)
        images = Path(self.data or self.unlabeled)
        data = re.sub(r"\W+", "_", images.stem if images.is_file() else images.resolve().name)
        model = Path(self.model or self.weights).stem
        if not self.model and model.startswith("model_"):  # of a run, whose folder says more
            model = Path(self.weights).resolve().parent.name
        return str(Path("output", f"{data}_{model}{'_distilled' * bool(self.teacher)}"))

    @property
    def config_file(self) -> str:
        """The file into which the config is written."""
        return str(Path(self.folder, "config.py"))

    def same(self) -> dict[str, str]:
        """``same_classes`` as a dictionary.

        Raises:
            UsageError: one of them is no pair.
        """
        pairs = [text.partition("=") for text in self.same_classes]
        for ours, equals, theirs in pairs:
            if not (ours and equals and theirs):
                raise UsageError(
                    f"--same-class {ours}{equals}{theirs} is no pair: write a class of the data and"
                    " one of the teacher, such as --same-class motorbike=motorcycle."
                )
        return {ours: theirs for ours, _, theirs in pairs}
