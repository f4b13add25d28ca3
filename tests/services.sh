#!/usr/bin/env bash
# Installs and starts what the tests with a real container engine need, and ends at once when all of it is there:
#   - a Docker engine (Debian's docker.io; its client can BuildKit),
#   - an image registry on loopback (Debian's docker-registry),
#   - the base image, pulled or, where it cannot be, made by debootstrap under the same name.
# Needs root and apt on Debian or Ubuntu; anywhere else start Docker yourself.
# Usage: tests/services.sh [start|base|status]      start (the default) does everything.
set -euo pipefail

BASE_IMAGE="${FTLAUNCH_BASE_IMAGE:-python:3.11-slim-bookworm}"
REGISTRY="${FTLAUNCH_TEST_REGISTRY:-127.0.0.1:5000}"
STATE="${FTLAUNCH_SERVICES_DIR:-/var/lib/ftlaunch-services}"
SUITE=bookworm

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
    ensure_base
    say "engine $(docker version --format '{{.Server.Version}}'), registry $REGISTRY, base $BASE_IMAGE: ready"
    ;;
base)
    mkdir -p "$STATE" 2>/dev/null || STATE="$(mktemp -d)"
    engine_answers || fail "no Docker engine answers; start it, or as root: tests/services.sh"
    ensure_base
    ;;
status)
    engine_answers && say "engine answers" || fail "no engine"
    registry_answers && say "registry answers" || fail "no registry on $REGISTRY"
    ;;
*) fail "usage: tests/services.sh [start|base|status]" ;;
esac
