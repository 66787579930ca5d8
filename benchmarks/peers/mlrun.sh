#!/bin/bash
# MLRun 1.12.1's mock server; it has no port: see apps/mlrun_mock.py.
. "$(dirname "$0")/common.sh"
environment mlrun mlrun==1.12.1
cd "$(mktemp -d)"
exec python "$APPS/mlrun_mock.py" 2>mock.log
