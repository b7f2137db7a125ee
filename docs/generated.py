"""The reference pages that are read off the code: commands, settings, tables, exit codes, log events. Markdown comes out.

A page says where with `<!-- generated: settings -->`; `conf.py` puts it in when the site is built: it cannot be out of date.
`python docs/generated.py settings` prints it.
"""

import ast
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import duckdb

from jobs import allowed, configuration, examples, exits
from jobs.cli import COMMON
from jobs.commands import recjob
from jobs.settings import Settings
from storage import warehouse

ROOT = Path(__file__).resolve().parents[1]


def commands() -> str:
    """Each command with its arguments, options and examples."""
    return "\n\n".join(_command(path, command) for path, command in _leaves(recjob))


def common_options() -> str:
    """The options that every command has."""
    return _options(_common())


def settings() -> str:
    """A table for each section of recjob.toml: key, default, meaning."""
    sections: dict[str, list[tuple[str, str, str]]] = {}
    for key, default in configuration.known_keys().items():
        section, _, name = key.rpartition(".")
        bounds = allowed.RANGES.get(key)
        meaning = _meaning(_owner(section), name) + (f" {bounds[0]:g} to {bounds[1]:g}." if bounds else "")
        sections.setdefault(section, []).append((f"`{name}`", _toml(default), meaning))
    found = []
    for section, rows in sections.items():
        title = f"`[{section}]`\n\n{_one_line(_owner(section).__doc__ or '')}" if section else "Above all sections"
        found.append(f"## {title}\n\n{_table(['key', 'default', 'meaning'], rows)}")
    return "\n\n".join(found)


def tables() -> str:
    """Every table and view with its columns, as their COMMENTs have it."""
    with duckdb.connect() as connection:
        warehouse.create_tables(connection, {"user_id": "BIGINT", "movie_id": "BIGINT"}, ["none"])
        objects = connection.execute(
            "SELECT table_name, comment, 'table' FROM duckdb_tables() UNION ALL "
            "SELECT view_name, comment, 'view' FROM duckdb_views() WHERE NOT internal ORDER BY 3 DESC, 1"
        ).fetchall()
        parts = []
        for name, comment, kind in objects:
            columns = connection.execute(
                "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index",
                [name],
            ).fetchall()
            rows = [(f"`{column}`", f"`{_type(data_type)}`", said or "") for column, data_type, said in columns]
            head = ["column", "type", "meaning"]
            if not any(said for *_, said in columns):
                rows, head = [row[:2] for row in rows], head[:2]
            parts.append(f"## `{name}`\n\nA {kind}. {comment}\n\n{_table(head, rows)}")
    return "\n\n".join(parts)


def exit_codes() -> str:
    """What each exit code means, and whether to try again."""
    rows = [(str(code), meaning, again) for code, (meaning, again) in exits.MEANINGS.items()]
    return _table(["code", "meaning", "try again?"], rows)


def errors() -> str:
    """Every kind of error with its exit code."""
    rows = [(f"`{kind.kind}`", str(code), (kind.__doc__ or "").split("\n\n")[0]) for kind, code in exits.CODES.items()]  # type: ignore[attr-defined]
    return _table(["kind", "exit code", "when"], sorted(rows, key=lambda row: (int(row[1]), row[0])))


def events() -> str:
    """Every event that a log line may name, with its fields."""
    rows: dict[str, tuple[str, set[str], str]] = {}
    for path in [
        *sorted((ROOT / "jobs").rglob("*.py")),
        *sorted((ROOT / "storage").rglob("*.py")),
        ROOT / "scheduler.py",
    ]:
        for event, level, fields in _logged(ast.parse(path.read_text(encoding="utf-8"))):
            known = rows.setdefault(event, (level, set(), str(path.relative_to(ROOT))))
            known[1].update(fields)
    shown = [
        (f"`{event}`", level, ", ".join(sorted(fields)), f"`{home}`") for event, (level, fields, home) in rows.items()
    ]
    return _table(["event", "level", "fields", "from"], sorted(shown))


def _leaves(command: click.Command, path: str = "recjob") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            yield from _leaves(inner, f"{path} {name}")
    else:
        yield path, command


def _command(path: str, command: click.Command) -> str:
    common = {parameter.name for parameter in _common()}
    own = [parameter for parameter in command.params if parameter.name not in common]
    arguments = [
        parameter.make_metavar(click.Context(command)) for parameter in own if isinstance(parameter, click.Argument)
    ]
    said = inspect.cleandoc(command.help or "").replace("<", "\\<")
    parts = [f"## `{path}`", said, f"```sh\n{' '.join([path, '[OPTIONS]', *arguments])}\n```"]
    options = _options([parameter for parameter in own if isinstance(parameter, click.Option) and not parameter.hidden])
    lines = "\n".join(examples.of(path))
    return "\n\n".join([*parts, *([options] if options else []), f"```sh\n{lines}\n```"])


def _common() -> list[click.Parameter]:
    command = click.Command("any")
    for option in COMMON:
        option(command)
    return command.params


def _options(options: Iterable[click.Parameter]) -> str:
    rows = []
    for option in options:
        names, said = option.get_help_record(click.Context(recjob)) or ("", "")  # type: ignore[misc]
        rows.append((f"`{names}`", said.replace("`", "")))
    return _table(["option", ""], rows) if rows else ""


def _owner(section: str) -> type:
    """The class of a section of the settings."""
    value: Any = Settings()
    for part in section.split(".") if section else []:
        value = getattr(value, part)
    return type(value)


def _meaning(owner: type, name: str) -> str:
    """The text below a field, in the class of `owner` or a base of it that has the field."""
    home = next(kind for kind in owner.__mro__ if name in vars(kind).get("__annotations__", {}))
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(home))).body
    for field, said in itertools.pairwise([*getattr(tree, "body", []), ast.Pass()]):
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == name and isinstance(said, ast.Expr):
            return _one_line(ast.literal_eval(said.value))
    return ""


def _logged(tree: ast.AST) -> Iterator[tuple[str, str, list[str]]]:
    """Event, level and fields of each call of a logger; a part that is put in while running is a star."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and re.fullmatch(
            r"logger\.(debug|info|warning|error|log)", ast.unparse(call.func)
        ):
            level = ast.unparse(call.func).partition(".")[2]
            event = call.args[1 if level == "log" else 0]
            text = re.sub(r"\{.*?\}", "*", ast.unparse(event)).lstrip("f").strip("'\"")
            extra = next((word.value for word in call.keywords if word.arg == "extra"), None)
            keys = [key for part in ast.walk(extra) if isinstance(part, ast.Dict) for key in part.keys] if extra else []
            yield text, "varies" if level == "log" else level, [str(ast.literal_eval(key)) for key in keys if key]


def _toml(value: Any) -> str:
    if value is None or value == ():
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`" if isinstance(value, int | float) else f'`"{value}"`'


def _type(data_type: str) -> str:
    return "ENUM" if data_type.startswith("ENUM") else data_type


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    print("\n\n".join(globals()[part]() for part in sys.argv[1:]))
