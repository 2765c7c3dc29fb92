"""When free heap memory is returned to the system."""

from __future__ import annotations

from types import SimpleNamespace

from embedline.training.engine.malloc_trim import MallocTrim


def test_free_memory_is_returned_when_the_heap_has_grown() -> None:
    """The mapped file of the data does not count; after a trim the next chunk sets the level again."""
    malloc_trim, given = MallocTrim(), []
    malloc_trim._trim = lambda keep: given.append(len(given))
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
        malloc_trim._process = SimpleNamespace(memory_info=lambda memory=memory: memory)
        malloc_trim.after_chunk()
        assert len(given) == trimmed, (resident, shared)


def test_the_memory_of_this_process_is_measured_and_returned() -> None:
    malloc_trim = MallocTrim()
    malloc_trim.after_chunk()
    malloc_trim._level = -(2**40)
    malloc_trim.after_chunk()
    assert malloc_trim._trim is None or malloc_trim._level is None
