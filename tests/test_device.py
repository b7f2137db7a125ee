"""What scores and how much at once. There is no GPU where the tests run: TensorFlow and NVML are told that there is one."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from recommender import device
from recommender.errors import NoDevice
from recommender.grid import GROUP
from recommender.tensorflow import tf


@pytest.mark.parametrize("movies", [1, 500, 10_000, 2_000_000, 2**31])
def test_a_block_is_whole_groups_that_fit_or_one_group(movies: int) -> None:
    for memory in (0, 2**20, 2**30, 2**40):
        users = device.block_users(movies, memory)
        assert users % GROUP == 0
        assert users == GROUP or (users * movies * 16 <= memory and users * movies < 2**31 and users <= 16384)
    assert device.block_users(movies) >= GROUP


def pretend(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """A GPU with so much free memory."""
    nvml = ModuleType("pynvml")
    nvml.__dict__.update(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(free=free),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])


@pytest.mark.parametrize(
    ("free", "movies", "expected"),
    [(2**30, 60_000, 2**29), (2**34, 60_000, 2**33), (2**40, 60_000, 2**33), (2**40, 2**20, 2**33)],
)
def test_half_of_a_gpu_s_free_memory_is_for_scores_and_8_gib_at_most(
    monkeypatch: pytest.MonkeyPatch, free: int, movies: int, expected: int
) -> None:
    pretend(monkeypatch, free)
    users = device.block_users(movies)
    assert users == min(expected // (16 * movies) // GROUP * GROUP, 16384)
    assert users * movies < 2**31


def test_few_bits_and_a_demand_for_a_gpu_hang_on_there_being_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    with pytest.raises(NoDevice, match="finds no GPU"):
        device.demand("gpu")
    assert [device.rounds(precision) for precision in ("auto", "float32", "tf32")] == [False, False, True]
    pretend(monkeypatch, 2**30)
    device.demand("gpu")
    assert [device.rounds(precision) for precision in ("auto", "float32", "tf32")] == [True, False, True]
