"""Detect objects in an image with an exported detector; needs onnxruntime and numpy.

An image in a .npy file, an (H, W, 3) array of RGB values from 0 to 255, is used at its own size.
Other image files are read, and resized as the detector expects, with Pillow.
"""

import argparse
import json

import numpy as np
import onnxruntime


def read(path, resize):
    """The image as (H, W, 3) float32, and the factor by which it was resized."""
    if path.endswith(".npy"):
        return np.load(path).astype(np.float32), 1.0
    from PIL import Image

    image = Image.open(path).convert("RGB")
    scale = 1.0
    if resize:
        scale = min(resize["shortest_edge"] / min(image.size), resize["max_size"] / max(image.size))
        size = [max(1, round(side * scale)) for side in image.size]
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32), scale


def detect(model, path):
    """Class name, score and box x1, y1, x2, y2 of each detection, best first."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    card = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    image, scale = read(path, card["resize"])
    height, width = image.shape[:2]
    divisor = card["size_divisor"]  # the graph is told the size without this padding
    padded = np.pad(image, ((0, -height % divisor), (0, -width % divisor), (0, 0)))
    given = {"images": padded.transpose(2, 0, 1)[None], "sizes": np.array([[height, width]])}
    boxes, scores, classes = session.run(["boxes", "scores", "classes"], given)
    return [(card["classes"][c], s, b) for c, s, b in zip(classes[0], scores[0], boxes[0] / scale)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("image")
    parser.add_argument("--least-score", type=float, default=0.3)
    args = parser.parse_args()
    for name, score, box in detect(args.model, args.image):
        if score >= args.least_score:
            print(name, f"{score:.3f}", *(f"{value:.1f}" for value in box))
