"""The memory that there is, and batches that fit it."""

import ctypes

import psutil
import pytest
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.memory import Budget, available_memory, freed_blocks_kept, hand_back, ran_out
from ctinv.invariance.infra.sizes import memory_size


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), True),
        (RuntimeError("HIP out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_lack_of_memory_is_told_from_other_errors(error, counts):
    assert ran_out(error) is counts


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="broken"):
        Budget(4).run(lambda _: (_ for _ in ()).throw(RuntimeError("broken")))


@pytest.mark.parametrize(("memory", "batch"), [(10_000, 10), (500, 5), (99, 1), (1, 1)])
def test_memory_bounds_the_batch(memory, batch):
    budget = Budget(10, memory)
    budget.fit(100, torch.device("cpu"))
    assert budget.batch == batch


@pytest.mark.parametrize("text", ["", "much", "0GB", "-1GB", "1.5XB"])
def test_amounts_of_memory_that_make_no_sense(text):
    with pytest.raises(CtinvError, match="no amount of memory"):
        memory_size(text)


def test_some_memory_is_free():
    assert available_memory(torch.device("cpu")) > 10**7


class _Counts(ctypes.Structure):
    """What glibc's ``mallinfo2`` counts, by its names."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33 or later"
)


@needs_glibc
def test_large_blocks_come_from_the_heap_only_while_freed_ones_are_kept():
    library = ctypes.CDLL(None)
    count = library.mallinfo2
    count.restype = _Counts

    def from_the_system():
        library.malloc_trim(0)  # or room that other tests have left would do
        before = count().hblks
        large = torch.empty(2**27)  # 512 MB, none of it touched
        return count().hblks - before, len(large)

    assert from_the_system()[0] == 1
    with freed_blocks_kept():
        assert from_the_system()[0] == 0
    assert from_the_system()[0] == 1


@needs_glibc
def test_freed_blocks_stay_until_they_are_handed_back():
    def resident():
        return psutil.Process().memory_info().rss >> 20

    with freed_blocks_kept():
        before = resident()
        large = torch.ones(2**26)  # 256 MB
        barrier = torch.ones(2**10)  # what is in use above a hole keeps the heap's end where it is
        assert resident() - before > 200
        del large
        assert resident() - before > 200
        hand_back()
        assert resident() - before < 100
    assert barrier.sum() == 2**10


def test_without_glibc_nothing_is_handed_back(monkeypatch):
    def missing(_):
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    hand_back()
