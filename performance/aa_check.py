"""How often the report finds a difference where there is none: runs of one recipe against runs of the same recipe.

python performance/aa_check.py [FOLDER] [--draws N]

FOLDER holds many seeds of its baseline (results/embedded-seeds: `run_matrix.py --strategies full --seeds 0,...,19`).
The verdict on recipes should be wrong in about 5 % of draws, whatever the number of seeds. All draws share the same
runs, so rates of large groups rest on few independent splits.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from report.frames.aa_check import rates
from report.frames.paired import read_scores
from report.frames.results import load

GROUP_SIZES = (1, 2, 3, 4, 5, 7, 10)


def main(folder: Path, draws: int) -> None:
    runs = load(folder).runs
    chosen = runs[(runs["kind"] == "baseline") & (runs["status"] == "ok")]
    scores = pd.DataFrame(read_scores(folder, chosen["run_id"])).dropna().to_numpy().T  # (runs, questions)
    means = 100 * scores.mean(axis=1)
    print(f"{folder}: {len(scores)} seeds of {chosen['strategy'].iloc[0]}, {scores.shape[1]} questions")
    print(
        f"score of a seed: mean {means.mean():.1f}, sd {means.std(ddof=1):.1f}, {means.min():.1f} to {means.max():.1f}"
    )
    print(f"{draws} draws each, percent:\n")
    print("seeds  better/worse  equal  cannot tell  half-width (points)  questions alone: better/worse")
    for size in GROUP_SIZES:
        if 2 * size <= len(scores):
            found = rates(scores, size, draws)
            width = "" if np.isnan(found.half_width) else f"{100 * found.half_width:.1f}"
            shares = [f"{100 * share:.1f}" for share in (found.false, found.equal, found.unknown, found.naive_false)]
            print(f"{size:5}  {shares[0]:>12}  {shares[1]:>5}  {shares[2]:>11}  {width:>19}  {shares[3]:>29}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results/embedded-seeds"))
    parser.add_argument("--draws", type=int, default=2000)
    options = parser.parse_args()
    main(options.folder, options.draws)
