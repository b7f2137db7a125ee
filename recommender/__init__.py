"""The model: Arrow tables in, Arrow batches out. Opens no data files, speaks no SQL, knows no dates of runs.

This is the only package that imports TensorFlow, and only through `recommender.tensorflow`.
"""

import os

# numpy reads it when it is imported. Its matrices here are small: a second thread makes them no quicker, spins while it waits
# for the first, which takes thirty times as long where something else wants the core, and rounds in another order.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
