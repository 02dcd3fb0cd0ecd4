#!/bin/bash
# A sweep as an array of Slurm jobs, each with a part of the cases and a record of its own:
#
#     sbatch --array=1-8 examples/slurm/sweep_array.sh CASE --out DIR --over key=a,b,c ...
#     fem-apps table DIR                                    # all parts in one table
#
# Submit the same line again after a time limit or a crash: every part goes on with what is missing.
#SBATCH --job-name=fem-apps-sweep
#SBATCH --nodes=1
#SBATCH --ntasks=8
#SBATCH --cpus-per-task=1
#SBATCH --time=08:00:00
# two minutes before the limit, for running cases to save their state
#SBATCH --signal=TERM@120
set -euo pipefail
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
exec srun fem-apps sweep "$@" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
