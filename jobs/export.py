"""The published lists of a date as a file for others: Parquet, CSV, or JSON lines with one user a line."""

from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from jobs import publish, state
from jobs.allowed import InvalidSettings
from jobs.settings import Settings
from storage import atomic, warehouse
from storage.errors import NotFound, nothing_published

Format = Literal["parquet", "csv", "jsonl"]
_ROWS = 122_880
"""Rows fetched at a time, as many as DuckDB keeps together: all of them never are in memory."""
_FORMULA, _SHOWN = r"^([=+\-@\t\r])", r"'\1"
"""How a cell begins that a spreadsheet would run, and how it is written instead."""


def export(settings: Settings, target: Path, form: Format | None = None, as_of: str | None = None) -> dict[str, Any]:
    """Write the lists of a published date, by default the newest, into `target`, whole or not at all.

    The format is what the name ends in unless it is given. Parquet and CSV have a row per place, JSON lines an object per
    user. Raises `NotFound`, `InvalidSettings`.
    """
    chosen = form or target.suffix.removeprefix(".")
    if chosen not in get_args(Format):
        raise InvalidSettings(f"{target} does not say its format", hint=f"--format {', '.join(get_args(Format))}")
    place = state.place_for(target, settings)
    shown = publish.visible(settings)
    if not shown:
        raise nothing_published()
    day = as_of or max(shown)
    if day not in shown:
        raise NotFound(f"no lists of {day} are published", hint=f"those of {', '.join(sorted(shown))} are")
    values = {"day": day} | ({"formula": _FORMULA, "shown": _SHOWN} if chosen == "csv" else {})
    statement = warehouse.sql(f"export/{'rows' if chosen == 'parquet' else chosen}.sql")
    read = warehouse.reader(settings.database, asked=("recommendations",))
    with read as connection, atomic.new_file(place) as draft:
        rows = _write(chosen, connection.sql(statement, params=values).to_arrow_reader(_ROWS), draft)
    return {"path": str(target), "format": chosen, "as_of_date": day, "lines" if chosen == "jsonl" else "rows": rows}


def _write(form: str, batches: pa.RecordBatchReader, target: Path) -> int:
    """Write batches of rows as they come; returns how many rows there were."""
    count = 0
    if form == "jsonl":
        with target.open("w", encoding="utf-8") as file:
            for batch in batches:
                file.writelines(f"{line}\n" for line in batch["line"].to_pylist())
                count += batch.num_rows
        return count
    made = pq.ParquetWriter(target, batches.schema, compression="zstd") if form == "parquet" else None
    with made or csv.CSVWriter(target, batches.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            count += batch.num_rows
    return count
