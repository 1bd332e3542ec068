"""What the verdict of a comparison tells of pairs of layers."""

from dataclasses import replace

import numpy as np
import pytest
from ctinv.invariance.comparing.page import _sizes
from ctinv.invariance.comparing.record import ComparisonResult, OneSided, Place

NOTHING = np.zeros((2, 2), dtype=np.float32)


def place(name, sizes):
    """A slice with one pair for each size; 1 HU is what every layer hides."""
    pairs = tuple(
        OneSided(f"A{k}", "B", NOTHING, NOTHING, size, 0.03, 0.5, 1.0) for k, size in enumerate(sizes)
    )
    return Place(name, NOTHING, None, ("A", "B"), NOTHING, NOTHING, NOTHING, pairs)


def verdict(*places):
    return ComparisonResult(0.03, (), (), places).verdict


def test_few_pairs_are_all_told_the_largest_first():
    said = verdict(place("one", [0.2, 3.0, 5.0]))
    assert [line.split(":")[0] for line in said[:2]] == [
        "Hidden from A2, visible to B",
        "Hidden from A1, visible to B",
    ]
    assert said[2].startswith("Nothing of note is hidden from A0")


def test_of_many_pairs_the_largest_are_told_and_the_others_counted():
    said = verdict(place("one", [0.1] * 9 + [2.0, 4.0, 3.0]))
    assert [line.split(",")[0].rpartition(" ")[2] for line in said[:3]] == ["A10", "A11", "A9"]
    assert said[3:] == ["In 9 of 12 pairs nothing of note is hidden from one and visible to the other."]


@pytest.mark.parametrize("count", [7, 30])
def test_more_of_note_than_are_told_stand_in_the_tables(count):
    said = verdict(place("one", 2 + np.arange(count, dtype=float)))
    assert len(said) == 7
    assert (
        said[-1]
        == {
            7: "1 further pair of note stands in the tables below.",
            30: "24 further pairs of note stand in the tables below.",
        }[count]
    )


def test_of_several_slices_each_is_named():
    said = verdict(place("one", [2.0]), place("two", [3.0]), place("three", []))
    assert [line.split(":")[0] for line in said] == ["two", "one"]


def test_a_pair_that_was_not_compared_is_not_called_nothing():
    compared = replace(place("one", [2.0]), labels=("A0", "B"))
    matrix = _sizes(compared)
    assert matrix.missing == "not compared"
    assert [[cell and cell.text for cell in row] for row in matrix.cells] == [[None, "2.00 HU"], [None, None]]
