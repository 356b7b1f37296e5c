"""The cache of plans and programs: what was used last stays, and what it says of its size is true."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter

from app.services.cache import Cache
from app.services.computing import Planned
from app.settings import Settings
from engine.core import Graph, Node
from tests.support.asking import compiled_question


def test_the_least_recently_used_goes_first() -> None:
    cache: Cache[str] = Cache(30)
    for key in "abc":
        cache.put(key, key.upper(), 10)
    assert cache.get("a") == "A"
    cache.put("d", "D", 10)
    assert [cache.get(key) for key in "abcd"] == ["A", None, "C", "D"]


def test_what_is_larger_than_all_the_room_is_not_kept() -> None:
    cache: Cache[str] = Cache(30)
    cache.put("a", "A", 10)
    cache.put("b", "B", 31)
    assert (cache.get("a"), cache.get("b"), cache.bytes) == ("A", None, 10)


def test_a_key_that_is_kept_again_counts_once() -> None:
    cache: Cache[int] = Cache(30)
    for size in (10, 20, 5):
        cache.put("a", size, size)
    assert (cache.get("a"), cache.bytes, len(cache)) == (5, 5, 1)


def test_a_value_is_made_once_and_then_found() -> None:
    cache: Cache[list[int]] = Cache(30)
    made = [cache.of("a", lambda: [1], len) for _ in range(3)]
    assert made[0] is made[1] is made[2]
    assert (cache.hits, cache.misses) == (2, 1)


def test_many_threads_leave_the_account_right() -> None:
    cache: Cache[int] = Cache(1000)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(2000):
            key = rng.randrange(200)
            assert cache.of(key, lambda key=key: key, lambda value: 1 + value % 30) == key

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.bytes == sum(1 + key % 30 for key in range(200) if cache.get(key) is not None) <= 1000
    assert cache.hits > 0


def test_a_plan_that_goes_leaves_nothing_to_the_collector() -> None:
    """Which looks at what has lived long once in tens of thousands of plans."""
    settings = Settings(store="memory")
    cache: Cache[Planned] = Cache(1)
    loop = "step(c) = c * sin(c)\ny = sum(scan(step, x, length=3))"
    gc.collect()
    gc.disable()
    try:
        before = Counter(type(each) for each in gc.get_objects())
        for text in ("y = sum(x**2 + 3 * x)", loop):
            planned = Planned(compiled_question("grad", text, {"x": [1.0, 2.0]}).lasting(), settings)
            cache.put(text, planned, 1)
        del planned
        cache.drop(text)
        after = Counter(type(each) for each in gc.get_objects())
    finally:
        gc.enable()
    assert (after[Node] - before[Node], after[Graph] - before[Graph]) == (0, 0)
