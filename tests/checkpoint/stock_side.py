"""The other side of the round trip: Detectron2 and PyTorch alone, as a script in a process in which
nothing of this project can be imported.

    python stock_side.py FOLDER

reads what the test has left in FOLDER: image.pt (BGR, uint8, 3 x H x W), and for each model below
NAME.pth, a checkpoint, and NAME.expected.pt, its detections. It writes FOLDER/stock/NAME.pth.
"""

import sys
from pathlib import Path

if __name__ == "__main__":

    class Nowhere:
        """Finds nothing of this project, however it is installed."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.startswith("kddetr"):
                raise ModuleNotFoundError(f"{name} is not to be imported here")

    sys.meta_path.insert(0, Nowhere)

import torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock
from torch import nn

CLASSES = 3
WIDTH = 8
LEVELS = ["p2", "p3", "p4"]
STRIDES = [4, 8, 16]
LAZY = {
    "specific": "common/models/mask_rcnn_fpn.py",
    "agnostic": "common/models/mask_rcnn_fpn.py",
    "cascade": "common/models/cascade_rcnn.py",
}
NAMES = (*LAZY, "yaml")


def stock_model(name: str) -> nn.Module:
    """One of ``NAMES``: a config of Detectron2's own, made tiny by overriding it."""
    if name == "yaml":
        return _from_yaml()
    cfg = model_zoo.get_config(LAZY[name]).model
    _shrink(cfg)
    for head in cfg.roi_heads.get("box_heads") or [cfg.roi_heads.box_head]:
        head.input_shape = L(ShapeSpec)(channels=WIDTH, height=7, width=7)
        head.fc_dims = [12]
    for predictor in cfg.roi_heads.get("box_predictors") or [cfg.roi_heads.box_predictor]:
        predictor.input_shape = L(ShapeSpec)(channels=12)
    if name == "agnostic":
        cfg.roi_heads.box_predictor.cls_agnostic_bbox_reg = True
    return instantiate(cfg)


def _shrink(cfg) -> None:
    # Batch norms that learn: their statistics have to make the journey too.
    stages = [
        L(ResNet.make_stage)(
            block_class=BasicBlock,
            num_blocks=1,
            stride_per_block=[1 if i == 0 else 2],
            in_channels=inside,
            out_channels=outside,
            norm="BN",
        )
        for i, (inside, outside) in enumerate([(WIDTH, 8), (8, 12), (12, 16)])
    ]
    cfg.backbone.bottom_up = L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=WIDTH, norm="BN"),
        stages=stages,
        out_features=["res2", "res3", "res4"],
    )
    cfg.backbone.out_channels = cfg.proposal_generator.head.in_channels = WIDTH
    cfg.backbone.top_block = None
    cfg.proposal_generator.in_features = cfg.roi_heads.box_in_features = LEVELS
    cfg.proposal_generator.anchor_generator.sizes = [[8], [16], [32]]
    cfg.proposal_generator.anchor_generator.strides = STRIDES
    cfg.proposal_generator.post_nms_topk = [50, 50]
    cfg.roi_heads.box_pooler.scales = [1 / stride for stride in STRIDES]
    cfg.roi_heads.num_classes = CLASSES
    for part in [part for part in cfg.roi_heads if part.startswith("mask_")]:
        del cfg.roi_heads[part]
    cfg.pixel_std = [57.375, 57.12, 58.395]


def _from_yaml() -> nn.Module:
    """Without a pyramid: the last stage of its ResNet is the box head."""
    cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = CLASSES
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 20
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    cfg.MODEL.PIXEL_STD = [57.375, 57.12, 58.395]
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    return build_model(cfg)


class Noting(DetectionCheckpointer):
    """Keeps what it would only log."""

    def _log_incompatible_keys(self, incompatible) -> None:
        assert not any(incompatible), incompatible
        self.complete = True


def check(name: str, folder: Path) -> None:
    """Stock model, stock loading, and the same detections."""
    model = stock_model(name).eval()
    checkpointer = Noting(model)
    checkpointer.load(str(folder / f"{name}.pth"))
    assert checkpointer.complete
    image, expected = torch.load(folder / "image.pt"), torch.load(folder / f"{name}.expected.pt")
    x = {"image": image, "height": image.shape[1], "width": image.shape[2]}
    with torch.no_grad():
        (found,) = model([x])
    found = found["instances"]
    assert len(found) == len(expected["scores"]) > 0
    torch.testing.assert_close(found.pred_boxes.tensor, expected["boxes"])
    torch.testing.assert_close(found.scores, expected["scores"])
    assert torch.equal(found.pred_classes, expected["classes"])
    DetectionCheckpointer(model, str(folder / "stock")).save(name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    (place / "stock").mkdir()
    for each in NAMES:
        check(each, place)
    try:
        import kddetr
    except ModuleNotFoundError:
        assert not [name for name in sys.modules if name.startswith("kddetr")]
        print("the same", *NAMES)
    else:
        raise AssertionError(kddetr)
