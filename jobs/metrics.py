"""Figures of the newest run as a text file for Prometheus: what node_exporter's textfile collector, or a sidecar, hands on."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs import publish
from jobs.settings import Settings
from storage import atomic
from storage.errors import CorruptState


def write(settings: Settings, record: Path) -> None:
    """Replace `publish.metrics_file` by the figures of a run, by its record in the journal. No record, or no file: nothing."""
    if not settings.publish.metrics_file or not record.is_file():
        return
    with atomic.new_file(
        Path(settings.publish.metrics_file), mode=0o644
    ) as draft:  # another user's to read, and nobody's data
        draft.write_bytes(text(settings, json.loads(record.read_text(encoding="utf-8"))))


def text(settings: Settings, run: dict[str, Any]) -> bytes:
    """The figures in the text format of Prometheus; times are seconds since 1970, sizes bytes."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(
        name: str, what: str, values: Mapping[tuple[Any, ...], float | None], labels: tuple[str, ...] = ()
    ) -> None:
        known = {label: value for label, value in values.items() if value is not None}
        made = Gauge(f"recjob_{name}", what, labels, registry=registry) if known else None  # 0 would be a figure
        for label, value in known.items():
            (made.labels(*label) if labels else made).set(value)  # type: ignore[union-attr]

    facts = ("run_id", "as_of_date", "status", "trigger", "model_version", "recjob_version")
    gauge("run_info", "The newest run.", {tuple(str(run.get(name) or "") for name in facts): 1}, facts)
    gauge(
        "run_exit_code",
        "0 where it did its work; recjob --help says what others mean.",
        {(): run.get("exit_code")},
    )
    gauge("run_finished_timestamp_seconds", "When it ended.", {(): _seconds(run.get("finished_at"))})
    peak = run.get("peak_rss_mb")
    gauge("run_peak_rss_bytes", "Most memory it held.", {(): peak and peak * 2**20})
    steps = {(step["step"],): step.get("seconds") for step in run.get("steps", [])}
    gauge("step_seconds", "How long each of its steps took.", steps, ("step",))
    for name in ("users", "movies", "ratings"):
        gauge(name, f"{name.capitalize()} it worked on.", {(): run.get(f"n_{name}")})
    checks = [check.get("verdict") for check in run.get("checks", [])]
    gauge(
        "checks",
        "Its checks by verdict.",
        {(v,): checks.count(v) for v in ("pass", "warn", "fail", "overridden", "skipped")},
        ("verdict",),
    )
    measured = {(m["metric"],): m["value"] for m in run.get("metrics", []) if m["segment"] == "all"}
    gauge("holdout", "Figures of its model, and of baselines, on the ratings held out.", measured, ("metric",))
    as_of, published_at = _published(settings)
    gauge("published_date_timestamp_seconds", "Beginning of the newest date that readers see.", {(): as_of})
    gauge("published_timestamp_seconds", "When it was published.", {(): published_at})
    return bytes(generate_latest(registry))


def _published(settings: Settings) -> tuple[float | None, float | None]:
    try:
        shown = publish.visible(settings)
    except CorruptState:  # the run has said so, and no figure is a figure, too
        return None, None
    if not shown:
        return None, None
    newest = max(shown)
    return _seconds(newest), _seconds(str(shown[newest]["published_at"]))


def _seconds(instant: str | None) -> float | None:
    return datetime.fromisoformat(instant).replace(tzinfo=UTC).timestamp() if instant else None
