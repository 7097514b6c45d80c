#!/usr/bin/env bash
# The demo: two sandboxes on a network of their own that talk to each other, and a web server in a network namespace of
# its own, published with `portmap -p` and fetched through the port.
#
# Everything happens in fresh namespaces: one stands for the host, others for what runs on it. This machine's addresses,
# routes and firewall are never touched, and everything is gone with the last process, whatever ends it.
#
# usage: demo.sh BIN-DIRECTORY
set -euo pipefail

bin=$1
if [[ ${2-} != inside ]]; then
    PATH=$PATH:/usr/sbin:/sbin
    new=(unshare --net --mount --pid --fork --kill-child --mount-proc)
    if ((EUID != 0)); then
        # Enough where users may make user namespaces; else root has to.
        if unshare --user --map-root-user --net true 2>/dev/null; then
            new+=(--user --map-root-user)
        else
            new=(sudo "${new[@]}")
        fi
    fi
    exec "${new[@]}" "$0" "$bin" inside
fi
trap 'exit 130' INT TERM

if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold= dim= plain=; fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$dim" "$*" "$plain"; }
fail() { echo "demo: $*" >&2; exit 1; }
# Until it succeeds, ten seconds at most.
await() {
    local what=$1 tries=200
    shift
    until "$@" 2>/dev/null; do
        ((tries-- > 0)) || fail "$what: waited in vain"
        sleep 0.05
    done
}
get() { curl --silent --show-error --fail --globoff --noproxy '*' --max-time 5 "$1"; }
fetch() {
    show curl "$1"
    get "$1" || fail "no answer from $1"
}
free() { ! (exec 3<>/dev/tcp/127.0.0.1/8080) && ! (exec 3<>/dev/tcp/::1/8080); }

# Only this namespace sees the mount.
mount -t tmpfs tmpfs /run
cd /run
target=10.88.0.2

export PORTMAP_DATA_ROOT=/run/data PORTMAP_EXEC_ROOT=/run/portmap PORTMAP_HOST=unix:///run/portmap/portmap.sock
portmap() {
    show "portmap $*"
    "$bin/portmap" "$@"
}
echo '<h1>It works: served by busybox httpd</h1>' >index.html

step "Two sandboxes on a network of their own"
portmap network create --subnet 10.89.0.0/24 shop
portmap run -d --name web --net shop -- busybox httpd -f -p 80
portmap ps
address=$("$bin/portmap" inspect -f '{{.NetworkSettings.Networks.shop.IPAddress}}' web)
portmap run --rm --net shop -- curl --silent --retry 5 --retry-connrefused "http://$address/"
echo "- from a sandbox on another network it can't be reached:"
portmap run --rm -- curl --silent --show-error --max-time 1 "http://$address/" && fail "it was reached"
portmap network inspect -f '{{range .Containers}}{{$.Name}}: {{.Name}} has {{.IPv4Address}}{{end}}' shop
portmap rm -f web
portmap network rm shop

step "A web server in a network of its own: $target, IPv4 only"
echo '<h1>It works: served by busybox httpd at 10.88.0.2</h1>' >index.html
unshare --net sleep infinity &
web=$!
in_web=(nsenter --net --target "$web" --)
other_network() { [[ $(readlink "/proc/$web/ns/net") != "$(readlink /proc/self/ns/net)" ]]; }
await "the second namespace" other_network
ip link set lo up
ip link add eth0 type veth peer name eth0 netns "$web"
ip address add 10.88.0.1/24 dev eth0
ip link set eth0 up
"${in_web[@]}" ip address add "$target/24" dev eth0
"${in_web[@]}" ip link set eth0 up
"${in_web[@]}" busybox httpd -f -p "$target:80" -h /run &
await "the web server" get "http://$target/" >/dev/null
echo "busybox httpd answers there"

step "Published with one command"
show "portmap -p 8080:80 $target"
"$bin/portmap" -p 8080:80 "$target" >table &
portmap=$!
await "portmap" grep -q :8080 table
cat table
proxy=$(awk '/0\.0\.0\.0:8080/ { print $NF }' table)

step "Fetched through the port: http://127.0.0.1:8080/"
fetch http://127.0.0.1:8080/
if grep -q '\[::\]:8080' table; then
    fetch 'http://[::1]:8080/'
fi

step "What runs"
show ps
busybox ps -o pid,ppid,args | grep -E '^ *PID|bin/(portmap|netproxy) |[b]usybox httpd'
show "netproxy --stats $proxy"
"$bin/netproxy" --stats "$proxy"

step "Ctrl-C"
kill -INT "$portmap"
status=0
wait "$portmap" || status=$?
((status == 0)) || fail "portmap left with status $status"
! busybox ps -o args | grep '[n]etproxy' || fail "a proxy still runs"
free 2>/dev/null || fail "somebody still answers on port 8080"
echo "portmap left with status 0, its proxies are gone, port 8080 is free"
