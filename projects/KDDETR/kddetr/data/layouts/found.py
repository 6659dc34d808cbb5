"""What is found in a folder of labelled images."""

from dataclasses import dataclass, field

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """One labelled set of images, as this project reads it.

    Attributes:
        json_file: a file in COCO's format, as an absolute path: the user's own, or a converted one.
        image_root: the folder that the file names in it are relative to, as an absolute path.
    """

    json_file: str
    image_root: str


@dataclass(frozen=True)
class DataFolder:
    """The splits of a folder of labelled images.

    Attributes:
        layout: ``COCO``, ``YOLO`` or ``Pascal VOC``.
        train: None where the folder has images for validation or testing alone.
        val: taken from ``train`` where the folder has no split of this name.
        test: None where the folder has none, or one without boxes.
        classes: the class names, in the order of the numbers that training gives them.
        notes: a sentence about each decision that was made.
        folder: the folder itself, or the file that was named instead, as an absolute path.
    """

    layout: str
    train: Split | None
    val: Split | None
    test: Split | None
    classes: list[str]
    notes: list[str]
    folder: str = ""


@dataclass
class Document:
    """One split while it is being read.

    Attributes:
        content: the parsed COCO file, with ``images``, ``annotations`` and ``categories``.
        image_root: the folder that the file names in it are relative to.
        source: the file or folder that it was read from, for messages.
        json_file: the user's own file, which can be used as it is; "" where the content differs
            from it and has to be written.
    """

    content: dict
    image_root: str
    source: str
    json_file: str = ""


@dataclass
class Found:
    """What the reader of a layout returns: the splits by name, and sentences about decisions."""

    layout: str
    documents: dict[str, Document]
    notes: list[str] = field(default_factory=list)
