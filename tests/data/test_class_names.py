"""The words in which two lists of class names differ."""

import random

import pytest

from kddetr.data import class_difference

MANY = [f"class {i}" for i in range(1000)]


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (
            ["a", "b", "c"],
            ["a", "c", "b"],
            "the same 3 classes in another order: class 1 is 'b' in the first and 'c' in the"
            " second",
        ),
        (["a", "b"], ["a", "x"], "class 1 is 'b' in the first and 'x' in the second"),
        (["cat"], [" Cat"], "'cat' of the first is written ' Cat' in the second"),
        (
            ["traffic light", "cat"],
            ["cat", "traffic_light"],
            "'traffic light' of the first is written 'traffic_light' in the second; the classes"
            " that both have are in another order",
        ),
        (
            ["a", "b", "c"],
            ["a", "c"],
            "the first has 3 classes and the second 2; only the first has 'b'",
        ),
        (
            ["a", "b", "c"],
            ["b", "d", "a"],
            "only the first has 'c'; only the second has 'd'; the classes that both have are in"
            " another order",
        ),
        (["a", "a", "b"], ["a", "b", "b"], "class 1 is 'a' in the first and 'b' in the second"),
        (
            MANY,
            [name.upper() + "!" for name in MANY[:500]] + MANY[500:],
            "'class 0' of the first is written 'CLASS 0!' in the second; 'class 1' of the first is"
            " written 'CLASS 1!' in the second; 'class 2' of the first is written 'CLASS 2!' in the"
            " second; 497 more differ",
        ),
        (
            MANY,
            MANY[4:],
            "the first has 1000 classes and the second 996; only the first has 'class 0', 'class"
            " 1', 'class 2' and 1 more",
        ),
    ],
)
def test_what_is_missing_added_renamed_or_exchanged(one, other, words):
    assert class_difference(one, other) == words


def test_any_two_lists_differ_in_few_words_and_no_list_from_itself():
    dice = random.Random(0)
    alphabet = ["a", "A", "b", " ", "", "\n", "é", "x" * 900]
    for _ in range(300):
        one, other = ([dice.choice(alphabet) for _ in range(dice.randrange(5))] for _ in range(2))
        words = class_difference(one, other, "train.json", "val.json")
        assert bool(words) == (one != other)
        assert len(words) < 700 and len(words.splitlines()) == bool(words)
        assert class_difference(one, one) == ""
