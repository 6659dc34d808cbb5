#!/bin/bash
# Trains on any number of machines under Slurm, and goes on after the time limit of the job:
#
#   sbatch --nodes 2 --gpus-per-node 8 --time 24:00:00 examples/slurm.sh CONFIG.py [key=value ...]
#
# Submit it in the folder of the repository, with the environment activated. One task a machine starts
# a process for each GPU. Five minutes before the time limit Slurm sends SIGUSR1: the run saves and
# ends with exit code 138, the job is queued again, and --resume goes on where it stopped.
#SBATCH --ntasks-per-node=1
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append

export FIRST_MACHINE PORT
FIRST_MACHINE=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 10000))

# The inner shell runs on every machine, where SLURM_NODEID is the number of this machine.
srun bash -c 'exec python train_net.py --config-file "$1" --resume \
    --num-gpus "${SLURM_GPUS_ON_NODE:-1}" --num-machines "$SLURM_NNODES" \
    --machine-rank "$SLURM_NODEID" --dist-url "tcp://$FIRST_MACHINE:$PORT" "${@:2}"' train "$@"
code=$?

if [ "$code" -eq 138 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
