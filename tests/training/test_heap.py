"""When free memory goes back to the system."""

from __future__ import annotations

from types import SimpleNamespace

from embedline.training.engine.malloc_trim import Heap


def test_free_memory_goes_back_when_it_grows_beyond_what_a_chunk_leaves() -> None:
    """The mapped file of the data is not the heap's; after a trim the next chunk says anew what is usual."""
    heap, given = Heap(), []
    heap._trim = lambda keep: given.append(len(given))
    megabyte = 2**20
    # Resident and shared memory at the end of each chunk.
    for resident, shared, trimmed in (
        (900, 100, 0),
        (920, 100, 0),
        (2000, 1150, 0),  # only the file
        (950, 20, 1),  # 130 more than at first
        (980, 20, 1),  # the new level
        (1080, 20, 1),
        (1110, 20, 2),
    ):
        memory = SimpleNamespace(rss=resident * megabyte, shared=shared * megabyte)
        heap._process = SimpleNamespace(memory_info=lambda memory=memory: memory)
        heap.settle()
        assert len(given) == trimmed, (resident, shared)


def test_the_memory_of_this_process_can_be_asked_for_and_given_back() -> None:
    heap = Heap()
    heap.settle()
    heap._level = -(2**40)
    heap.settle()
    assert heap._trim is None or heap._level is None
