#!/usr/bin/env bash
# Installs and starts what the tests with a real container engine need, and ends at once when all of it is there:
#   - a Docker engine (Debian's docker.io; its client can BuildKit),
#   - an image registry on loopback (Debian's docker-registry),
#   - Azurite, the emulator of Azure's blobs (npm; the tests start one each),
#   - Google's own Colab tool, in an environment of its own of a Python 3.12 or newer (the tests of Colab say what is
#     missing where there is none), and the Jupyter server of the machines that it is tried against,
#   - the base image, pulled or, where it cannot be, made by debootstrap under the same name.
# Needs root and apt on Debian or Ubuntu; anywhere else start Docker yourself.
#   - `browser`, apart from the rest: Debian's Chromium, for the tests that open a page.
# Usage: tests/services.sh [start|base|browser|status]      start (the default) does everything.
set -euo pipefail

BASE_IMAGE="${FTLAUNCH_BASE_IMAGE:-python:3.11-slim-bookworm}"
REGISTRY="${FTLAUNCH_TEST_REGISTRY:-127.0.0.1:5000}"
STATE="${FTLAUNCH_SERVICES_DIR:-/var/lib/ftlaunch-services}"
SUITE=bookworm
AZURITE=3.37.0
COLAB_CLI=0.7.5

say() { printf 'services: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Debian's client first: another `docker` on the PATH may lack BuildKit.
docker() { if [ -x /usr/bin/docker ]; then /usr/bin/docker "$@"; else command docker "$@"; fi; }
engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
registry_answers() { curl --silent --fail --noproxy '*' --max-time 2 --output /dev/null "http://$REGISTRY/v2/"; }

wait_for() { # NAME SECONDS TEST LOG
    local deadline=$((SECONDS + $2))
    until "$3"; do
        [ "$SECONDS" -lt "$deadline" ] || { tail -n 20 "$4" >&2 || true; fail "$1 did not answer within $2 s; see $4"; }
        sleep 0.2
    done
}

install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || fail "needs root to install ${missing[*]}"
    command -v apt-get >/dev/null || fail "no apt here: install ${missing[*]} yourself"
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$STATE/apt.log" 2>&1 ||
        { tail -n 20 "$STATE/apt.log" >&2; fail "apt-get install failed"; }
}

start_engine() {
    engine_answers && return 0
    install_packages docker.io iptables
    if ! engine_answers; then
        [ "$(id -u)" = 0 ] || fail "needs root to start dockerd"
        # A pid file left by an engine that was killed keeps the next one from starting.
        if [ -f /var/run/docker.pid ] && ! kill -0 "$(cat /var/run/docker.pid)" 2>/dev/null; then rm -f /var/run/docker.pid; fi
        say "starting dockerd"
        setsid dockerd >"$STATE/dockerd.log" 2>&1 </dev/null &
        wait_for dockerd 60 engine_answers "$STATE/dockerd.log"
    fi
}

start_registry() {
    registry_answers && return 0
    install_packages docker-registry
    mkdir -p "$STATE/registry"
    cat >"$STATE/registry.yml" <<CONFIG
version: 0.1
storage:
  filesystem:
    rootdirectory: $STATE/registry
  delete:
    enabled: true
http:
  addr: $REGISTRY
CONFIG
    say "starting a registry on $REGISTRY"
    setsid docker-registry serve "$STATE/registry.yml" >"$STATE/registry.log" 2>&1 </dev/null &
    wait_for "the registry" 20 registry_answers "$STATE/registry.log"
}

install_azurite() { # into a folder of its own, nothing global
    local folder="$STATE/azurite"
    [ "$(cat "$folder/version" 2>/dev/null)" = "$AZURITE" ] && return 0
    command -v node >/dev/null && command -v npm >/dev/null || install_packages nodejs npm
    say "installing azurite $AZURITE"
    mkdir -p "$folder"
    npm install --prefix "$folder" --no-fund --no-audit --silent "azurite@$AZURITE" >"$STATE/npm.log" 2>&1 ||
        { tail -n 20 "$STATE/npm.log" >&2; fail "npm install azurite failed"; }
    echo "$AZURITE" >"$folder/version"
}

newer_python() { # the first Python that the Colab tool runs in
    local python
    for python in python3 python3.{12,13,14} "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python; do
        if "$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then command -v "$python"; return; fi
    done
    return 1
}

install_colab() { # the tool in an environment of its own; wheels for the Python 3.11 of the machines (3.12 needs no overrides)
    local python folder="$STATE/colab-cli" wheels="$STATE/colab-machine"
    [ "$(cat "$folder/version" 2>/dev/null)" = "$COLAB_CLI" ] && return 0
    python="$(newer_python)" || { say "no Python 3.12 or newer: the tests of Colab are left out"; return 0; }
    say "installing google-colab-cli $COLAB_CLI"
    rm -rf "$folder" "$wheels"
    "$python" -m venv "$folder" && "$folder/bin/pip" install --quiet "google-colab-cli==$COLAB_CLI" >"$STATE/colab.log" 2>&1 &&
        "$folder/bin/pip" download --quiet --dest "$wheels" --python-version 3.11 --only-binary :all: pip jupyter_server ipykernel overrides \
            >>"$STATE/colab.log" 2>&1 || { tail -n 20 "$STATE/colab.log" >&2; fail "google-colab-cli was not installed"; }
    echo "$COLAB_CLI" >"$folder/version"
}

make_base() { # a minimal Debian whose Python is the distribution's 3.11, with this machine's certificate authorities
    install_packages debootstrap
    local root="$STATE/base"
    rm -rf "$root"
    say "making $BASE_IMAGE by debootstrap (about a minute)"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$SUITE" "$root" \
        "${FTLAUNCH_DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$STATE/debootstrap.log" 2>&1 ||
        { tail -n 20 "$STATE/debootstrap.log" >&2; fail "debootstrap failed"; }
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/* \
        "$root"/usr/share/locale/* "$root"/var/log/*
    ln -sf python3 "$root/usr/bin/python"
    tar -C "$root" --numeric-owner -c . | docker import \
        --change 'CMD ["python3"]' --change 'LABEL org.opencontainers.image.title=debootstrap' - "$BASE_IMAGE" >/dev/null
    rm -rf "$root"
}

ensure_base() {
    docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 && return 0
    say "pulling $BASE_IMAGE"
    timeout 120 bash -c "$(declare -f docker); docker pull --quiet '$BASE_IMAGE'" >/dev/null 2>&1 && return 0
    make_base
}

case "${1:-start}" in
start)
    mkdir -p "$STATE" 2>/dev/null || STATE="$(mktemp -d)"
    install_packages curl
    start_engine
    start_registry
    install_azurite
    install_colab
    ensure_base
    say "engine $(docker version --format '{{.Server.Version}}'), registry $REGISTRY, base $BASE_IMAGE: ready"
    ;;
base)
    mkdir -p "$STATE" 2>/dev/null || STATE="$(mktemp -d)"
    engine_answers || fail "no Docker engine answers; start it, or as root: tests/services.sh"
    ensure_base
    ;;
browser)
    mkdir -p "$STATE" 2>/dev/null || STATE="$(mktemp -d)"
    command -v chromium >/dev/null || install_packages chromium
    ;;
status)
    engine_answers && say "engine answers" || fail "no engine"
    registry_answers && say "registry answers" || fail "no registry on $REGISTRY"
    ;;
*) fail "usage: tests/services.sh [start|base|browser|status]" ;;
esac
