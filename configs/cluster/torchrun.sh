#!/bin/bash
# Train under torchrun, on one node or several; a rank that dies is started again, and all go on.
#
#     configs/cluster/torchrun.sh --config configs/quickstart.yaml
#     NNODES=2 RDZV_ENDPOINT=node0:29400 configs/cluster/torchrun.sh --config my.yaml
#
# (the second on each of the two nodes).
#
# What follows goes to `train.py fit`. Run it from the folder of train.py.
#
# Environment:
#   NPROC_PER_NODE     ranks on this node, one a GPU (default: the number of GPUs, else 1)
#   NNODES             nodes that have to join (default: 1)
#   RDZV_ENDPOINT      host:port of one of the nodes, the same on all (default: a free port here)
#   RDZV_ID            name of the run, the same on all nodes (default: pile)
#   MAX_RESTARTS       how often ranks may be started again (default: 3)
#   TORCH_ELASTIC_SHUTDOWN_TIMEOUT   seconds that a step and a save may take after SIGTERM, before
#                      torchrun kills (default: 120 here, 30 in torch); as long a rank may be waited
#                      for that hangs because another has died
#   PILE_PYTHON        the Python to run (default: python)
#   PILE_CACHE         where prepared text lies; has to be seen from all nodes
# torchrun sets for each rank RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. With
# several network cards name the one to use in GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME.
#
# Exit codes: 0 done; 85 told to leave (SIGTERM or SIGUSR1 to this script), and saved: run it again;
# 1 failed more often than MAX_RESTARTS. A SIGUSR1 to a single rank makes all save and start again.

set -uo pipefail

gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l)
ranks=${NPROC_PER_NODE:-$((gpus > 0 ? gpus : 1))}
nodes=${NNODES:-1}

export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}
# torch 2.13 keeps one store for all its starts, where ranks that are started again over gloo find
# the addresses of dead ones
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

told=
leave() {
    told=yes
    kill -TERM "$torchrun" 2>/dev/null  # which hands it to its ranks and waits for them
}

"${PILE_PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$nodes" --nproc-per-node "$ranks" \
    --rdzv-backend c10d --rdzv-id "${RDZV_ID:-pile}" \
    --rdzv-endpoint "${RDZV_ENDPOINT:-localhost:0}" \
    --max-restarts "${MAX_RESTARTS:-3}" \
    train.py fit --trainer.num_nodes "$nodes" --trainer.devices "$ranks" \
    "$@" --ckpt_path auto &
torchrun=$!
trap leave TERM USR1

wait "$torchrun"
code=$?
while kill -0 "$torchrun" 2>/dev/null; do  # a signal has ended the wait, not torchrun
    wait "$torchrun"
    code=$?
done
[ -n "$told" ] && exit 85
exit $code
