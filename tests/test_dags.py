"""The DAGs in deploy/ load where their programs are installed; recjob itself need not be there.

pip install apache-airflow-core dagster pytest && pytest --noconftest tests/test_dags.py
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(name).stem, DEPLOY / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_airflow_loads_the_dag() -> None:
    pytest.importorskip("airflow", reason="needs an environment with Airflow 3")
    dag = loaded("airflow/recjob_dag.py").recjob()
    assert (dag.dag_id, dag.task_ids, dag.max_active_runs) == ("recjob", ["nightly"], 1)


def test_dagster_loads_the_definitions() -> None:
    dagster = pytest.importorskip("dagster", reason="needs an environment with Dagster")
    definitions = loaded("dagster/recjob_job.py").definitions
    dagster.Definitions.validate_loadable(definitions)
    assert definitions.resolve_job_def("recjob").partitions_def is not None
