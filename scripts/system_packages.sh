#!/bin/sh
# Install the system packages that tests (curl) or benchmarks (wrk) use, where they are missing and this user may install them.
set -eu
for package in curl "$@"; do
  command -v "$package" >/dev/null 2>&1 && continue
  if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package"; } >/dev/null
  else
    echo "this needs $package, and it is not installed: install it and try again" >&2
    exit 1
  fi
done
