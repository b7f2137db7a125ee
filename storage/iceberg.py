"""What readers of the published file see, as tables of an Iceberg catalogue over the staged Parquet: no list is copied.

The files have no column of their date and run, which are the names of their folders. The tables are partitioned by both, by
identity, and of such a partition readers take what a file lacks (Iceberg's specification, "Column projection"). Of the ids in a
file nothing is noted.

Each table has one snapshot. What earlier ones showed is removed from the disk, and people may be on it who are forgotten.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from storage import attached, parquet, warehouse
from storage.errors import CatalogueFailed, StorageError
from storage.runs import RunPartition

if TYPE_CHECKING:  # an extra that takes a third of a second: imported where a catalogue is asked
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

COPIED = ("movies", "runs")
"""Small tables, which are written as the published file has them."""
_WHOSE = "recjob.users"
"""Property of the tables that recjob has made, which users they are of: it writes no others."""
_PROPERTIES = {
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "1",
    "write.metadata.metrics.default": "none",
}
_PARTITIONED = ("as_of_date", "run_id")
_MEANINGS = "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index"
_EPOCH = date(1970, 1, 1)
_HINT = "the next run tries again; tables that cannot be changed may be dropped: they are made anew"

Place = Callable[[Path, str], str]
"""The URL at which readers of the catalogue find a staged file, by its path and its sha256."""


class File(NamedTuple):
    """A file of a table. Of runs that came to the same lists, a copy of the state has one file."""

    url: str
    run_id: str


def is_configured(catalogue: str) -> bool:
    """Whether PyIceberg's file or environment says what the catalogue is; raises `CatalogueFailed`."""
    from pyiceberg.utils.config import Config

    with _failing("PyIceberg's configuration cannot be read"):
        return bool(Config().get_catalog_config(catalogue))


class Tables:
    """The tables of recjob in one namespace of a catalogue. Every method raises `CatalogueFailed`."""

    def __init__(self, name: str, users: str) -> None:
        """`name`: CATALOGUE.NAMESPACE, the first as PyIceberg's configuration has it. `users`: whose lists they are to have."""
        from pyiceberg.catalog import load_catalog

        self.name, self._users = name, users
        catalogue, _, self._namespace = name.partition(".")
        with _failing(f"the Iceberg catalogue {catalogue!r} cannot be opened"):
            self._catalogue = load_catalog(catalogue)

    def show(self, published: Path, partitions: Sequence[RunPartition], place: Place) -> dict[str, int]:
        """Let the tables have the lists of `partitions`, and of the published file what is small; returns their files.

        Each table changes in one step, one after the other. Killed in between, it is done again.
        """
        with _failing(f"the tables of {self.name} cannot be written"), warehouse.reader(published, asked=()) as reader:
            self._catalogue.create_namespace_if_not_exists(self._namespace)
            for name in (*COPIED, *attached.TABLES):
                self._demand_own(name)
            for name in COPIED:
                rows = reader.sql(f"FROM {name}").to_arrow_table()
                table = self._made(name, rows.schema)
                (table.overwrite if table.current_snapshot() else table.append)(rows)
                _tidy(table, copied=True)
            found = {}
            for name in attached.TABLES:
                shown = [partition for partition in partitions if partition.has(name)]
                if shown or self._catalogue.table_exists(f"{self._namespace}.{name}"):
                    meanings = dict(reader.execute(_MEANINGS, [name]).fetchall())
                    table = self._made(name, *(_columns(one.path(name), meanings) for one in shown[-1:]))
                    _set(table, [_file(table, one, name, place) for one in shown])
                    _tidy(table, copied=False)
                    found[name] = len(shown)
        return found

    def files(self) -> set[File]:
        """The files of lists that readers of the catalogue see; none where a small table is missing."""
        with _failing(f"the tables of {self.name} cannot be read"):
            tables = {name: self._found(name) for name in (*COPIED, *attached.TABLES)}
            if None in (tables[name] for name in COPIED):
                return set()
            lists = (tables[name] for name in attached.TABLES)
            return {_key(file) for table in lists if table for file in _files(table)}

    def _found(self, name: str) -> "Table | None":
        whole = f"{self._namespace}.{name}"
        return self._catalogue.load_table(whole) if self._catalogue.table_exists(whole) else None

    def _demand_own(self, name: str) -> None:
        """Raise `CatalogueFailed` where a table is somebody else's."""
        table = self._found(name)
        if table and (whose := table.properties.get(_WHOSE)) != self._users:
            has = "that recjob has not made" if whose is None else f"of {whose} users, not of {self._users}"
            hint = "name another namespace: publish.iceberg is CATALOGUE.NAMESPACE"
            raise CatalogueFailed(f"{self.name}.{name} is a table {has}", hint=hint)

    def _made(self, name: str, columns: pa.Schema | None = None) -> "Table":
        """A table of recjob's: with these columns, too, if it was there, and made if it was not."""
        whole = f"{self._namespace}.{name}"
        if not self._catalogue.table_exists(whole):
            properties = _PROPERTIES | {_WHOSE: self._users}
            with self._catalogue.create_table_transaction(whole, columns, properties=properties) as change:
                if name in attached.TABLES:
                    with change.update_spec() as spec:
                        for column in _PARTITIONED:
                            spec.add_identity(column)
                mapping = change.table_metadata.schema().name_mapping.model_dump_json()
                change.set_properties({"schema.name-mapping.default": mapping})
        table = self._catalogue.load_table(whole)
        if columns is not None:
            with table.update_schema() as change:
                change.union_by_name(columns)
        return table


