"""The model: Arrow tables in, Arrow batches out. Opens no data files, speaks no SQL, knows no dates of runs.

This is the only package that imports TensorFlow, and only through `recommender.tensorflow`.
"""
