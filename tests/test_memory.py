"""Imports are kept from the garbage collector, which otherwise works as before."""

import gc
import weakref

from glimpse.memory import without_collection


class Node:
    """It can refer to itself, so that only the collector can remove it."""

    itself: "Node"


def test_what_is_made_inside_stays_and_what_comes_later_is_collected() -> None:
    gc.collect()
    before = gc.get_freeze_count()
    with without_collection("a module that nobody has imported"):
        assert not gc.isenabled()
        kept = [Node() for _ in range(10)]
    try:
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(kept)
        later = Node()
        later.itself = later
        alive = weakref.ref(later)
        del later
        gc.collect()
        assert alive() is None
    finally:
        gc.unfreeze()


def test_the_second_run_of_a_process_leaves_nothing_out() -> None:
    before = gc.get_freeze_count()
    with without_collection("glimpse.memory"):
        assert gc.isenabled()
    assert gc.get_freeze_count() == before
