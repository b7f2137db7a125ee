"""Results of experiments as text for people, laid out as in `show`."""

from typing import Any

from jobs.show import table


def evaluation(document: dict[str, Any]) -> str:
    """Layers, row counts, errors and lists beside the baselines."""
    layers = table(
        ["layer", "kind", "parameters"], [(row["layer"], row["kind"], row["parameters"]) for row in document["summary"]]
    )
    rows = [(part, document["rows"][part], f"{rmse:.4f}") for part, rmse in document["rmse"].items()]
    rows += [
        (f"test, {name}", document["rows"]["test"], f"{found['rmse']:.4f}")
        for name, found in document["baselines"].items()
        if "rmse" in found
    ]
    segments = [
        (metric["segment"], metric["n"], f"{metric['value']:.4f}")
        for metric in document["metrics"].get("test", [])
        if metric["metric"] == "rmse"
    ]
    plot = f"\n\nhistory drawn in {document['plot']}" if "plot" in document else ""
    return (
        f"{document['model']} on the {document['split']} split, movies by {document['movie_key']}, seed {document['seed']}\n\n"
        f"{layers}\ntrainable parameters: {document['parameters']:,}\n\n"
        f"{table(['part', 'ratings', 'RMSE'], rows)}\n\n{table(['test segment', 'ratings', 'RMSE'], segments)}"
        f"{_lists(document)}{plot}"
    )


def _lists(document: dict[str, Any]) -> str:
    """How good the lists are, the model's first; nothing where they were not measured."""
    if "lists" not in document:
        return ""
    if not document["lists"]:
        return "\n\nno lists to measure: no known user has a good new rating in the test part"
    names = ["recall@50", "hit_rate@10", "mrr@10", "coverage@10", "diversity@10"]
    rows = []
    for name, found in document["lists"].items():
        ndcg = found["ndcg@10"]
        others = (f"{found[key]['value']:.4f}" if key in found else "" for key in names)
        rows.append(
            (name, f"{ndcg['value']:.4f}", f"{ndcg['ci_low']:.4f} to {ndcg['ci_high']:.4f}", ndcg["n"], *others)
        )
    columns = ["lists", "NDCG@10", "95 %", "users", "recall@50", "hit rate@10", "MRR@10", "coverage@10", "diversity@10"]
    return f"\n\n{table(columns, rows)}"


def tuning(document: dict[str, Any]) -> str:
    """The trials of a study, the best first, and what to do with it."""
    states = ["complete", "pruned", "failed"]
    trials = sorted(document["trials"], key=lambda row: (states.index(row["state"]), row["value"] or 0.0))
    names = list(trials[0]["params"]) if trials else []
    rows = [
        (
            row["trial"],
            row["state"],
            "" if row["value"] is None else f"{row['value']:.4f}",
            *(row["params"].get(name) for name in names),
            row["best_epoch"],
            row["seconds"],
        )
        for row in trials
    ]
    shown = table(["trial", "state", "RMSE", *names, "epoch", "seconds"], rows) if rows else "no trial yet"
    best = document["best"]
    end = (
        f"\n\nbest: {best['value']:.4f} in trial {best['trial']}. For recjob.toml:\n\n{document['toml']}"
        if best
        else ""
    )
    plot = f"\n\ndrawn in {document['plot']}" if "plot" in document else ""
    head = f"study {document['study']}, {document['file']}\nvalidation RMSE, seed {document['seed']}"
    return f"{head}\n\n{shown}{end}{plot}"


def backtest(document: dict[str, Any]) -> str:
    """NDCG@10 by night, the means, and what retraining buys."""
    names = list(document["means"])
    nights = [
        (
            *(night[key] for key in ("as_of", "users", "ratings")),
            *(_figure(night["figures"].get(name, {}).get("ndcg@10")) for name in names),
        )
        for night in document["nights"]
    ]
    figures = ["ndcg@10", "recall@50", "hit_rate@10", "coverage@10", "rmse"]
    means = [(name, *(_figure(found[figure]) for figure in figures)) for name, found in document["means"].items()]
    differences = [
        f"{row['of']} minus {row['minus']}: {row['value']:+.4f} ({row['ci_low']:+.4f} to {row['ci_high']:+.4f})"
        for row in document["differences"]
    ]
    told = "NDCG@10, with 95 % intervals:\n" + "\n".join(differences) if differences else "nobody could be measured"
    plot = f"\n\ndrawn in {document['plot']}" if "plot" in document else ""
    return (
        f"{document['model']}, {document['from']} to {document['to']}, seed {document['seed']}: "
        f"{document['trainings']} trainings, {document['seconds']:.0f} s\n\n"
        f"NDCG@10 by night\n\n{table(['as of', 'users', 'ratings', *names], nights)}\n\n"
        f"means over {document['user_nights']:,} user-nights\n\n"
        f"{table(['', 'NDCG@10', 'recall@50', 'hit rate@10', 'coverage@10', 'RMSE'], means)}\n\n{told}{plot}"
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
