"""The training stream does not depend on workers, processes, resuming or unlabelled images."""

import itertools
import logging
import multiprocessing
import random

import numpy as np
import pytest
import torch
from detectron2.utils import comm

from kddetr.data import DatasetError, build_test_loader, build_train_loader


class _Mapper:
    """A mapper whose samples hold a number drawn from each of the three global generators."""

    def __init__(self, reject=()):
        self.reject = reject

    def __call__(self, record):
        if record["image_id"] in self.reject:
            return None
        draws = (random.random(), float(np.random.rand()), float(torch.rand(())))
        return {"image_id": record["image_id"], "draws": draws}


def _records(count, first=0):
    return [{"image_id": first + i} for i in range(count)]


def _loader(**changes):
    options = {"dataset": _records(10), "mapper": _Mapper(), "total_batch_size": 4, "seed": 7}
    return build_train_loader(**options | changes)


def _take(loader, count):
    iterator = iter(loader)
    try:
        return list(itertools.islice(iterator, count))
    finally:
        iterator.close()


UNLABELED = {"unlabeled": _records(9, 100), "unlabeled_mapper": _Mapper(), "unlabeled_per_batch": 2}


def test_the_stream_depends_on_the_seed_alone():
    assert _take(_loader(), 6) == _take(_loader(), 6)
    assert _take(_loader(), 6) != _take(_loader(seed=8), 6)


def test_a_resumed_stream_continues_the_whole_one():
    whole = _take(_loader(**UNLABELED), 12)
    for start in (1, 5, 11):
        loader = _loader(**UNLABELED)
        iterator = iter(loader)  # made before start_iteration is set, as Detectron2's trainer does
        loader.start_iteration = start
        assert list(itertools.islice(iterator, 12 - start)) == whole[start:]


def test_start_iteration_cannot_be_set_after_the_first_batch():
    loader = _loader()
    _take(loader, 1)
    with pytest.raises(RuntimeError, match="before the first batch"):
        loader.start_iteration = 3
    with pytest.raises(ValueError, match="negative"):
        _loader().start_iteration = -1


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_load_the_same_batches_and_end(workers):
    assert _take(_loader(num_workers=workers, **UNLABELED), 7) == _take(_loader(**UNLABELED), 7)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_share_the_batches_of_a_single_one(monkeypatch, world):
    options = {"total_batch_size": 12, "unlabeled_per_batch": 4}
    single = _take(_loader(**UNLABELED | options), 5)
    monkeypatch.setattr(comm, "get_world_size", lambda: world)
    shares = []
    for rank in range(world):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(_take(_loader(**UNLABELED | options), 5))
    for iteration, batch in enumerate(single):
        together = [sample for share in shares for sample in share[iteration]]
        assert all(len(share[iteration]) == 12 // world for share in shares)
        key = lambda s: s["image_id"]  # noqa: E731
        assert sorted(together, key=key) == sorted(batch, key=key)
        assert all(sum(s["image_id"] >= 100 for s in sh[iteration]) == 4 // world for sh in shares)


def test_every_epoch_is_a_new_permutation():
    samples = [s["image_id"] for batch in _take(_loader(total_batch_size=5), 8) for s in batch]
    epochs = [samples[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_unlabelled_images_do_not_change_the_labelled_stream():
    alone = _take(_loader(total_batch_size=2), 10)
    mixed = _take(_loader(total_batch_size=4, **UNLABELED), 10)
    assert [batch[:2] for batch in mixed] == alone
    assert all(sample["image_id"] >= 100 for batch in mixed for sample in batch[2:])


def test_loading_does_not_change_the_global_generators():
    for workers in (0, 1):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        _take(_loader(num_workers=workers), 3)
        drawn = random.random(), np.random.rand(), torch.rand(())
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        assert drawn == (random.random(), np.random.rand(), torch.rand(()))


def test_rejected_images_are_replaced_the_same_way_every_time():
    mapper = _Mapper(reject={0, 1, 2, 5})
    first = _take(_loader(mapper=mapper), 5)
    assert first == _take(_loader(mapper=mapper, num_workers=2), 5)
    assert {s["image_id"] for batch in first for s in batch} <= {3, 4, 6, 7, 8, 9}
    for workers in (0, 1):
        loader = _loader(mapper=_Mapper(reject=set(range(10))), num_workers=workers)
        with pytest.raises(DatasetError, match="returned None for all 10 images"):
            _take(loader, 1)


def test_without_a_seed_the_processes_agree_on_one(monkeypatch):
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 7)
    for seed in (None, -1):
        assert _take(_loader(seed=seed), 2) == _take(_loader(), 2)


def test_the_sizes_of_the_loader():
    loader = _loader(**UNLABELED)
    assert loader.total_batch_size == 4
    assert [len(stream.records) for stream in loader.streams] == [10, 9]


def test_the_log_says_that_unlabelled_images_are_not_used(caplog):
    caplog.set_level(logging.INFO, logger="kddetr")
    assert len(_loader(unlabeled=_records(9)).streams) == 1
    assert "None of the 9 unlabelled images is used: set dataloader.train.unl" in caplog.text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dataset": []}, "training data set is empty"),
        ({"total_batch_size": 11}, "takes 11 training images, but the data set has only 10"),
        (UNLABELED | {"unlabeled": []}, "unlabelled data set is empty: .*per_batch=0"),
        (UNLABELED | {"unlabeled": _records(1)}, "takes 2 unlabelled images"),
    ],
)
def test_a_data_set_smaller_than_its_share_of_a_batch_is_refused(changes, sentence):
    with pytest.raises(DatasetError, match=sentence):
        _loader(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"total_batch_size": 0}, "must be positive"),
        ({"unlabeled_per_batch": 4}, "every batch needs a labelled image"),
        ({"unlabeled_per_batch": 2}, "give the loader `unlabeled` images"),
    ],
)
def test_batch_sizes_out_of_range_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        _loader(**changes)


def test_a_batch_that_cannot_be_divided_among_the_processes_is_refused(monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    with pytest.raises(ValueError, match="multiple of 3"):
        _loader(total_batch_size=4)
    with pytest.raises(ValueError, match=r"unlabeled_per_batch \(2\)"):
        _loader(total_batch_size=6, **UNLABELED)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_every_test_image_comes_once_and_in_order(size):
    records = [x | {"height": 40, "width": 56} for x in _records(7)]
    loader = build_test_loader(dataset=records, mapper=_Mapper(), batch_size=size)
    batches = [[x["image_id"] for x in batch] for batch in loader]
    assert list(itertools.chain(*batches)) == list(range(7))
    assert len(batches) == len(loader) == -(-7 // size)


def test_test_images_of_different_or_unknown_sizes_are_not_padded_to_one_batch():
    heights = [40, 40, 40, 48, 40, None, None]
    records = [
        x | ({} if height is None else {"height": height, "width": 56})
        for x, height in zip(_records(7), heights, strict=True)
    ]
    loader = build_test_loader(dataset=records, mapper=_Mapper(), batch_size=2)
    batches = [[x["image_id"] for x in batch] for batch in loader]
    assert batches == [[0, 1], [2], [3], [4], [5], [6]]


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": 1.5}, {"num_workers": -1}])
def test_numbers_of_the_test_loader_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build_test_loader(dataset=_records(2), mapper=_Mapper(), **wrong)
