"""The fault matrix: what may go wrong, which promise must hold all the same, and the tests that prove it.

A test says which faults it proves with `@pytest.mark.faults("B1.3")`; `pytest -m faults` runs them, `-k B1.3` one of them.

    python tests/matrix.py

writes the table in docs/reliability.md anew.
"""

import ast
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- the table: python tests/matrix.py -->\n", "<!-- end of the table -->\n"

GROUPS = {
    "B1": "Crashes and publishing",
    "B2": "Input",
    "B3": "Model, gate and lists",
    "B4": "Processes and time",
    "B5": "Security",
    "B6": "Erasure, upgrade, interface",
    "B7": "Object stores",
    "B8": "Catalogues of tables",
}
FAULTS = {
    "B1.1": ("kill -9 in every step of a night, and at the n-th rename, sync or write", "P4"),
    "B1.2": ("50 publishes while two processes read", "P1"),
    "B1.3": ("a reader keeps a connection open across a publish", "P1"),
    "B1.4": ("the disk fills up while the file is built", "P4"),
    "B1.5": ("too little free space, known beforehand", "P8"),
    "B1.6": ("the disk reports an error when it syncs", "P4"),
    "B1.7": ("the order of writes: synced before it is renamed", "P1"),
    "B1.8": ("a stray write-ahead log beside the published file", "P1"),
    "B1.9": ("the write-ahead log of the build is cut", "P4"),
    "B1.10": ("a row lost, doubled, swapped or of a seen movie in the build", "P5"),
    "B1.11": ("the published file is cut, flipped, empty or no database", "P4"),
    "B1.12": ("the same date twice, forced, and with one changed rating", "P2"),
    "B1.13": ("somebody opens the published file to write", "P1"),
    "B1.14": ("30 nights in a row", "P8"),
    "B1.15": ("rollback, again, and past what is kept", "P1"),
    "B1.16": ("the state folder is read-only, a file, or somebody else's", "P8"),
    "B1.17": ("stdout is full, or closed early", "P8"),
    "B1.18": ("staged lists lose their record, or are gone", "P4"),
    "B2.1": ("half a file, an empty one, HTML, a flipped footer", "P4"),
    "B2.2": ("a file that is being written", "P4"),
    "B2.3": ("one flipped bit in a page of Parquet", "P4"),
    "B2.4": ("a missing, renamed or retyped column; files that disagree", "P8"),
    "B2.5": ("ratings that are null, not finite or off the scale; ids that are null", "P5"),
    "B2.6": ("any rows after the watermark, in any file and order", "P3"),
    "B2.7": ("ratings that arrive late", "P3"),
    "B2.8": ("duplicates, ties in time, shuffled files and rows", "P2"),
    "B2.9": ("no file, empty files, nothing but the future", "P8"),
    "B2.10": ("a tenth of the rows of the night before; nothing new for ten days", "P8"),
    "B2.11": ("one user, one movie, fewer movies than places, all rated", "P5"),
    "B2.12": ("ids of every kind: empty, huge, NUL, emoji, 007 and 7, quotes, SQL", "P5"),
    "B2.13": ("bombs: millions of rows in a small file, huge strings, 10,000 columns", "P8"),
    "B2.14": ("a pipe, /dev/zero, a folder, a looping link, no permission", "P8"),
    "B2.15": ("500 mutations of a good file", "P8"),
    "B2.16": ("a file replaced between hashing and reading", "P2"),
    "B2.17": ("folders and files with names that begin alike, hidden files", "P8"),
    "B2.18": ("seconds read as milliseconds, and other impossible times", "P8"),
    "B3.1": ("a worse candidate", "P4"),
    "B3.2": ("a first model that popularity beats", "P4"),
    "B3.3": ("training diverges", "P4"),
    "B3.4": ("one weight that is not finite", "P5"),
    "B3.5": ("a model that gives everybody the same list; all scores equal", "P5"),
    "B3.6": ("a catalogue cut to a twentieth; lists that all change", "P4"),
    "B3.7": ("the same inputs and seed in two processes", "P2"),
    "B3.8": ("other batch sizes; 1, 3 and 8 shards", "P2"),
    "B3.9": ("scores against a plain reference", "P5"),
    "B3.10": ("what a user has rated is never listed", "P5"),
    "B3.11": ("users and movies that were not in training", "P5"),
    "B3.12": ("memory runs out at some batch size, or at all", "P8"),
    "B3.13": ("four times the users", "P8"),
    "B3.14": ("a model file that is cut, flipped, missing or edited", "P4"),
    "B3.15": ("kill -9 in the middle of training", "P2"),
    "B3.16": ("ten seeds on the same ratings", "P4"),
    "B3.17": ("rows of the holdout in training", "P3"),
    "B4.1": ("two runs at once; the first killed while its children live", "P4"),
    "B4.2": ("nights on which clocks change, in two zones", "P2"),
    "B4.3": ("the scheduler was down for hours or days", "P2"),
    "B4.4": ("a run longer than the interval", "P2"),
    "B4.5": ("SIGTERM and SIGINT in every step", "P4"),
    "B4.6": ("a job that fails, is killed or hangs", "P4"),
    "B4.7": ("the clock is set back or forward", "P2"),
    "B4.8": ("a backfill with one bad day", "P8"),
    "B4.9": ("a backfill of dates before the current one", "P1"),
    "B4.10": ("schedules that are wrong or never fire", "P8"),
    "B4.11": ("failures that pass, and failures that stay", "P8"),
    "B4.12": ("twenty scheduled runs", "P8"),
    "B4.13": ("nothing published for 28 hours", "P8"),
    "B4.14": ("dates in any other form, out of range, in the future", "P8"),
    "B4.15": ("one of the hosts that train together is killed", "P1"),
    "B4.16": ("hosts that train together are not there, or do not train the same", "P8"),
    "B5.1": ("SQL in ids, titles, column names and run ids", "P5"),
    "B5.2": ("paths that lead out of the state folder", "P4"),
    "B5.3": ("a planted model file that runs code", "P4"),
    "B5.4": ("statements that read files, write, attach or set", "P4"),
    "B5.5": ("a query without end", "P8"),
    "B5.6": ("a night without a network", "P6"),
    "B5.7": ("a secret in the environment or the configuration, ids in an input that is refused", "P7"),
    "B5.8": ("shell code in the data of a hook", "P4"),
    "B5.9": ("umask 000, a planted link, a state folder open to all", "P7"),
    "B5.10": ("archives that climb out, or unpack to gigabytes", "P4"),
    "B5.11": ("HTML, formulas, terminal escapes and line breaks in titles", "P4"),
    "B5.12": ("a configuration with unknown keys, wrong types, or 100 MB", "P8"),
    "B5.13": ("a lock file with one changed hash; what a wheel holds", "P6"),
    "B5.14": ("run as root", "P7"),
    "B6.1": ("the bytes of a person after `forget`", "P7"),
    "B6.2": ("a forgotten person who is still in the source", "P7"),
    "B6.3": ("kill -9 in the middle of `forget`; `forget` during a run", "P7"),
    "B6.4": ("a person nobody knows; ids from a file", "P7"),
    "B6.5": ("pruning", "P4"),
    "B6.6": ("state of an older and of a newer recjob", "P4"),
    "B6.7": ("every command with --json, on success and failure", "P8"),
    "B6.8": ("the start of the command line", "P8"),
    "B6.9": ("flag, environment, file, default", "P8"),
    "B6.10": ("the queries in the documentation", "P8"),
    "B7.1": ("the store throttles, or answers with errors of its own", "P8"),
    "B7.2": ("the connection is cut after some bytes", "P8"),
    "B7.3": ("the store hangs", "P8"),
    "B7.4": ("a reply is lost although the request was done", "P4"),
    "B7.5": ("no credentials, no permission, no such bucket, nobody there", "P8"),
    "B7.6": ("an object is replaced while it is fetched", "P2"),
    "B7.7": ("half an upload, an object that was lost or changed", "P4"),
    "B7.8": ("kill -9 in the middle of copying the state to the store", "P4"),
    "B7.9": ("an empty machine in the place of one that is gone", "P2"),
    "B7.10": ("two machines on one store", "P4"),
    "B7.11": ("the bytes of a person in the store after `forget`", "P7"),
    "B7.13": ("a file of the state folder is damaged whose copy is whole", "P4"),
    "B7.12": ("a policy that allows no more than the documents say", "P8"),
    "B8.1": ("an Iceberg catalogue that is not there, or is down", "P8"),
    "B8.2": ("killed while its tables are changed", "P1"),
    "B8.3": ("tables there that are somebody else's, or have other ids", "P4"),
}


