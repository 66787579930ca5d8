#!/bin/bash
# Tungstenkit 0.2.20 without docker, serving the model of the folder MODEL (in apps/) in batches of up to BATCH.
# The other versions are those of its own lock file: later ones of pydantic 1 break its model classes.
. "$(dirname "$0")/common.sh"
environment tungstenkit tungstenkit==0.2.20 pydantic==1.10.12 fastapi==0.101.1 starlette==0.27.0 uvicorn==0.22.0

# It leaves files in the working directory.
cd "$(mktemp -d)"
export PYTHONPATH=$APPS/${MODEL:-tungsten_noop} TUNGSTEN_MODEL_MODULE=tungsten_model TUNGSTEN_MODEL_CLASS=Model
exec python "$APPS/tungstenkit_server.py" -p "$TARGET" -b "${BATCH:-16}" --log-level error
