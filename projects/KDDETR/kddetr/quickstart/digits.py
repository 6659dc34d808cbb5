"""Drawing of the bundled data set: handwritten digits pasted on photographs.

The digits come with scikit-learn and the photographs with scikit-learn and scikit-image, so that
nothing is downloaded. Each digit and each photograph is used in one split only. An image depends on
(spec, split, index) alone.
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np

CLASS_NAMES = tuple("0123456789")

# (package, file in it) of the photographs of each split. Of motorcycle_left and motorcycle_right,
# which show the same scene, only one is used.
PHOTOGRAPHS = {
    "train": (
        ("sklearn", "datasets/images/china.jpg"),
        ("sklearn", "datasets/images/flower.jpg"),
        ("skimage", "data/astronaut.png"),
        ("skimage", "data/coffee.png"),
        ("skimage", "data/chelsea.png"),
        ("skimage", "data/motorcycle_left.png"),
        ("skimage", "data/ihc.png"),
        ("skimage", "data/grass.png"),
        ("skimage", "data/brick.png"),
        ("skimage", "data/camera.png"),
        ("skimage", "data/moon.png"),
        ("skimage", "data/rocket.jpg"),
        ("skimage", "data/coins.png"),
    ),
    "val": (("skimage", "data/gravel.png"), ("skimage", "data/retina.jpg")),
    "test": (("skimage", "data/clock_motion.png"), ("skimage", "data/hubble_deep_field.jpg")),
}
SPLITS = tuple(PHOTOGRAPHS)


@dataclass(frozen=True)
class QuickstartSpec:
    """All settings that the images depend on; equal specs give equal bytes on one machine.

    Sizes are in pixels, angles in degrees. ``images`` and ``digits`` are numbers for train, val and
    test, the latter out of 1,797 handwritten digits. ``labeled`` is how many images of train are
    labelled, ``per_image`` the least and most digits per image, ``max_overlap`` the shared part of
    the smaller of two boxes, and ``box_alpha`` the opacity at which a box begins.
    """

    seed: int = 20240617
    image_size: int = 128
    images: tuple[int, int, int] = (4000, 400, 400)
    labeled: int = 300
    digits: tuple[int, int, int] = (1097, 300, 400)
    per_image: tuple[int, int] = (1, 8)
    digit_height: tuple[float, float] = (14.0, 44.0)
    max_rotation: float = 20.0
    max_shear: float = 0.25
    opacity: tuple[float, float] = (0.75, 1.0)
    min_contrast: float = 110.0
    max_overlap: float = 0.15
    noise_sigma: float = 4.0
    box_alpha: float = 0.25
    version: int = 1  # increase it when the drawing changes, so that older folders are replaced

    def fingerprint(self) -> str:
        """A hash of the spec and of the list of photographs."""
        text = json.dumps([dataclasses.asdict(self), PHOTOGRAPHS], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=8)
def split_digits(spec: QuickstartSpec) -> dict[str, np.ndarray]:
    """The indices of scikit-learn's ``load_digits`` for each split; no index is in two splits."""
    total = len(_digits()[1])
    if sum(spec.digits) > total:
        raise ValueError(f"The splits need {sum(spec.digits)} digits, but there are only {total}.")
    order = np.random.default_rng(spec.seed).permutation(total)
    return dict(zip(SPLITS, np.split(order, np.cumsum(spec.digits))[:3], strict=True))


def render_image(spec: QuickstartSpec, split: str, index: int) -> tuple[np.ndarray, list[dict]]:
    """Draws one image, which depends on the arguments alone.

    Returns:
        an (S, S, 3) uint8 RGB array, and one dictionary per digit: ``box`` (x0, y0, x1, y1 in whole
        pixels), ``label`` 0..9, and ``source``, the index of the handwritten digit.
    """
    rng = np.random.default_rng([spec.seed, SPLITS.index(split), index])
    images, labels = _digits()
    own = split_digits(spec)[split]
    canvas = _background(rng, split, spec.image_size)
    objects: list[dict] = []
    for _ in range(int(rng.integers(spec.per_image[0], spec.per_image[1] + 1))):
        source = int(rng.choice(own))
        alpha = _warped_digit(rng, spec, images[source])
        box = _free_place(rng, spec, alpha.shape, [o["box"] for o in objects])
        if box is None:
            continue
        _paste(rng, spec, canvas, alpha, box)
        objects.append({"box": box, "label": int(labels[source]), "source": source})
    canvas += spec.noise_sigma * rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8), objects


