#!/bin/sh
# Install the system packages that tests (curl, postgresql, mosquitto, bubblewrap, slirp4netns) or benchmarks (wrk) use, where they are missing and this user may install them.
set -eu

there() {
  case "$1" in
  # Debian keeps the server's programs beside its versions, where no PATH leads.
  postgresql) command -v postgres || ls /usr/lib/postgresql/*/bin/postgres ;;
  mosquitto) command -v mosquitto || ls /usr/sbin/mosquitto ;;
  mosquitto-clients) command -v mosquitto_pub ;;
  bubblewrap) command -v bwrap ;;
  *) command -v "$1" ;;
  esac >/dev/null 2>&1
}

for package in curl postgresql mosquitto mosquitto-clients bubblewrap slirp4netns "$@"; do
  there "$package" && continue
  if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package"; } >/dev/null
  else
    echo "this needs $package, and it is not installed: install it and try again" >&2
    exit 1
  fi
done
