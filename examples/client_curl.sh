#!/bin/sh
# Call the example models with curl:  sh examples/client_curl.sh [URL]
set -eu
url=${1:-${DRAGOMAN_URL:-http://127.0.0.1:3000}}

ask() { # prints what it asks, then the answer
    echo "> $*"
    curl --silent --show-error --fail-with-body "$@"
    echo
}

# Is it there, and what has it?
ask "$url/v2/health/ready"
ask "$url/v2/models"
ask "$url/v2/models/iris"

# Open Inference Protocol
ask "$url/v2/models/iris/infer" -d '{
  "id": "one", "outputs": [{"name": "predict"}],
  "inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]}'

# TensorFlow Serving, and the same as a Gradient deployment
ask "$url/v1/models/iris:predict" -d '{"instances": [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]}'
ask "$url/model-serving/iris:predict" -d '{"inputs": [[5.1, 3.5, 1.4, 0.2]]}'

# How often each model was asked
curl --silent --show-error "$url/metrics" | grep '^nv_inference_count'
