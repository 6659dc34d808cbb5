"""The time of a training step, which depends on how many images a run meets for the first time."""

from types import SimpleNamespace

import pytest

from experiments import steps
from kddetr.data.loader import build_train_loader

NEW, KNOWN = 5.0, 1.0  # seconds that an image costs


def loader(labelled: int, unlabelled: int = 0):
    """A loader of 8 images, half of them unlabelled where there are any."""
    return build_train_loader(
        dataset=[{"id": i} for i in range(labelled)],
        mapper=dict,
        total_batch_size=8,
        seed=0,
        unlabeled=[{"id": -i - 1} for i in range(unlabelled)],
        unlabeled_mapper=dict,
        unlabeled_per_batch=4 if unlabelled else 0,
    )


class FakeTrainer:
    """A trainer whose steps take the more of a pretended time the more images are new."""

    clock = 0.0

    def __init__(self, data_loader):
        self.data_loader, self.seen, self.batches = data_loader, set(), None
        self.model = SimpleNamespace(train=lambda: None)

    def run_step(self):
        self.batches = self.batches or iter(self.data_loader)
        for image in next(self.batches):
            FakeTrainer.clock += KNOWN if image["id"] in self.seen else NEW
            self.seen.add(image["id"])


@pytest.mark.parametrize(
    "labelled, unlabelled, iterations, share",
    [
        (400, 0, 1000, 400 / 8000),
        (4000, 0, 1600, 4000 / 12800),
        (4000, 0, 100, 1.0),
        (100, 0, 1600, 100 / 12800),
        (300, 3700, 1000, (300 + 3700) / 8000),
        (300, 37000, 1000, (300 + 4000) / 8000),
    ],
)
def test_new_images_count_as_often_as_a_run_meets_them(
    monkeypatch, labelled, unlabelled, iterations, share
):
    monkeypatch.setattr(steps, "Trainer", FakeTrainer)
    monkeypatch.setattr(steps, "now", lambda: FakeTrainer.clock)
    one = loader(labelled, unlabelled)
    assert steps.new_share(one, iterations) == pytest.approx(share)
    found = steps.step_seconds({"x": one, "y": loader(400)}, {"x": iterations, "y": 50})
    assert found["x"] == pytest.approx(8 * (share * NEW + (1 - share) * KNOWN))
    assert found["y"] == pytest.approx(8 * NEW)
