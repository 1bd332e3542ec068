"""The memory that there is, and batches that fit it."""

import resource
import sys

import pytest
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.memory import Budget, available_memory, freed_blocks_kept, memory_size, ran_out


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults are counted on Linux")
def test_freed_blocks_serve_again_while_they_are_kept():
    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.zeros(2**24)  # 64 MB, 16,384 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with freed_blocks_kept():
        torch.zeros(2**24)
        assert faults() < 16384
    assert faults() > 3 * 16384
