"""What trains and scores, and how much it can score at once."""

import os

from recommender.errors import NoDevice
from recommender.grid import GROUP
from recommender.tensorflow import device_lib, tf

_BYTES_PER_PAIR = 16
"""Score, masked copy, finite test and top-N's own working space."""
_CACHED = 1 << 24
"""Pairs in a block that a CPU is fastest with: 64 MiB of scores."""
_MOST_USERS = 16384
_LARGEST_GRID = 2**31 - 1
"""TensorFlow's kernels index with 32 bits."""
_GPU_SHARE, _GPU_MOST = 2, 8 * 2**30
"""Of a GPU's free memory half is used for scores, and no more bytes than that."""
_CPU_SHARE, _CPU_MOST = 4, 2**30


def demand(wanted: str) -> None:
    """Raise `NoDevice` where `gpu` is wanted and TensorFlow finds none. `cpu` hides GPUs before TensorFlow is imported."""
    if wanted == "gpu" and not _gpus():
        raise NoDevice


def block_users(candidates: int, memory: int | None = None) -> int:
    """How many users to score at once within `memory` bytes (default: what the device has to spare)."""
    budget = _spare_memory() if memory is None else memory
    most = (_LARGEST_GRID if _gpus() else _CACHED) // candidates
    users = min(budget // (_BYTES_PER_PAIR * candidates), most, _MOST_USERS)
    return max(GROUP, users // GROUP * GROUP)


def rounds(precision: str) -> bool:
    """Whether a product is to be rounded first (`recommender.rounded`): `auto` does on a GPU, whose tensor cores gain by it."""
    return precision == "tf32" or (precision == "auto" and bool(_gpus()))


def name() -> str:
    """What scores: `cpu`, or the name of the GPU."""
    found = _gpus()
    return str(tf.config.experimental.get_device_details(found[0]).get("device_name", "gpu")) if found else "cpu"


def _gpus() -> list[object]:
    return list(tf.config.list_physical_devices("GPU"))


def _spare_memory() -> int:
    """Bytes to use for the grid: half of a GPU's free memory (at most 8 GiB), or a quarter of free RAM (at most 1 GiB)."""
    if _gpus():
        return min(_free_on_gpu() // _GPU_SHARE, _GPU_MOST)
    return min(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _CPU_SHARE, _CPU_MOST)


def _free_on_gpu() -> int:
    """Free bytes of the first GPU: as its driver says, where nvidia-ml-py is installed (the extra `gpu`), else of TensorFlow's.

    The driver counts as free what TensorFlow has not taken yet: `recommender.tensorflow` lets it take memory as it needs it.
    """
    try:
        import pynvml
    except ImportError:
        limit = next(found.memory_limit for found in device_lib.list_local_devices() if found.device_type == "GPU")
        return int(limit) - int(tf.config.experimental.get_memory_info("GPU:0")["current"])
    pynvml.nvmlInit()
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).free)
