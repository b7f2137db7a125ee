"""What scores, and how much it can score at once."""

import os

from recommender.grid import GROUP
from recommender.tensorflow import tf

_BYTES_PER_PAIR = 16
"""Score, masked copy, finite test and top-N's own working space."""
_CACHED = 1 << 24
"""Pairs in a block that a CPU is fastest with: 64 MiB of scores."""
_LARGEST_GRID = 2**31 - 1
"""TensorFlow's kernels index with 32 bits."""


def block_users(candidates: int, memory: int | None = None) -> int:
    """How many users to score at once within `memory` bytes (default: what the device has to spare)."""
    budget = _spare_memory() if memory is None else memory
    most = _LARGEST_GRID if tf.config.list_physical_devices("GPU") else _CACHED
    users = min(budget // (_BYTES_PER_PAIR * candidates), most // candidates, 16384)
    return max(GROUP, users // GROUP * GROUP)


def name() -> str:
    """What scores: `cpu`, or the name of the GPU."""
    found = tf.config.list_physical_devices("GPU")
    return str(tf.config.experimental.get_device_details(found[0]).get("device_name", "gpu")) if found else "cpu"


def _spare_memory() -> int:
    """Bytes to use for the grid: half of a GPU's free memory (at most 8 GiB), or a quarter of free RAM (at most 1 GiB)."""
    if tf.config.list_physical_devices("GPU"):
        import pynvml  # in the `gpu` extra

        pynvml.nvmlInit()
        free = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).free
        return min(int(free) // 2, 8 * 2**30)
    return min(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4, 2**30)
