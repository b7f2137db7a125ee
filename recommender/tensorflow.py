"""TensorFlow and TensorFlow Recommenders, imported quietly and with the Keras that TFRS needs.

Import `tf` from here only.
"""

import ctypes
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from recommender import together

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TFRS 0.7 needs Keras 2; read when tf.keras is first touched
# TensorFlow leaves oneDNN off where a processor has no AVX-512: its own matrix products take twice the time there.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # 0, as --debug has it: all that it has to say, from the import on
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"
"""What recjob compiles is small and run by a pool of threads: XLA's own would only wait for each other."""
if _ONE_THREAD not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_ONE_THREAD}".strip()

_KEPT = {-8: 1, -3: 80 << 20, -1: 512 << 20}
"""What malloc.h calls M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD: blocks of up to 80 MiB, as each step of training
and each block of scores has dozens of, come from one heap that keeps up to 512 MiB at its end. By the C library's own choice
they are given back and taken anew from the system, and touching them for the first time is a fifth of a step."""
_own = ctypes.CDLL(None)  # this process; glibc has both, other C libraries have neither
_mallopt, _trim = getattr(_own, "mallopt", None), getattr(_own, "malloc_trim", None)
if _mallopt:
    for _option, _value in _KEPT.items():
        _mallopt(_option, _value)


@contextmanager
def _native_stderr_held() -> Iterator[None]:
    """Keep what native code writes to stderr off the screen; show it after all if the block fails.

    TensorFlow writes lines from C++ before its log level applies, so Python's `sys.stderr` is the wrong place to catch them.
    """
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0":
        yield
        return
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # not a signal, of which TensorFlow has nothing to tell
            held.seek(0)
            os.write(screen, held.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)


@contextmanager
def _for_good() -> Iterator[None]:
    """Keep what is made here from the garbage collector: none of it is ever garbage, and going through 270,000 objects again
    and again is a fifth of the import, and most of what the end of the process takes.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


with _native_stderr_held(), _for_good():
    import tensorflow as tf
    import tensorflow_recommenders as tfrs
    from tensorflow.python.client import device_lib  # nothing public says how much of a GPU TensorFlow may take

    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_tensor_float_32_execution(False)  # a GPU would round what is multiplied to ten bits
    # The devices report here, inside the quiet block. They take memory as they need it, so that what is free can be told.
    for _gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(_gpu, True)
    # Hosts have to find each other before the first operation; this waits for them.
    hosts = tf.distribute.MultiWorkerMirroredStrategy() if together.joined else None
    tf.function(lambda: tf.constant(0.0) + 1.0, jit_compile=True)()  # and XLA


def tidy() -> None:
    """Give memory back before a lot is taken: models and what they look up hold on to each other, the heap keeps its end."""
    gc.collect()
    if _trim:
        _trim(0)


traced = partial(tf.function, autograph=False)
"""`tf.function` for Python without loops and branches over tensors: looking for them takes longer than the rest of a trace."""

__all__ = ["device_lib", "hosts", "tf", "tfrs", "tidy", "traced"]
