#!/bin/sh
# Starts the SuperNode of this pod: pod k of the StatefulSet holds the k-th block of CLIENTS_PER_NODE clients.
set -eu
first=$((POD_INDEX * CLIENTS_PER_NODE))
last=$((first + CLIENTS_PER_NODE - 1))
exec flower-supernode \
  --superlink=gateway:9092 \
  --root-certificates=/run/secrets/ca.crt \
  --auth-supernode-private-key=/run/secrets/node.key \
  --ssl-ca-certfile=/run/secrets/ca.crt \
  --ssl-certfile=/run/secrets/node-tls.crt \
  --ssl-keyfile=/run/secrets/node-tls.key \
  --health-server-address=0.0.0.0:8082 \
  --node-config="clients=\"$first-$last\" name=\"node-$POD_INDEX\""
