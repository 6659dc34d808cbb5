"""Backbone weights trained on ImageNet that the published recipes start from.

They are torchvision's ResNets (first version), Microsoft's ResNet (MSRA, for BGR images) of
Detectron2's own recipes, and Microsoft's Swins. They were trained on ImageNet-1k, unless marked
22k. A file is downloaded once and kept in Detectron2's cache. The path of a local copy can be given
instead.
"""

_ROOT = "https://download.pytorch.org/models/"
_SWIN = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"

imagenet = {
    "r18": _ROOT + "resnet18-f37072fd.pth",
    "r50": _ROOT + "resnet50-0676ba61.pth",
    "r101": _ROOT + "resnet101-63fe2227.pth",
    "r50_msra": "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
    "swin_t": _SWIN + "swin_tiny_patch4_window7_224.pth",
    "swin_l_384_22k": _SWIN + "swin_large_patch4_window12_384_22k.pth",
}
