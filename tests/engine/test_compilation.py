"""train.compile: which detectors are compiled, and that nothing but their speed changes."""

import copy

import pytest
import torch
from omegaconf import OmegaConf

from kddetr.detectors import detectron2_detector
from kddetr.engine import ConfigError, compilation
from kddetr.engine.compilation import compile_detectors
from kddetr.teachers import CachedEncoder
from tests.stock_models import tiny_faster_rcnn
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller


def wanted(student=False, teacher=False):
    return OmegaConf.create({"student": student, "teacher": teacher})


def is_compiled(module):
    return any(part._compiled_call_impl is not None for part in module.modules())


@pytest.fixture
def without_compiler(monkeypatch):
    """Only what is to be compiled is asked here."""
    monkeypatch.setattr(compilation, "_check_compiler", lambda *_: None)


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize("teacher", [False, True])
def test_what_the_config_wants_is_compiled(without_compiler, student, teacher):
    """Also inside of a wrapper; the names of the weights stay, and a copy is a plain detector."""
    distiller = tiny_distiller(tiny_detector("dino"), CachedEncoder(tiny_detector(seed=1)))
    names = [list(part.state_dict()) for part in (distiller.student, distiller.teacher)]
    compile_detectors(wanted(student, teacher), distiller)
    assert is_compiled(distiller.student) is student and is_compiled(distiller.teacher) is teacher
    assert names == [list(part.state_dict()) for part in (distiller.student, distiller.teacher)]
    assert not is_compiled(copy.deepcopy(distiller.student))


def test_a_detector_alone_and_a_model_of_detectron2(without_compiler):
    for detector in (tiny_detector(), detectron2_detector(tiny_faster_rcnn())):
        compile_detectors(wanted(teacher=True), detector)  # there is no teacher
        assert not is_compiled(detector)
        compile_detectors(wanted(student=True), detector)
        assert is_compiled(detector)


def test_where_it_does_not_work_a_sentence_says_so(monkeypatch):
    def fails(*_):
        raise RuntimeError("Dynamo is not supported on Python 3.99+")

    monkeypatch.setattr(torch, "compile", fails)
    compile_detectors(wanted(), tiny_detector())
    with pytest.raises(ConfigError, match=r"3\.99\+.*train\.compile\.student=false"):
        compile_detectors(wanted(student=True), tiny_detector())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own tracing
def test_a_compiled_detector_trains_alike():
    """What is compiled is what runs plainly. The programs are run by PyTorch, because translating
    them takes minutes.
    """
    plain, compiled = (tiny_detector("dino", decoder_layers=1) for _ in range(2))
    compiled.compile(backend="eager")
    found = []
    for model in (plain.train(), compiled.train()):
        torch.manual_seed(0)  # of the noise in denoising queries
        losses = model(tiny_batch(((40, 56), (40, 56))))
        sum(losses.values()).backward()
        found.append((losses, [p.grad for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
