"""What it costs in quality that each part of the users learns from its own people only: `input.part`.

    python benchmarks/parts.py --data ml-1m.zip [--split random] [--parts 1 2 4 8] [--seeds 2]
    python benchmarks/parts.py --data ml-100k.zip --quick

For each number of parts, `default` is trained on each part of the training ratings and asked for the test ratings of the same
users. All users count alike, whatever part they are in. Errors and hits are those of quality.py. The last line is JSON:
{"benchmark": "parts", "data": .., "figures": {"rmse_4": .., "rmse_4_se": .., "ndcg@10_4": .., "recall@50_4": ..}}.
"""

import argparse
import dataclasses
import json
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

from quality import SPLITS, Case, cases, measure, own

from recommender.known import Attributes
from storage.grouplens import read_zip
from storage.part import Part

SHOWN = ("rmse", "ndcg@10", "recall@50")


def of_part(case: Case, part: Part) -> Case:
    """What is learnt and asked of the users of a part."""
    return dataclasses.replace(case, train=part.within(case.train), test=part.within(case.test))


def main() -> None:
    """Print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a GroupLens zip")
    parser.add_argument("--split", choices=SPLITS, default="random")
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one seed, 1 and 2 parts, a few steps")
    given = parser.parse_args()
    changes = {"epochs": 2} if given.quick else {}
    parts, seeds = ([1, 2], 1) if given.quick else (given.parts, given.seeds)
    found = read_zip(given.data)
    drawn = [
        cases(given.split, seed, found.ratings, Attributes(found.users, found.movies), False) for seed in range(seeds)
    ]
    figures: dict[str, float] = {}
    print(f"{given.data.name}, {given.split}, {seeds} seeds\n{'parts':>5}" + "".join(f"{name:>20}" for name in SHOWN))
    for of in parts:
        each = [
            measure(
                partial(own, name="default", changes=changes),
                [of_part(case, Part(number, of)) for case in whole for number in range(1, of + 1)],
            )
            for whole in drawn
        ]
        cells = ""
        for name in SHOWN:
            values = [one[name] for one in each]
            figures[f"{name}_{of}"] = round(fmean(values), 5)
            error = round(stdev(values) / len(values) ** 0.5, 5) if len(values) > 1 else None
            figures |= {} if error is None else {f"{name}_{of}_se": error}
            cells += f"{fmean(values):>20.4f}" if error is None else f"{f'{fmean(values):.4f} ± {error:.4f}':>20}"
        print(f"{of:>5}{cells}", flush=True)
    print(json.dumps({"benchmark": "parts", "data": given.data.name, "figures": figures}))


if __name__ == "__main__":
    main()
