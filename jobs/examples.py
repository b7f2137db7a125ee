"""Examples of each command, as its `--help` and the documentation show them: a line to type, and what for."""

EXAMPLES: dict[str, str] = {
    "recjob": """
        recjob demo                             # the whole path on made-up ratings
        recjob init                             # a commented recjob.toml to start from
        recjob nightly                          # last night: what cron and the scheduler run
        recjob recommend --user 42
    """,
    "recjob demo": """
        recjob demo                             # into ./recjob-demo
        recjob demo /tmp/look                   # somewhere else
    """,
    "recjob init": """
        recjob init /srv/recjob                 # recjob.toml and state/ there
    """,
    "recjob ingest": """
        recjob ingest ml-100k.zip               # a zip from GroupLens
        recjob ingest movielens/1m              # the same data through TensorFlow Datasets
        recjob ingest 'ratings/*.csv' --movies movies.csv --column user_id=userId
    """,
    "recjob check": """
        recjob check                            # would last night's ratings be taken?
        recjob check --date 2026-11-23 --json
    """,
    "recjob train": """
        recjob train --date 2026-11-23          # a model in the registry; readers see no change
    """,
    "recjob score": """
        recjob score --model champion           # fresh lists without a training
        recjob score --no-publish               # staged only
        recjob score --date 2026-11-23 --shard 3/8   # one part of eight, beside the others
        recjob score --date 2026-11-23 --shards 8    # take what is there, score the rest, publish
        recjob score --date 2026-11-23 --force --reason "wrong lists"
    """,
    "recjob nightly": """
        recjob nightly                          # as of the end of yesterday
        recjob nightly --date 2026-11-23        # as of the end of that day
        recjob nightly --dry-run                # would there be anything to do?
        recjob nightly --timeout 2h --wait 600  # as from cron: ends at last, waits for another run
        recjob nightly --memory 4GiB            # larger blocks of users, the same lists
    """,
    "recjob plan": """
        recjob plan --date 2026-11-23           # what would change for readers?
        recjob plan --model champion --top-n 20
    """,
    "recjob backfill": """
        recjob backfill --from 2026-11-01 --to 2026-11-23 --dry-run
        recjob backfill --from 2026-11-01 --to yesterday --only failed
    """,
    "recjob evaluate": """
        recjob evaluate                         # the configured model, on the newest tenth
        recjob evaluate --split time-range --model basic
        recjob evaluate tuned --split random --seed 7 --no-lists
    """,
    "recjob tune": """
        recjob tune --model tuned --trials 30   # again: goes on to 30
        recjob tune --only learning_rate --only epochs --timeout-minutes 60
    """,
    "recjob backtest": """
        recjob backtest --from 2026-11-01 --to 2026-11-14
        recjob backtest --from 2026-09-01 --to 2026-11-01 --every 7 --retrain 7 --retrain 28
    """,
    "recjob status": """
        recjob status
        recjob status --max-age 28h             # a health probe: exit 9 when stale
    """,
    "recjob late": """
        recjob late                             # then: recjob nightly --date D
    """,
    "recjob runs list": """
        recjob runs list -n 5
    """,
    "recjob runs show": """
        recjob runs show 20261124T033           # the beginning of an id will do
    """,
    "recjob runs diff": """
        recjob runs diff 2026-11-22 2026-11-23
        recjob runs diff 20261123T033 20261124T033
    """,
    "recjob models list": """
        recjob models list
    """,
    "recjob models show": """
        recjob models show champion
    """,
    "recjob models export": """
        recjob models export champion --to export/1    # a SavedModel for TensorFlow Serving
    """,
    "recjob models card": """
        recjob models card champion             # Markdown, to read
        recjob models card 20261123-3f9c2a7b --to card.md
    """,
    "recjob recommend": """
        recjob recommend --user 42 -n 5
        recjob recommend --user id-7 --json
    """,
    "recjob explain": """
        recjob explain --user 42                # why the first of the list?
        recjob explain --user 42 --movie 50     # why is this one listed, or not?
    """,
    "recjob export": """
        recjob export --to lists.parquet
        recjob export --to lists.jsonl          # one user a line
        recjob export --to lists.csv --date 2026-11-23
    """,
    "recjob query": """
        recjob query "SELECT * FROM freshness"
        recjob query -f top.sql --format csv --timeout 10
        recjob query -f top.sql --format parquet --to top.parquet --max-rows 10000000
        echo "SELECT count(*) AS n FROM movies" | recjob query -f -
    """,
    "recjob report": """
        recjob report                           # of the newest run
        recjob report 20261124T033
    """,
    "recjob config show": """
        recjob config show --origin             # from a flag, the environment, the file, or a default?
    """,
    "recjob publish": """
        recjob publish                          # what `recjob plan` has staged
        recjob publish 20261124T033             # these lists for their date
    """,
    "recjob sync": """
        recjob sync                             # fill an empty state folder from store.url
        recjob sync --discard                   # two machines parted: be what the store has
    """,
    "recjob prune": """
        recjob prune                            # after publish.retention_dates was lowered
    """,
    "recjob models promote": """
        recjob models promote 20261123-3f9c2a7b
    """,
    "recjob models pin": """
        recjob models pin champion              # tonight's lists by it, without a training
    """,
    "recjob models unpin": """
        recjob models unpin
    """,
    "recjob rollback": """
        recjob rollback                         # the file before
        recjob rollback --to 20261123T033000Z-3f9c2a7b
    """,
    "recjob forget": """
        recjob forget --file -                  # ids from stdin, one a line: no shell keeps them
        recjob forget --user 42 --json
        recjob forget --user 42 --let-in        # off the list of who is kept out
    """,
    "recjob schedule run": """
        recjob schedule run -c /srv/recjob/recjob.toml
    """,
    "recjob schedule next": """
        recjob schedule next -n 3
    """,
    "recjob doctor": """
        recjob doctor                           # exit 7 where tonight would not work
    """,
    "recjob schema": """
        recjob schema recommend                 # the fields of: recjob recommend --user 42 --json
        recjob schema runs show
    """,
    "recjob completion": """
        eval "$(recjob completion bash)"        # in ~/.bashrc
        recjob completion fish > ~/.config/fish/completions/recjob.fish
    """,
}


def of(command_path: str) -> list[str]:
    """The lines to type for a command, e.g. of `recjob runs list`; none where it has none."""
    return [line.strip() for line in EXAMPLES.get(command_path, "").strip().splitlines()]
