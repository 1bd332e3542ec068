"""Work divided between threads."""

import threading
import time

import pytest
from ctinv.invariance.infra.threads import divided


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order(workers):
    def slow_at_first(number):
        time.sleep(0.02 if number == 0 else 0)
        return number, threading.get_ident()

    found = list(divided(slow_at_first, 9, workers))
    assert [number for number, _ in found] == list(range(9))
    own = threading.get_ident()
    assert all((thread == own) == (workers == 1) for _, thread in found)


def test_each_thread_is_prepared_once():
    prepared = []
    both = threading.Barrier(2)
    list(divided(lambda _: both.wait(10), 2, 2, lambda: prepared.append(threading.get_ident())))
    assert len(set(prepared)) == len(prepared) == 2


@pytest.mark.parametrize("stop", ["error", "caller"])
def test_nothing_new_begins_after_a_stop(stop):
    begun = []

    def work(number):
        begun.append(number)
        time.sleep(0.005)
        if stop == "error" and number == 1:
            raise ValueError("no")
        return number

    results = divided(work, 1000, 2)
    if stop == "error":
        with pytest.raises(ValueError, match="no"):
            list(results)
    else:
        next(results)
        results.close()
    assert len(begun) < 500
