"""What README and docs tell people to type, typed: blocks run as they stand, in order, and what they print is compared.

    python tests/documents.py FOLDER [DOCUMENT...]

runs all of them, or some, below FOLDER and writes what is printed into them; RECJOB_TEST_DATA names a folder with ml-100k.zip.

A block of `sh`, `sql` or `python` is run, and where a block of `text` follows, that is what it prints; a line `...` there is any
lines. A `toml` block that begins with `# recjob.toml` becomes that file. `<!-- not run: REASON -->` before a block says why not.
"""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from jobs import configuration, query, show

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "docs/tutorial.md": "tutorial",
    "docs/sql.md": "tutorial",
    "docs/ranking.md": "tutorial",
    "README.md": "readme",
    "docs/howto/own-data.md": "own",
    "docs/howto/schedule.md": "own",
    "docs/howto/watch.md": "own",
    "docs/howto/backfill.md": "basic",
    "docs/howto/restore.md": "basic",
    "docs/howto/forget.md": "basic",
}
"""In which folder a document is followed; those of one folder one after the other."""
_BLOCK = re.compile(
    r"(?P<before><!-- not run: (?P<reason>.+?) -->\n)?```(?P<kind>sh|sql|python|toml|console)\n(?P<body>.*?)```\n"
    r"(?:\n?```text\n(?P<printed>.*?)```\n)?",
    re.DOTALL,
)
_ALWAYS_NEW = re.compile(
    r"\d{8}T\d{9}Z-[0-9a-f]{6}|(?<=\d{8}-)[0-9a-f]{8}\b|\b[0-9a-f]{10,64}\b"
    r"|\b20[2-9]\d-\d\d-\d\d([T ][\d:.]+)?(\+00:00|Z)?|[\d.,]+ (s|seconds|h old|GiB|MiB)\b"
)
"""Runs, digests, what lies in the present, durations, sizes."""
_MEASURED = re.compile(r"^\s*(check|train|score|publish|prune|memory, MB|seconds|\*  .*  (manual|schedule|backfill)) ")
"""Lines of durations and memory."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_MOST = 0.5
"""Share of the lines of a block that have to be as the document says; more than that."""


@dataclass(frozen=True)
class Block:
    """A block of code in a document."""

    document: str
    line: int
    kind: str
    body: str
    printed: str | None
    """What the document says that it prints."""
    reason: str | None
    """Why it is not run."""


def blocks(document: str) -> list[Block]:
    """The blocks of a document, in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        Block(document, text.count("\n", 0, found.start()) + 1, *found.group("kind", "body", "printed", "reason"))
        for found in _BLOCK.finditer(text)
    ]


def documents() -> list[str]:
    """README and every page of docs/."""
    return ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def followed(root: Path, data: Path, only: Sequence[str] = ()) -> Iterator[tuple[Block, str | None]]:
    """Run the blocks of documents, by default all, below `root`; yields each with what it printed, and what was said."""
    for document in only or FOLDERS:
        folder = root / FOLDERS[document]
        if not folder.exists():
            prepare(folder, data)
        for block in blocks(document):
            if block.reason is None:
                yield replace(block, printed=run(block, folder)), block.printed


def prepare(folder: Path, data: Path) -> None:
    """A folder as a reader has it: MovieLens-100k as its zip, and as the files that somebody may have."""
    from storage.grouplens import read_zip

    (folder / "ratings").mkdir(parents=True)
    (folder / "ml-100k.zip").symlink_to(data / "ml-100k.zip")
    read = read_zip(data / "ml-100k.zip")
    names = {"user_id": "userId", "movie_id": "movieId", "rated_at": "timestamp"}
    for table, file in ((read.ratings, "ratings/export"), (read.movies, "movies"), (read.users, "users")):
        theirs = [names.get(name, name) for name in table.column_names]
        pq.write_table(table.rename_columns(theirs), folder / f"{file}.parquet")
    models = folder.parent / "tutorial" / "state" / "models"
    if (
        models.exists() and folder.name != "basic"
    ):  # one training will do: a model is found by the hash of what it is made from
        (folder / "state").mkdir(mode=0o750)
        subprocess.run(["cp", "-r", models, folder / "state"], check=True)


