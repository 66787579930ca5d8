#!/bin/bash
# Mosec 0.9.8: a front end in Rust, WORKERS Python processes per model behind it, iris in batches of up to 32.
. "$(dirname "$0")/common.sh"
environment mosec mosec==0.9.8 "$ORT" numpy

cd "$APPS"
exec python mosec_app.py --address 127.0.0.1 --port "$TARGET" --timeout 60000 --log-level error
