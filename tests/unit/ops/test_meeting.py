"""Processes of one start agree on a name, whatever earlier starts have left in the store."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from tavq.ops.meeting import HELLO, agree_on_name

LONG, SHORT = timedelta(seconds=60), timedelta(seconds=0.3)


def start(store: dist.Store, ranks: list[int], world: int, timeout: timedelta = LONG) -> list[str]:
    """The name that each of these processes gets, which come in this order."""

    def join(position: int) -> str:
        time.sleep(0.03 * position)
        return agree_on_name(store, ranks[position], world, timeout)

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(join, range(len(ranks))))


@pytest.mark.parametrize("seed", range(4))
def test_each_start_has_one_name_of_its_own(seed: int) -> None:
    store, names = dist.HashStore(), set()
    shuffle = random.Random(seed).shuffle
    for world in (3, 3, 4, 2):
        ranks = list(range(world))
        shuffle(ranks)
        found = start(store, ranks, world)
        assert len(set(found)) == 1
        names |= set(found)
    assert len(names) == 4


@pytest.mark.parametrize("came", [[1], [0], [1, 2], [0, 2]])
def test_a_start_that_not_all_reached_disturbs_no_later_one(came: list[int]) -> None:
    """The others were killed, or their host."""
    store = dist.HashStore()
    with pytest.raises(dist.DistError, match="waited 0:00:00"):
        start(store, came, 3, SHORT)
    assert len(set(start(store, [2, 1, 0], 3))) == 1


def test_a_word_of_an_earlier_start_is_not_taken_for_a_process() -> None:
    store = dist.HashStore()
    store.set(HELLO.format(1), "gone")
    with pytest.raises(dist.DistError):
        agree_on_name(store, 0, 2, SHORT)
    assert len(set(start(store, [0, 1], 2))) == 1
