"""The display on a terminal: what it shows, and that the log goes on above it."""

import importlib.util
import io
import json
import logging
import sys
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage

from kddetr.checkpoint import Checkpointer
from kddetr.engine import BestCheckpoint, ConfigError
from kddetr.engine.progress import ProgressHook, teacher_ap, wants_display
from kddetr.engine.writers import LossPrinter

rich = pytest.importorskip("rich.console")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_display_shows_losses_by_group_and_the_ap_beside_the_teachers(tmp_path, monkeypatch):
    (tmp_path / "preflight.json").write_text(json.dumps({"teacher": {"AP": 41.2}}))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    handler = logging.StreamHandler(sys.stdout)
    log = logging.getLogger("kddetr.engine.writers")
    monkeypatch.setattr(log, "handlers", [handler])
    monkeypatch.setattr(log, "level", logging.INFO)
    best = BestCheckpoint(Checkpointer(SimpleNamespace(), str(tmp_path)), "bbox/AP")
    best.value = 33.0
    console = rich.Console(file=terminal, force_terminal=True, width=110, color_system=None)
    hook = ProgressHook(str(tmp_path), best, console)
    with EventStorage(0) as storage:
        hook.trainer = SimpleNamespace(storage=storage, iter=0, max_iter=1200)
        hook.before_train()
        values = {"total_loss": 3.5, "losses/detection": 2.0, "losses/kd_general": 1.5}
        storage.put_scalars(**values, time=0.5, data_time=0.1, lr=1e-4, grad_norm=7.0)
        storage.put_scalars(**{"bbox/AP": 31.25}, smoothing_hint=False)
        LossPrinter(1200).write()  # whose line is in log.txt only
        log.warning("a line of the log")
        hook.after_step()
        hook.after_train()
        log.warning("after the end")
    shown = terminal.getvalue()
    for words in (
        *("1 of 1,200 iterations, 0.1%", "0:09:59 left", "detection 2 ", "kd_general 1.5"),
        *("gradient norm 7", "last 31.2", "best 33.0", "teacher 41.2", "a line of the log"),
    ):
        assert words in shown, words
    assert "iter: 1/1200" not in shown
    assert shown.endswith("after the end\n")
    assert handler.stream is sys.stdout is terminal and not handler.filters


def test_where_the_display_is_wanted(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert [wants_display(x) for x in ("auto", "rich", "plain")] == [True, True, False]
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # a file, or a pipe
    assert [wants_display(x) for x in ("auto", "rich", "plain")] == [False, True, False]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not wants_display("auto")
    with pytest.raises(ConfigError, match="rich, which is not installed: pip install rich"):
        wants_display("rich")


@pytest.mark.parametrize("text", ["", "[]", '{"teacher": null}', '{"teacher": {}}'])
def test_a_preflight_without_the_teachers_ap(tmp_path, text):
    assert teacher_ap(str(tmp_path)) is None
    (tmp_path / "preflight.json").write_text(text)
    assert teacher_ap(str(tmp_path)) is None
