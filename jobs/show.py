"""Results as text for people: the same documents that `--json` prints, laid out."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len

from storage.errors import FIRST


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows under a header, numbers to the right; as wide as it must be, nothing cut off."""
    body = [[_cell(value) for value in row] for row in rows]
    kinds = list(zip(*body, strict=True)) if body else [()] * len(columns)
    laid = []
    for name, cells in zip(columns, kinds, strict=True):
        numeric = bool(cells) and all(
            cell == "" or (cell.lstrip("-")[:1].isdigit() and " " not in cell) for cell in cells
        )
        width = max(map(cell_len, (name, *cells)))
        gaps = [(cell, " " * (width - cell_len(cell))) for cell in (name, *cells)]
        laid.append([gap + cell if numeric else cell + gap for cell, gap in gaps])
    return "\n".join("  ".join(line).rstrip() for line in zip(*laid, strict=True))


def facts(document: dict[str, Any]) -> str:
    """One fact a line."""
    width = max((len(key) for key in document), default=0)
    return "\n".join(f"{key:<{width}}  {_cell(value)}" for key, value in document.items())


def run(record: dict[str, Any]) -> str:
    """The outcome of a run in a few lines, in fewer of one host among several."""
    if "host" in record:
        place = "{number} of {of}; the first one keeps the model and the record".format(**record["host"])
        return facts({"as of": record["as_of_date"], "status": record["status"], "host": place})
    told = {
        "run": record["run_id"],
        "as of": record["as_of_date"],
        "status": record["status"],
        "would": record.get("would"),
        "shard": "{number} of {of}".format(**record["shard"]) if "shard" in record else None,
        "model": record.get("model_version"),
        "ratings": record.get("n_ratings"),
        "users": record.get("n_users"),
        "movies": record.get("n_movies"),
        "trigger": record.get("trigger"),
        "started": record.get("started_at"),
        "memory, MB": record.get("peak_rss_mb"),
        "error": record.get("error_message"),
    }
    steps = [
        (step["step"], step["status"], step.get("seconds"), step.get("rows"), step.get("peak_rss_mb"))
        for step in record.get("steps", [])
    ]
    shown = facts({key: value for key, value in told.items() if value is not None})
    if record["status"] == "checked":
        checks = [(check["check_name"], check["verdict"], check["message"]) for check in record["checks"]]
        shown += f"\n\n{table(['check', 'verdict', 'why'], checks)}"
    return f"{shown}\n\n{table(['step', 'status', 'seconds', 'rows', 'MB'], steps)}" if steps else shown


def recommendations(document: dict[str, Any]) -> str:
    """One user's list."""
    rows = [
        (
            row["rank"],
            row["title"] or row["movie_id"],
            ", ".join(row["genres"] or []),
            f"{row['predicted_rating']:.2f}",
            row["source"],
        )
        for row in document["recommendations"]
    ]
    head = f"user {document['user_id']}, as of {document['as_of_date']}"
    if not rows:
        return f"{head}\n\nnothing to recommend: {document['short_reason']}"
    return f"{head}\n\n{table(['rank', 'title', 'genres', 'stars', 'source'], rows)}"


def explanation(document: dict[str, Any]) -> str:
    """Why movies are listed to a user, or one is not."""
    head = f"user {document['user_id']}, {document['n_ratings']} ratings, as of {document['as_of_date']}"
    if document["segment"] == "cold":
        head += "\nthe model has nothing to go by: what is popular is listed"
    rows = []
    for movie in document["movies"]:
        if movie["why"] in ("no_candidate", "rule"):
            what = "no candidate" if movie["why"] == "no_candidate" else "not listed"
            return f"{head}\n\n{movie['title'] or movie['movie_id']} is {what}: {movie['note']}"
        parts = [f"{value:+.2f}" for value in movie["parts"].values()]
        near = "; ".join(f"{other['title'] or other['movie_id']} ({other['rating']:g})" for other in movie["near"])
        place = f"rated {movie['rating']:g}" if movie["why"] == "rated" else movie["rank"]
        by = " ".join(filter(None, (movie.get("source"), movie.get("reason"))))
        title = movie["title"] or movie["movie_id"]
        rows.append((place, title, by, f"{movie['predicted_rating']:.2f}", *parts, near))
    names = list(document["movies"][0]["parts"]) if rows else []
    why = [_not_listed(movie) for movie in document["movies"] if movie["why"] in ("rank", "rated")]
    return "\n\n".join([head, table(["rank", "title", "source", "predicted", *names, "near to"], rows), *why])


def _not_listed(movie: dict[str, Any]) -> str:
    """Why a candidate is not in the list, in a sentence."""
    name = movie["title"] or movie["movie_id"]
    if movie["why"] == "rated":
        return f"{name} is not listed: it has been rated, and what has been rated is left out."
    return f"{name} is not listed: it is number {movie['rank']:,} of {movie['of']:,}, and lists end before."


def difference(document: dict[str, Any]) -> str:
    """How the lists of two runs differ."""
    if document["one"] is None:
        return f"run {document['other']}: nothing is published to compare it with"
    both = document["users_in_both"]
    told = {
        "runs": f"{document['one']} and {document['other']}",
        "users": f"{both} in both, {document['users_only_in_one']} left, {document['users_only_in_other']} new",
        "lists": f"{both - document['same_lists']} of {both} differ",
        "places": f"{document['entered']:.1%} hold another movie, {document['moved']:.1%} one from another place",
    }
    if document["looked_at"] < 1:
        told["counted"] = f"among {document['looked_at']:.1%} of the users"
    changes = [
        (row["title"] or row["movie_id"], row["before"], row["after"], f"{row['gained']:+d}")
        for row in (*document["more"], *document["fewer"][::-1])
    ]
    return f"{facts(told)}\n\n{table(['movie', 'lists before', 'after', 'change'], changes)}"


