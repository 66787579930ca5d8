#!/bin/sh
# Make requirements/*.txt anew from requirements/*.in: complete, hashed, for every supported Python, naming no registry.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
compile() {
  "$uv" pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
    --no-emit-package dragoman -q "$@"
}
for set in serve dev; do
  {
    echo "# Made by scripts/lock.sh from requirements/$set.in and requirements/models.in; do not edit."
    compile "requirements/$set.in"
    compile --no-deps requirements/models.in
  } >"requirements/$set.txt"
done
for client in requirements/clients/*.in; do
  set -- "$client"
  override="${client%.in}.override"
  if [ -f "$override" ]; then
    set -- "$@" --override "$override"
  fi
  compile "$@" -o "${client%.in}.txt"
done
