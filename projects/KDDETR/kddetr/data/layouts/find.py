"""Finds the splits of a folder of labelled images, whatever its layout."""

import json
import os
from pathlib import Path

from ...errors import DatasetError
from ..coco import coco_records
from ..paths import advice
from .coco import coco_files, read_coco
from .found import SPLITS, DataFolder, Document, Found, Split
from .holdout import hold_out
from .made import some
from .tree import Tree
from .voc import read_voc, voc_files
from .yolo import read_yolo, yolo_files

VAL_SHARE = 0.2


def find_data(
    folder: str | os.PathLike,
    work_dir: str | os.PathLike,
    *,
    val_share: float = VAL_SHARE,
    seed: int = 0,
) -> DataFolder:
    """Find train, val and test split and the images of a folder, in the layouts that people have.

    Nothing is written into the folder. A split whose COCO file can be used as it is stays where it
    is; any other is written to ``work_dir`` as ``train.json``, ``val.json`` or ``test.json``. The
    same folder gives the same files.

    Args:
        folder: a folder in COCO's, YOLO's or Pascal VOC's layout; or the COCO file or
            ``data.yaml`` itself, where a folder has several.
        work_dir: the folder for converted files, which must not be inside of ``folder``.
        val_share: which share of the training images becomes the validation split where there is
            none, in (0, 1).
        seed: of this choice; see :func:`~kddetr.data.layouts.holdout.hold_out`.

    Raises:
        DatasetError: the folder is missing, has no known layout or several, a file is broken, a
            split is empty or has no box, or images are missing.
        ValueError: ``val_share`` is out of range.
    """
    if not 0 < val_share < 1:
        raise ValueError(f"val_share must be between 0 and 1, not {val_share!r}.")
    path, work = Path(os.path.abspath(Path(folder).expanduser())), Path(os.path.abspath(work_dir))
    found = _read(path, work)
    documents = {split: found.documents.get(split) for split in SPLITS}
    _check_splits(path, found)
    train, val, test = documents.values()
    if train and not val:
        train, val = hold_out(train, val_share, seed)
        images, all_images = (len(d.content["images"]) for d in (val, documents["train"]))
        found.notes.append(
            f"There is no validation split: {images} of the {all_images} training images were "
            "taken for it and are not trained on. Their choice depends on their file names and "
            f"the seed ({seed}); copies of one picture stay together."
        )
    if test and not test.content.get("annotations"):
        found.notes.append(f"The test split {test.source} has no box and is not used.")
        test = None
    if not train:
        found.notes.append("There is no training split: the folder can only be evaluated on.")
    splits = dict(zip(SPLITS, (train, val, test)))
    first = next(document for document in splits.values() if document)
    classes = coco_records(first.content, json_file=first.source, image_root="")[1]
    written = {split: d and _split(d, work / f"{split}.json") for split, d in splits.items()}
    return DataFolder(found.layout, **written, classes=classes, notes=found.notes, folder=str(path))


def _read(path: Path, work: Path) -> Found:
    """Read a folder in the only layout that it has."""
    if not path.exists():
        raise DatasetError(
            f"There is no folder {path}: name the folder of your images and labels. {advice(path)}"
        )
    if path.is_file():
        return _read_file(path)
    if work.is_relative_to(path):
        raise DatasetError(
            f"Converted files would be written to {work}, inside of your data folder {path}, which "
            "stays as it is: choose an output folder elsewhere."
        )
    tree = Tree(path)
    kinds = {"COCO": coco_files(tree), "YOLO": yolo_files(tree), "Pascal VOC": voc_files(tree)}
    present = {kind: files for kind, files in kinds.items() if files}
    if len(present) != 1 or len(present.get("YOLO", ())) > 1:
        raise DatasetError(_not_one(path, tree, present))
    if "COCO" in present:
        return read_coco(tree, present["COCO"])
    if "YOLO" in present:
        return read_yolo(present["YOLO"][0])
    return read_voc(tree, present["Pascal VOC"])


def _read_file(path: Path) -> Found:
    """Read the file that names the images: one in COCO's format, which is for training, or a
    ``data.yaml``.
    """
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return read_yolo(path)
    if suffix != ".json":
        raise DatasetError(
            f"{path} is neither a folder nor a COCO file or data.yaml: unpack it if it is an "
            "archive, and name the folder."
        )
    beside = path.parent.name == "annotations"  # COCO's own, whose images lie beside this folder
    found = read_coco(Tree(path.parent.parent if beside else path.parent), [path])
    return Found(found.layout, {"train": next(iter(found.documents.values()))}, found.notes)


def _not_one(path: Path, tree: Tree, present: dict[str, list[Path]]) -> str:
    """The sentence for a folder with no layout, or with several."""
    if present:
        files = [f"{kind} ({some(files, 2)})" for kind, files in present.items()]
        return (
            f"{path} has labels of several data sets: {' and '.join(files)}: move all but one "
            "away, or name the COCO file or data.yaml that you mean instead of the folder."
        )
    hint = "see docs/your_own_data.md for the layouts"
    if any(file.parent.name == "labels" or "labels" in file.parts for file in tree.of_kind(".txt")):
        hint = "to use YOLO's label files, add a data.yaml with the keys names, train and val"
    elif tree.images:
        hint = "images without labels are named with --unlabeled"
    return (
        f"{path} has no labels that are known: looked for JSON files in COCO's format, a data.yaml "
        f"of YOLO and XML files of Pascal VOC, and found {tree.contents()}; {hint}."
    )


def _check_splits(path: Path, found: Found) -> None:
    """Refuse a training or validation split without images or boxes, or no split at all."""
    if not found.documents:
        raise DatasetError(f"{path} names no images: give it at least the key train.")
    for split, document in found.documents.items():
        if split == "test":
            continue
        name = {"train": "training", "val": "validation"}[split]
        for key, what in (("images", "image"), ("annotations", "box")):
            if not document.content.get(key):
                instead = " a part of the training images is then taken for it" * (split == "val")
                raise DatasetError(
                    f"{path}: the {name} split {document.source} has no {what}: add labelled "
                    f"images, or remove it{';' * bool(instead)}{instead}."
                )


def _split(document: Document, file: Path) -> Split:
    """Write a split where its content is not the user's own file; an equal file is left alone."""
    if not document.json_file:
        text = json.dumps(document.content)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(text, encoding="utf-8")
            os.replace(part, file)
        document.json_file = str(file)
    return Split(document.json_file, document.image_root)
