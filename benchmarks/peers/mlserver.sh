#!/bin/bash
# MLServer 1.7.1 with a runtime that calls onnxruntime; WORKERS parallel workers. gRPC is at PORT+1, metrics at PORT+2.
. "$(dirname "$0")/common.sh"
# with a newer uvloop its worker processes find no event loop and never answer
environment mlserver mlserver==1.7.1 "$ORT" 'uvloop<0.22'

export MLSERVER_HOST=127.0.0.1 MLSERVER_HTTP_PORT=$TARGET MLSERVER_GRPC_PORT=$((TARGET + 1)) MLSERVER_METRICS_PORT=$((TARGET + 2))
export MLSERVER_PARALLEL_WORKERS=$WORKERS MLSERVER_DEBUG=false PYTHONPATH=$APPS
export MLSERVER_LOGGING_SETTINGS='{"version": 1, "root": {"level": "ERROR"}, "loggers": {"mlserver": {"level": "ERROR"}, "uvicorn.access": {"level": "ERROR"}}}'
mkdir -p "$ENVIRONMENT/run"  # it leaves files where it is started
cd "$ENVIRONMENT/run"
exec mlserver start "$MODELS/mlserver"
