#!/bin/bash
# LitServe 0.2.19: WORKERS API processes and WORKERS model processes per model. BATCH joins that many iris requests (default 1, as its own).
. "$(dirname "$0")/common.sh"
environment litserve litserve==0.2.19 "$ORT" numpy

cd "$APPS"
exec python litserve_app.py "$TARGET"
