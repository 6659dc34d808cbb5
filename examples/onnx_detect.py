"""Detect objects in an image with an exported detector: python onnx_detect.py MODEL.onnx IMAGE

It needs onnxruntime and numpy alone for IMAGE.npy, an (H, W, 3) array of RGB values from 0 to 255
that is used at its own size. Other image files are read, and resized as the detector expects, with
Pillow.
"""

import json
import sys

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


def main(model, path, least_score=0.3):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    card = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    image, scale = read(path, card["resize"])
    height, width = image.shape[:2]
    divisor = card["size_divisor"]  # padding to the right and below; the true size says where it is
    padded = np.pad(image, ((0, -height % divisor), (0, -width % divisor), (0, 0)))
    given = {"images": padded.transpose(2, 0, 1)[None], "sizes": np.array([[height, width]])}
    boxes, scores, classes = session.run(["boxes", "scores", "classes"], given)
    for box, score, number in zip(boxes[0] / scale, scores[0], classes[0]):
        if score >= least_score:
            print(card["classes"][number], f"{score:.3f}", *(f"{value:.1f}" for value in box))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(float, sys.argv[3:4]))
