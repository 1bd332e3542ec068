"""Cases of a run: an order that never changes, folders of their own, shards that divide them."""

import itertools

import pytest
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.runs.cases import Plan, Shard, folder_names
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.lists(st.sampled_from(["a", "A", "a-2", "b/c", "b_c", "", "..", "é", "x" * 300]), max_size=6)


@given(NAMES)
def test_folder_names_are_safe_and_differ_also_where_case_does_not_count(names):
    found = folder_names(names)
    assert len({name.lower() for name in found}) == len(names)
    assert all(name and "/" not in name and not name.startswith(".") and len(name) < 130 for name in found)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 9), st.integers(1, 12), st.booleans())
def test_shards_hold_every_case_once(models, layers, slices, count, by_slice):
    plan = Plan(
        tuple("m" * models),
        (tuple("l" * layers),) * models,
        tuple("s" * slices),
        by_slice,
    )
    every = list(plan)
    assert len(every) == len(plan) == models * layers * slices
    parts = [list(Shard(number, count).of(iter(plan))) for number in range(1, count + 1)]
    assert sorted(itertools.chain(*parts), key=every.index) == every
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    if by_slice or slices == 1:
        assert len({case.folder for case in every}) == len(every)


@pytest.mark.parametrize(
    ("models", "layers", "slices", "folder", "places"),
    [
        ("m", "l", "s", False, ["."]),
        ("m", "l", "s", True, ["s"]),
        ("m", "kl", "s", False, ["k", "l"]),
        ("mn", "l", "s", False, ["m", "n"]),
        ("m", "l", "st", True, ["s", "t"]),
        ("mn", "kl", "st", True, [f"{m}/{s}/{k}" for m in "mn" for s in "st" for k in "kl"]),
    ],
)
def test_only_levels_with_several_members_have_folders(models, layers, slices, folder, places):
    plan = Plan(tuple(models), (tuple(layers),) * len(models), tuple(slices), folder)
    assert [case.folder.as_posix() for case in plan] == places
    assert plan.single is (places == ["."])


def test_models_may_have_layers_of_their_own():
    plan = Plan(("m", "n"), (("k",), ("k", "l")), ("s",))
    assert [case.folder.as_posix() for case in plan] == ["m", "n/k", "n/l"]
    assert [(case.model, case.layer) for case in plan] == [(0, 0), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    "text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2", "1/9" + "9" * 9]
)
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(CtinvError, match="write i/N"):
        Shard.parse(text)