def _package_file(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        wheel = {"sklearn": "scikit-learn", "skimage": "scikit-image"}[package]
        raise ModuleNotFoundError(
            f"The quickstart data needs images that come with {wheel}: pip install {wheel}"
        )
    return Path(spec.submodule_search_locations[0]) / name


def opencv() -> ModuleType:
    """OpenCV, imported late because only drawing needs it."""
    if importlib.util.find_spec("cv2") is None:
        raise ModuleNotFoundError(
            "Drawing the quickstart data needs OpenCV: pip install opencv-python-headless"
        )
    return importlib.import_module("cv2")


@lru_cache(maxsize=32)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    # The file is read directly, because importing scikit-learn takes seconds.
    table = np.loadtxt(_package_file("sklearn", "datasets/data/digits.csv.gz"), delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8).astype(np.float32) / 16.0, table[:, -1].astype(np.int64)


@lru_cache(maxsize=32)
def _photograph(package: str, name: str) -> np.ndarray:
    path = _package_file(package, name)
    cv2 = opencv()
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f"The photograph {path} is not in the installed {package}.")
    return np.ascontiguousarray(image[:, :, ::-1])


def _background(rng: np.random.Generator, split: str, size: int) -> np.ndarray:
    """A random square of a random photograph of the split, (size, size, 3) float32."""
    photo = _photograph(*PHOTOGRAPHS[split][rng.integers(len(PHOTOGRAPHS[split]))])
    cv2 = opencv()
    height, width = photo.shape[:2]
    side = int(np.exp(rng.uniform(np.log(0.75 * size), np.log(min(height, width, 3 * size)))))
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = photo[y : y + side, x : x + side]
    crop = cv2.resize(
        crop, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    )
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.ascontiguousarray(crop).astype(np.float32)


def _warped_digit(rng: np.random.Generator, spec: QuickstartSpec, digit: np.ndarray) -> np.ndarray:
    """The opacity of the scaled, sheared and rotated digit, in [0, 1], cut to its box."""
    low, high = np.log(spec.digit_height)
    scale = float(np.exp(rng.uniform(low, high))) / digit.shape[0]
    angle = np.deg2rad(rng.uniform(-spec.max_rotation, spec.max_rotation))
    shear = rng.uniform(-spec.max_shear, spec.max_shear)
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * rotate @ np.array([[1.0, shear], [0.0, 1.0]])
    room = int(np.ceil(scale * 2 * digit.shape[0]))
    padded = np.pad(digit, 2)
    centre = np.array([(s - 1) / 2 for s in padded.shape])
    shift = room / 2 - matrix @ centre
    cv2 = opencv()
    alpha = cv2.warpAffine(
        padded, np.column_stack([matrix, shift]), (room, room), flags=cv2.INTER_CUBIC
    )
    # A digit of 8 x 8 pixels is blurred when enlarged: steeper edges keep it legible.
    alpha = np.clip(1.6 * alpha - 0.15, 0.0, 1.0)
    rows, columns = (np.flatnonzero((alpha > spec.box_alpha).any(axis)) for axis in (1, 0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_place(rng, spec: QuickstartSpec, shape: tuple[int, int], taken: list) -> tuple | None:
    """A random box with little overlap with the boxes taken; None after thirty tries."""
    height, width = shape
    for _ in range(30):
        x = int(rng.integers(spec.image_size - width + 1))
        y = int(rng.integers(spec.image_size - height + 1))
        box = (x, y, x + width, y + height)
        if all(_overlap(box, other) <= spec.max_overlap for other in taken):
            return box
    return None


def _overlap(a: tuple, b: tuple) -> float:
    """The intersection of two boxes as a fraction of the smaller box."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def _paste(rng, spec: QuickstartSpec, canvas: np.ndarray, alpha: np.ndarray, box: tuple) -> None:
    """Paints the digit into the canvas in a random colour with enough contrast."""
    x0, y0, x1, y1 = box
    patch = canvas[y0:y1, x0:x1]
    local = patch.reshape(-1, 3).mean(axis=0)
    # The first of a few random colours with enough contrast, or else the one with the most.
    colours = rng.uniform(0, 255, size=(16, 3)).astype(np.float32)
    distance = np.linalg.norm(colours - local, axis=1)
    clear = np.flatnonzero(distance >= spec.min_contrast)
    colour = colours[clear[0] if len(clear) else distance.argmax()]
    weight = alpha[:, :, None] * np.float32(rng.uniform(*spec.opacity))
    patch += weight * (colour - patch)
