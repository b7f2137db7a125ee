"""Times of what is compared, taken in turns."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any


def interleaved(
    variants: dict[str, Callable[[], Any]], repeat: int, warm_up: int = 1
) -> dict[str, tuple[float, float]]:
    """(CPU, wall) seconds of each, medians of `repeat` rounds after those that warm up."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for number in range(warm_up + repeat):
        for name, run in variants.items():
            time.sleep(0.2)  # the threads of the one before stop waiting for more work, which is processor time, too
            began = time.process_time(), time.perf_counter()
            run()
            if number >= warm_up:
                took[name].append((time.process_time() - began[0], time.perf_counter() - began[1]))
    return {name: (median(cpu for cpu, _ in both), median(wall for _, wall in both)) for name, both in took.items()}