def proofs() -> dict[str, list[str]]:
    """The tests that are marked with each fault, as `file::test`; raises `KeyError` for a fault that is not in the matrix."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for fault in _marked(node):
                    FAULTS[fault]
                    found[fault].append(f"{path.relative_to(TESTS)}::{node.name}")
    return found


def _marked(test: ast.FunctionDef) -> list[str]:
    calls = [decorator for decorator in test.decorator_list if isinstance(decorator, ast.Call)]
    marks = [call for call in calls if ast.unparse(call.func) == "pytest.mark.faults"]
    return [ast.literal_eval(argument) for mark in marks for argument in mark.args]


def table() -> str:
    """The matrix as Markdown, a table for each group."""
    proved, lines = proofs(), []
    for group, title in GROUPS.items():
        lines += ["", f"### {group} {title}", "", "| id | fault | promise | test |", "|---|---|---|---|"]
        for fault, (what, promise) in FAULTS.items():
            if fault.startswith(group):
                tests = "<br>".join(f"`{test}`" for test in proved[fault])
                lines.append(f"| {fault} | {what} | {promise} | {tests} |")
    return "\n".join(lines[1:]) + "\n"


def main() -> None:
    """Write the table into the document."""
    before, rest = DOCUMENT.read_text(encoding="utf-8").split(BEGIN)
    DOCUMENT.write_text(before + BEGIN + table() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
