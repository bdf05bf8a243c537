#!/bin/bash
# Train on several machines under Slurm:  sbatch examples/slurm.sh TASK [SETTINGS OF minitransformer train]
#
# One rank on each machine, in which as many processes share the weights as its cores pay for (the toy tasks have two in
# all, unless told --set processes=none). A job that is cut off by
# its time limit is told so two minutes before, saves, and goes on when it is submitted again.
#SBATCH --job-name=minitransformer
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120

. .venv/bin/activate # with minitransformer[mpi], on a file system that all machines see
run=runs/$1-$SLURM_JOB_NAME

if [ -e "$run/config.json" ]; then
    set -- "$1" --resume # with the run's own settings
fi
# --mpi=pmi2 is MPICH's and Intel MPI's; for Open MPI: --mpi=pmix (srun --mpi=list says what there is)
srun --mpi=pmi2 --cpus-per-task="$SLURM_CPUS_PER_TASK" minitransformer train "$@" --out "$run"
