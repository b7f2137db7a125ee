"""Disk: the ratings lake, the model registry, finished runs, the published DuckDB file.

Nothing about models. This is the only package that imports DuckDB; it never imports `recommender` or `jobs`.
"""
