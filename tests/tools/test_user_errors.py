"""How a program ends after an error that the user can put right."""

import pytest

from kddetr.data import DatasetError
from kddetr.errors import ConfigError, exit_on_user_error
from runs import program


@pytest.mark.parametrize("error", [ConfigError("a sentence"), OSError("a sentence")], ids=repr)
def test_user_error_is_one_sentence_and_exit_code_2(error, capsys):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise error
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: a sentence\n"


def test_the_error_of_a_worker_is_shown_without_its_traceback(capsys):
    inside = "Caught DatasetError in worker 0.\nOriginal Traceback ...\nDatasetError: a.png is cut."
    with pytest.raises(SystemExit), exit_on_user_error():
        raise DatasetError(inside)
    assert capsys.readouterr().err == "error: DatasetError: a.png is cut.\n"


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        raise ZeroDivisionError


def test_stopped_run_says_how_to_go_on():
    with pytest.raises(SystemExit, match="the same command goes on from here"), program():
        raise KeyboardInterrupt