def run(block: Block, folder: Path) -> str | None:
    """Run one block in `folder`; returns what it printed, None where there is nothing to print."""
    if block.kind == "toml":
        if block.body.startswith("# recjob.toml\n"):
            (folder / "recjob.toml").write_text(block.body)
        return None
    if block.kind == "sql":
        found = query.query(configuration.load(None, {}, {"state_dir": folder / "state"}), block.body, 1000)
        rows = [[_placed(value, folder) if isinstance(value, str) else value for value in row] for row in found["rows"]]
        return show.rows(found | {"rows": rows}, "table") + "\n"
    command = {
        "sh": ["bash", "-euo", "pipefail", "-c", block.body],
        "python": [sys.executable, "-c", block.body],
    }[block.kind]
    here = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    known = {name: value for name, value in os.environ.items() if not name.startswith("RECJOB_")}
    done = subprocess.run(
        command, cwd=folder, env=known | {"PATH": here, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True
    )
    if done.returncode:
        raise AssertionError(f"{block.document}:{block.line} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    lines = _placed(done.stdout, folder).splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _placed(text: str, folder: Path) -> str:
    """What is printed in `folder` as it is printed in the folder that the documents speak of."""
    return text.replace(str(folder), "/srv/recjob")


def same(said: str, printed: str) -> bool:
    """Whether `printed` is what the document said, but for what is new each time, rounding and the lines it leaves out."""
    parts = [part.splitlines() for part in re.split(r"(?m)^\.\.\.\n", said)]
    lines = printed.splitlines()
    head, *rest = parts
    if not rest:
        return _alike(head, lines)
    tail = rest[-1]
    return (
        len(parts) == 2
        and len(lines) >= len(head) + len(tail)
        and _alike(head, lines[: len(head)])
        and _alike(tail, lines[len(lines) - len(tail) :])
    )


def shortened(said: str, printed: str) -> str:
    """`printed` with as many lines left out as `said` leaves out."""
    if "...\n" not in said:
        return printed
    head, tail = (part.count("\n") for part in said.split("...\n"))
    lines = printed.splitlines(keepends=True)
    return "".join([*lines[:head], "...\n", *lines[len(lines) - tail :]])


def _alike(said: list[str], printed: list[str]) -> bool:
    """Whether there are as many lines and most are the same: on another processor a list may have two movies in another order."""
    if len(said) != len(printed):
        return False
    pairs = list(zip(map(_words, said), map(_words, printed), strict=True))
    same = sum(len(one) == len(other) and all(map(_equal, one, other)) for one, other in pairs)
    return not pairs or same > _MOST * len(pairs)


def _words(line: str) -> list[str]:
    line = _ALWAYS_NEW.sub("*", line)
    return (_NUMBER.sub("*", line) if _MEASURED.match(line) else line).split()


def _equal(one: str, other: str) -> bool:
    """Words are equal; numbers with a fraction, on another processor, nearly."""
    if one == other:
        return True
    if not (_NUMBER.fullmatch(one) and _NUMBER.fullmatch(other) and "." in one + other):
        return False
    return abs(float(one) - float(other)) <= 0.02 + 0.02 * abs(float(one))


def main() -> None:
    """Write what is printed into the documents."""
    root, data = Path(sys.argv[1]).resolve(), Path(os.environ["RECJOB_TEST_DATA"])
    for document, ran in itertools.groupby(followed(root, data, sys.argv[2:]), key=lambda pair: pair[0].document):
        printed = {block.line: block.printed for block, _ in ran}
        path = ROOT / document
        text = path.read_text(encoding="utf-8")

        def anew(found: re.Match[str], text: str = text, printed: dict[int, str | None] = printed) -> str:
            new = printed.get(text.count("\n", 0, found.start()) + 1)
            if found["printed"] is None or new is None:
                return found[0]
            start, end = (place - found.start() for place in found.span("printed"))
            return found[0][:start] + shortened(found["printed"], new) + found[0][end:]

        path.write_text(_BLOCK.sub(anew, text), encoding="utf-8")


if __name__ == "__main__":
    main()
