"""Detect objects in an image with an exported detector; needs onnxruntime and numpy.

An (H, W, 3) array of RGB values from 0 to 255 in a .npy file is used at its own size. Any other
image is read, and resized as the detector expects, by Pillow.
"""

import json
import sys

import numpy as np
import onnxruntime


def read(path, resize):
    """The image as (H, W, 3) numbers, and the factor by which it was resized."""
    if path.endswith(".npy"):
        return np.load(path), 1.0
    from PIL import Image

    image, scale = Image.open(path).convert("RGB"), 1.0
    if resize:
        scale = min(resize["shortest_edge"] / min(image.size), resize["max_size"] / max(image.size))
        size = [max(1, round(side * scale)) for side in image.size]
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.array(image), scale


if len(sys.argv) not in (3, 4):
    sys.exit(f"usage: {sys.argv[0]} MODEL.onnx IMAGE [LEAST_SCORE]")
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
card = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
image, scale = read(sys.argv[2], card["resize"])
(height, width), step = image.shape[:2], card["size_divisor"]
padded = np.pad(image, ((0, -height % step), (0, -width % step), (0, 0))).astype(np.float32)
given = {"images": padded.transpose(2, 0, 1)[None], "sizes": np.array([[height, width]])}
boxes, scores, classes = session.run(["boxes", "scores", "classes"], given)
for box, score, label in zip(boxes[0] / scale, scores[0], classes[0]):
    if score >= float(sys.argv[3] if len(sys.argv) > 3 else 0.3):
        print(card["classes"][label], f"{score:.3f}", *(f"{number:.1f}" for number in box))
