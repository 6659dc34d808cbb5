"""The bundled data set on disk: PNG files and COCO JSON for train, val and test, without downloads.

The folder holds the fingerprint of the spec that it was made from. A folder with the same
fingerprint is kept, any other folder of this data set is replaced. It is written under a temporary
name and renamed when it is complete.
"""

import dataclasses
import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data.coco import load_registered, without_annotations
from .digits import CLASS_NAMES, SPLITS, QuickstartSpec, opencv, render_image

STAMP = "spec.json"
JSON_FILES = ("train.json", "train_labeled.json", "train_unlabeled.json", "val.json", "test.json")


def quickstart_root() -> Path:
    """The folder ``quickstart`` in ``$DETECTRON2_DATASETS``, or in ``./datasets`` without it."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser() / "quickstart"


def register_quickstart(root: str | os.PathLike | None = None) -> None:
    """Registers ``quickstart_train``, ``_val`` and ``_test``, and the two parts of train:
    ``quickstart_train_labeled`` and ``quickstart_train_unlabeled``.

    Names that are registered already are kept. The files are read when the data is loaded, from
    ``root``, by default :func:`quickstart_root`.
    """
    root = Path(root) if root is not None else quickstart_root()
    for file in JSON_FILES:
        stem = file.removesuffix(".json")
        name = f"quickstart_{stem}"
        if name in DatasetCatalog.list():
            continue
        json_file, image_root = str(root / file), str(root / stem.split("_")[0])
        DatasetCatalog.register(name, partial(_load, name, json_file, image_root))
        MetadataCatalog.get(name).set(
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
            thing_classes=list(CLASS_NAMES),
            thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(CLASS_NAMES))},
        )


def first_images(count: int) -> list[dict]:
    """Dataset dicts of the first ``count`` training images, with their annotations.

    The first 300 are those of ``quickstart_train_labeled``.
    """
    return DatasetCatalog.get("quickstart_train")[:count]


def other_images(after: int) -> list[dict]:
    """Dataset dicts of the training images after the first ``after``, without annotations."""
    return without_annotations(DatasetCatalog.get("quickstart_train")[after:])


def _load(name: str, json_file: str, image_root: str) -> list[dict]:
    records = load_registered(name, json_file, image_root)
    return without_annotations(records) if name.endswith("_unlabeled") else records


def make_quickstart_data(
    root: str | os.PathLike,
    *,
    spec: QuickstartSpec | None = None,
    progress: bool = True,
) -> Path:
    """Writes the data set, unless it exists, complete and made from the same spec.

    The folder then holds PNG files in ``train``, ``val`` and ``test``, and COCO files:
    ``train.json`` (all images with annotations), ``train_labeled.json`` (the first images),
    ``train_unlabeled.json`` (the other images without annotations), ``val.json``, ``test.json``.

    Args:
        root: the folder, which is returned as a path.
        spec: how to draw the images.
        progress: whether to print how many images are drawn.

    Raises:
        FileExistsError: the folder holds files that are not of this data set.
        ModuleNotFoundError: scikit-learn, scikit-image or OpenCV is not installed.
    """
    root, spec = Path(root), spec or QuickstartSpec()
    if _is_complete(root, spec):
        return root
    _refuse_foreign_files(root)
    # A process that is killed leaves only this folder, not half a data set under the final name.
    partial_root = root.with_name(f"{root.name}.partial-{os.getpid()}")
    shutil.rmtree(partial_root, ignore_errors=True)
    for split, count in zip(SPLITS, spec.images, strict=True):
        (partial_root / split).mkdir(parents=True)
        drawn = _draw_split(spec, split, count, partial_root, progress)
        _write_annotations(spec, split, drawn, partial_root)
    stamp = {"fingerprint": spec.fingerprint(), "spec": dataclasses.asdict(spec)}
    (partial_root / STAMP).write_text(json.dumps(stamp))
    shutil.rmtree(root, ignore_errors=True)
    try:
        partial_root.rename(root)
    except OSError:
        if not _is_complete(root, spec):
            raise
        shutil.rmtree(partial_root)  # another process finished the same data set first
    return root


def _is_complete(root: Path, spec: QuickstartSpec) -> bool:
    try:
        fingerprint = json.loads((root / STAMP).read_text())["fingerprint"]
    except (OSError, ValueError, KeyError):
        return False
    counts = tuple(len(list((root / split).glob("*.png"))) for split in SPLITS)
    files = all((root / name).is_file() for name in JSON_FILES)
    return fingerprint == spec.fingerprint() and counts == tuple(spec.images) and files


def _refuse_foreign_files(root: Path) -> None:
    present = {p.name for p in root.iterdir()} if root.exists() else set()
    if foreign := present - {STAMP, *SPLITS, *JSON_FILES}:
        raise FileExistsError(
            f"{root} holds other files ({min(foreign)}, ...), so the quickstart data is not written"
            " there: give an empty or new folder."
        )


def _draw_split(spec: QuickstartSpec, split: str, count: int, root: Path, progress: bool) -> list:
    every = 100 if sys.stdout.isatty() else 1000  # a line cannot be overwritten in a log file
    drawn = []
    for index in range(count):
        image, objects = render_image(spec, split, index)
        _write_png(root / split / _file_name(index), image)
        drawn.append(objects)
        if progress and (len(drawn) % every == 0 or len(drawn) == count):
            end = "\r" if sys.stdout.isatty() and len(drawn) < count else "\n"
            print(f"quickstart data: {split} {len(drawn)}/{count} images", end=end, flush=True)
    return drawn


def _write_png(path: Path, image: np.ndarray) -> None:
    cv2 = opencv()
    # The images have noise, so that a higher level takes time and saves almost no space.
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    # Not cv2.imwrite, which does not report a full disk.
    ok, data = cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]), fast)
    if not ok:
        raise OSError(f"OpenCV could not encode {path}.")
    path.write_bytes(data.tobytes())


def _file_name(index: int) -> str:
    return f"{index:06d}.png"


def _write_annotations(
    spec: QuickstartSpec, split: str, drawn: list[list[dict]], root: Path
) -> None:
    size = spec.image_size
    images = [
        {"id": i + 1, "file_name": _file_name(i), "width": size, "height": size}
        for i in range(len(drawn))
    ]
    annotations = []
    for image, objects in zip(images, drawn, strict=True):
        for thing in objects:
            x0, y0, x1, y1 = thing["box"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": thing["label"] + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    "digit": thing["source"],
                }
            )

    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)]
    info = {"description": "handwritten digits on photographs"}

    def write(name: str, chosen: list[dict], notes: list[dict]) -> None:
        document = {"info": info, "images": chosen, "annotations": notes, "categories": categories}
        (root / f"{name}.json").write_text(json.dumps(document))

    write(split, images, annotations)
    if split == "train":
        labeled = [a for a in annotations if a["image_id"] <= spec.labeled]
        write("train_labeled", images[: spec.labeled], labeled)
        write("train_unlabeled", images[spec.labeled :], [])
