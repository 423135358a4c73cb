#!/bin/bash
# A federation over Slurm jobs: one job for the SuperLink and the run, an array of SuperNodes. From a folder that all see:
#
#   NODES=3 CLIENTS_PER_NODE=4 deploy/slurm/federation.sh digits-label-skew --sets "partition.clients=12; algorithm.cohort=6"
#
# All jobs are yours, so SuperNodes reach the SuperLink without a gateway. Certificates are made for this run alone, in the
# shared folder, and only you may read it. CHANGE: partitions, cards and times in superlink.sbatch and supernode.sbatch.
set -euo pipefail
: "${NODES:?how many SuperNodes}" "${CLIENTS_PER_NODE:?clients of each; together the scenario has NODES times as many}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
umask 077
mkdir -p federations
FOLDER=$(mktemp -d "$PWD/federations/XXXXXXXX") # certificates, address, logs and the record
SUBMIT=$here/../submit.py
export FOLDER NODES CLIENTS_PER_NODE SUBMIT

link=$(sbatch --parsable --output="$FOLDER/superlink.log" "$here/superlink.sbatch" "$@")
nodes=$(sbatch --parsable --array="0-$((NODES - 1))" --dependency="after:$link" \
  --output="$FOLDER/supernode-%a.log" "$here/supernode.sbatch")
echo "SuperLink: job $link, SuperNodes: job $nodes, folder: $FOLDER"
echo "to stop: scancel $link $nodes"
