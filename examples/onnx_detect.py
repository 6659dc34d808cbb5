"""Detect objects in an image with an exported detector; needs onnxruntime and numpy.

A .npy file is an (H, W, 3) array of RGB values; other images are read and resized by Pillow.
"""

import argparse
import json

import numpy as np
import onnxruntime


def read(path, resize):
    """The image as (H, W, 3) numbers, the size for which boxes are wanted of the model, and the
    factor between that size and the image's own.
    """
    if path.endswith(".npy"):
        image = np.load(path)
        return image, image.shape[:2], 1.0
    from PIL import Image

    image, scale = Image.open(path).convert("RGB"), 1.0
    if resize and "height" in resize:  # one size for all images, which are stretched
        stretched = image.resize((resize["width"], resize["height"]), Image.BILINEAR)
        return np.array(stretched), image.size[::-1], 1.0
    if resize:
        scale = min(resize["shortest_edge"] / min(image.size), resize["max_size"] / max(image.size))
        image = image.resize([round(side * scale) or 1 for side in image.size], Image.BILINEAR)
    return np.array(image), image.size[::-1], scale


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("image")
parser.add_argument("--least-score", type=float, default=0.3)
args = parser.parse_args()
session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
card = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
image, size, scale = read(args.image, card["resize"])
(height, width), step = image.shape[:2], card["size_divisor"]
padded = np.pad(image, ((0, -height % step), (0, -width % step), (0, 0))).astype(np.float32)
given = {"images": padded.transpose(2, 0, 1)[None], "sizes": np.array([size])}
boxes, scores, classes = session.run(["boxes", "scores", "classes"], given)
for box, score, label in zip(boxes[0] / scale, scores[0], classes[0]):
    if score >= args.least_score:
        print(card["classes"][label], f"{score:.3f}", *(f"{number:.1f}" for number in box))
