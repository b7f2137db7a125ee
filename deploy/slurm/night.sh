#!/bin/sh
# A night on a Slurm cluster: train once, score in eight array tasks, stage and publish. sh night.sh [DATE], by default yesterday.
# A shard that is missing at the end is scored by the last job, so that it starts whatever became of the array.
set -eu
here=$(dirname "$0")
day=${1:-$(date -u -d yesterday +%F)}
submit="sbatch --parsable --chdir=/srv/recjob --cpus-per-task=4 --mem=8G --time=04:00:00"
train=$($submit --job-name=recjob-train --wrap ".venv/bin/recjob train --date $day --wait 600")
shards=$($submit --dependency="afterok:$train" "$here/shard.sbatch" "$day")
$submit --job-name=recjob-publish --dependency="afterany:$shards" \
    --wrap ".venv/bin/recjob nightly --date $day --shards 8 --wait 600"
