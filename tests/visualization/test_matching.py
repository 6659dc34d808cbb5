"""Objects found and missed and false detections, for boxes whose IoU is obvious."""

import torch

from kddetr.visualization import match_detections


def counts(boxes, scores, classes, gt_boxes, gt_classes) -> str:
    return str(
        match_detections(
            boxes=torch.tensor(boxes).reshape(-1, 4),
            scores=torch.tensor(scores),
            classes=torch.tensor(classes, dtype=torch.int64),
            gt_boxes=torch.tensor(gt_boxes).reshape(-1, 4),
            gt_classes=torch.tensor(gt_classes, dtype=torch.int64),
        )
    )


UNIT = [0.0, 0.0, 10.0, 10.0]
FAR = [50.0, 50.0, 60.0, 60.0]


def test_iou_class_and_duplicates_decide():
    half = [0.0, 0.0, 10.0, 5.0]  # IoU 0.5 exactly: still a match
    less = [0.0, 0.0, 10.0, 4.9]
    assert counts([half], [0.9], [3], [UNIT], [3]) == "1 found, 0 missed, 0 false"
    assert counts([less], [0.9], [3], [UNIT], [3]) == "0 found, 1 missed, 1 false"
    assert counts([UNIT], [0.9], [2], [UNIT], [3]) == "0 found, 1 missed, 1 false"
    assert counts([UNIT, half], [0.9, 0.8], [3, 3], [UNIT], [3]) == "1 found, 0 missed, 1 false"
    assert counts([UNIT, FAR], [0.9, 0.8], [3, 1], [FAR, UNIT], [1, 3]) == (
        "2 found, 0 missed, 0 false"
    )


def test_higher_score_is_matched_first():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 6.0], UNIT])
    matching = match_detections(
        boxes=boxes,
        scores=torch.tensor([0.5, 0.9]),
        classes=torch.tensor([0, 0]),
        gt_boxes=torch.tensor([FAR, UNIT]),
        gt_classes=torch.tensor([0, 0]),
    )
    assert matching.correct.tolist() == [False, True]
    assert matching.missed.tolist() == [True, False]


def test_nothing_on_either_side():
    assert counts([], [], [], [UNIT], [0]) == "0 found, 1 missed, 0 false"
    assert counts([UNIT], [0.5], [0], [], []) == "0 found, 0 missed, 1 false"
    assert counts([], [], [], [], []) == "0 found, 0 missed, 0 false"
