"""The small tables of a published file: all runs of the journal, and the lineage, metrics and verdicts of what it shows."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from jobs.settings import Settings
from storage import models
from storage.runs import RunPartition
from storage.warehouse import SCHEMA_VERSION

_RUN = (
    *("run_id", "as_of_date", "status", "trigger", "started_at", "finished_at", "published_at", "model_version"),
    *("n_users", "n_movies", "n_ratings", "top_n", "input_digest", "config_digest", "output_digest", "seed"),
    *("recjob_version", "device", "peak_rss_mb", "exit_code", "error_kind", "error_message"),
)
_MODEL = ("created_at", "trained_through", "digest", "status", "name", "parameters", "note")


def rows(
    settings: Settings, partitions: Sequence[RunPartition], history: Sequence[Mapping[str, Any]], now: str
) -> dict[str, list[dict[str, Any]]]:
    """The small tables: all runs of the journal, and the lineage, metrics and verdicts of what is published."""
    shown = {partition.run_id: partition.record | {"status": "published"} for partition in partitions}
    shown = {run_id: record | {"published_at": record.get("published_at") or now} for run_id, record in shown.items()}
    recorded = {str(record["run_id"]): dict(record) for record in history}
    everything = [recorded.get(run_id, {}) | shown.get(run_id, {}) for run_id in sorted(recorded.keys() | shown.keys())]
    return {
        "schema_info": [{"schema_version": SCHEMA_VERSION, "recjob_version": version("recjob"), "created_at": now}],
        "runs": [{name: record.get(name) for name in _RUN} for record in everything],
        "run_steps": _of_each(everything, "steps"),
        "run_inputs": _of_each(everything, "inputs"),
        "rejected_rows": _of_each(everything, "rejected"),
        "checks": _of_each(everything, "checks"),
        "metrics": [
            {**metric, "model_version": record["model_version"]}
            for record in everything
            for metric in _of_each([record], "metrics")
        ],
        "models": _models(settings, partitions),
    }


def _of_each(records: Sequence[Mapping[str, Any]], part: str) -> list[dict[str, Any]]:
    return [{"run_id": record["run_id"], **row} for record in records for row in record.get(part) or []]


def _models(settings: Settings, partitions: Sequence[RunPartition]) -> list[dict[str, Any]]:
    """The registry's models, and those of published dates that have left it."""
    manifests = {partition.record["model"]["version"]: partition.record["model"] for partition in partitions}
    manifests |= {model.version: model.manifest for model in models.versions(settings.models)}
    champion = models.champion(settings.models)
    crowned = champion.version if champion else None
    return [
        {column: manifest[column] for column in _MODEL}
        | {"model_version": version_of, "alias": "champion" if version_of == crowned else None}
        for version_of, manifest in sorted(manifests.items())
    ]
