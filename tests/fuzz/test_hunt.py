"""The search itself: it finds what breaks a property, and shortens the example."""

import random

import pytest

from kddetr.errors import ConfigError
from tests.fuzz.hunt import BrokenError, fault, hunt, outcome, shortest


def check(edits: list) -> None:
    """Accepts "a", refuses "r", and breaks at "b" after "x" or with an error at "e"."""
    names = "".join(name for name, *_ in edits)
    if "xb" in names:
        raise BrokenError("a wrong result: 7")
    if "e" in names:
        raise KeyError("e")
    if "r" in names:
        raise ConfigError("This is refused in a sentence.")


def test_outcomes():
    assert outcome(check, [("a", 1)]) == ("accepted", "")
    assert outcome(check, [("r", 1)]) == ("refused", "This is refused in a sentence.")
    assert outcome(check, [("x",), ("b",)]) == ("a wrong result", "a wrong result: 7")
    assert outcome(check, [("e",)])[0].startswith("KeyError in ")


def test_an_example_is_shortened():
    edits = [("a",), ("x",), ("b", 2), ("e",)]
    assert shortest(check, edits, "a wrong result") == [("x",), ("b", 2)]


@pytest.mark.examples(40, 1)
@pytest.mark.parametrize(("names", "kind"), [("are", "KeyError in"), ("arxb", "a wrong result")])
def test_failures_are_reported(request, names, kind):
    def draw(rng: random.Random) -> list:
        return [(rng.choice(names), number) for number in range(3)]

    with pytest.raises(pytest.fail.Exception, match=rf"--- {kind}.*\n(.*\n)*  \S+/\d+: \("):
        hunt(draw, check, request)


@pytest.mark.examples(40, 1)
@pytest.mark.parametrize("names", ["a", "r"])
def test_a_search_that_can_find_nothing_fails(request, names):
    with pytest.raises(AssertionError, match=r"0 of \d+ .* draw others"):
        hunt(lambda rng: [(names,)], check, request)


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "too short.",
        "one\nafter another.",
        "a \ud800 in a message.",
        "it holds an <X object at 0x7f>.",
        "long. " * 999,
    ],
)
def test_messages_that_are_no_sentence(sentence):
    assert fault(sentence)
    assert not fault("The key train.x is unknown; did you mean train.y?")