def _columns(path: Path, meanings: Mapping[str, str]) -> pa.Schema:
    """The columns of a list's file, between its date and its run, with their meanings; null where a file lacks them."""
    stored = parquet.open_file(path).schema_arrow
    kinds = {"as_of_date": pa.date32(), **{field.name: field.type for field in stored}, "run_id": pa.string()}
    return pa.schema([pa.field(name, kind, metadata={"doc": meanings[name]}) for name, kind in kinds.items()])


def _file(table: "Table", partition: RunPartition, name: str, place: Place) -> "DataFile":
    """A staged file as an entry of the table."""
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record

    path = partition.path(name)
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=place(path, partition.record["files"][path.name]),
        file_format=FileFormat.PARQUET,
        partition=Record((partition.as_of - _EPOCH).days, partition.run_id),
        record_count=parquet.open_file(path).metadata.num_rows,
        file_size_in_bytes=path.stat().st_size,
        spec_id=table.spec().spec_id,
    )


def _files(table: "Table") -> list["DataFile"]:
    """The files that a table has."""
    return [task.file for task in table.scan().plan_files()]


def _key(file: "DataFile") -> File:
    return File(file.file_path, file.partition[_PARTITIONED.index("run_id")])


def _set(table: "Table", wanted: Sequence["DataFile"]) -> None:
    """Let a table have these files and no others. All are entered anew: PyIceberg takes files of one URL for one."""
    there = _files(table)
    if sorted(map(_key, there)) == sorted(map(_key, wanted)):
        return
    with table.transaction() as change, change.update_snapshot().overwrite() as snapshot:
        snapshot._existing_manifests = list  # type: ignore[method-assign]  # it keeps those that name no file any more
        for file in there:
            snapshot.delete_data_file(file)
        for file in wanted:
            snapshot.append_data_file(file)


def _tidy(table: "Table", *, copied: bool) -> None:
    """Let the newest snapshot of a table be its only one, and remove what else was written for the others.

    Of a table that is `copied` that includes rows; those of lists are files of the state folder.
    """
    table.refresh()
    newest = table.current_snapshot()
    old = [snapshot for snapshot in table.snapshots() if newest and snapshot.snapshot_id != newest.snapshot_id]
    if not newest or not old:
        return
    left = {path for snapshot in old for path in _written(table, snapshot, copied)}
    table.maintenance.expire_snapshots().by_ids([snapshot.snapshot_id for snapshot in old]).commit()
    for path in sorted(left - set(_written(table, newest, copied))):
        table.io.delete(path)


def _written(table: "Table", snapshot: "Snapshot", copied: bool) -> Iterator[str]:
    yield snapshot.manifest_list
    for manifest in snapshot.manifests(table.io):
        yield manifest.manifest_path
        if copied:
            yield from (entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io))


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Whatever goes wrong with a catalogue as `CatalogueFailed`: its driver, server and store each have errors of their own."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # what there is has no class in common
        raise CatalogueFailed(
            f"{what}: {type(error).__name__}: {str(error) or 'no more is said'}", hint=_HINT
        ) from error
