# Sourced by the start scripts: `NAME.sh install` makes the peer's own environment, `NAME.sh PORT` runs the peer on 127.0.0.1.
#
#   PEERS_DIR    where environments are made; default: dragoman-peers in the user's cache directory
#   MODELS       folder that `python -m benchmarks` has filled with the models; needed to run, not to install
#   PEER_PYTHON  interpreter for the environments; default: python3
#   ORT_VERSION  version of onnxruntime for all peers, so that every server runs the same one; default: the newest
#   WORKERS      processes per model; default 2
set -eu
[ $# -eq 1 ] || { echo "usage: $0 install|PORT" >&2; exit 2; }
: "${PEERS_DIR:=${XDG_CACHE_HOME:-$HOME/.cache}/dragoman-peers}" "${PEER_PYTHON:=python3}" "${WORKERS:=2}"
ORT=onnxruntime${ORT_VERSION:+==$ORT_VERSION}
export WORKERS OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1

# environment NAME REQUIREMENT...: make it if it is not there yet, put it first in PATH, and end here for "install".
# The file ".complete" names what was installed: another list of requirements, or an installation that broke off, starts anew.
environment() {
  ENVIRONMENT=$PEERS_DIR/$1
  shift
  if [ "$(cat "$ENVIRONMENT/.complete" 2>/dev/null)" != "$*" ]; then
    rm -rf "$ENVIRONMENT"
    mkdir -p "$PEERS_DIR"
    "$PEER_PYTHON" -m venv "$ENVIRONMENT"
    "$ENVIRONMENT/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"
    printf '%s\n' "$*" >"$ENVIRONMENT/.complete"
  fi
  PATH=$ENVIRONMENT/bin:$PATH
  [ "$TARGET" != install ] || exit 0
  : "${MODELS:?is not set: start peers with python -m benchmarks, or name the folder of its models}"
}
TARGET=$1
APPS=$(cd "$(dirname "$0")" && pwd)/apps