def findings(document: dict[str, Any]) -> str:
    """What was looked at, with what to do where something is wrong."""
    rows = [(one["state"], one["check"], one["message"]) for one in document["findings"]]
    hints = [f"hint: {one['check']}: {one['hint']}" for one in document["findings"] if one["hint"]]
    return "\n".join([table(["", "looked at", "found"], rows), *hints])


def status(document: dict[str, Any]) -> str:
    """What is published, what runs, how the newest runs ended."""
    if document["damaged"]:
        top = f"DAMAGED    {document['damaged']['why']}\nnext       {document['damaged']['hint']}"
    elif document["as_of_date"] is None:
        top = f"nothing is published yet\nnext       {FIRST}"
    else:
        age = "" if document["hours_old"] is None else f", {document['hours_old']:.1f} h old"
        stale = "  STALE" if document["stale"] else ""
        dates = f"{document['as_of_date']} (+{document['dates'] - 1} earlier dates)"
        top = f"published  {dates}{age}{stale}\nfile       {document['database']}"
    running = document["running"]
    now = (
        f"running    {running['run_id']} for {running['as_of_date']}, pid {running['pid']}"
        if running
        else "running    nothing"
    )
    rows = [(run["run_id"], run["as_of_date"], run["status"], run["error_kind"]) for run in document["last_runs"]]
    newest = f"\n\n{table(['run', 'as of', 'status', 'error'], rows)}" if rows else ""
    return f"{top}\nchampion   {document['champion'] or 'none'}\n{now}{newest}"


def _cell(value: Any) -> str:
    """A value as one line of plain text: control characters, which could drive a terminal, are taken out."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def rows(document: dict[str, Any], form: str) -> str:
    """The result of a query as table, csv or jsonl."""
    if form == "jsonl":
        named = (dict(zip(document["columns"], row, strict=True)) for row in document["rows"])
        return "\n".join(json.dumps(row, default=str, ensure_ascii=False) for row in named)
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([_guarded(value) for value in row] for row in [document["columns"], *document["rows"]])
        return text.getvalue().rstrip("\n")
    return table(document["columns"], document["rows"])


def _guarded(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula: text that would start one gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def models(document: dict[str, Any]) -> str:
    """The registry, a version a line."""
    names = ["version", "name", "status", "champion", "trained_through", "parameters", "holdout_rmse"]
    marks = {(True, False): "champion", (True, True): "pinned"}
    rows = [row | {"champion": marks.get((row["champion"], row["pinned"]), "")} for row in document["models"]]
    body = [[row[name] for name in names] for row in rows]
    return table(names, body) if body else "no model is registered yet"


def model(manifest: dict[str, Any]) -> str:
    """One version: what it is, how it was measured, where it comes from."""
    names = ["version", "name", "status", "note", "created_at", "trained_through", "parameters", "digest"]
    metrics = [(row["segment"], row["metric"], row["value"], row["n"]) for row in manifest["metrics"]]
    recipe = {**manifest["recipe"]["model"], **manifest["recipe"]["train"]}
    verdicts = "\n".join(check["message"] for check in manifest["checks"])
    return (
        f"{facts({name: manifest[name] for name in names})}\n\n{facts(recipe)}\n\n{verdicts}\n\n"
        f"{table(['segment', 'metric', 'value', 'n'], metrics)}"
    )


def receipt(document: dict[str, Any]) -> str:
    """What was erased of whom, where, and who else still has them."""
    rows = [(place, found["files"], found.get("rows")) for place, found in document["erased"].items()]
    head = f"{document['asked']} asked for; {'erased' if document['held'] else 'nothing held'}"
    left = [
        f"{file['path']}  {'not readable' if file['rows'] is None else file['rows']}"
        for file in document["still_contain"]
    ]
    lost = [f"{one['path']}  {one['hint']}".rstrip() for one in document["damaged"]]
    gone = "\n\nremoved, as it was damaged and could not be cleared of them:\n" + "\n".join(lost) if lost else ""
    own = "\n\nyour own files that still have them, rows:\n" + "\n".join(left) if left else ""
    return f"{head}\n\n{table(['place', 'files', 'rows'], rows)}\n\nkept out from now on: {document['kept_out']}{gone}{own}"


def demo(document: dict[str, Any]) -> str:
    """What the demo made, one list, and where to go from here."""
    database, user, config = document["database"], document["user"]["user_id"], document["config"]
    popular = "SELECT title, n_users FROM movie_exposure JOIN movies USING (movie_id) ORDER BY n_users DESC LIMIT 5"
    scored = document["run"].get("n_users") or 0
    return (
        f"{document['ratings']:,} made-up ratings, {scored:,} users scored, {document['seconds']:.0f} s.\n\n"
        f"{recommendations(document['user'])}\n\n"
        f"ratings          {document['lake']}\n"
        f"recommendations  {database}\n"
        f"settings         {config}\n\n"
        f"Ask for more:\n"
        f"  recjob recommend -c {config} --user {user}\n"
        f'  recjob query -c {config} "{popular}"\n'
        f"or open the file with any DuckDB client: SELECT * FROM current_recommendations WHERE user_id = {user};"
    )
