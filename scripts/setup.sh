#!/usr/bin/env bash
# Installs what building, the demo and the tests need and this machine lacks; with the argument `bench`, also what the
# benchmarks compare with.
#
# A thing counts as there if its file is: a Docker from elsewhere does as well as Debian's, and is never replaced.
# No service is started or enabled: tests and benchmark start what they need, away from the machine's network.
set -euo pipefail

# what to look for : the package that brings it
needs=(
    cc:gcc
    /usr/include/stdlib.h:libc6-dev
    /etc/ssl/certs/ca-certificates.crt:ca-certificates
    curl:curl
    ip:iproute2
    busybox:busybox-static
    iptables:iptables
    nft:nftables
    dockerd:docker.io
    docker:docker.io
    haproxy:haproxy
    nginx:nginx
    redis-server:redis-server
    redis-cli:redis-tools
    dnsmasq:dnsmasq-base
    dig:bind9-dnsutils
    mariadbd:mariadb-server-core
    mariadb:mariadb-client-core
)

bench_needs=(
    socat:socat
    /usr/lib/podman/aardvark-dns:aardvark-dns
)

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

there() {
    case $1 in
        /*) [[ -e $1 ]] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

command -v cargo >/dev/null || die "Rust is missing: install it from https://rustup.rs, then call make again"

case ${1-} in
    "") ;;
    bench)
        needs+=("${bench_needs[@]}")
        # Debian's nginx has the stream module in a package of its own; others have it built in.
        { nginx -V 2>&1 || true; } | grep -qE -- '--with-stream( |$)' ||
            needs+=(/usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream)
        ;;
    *) die "usage: scripts/setup.sh [bench]" ;;
esac

missing=()
for need in "${needs[@]}"; do
    package=${need#*:}
    there "${need%%:*}" || [[ " ${missing[*]-} " == *" $package "* ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
    say "nothing is missing"
    exit
fi

command -v apt-get >/dev/null ||
    die "this is not Debian: install what these packages of Debian bring, then call make again: ${missing[*]}"
as_root=()
if ((EUID != 0)); then
    command -v sudo >/dev/null || die "missing ${missing[*]}: run make setup as root, sudo is missing too"
    as_root=(sudo)
fi

# Debian starts a service as soon as it is installed, unless this file says no. Where there is one, its answer stands.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" </dev/null; }

log=$(mktemp)
run() {
    if ! apt "$@" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "apt-get $1 failed (all it said: $log)"
    fi
}
say "updating the package lists"
run update
say "installing ${missing[*]}"
# Rather than remove a package of yours that is in the way, it fails.
run install --yes --no-install-recommends --no-remove "${missing[@]}"
rm -f "$log"

if [[ -d /run/systemd/system ]]; then
    for service in haproxy nginx redis-server; do
        [[ " ${missing[*]} " == *" $service "* ]] || continue
        say "keeping $service from starting at boot: enable $service.service if you want it"
        "${as_root[@]}" systemctl --quiet disable "$service.service"
    done
fi
if [[ " ${missing[*]} " == *" docker.io "* && -d /run/systemd/system ]]; then
    say "keeping Docker from starting at boot: enable docker.socket if you want it"
    "${as_root[@]}" systemctl --quiet disable docker.socket docker.service containerd.service
fi
if [[ " ${missing[*]} " == *" haproxy "* && -d /run/systemd/system ]]; then
    say "keeping HAProxy from starting at boot: enable haproxy.service if you want it"
    "${as_root[@]}" systemctl --quiet disable haproxy.service
fi
say "done"
