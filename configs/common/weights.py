"""ImageNet-1k weights of torchvision's ResNets, first version, as the published recipes use them.

An address is fetched once and kept in Detectron2's cache; a file of the same content does as well.
"""

_ROOT = "https://download.pytorch.org/models/"

imagenet = {
    "r18": _ROOT + "resnet18-f37072fd.pth",
    "r50": _ROOT + "resnet50-0676ba61.pth",
    "r101": _ROOT + "resnet101-63fe2227.pth",
}
