#!/bin/bash
# NVIDIA Triton Inference Server 2.51, the binary that the nvidia-pytriton package carries. It comes without the ONNX backend, so its Python
# backend runs onnxruntime: WORKERS stub processes per model, dynamic batching for iris. gRPC is at PORT+1, metrics at PORT+2.
. "$(dirname "$0")/common.sh"
environment triton nvidia-pytriton==0.7.0 "$ORT" numpy

PACKAGES=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
VERSION=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
SERVER=$PACKAGES/pytriton/tritonserver
cp "$SERVER/python_backend_stubs/$VERSION/triton_python_backend_stub" "$SERVER/backends/python/"
# The stub loads libpython by name, and must find that of the environment's own interpreter: patch releases do not mix.
LD_LIBRARY_PATH=$(python -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))'):$PACKAGES/nvidia_pytriton.libs
export LD_LIBRARY_PATH
exec "$SERVER/bin/tritonserver" --model-repository="$MODELS/triton" --backend-directory="$SERVER/backends" \
  --http-address=127.0.0.1 --http-port="$TARGET" --grpc-address=127.0.0.1 --grpc-port=$((TARGET + 1)) \
  --metrics-address=127.0.0.1 --metrics-port=$((TARGET + 2)) --log-info=false --log-warning=false
