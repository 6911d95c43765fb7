#!/usr/bin/env bash
# usage: tests/deb.sh [PACKAGE.deb]: installs the package in a clean Debian made by debootstrap (as root), runs it, removes it, purges it.
# Without root or debootstrap: looks into the package only. CHROOT=folder uses (and keeps) one that is there.
set -eu
cd "$(dirname "$0")/.."
deb=$(realpath "${1:-$(ls -t build/agent-memory_*.deb | head -1)}")
fail() { echo "FAILED   $*"; exit 1; }
ok() { echo "ok       $*"; }

files=$(dpkg-deb -c "$deb" | awk '{print $6}')
for f in usr/bin/agent-memory usr/lib/systemd/system/agent-memory.service usr/share/man/man1/agent-memory.1.gz \
    usr/share/bash-completion/completions/agent-memory etc/agent-memory/config.yaml usr/share/doc/agent-memory/copyright; do
    grep -qx "./$f" <<<"$files" || fail "no $f in the package"
done
dpkg-deb -c "$deb" | grep -v ' root/root ' && fail "files that are not root's"
dpkg-deb -c "$deb" | awk '{print $1}' | grep -q '^-.......w' && fail "files that anybody may write"
work=$(mktemp -d /tmp/am-deb-XXXXXX)
trap 'rm -rf "$work"' EXIT
dpkg -x "$deb" "$work/x"
(cd "$work/x" && dpkg-deb -I "$deb" md5sums | md5sum -c --quiet) || fail "md5sums"
man -l --warnings "$work/x/usr/share/man/man1/agent-memory.1.gz" >/dev/null 2>"$work/man.err" || true
[ ! -s "$work/man.err" ] || fail "the manual: $(head -3 "$work/man.err")"
if command -v lintian >/dev/null; then lintian --fail-on error "$deb" || fail "lintian"; fi
ok "what is in $(basename "$deb")"

if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    echo "skipped  installing: wants root and debootstrap"
    exit 0
fi
root=${CHROOT:-$work/root}
[ -d "$root/usr" ] || debootstrap --variant=minbase bookworm "$root" >"$work/debootstrap.log" 2>&1 || {
    echo "skipped  installing: debootstrap failed: $(tail -1 "$work/debootstrap.log")"
    exit 0
}
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp "$deb" "$root/tmp/agent-memory.deb"
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"; }
inside apt-get update -qq >/dev/null || { echo "skipped  installing: apt-get update failed"; exit 0; }
inside apt-get install -y -qq --no-install-recommends /tmp/agent-memory.deb >"$work/install.log" 2>&1 || fail "apt-get install: $(tail -5 "$work/install.log")"
ok "installs in a clean Debian"
inside agent-memory version | grep -q '^agent-memory ' || fail "it does not run"
inside agent-memory config check --config /etc/agent-memory/config.yaml --data-dir /var/lib/agent-memory >/dev/null || fail "the config file it brings"
[ "$(inside stat -c '%U %a' /var/lib/agent-memory)" = "agent-memory 700" ] || fail "the state folder"
inside su -s /bin/sh agent-memory -c 'agent-memory serve --port 0 --config /etc/agent-memory/config.yaml --data-dir /var/lib/agent-memory' >"$work/out" 2>"$work/err" &
for _ in $(seq 100); do grep -q 'kill -TERM' "$work/out" && break; sleep 0.2; done
pid=$(sed -n 's/.*kill -TERM //p' "$work/out")
[ -n "$pid" ] || fail "it does not serve: $(tail -3 "$work/err")"
port=$(sed -n 's/^ *address .*:\([0-9]*\)$/\1/p' "$work/out")
answer=$(curl -s "http://127.0.0.1:$port/v1/chat/completions" -H 'Content-Type: application/json' \
    -d '{"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}')
grep -q '"choices"' <<<"$answer" || fail "it does not answer: $answer"
kill -TERM "$pid"
wait
grep -q server_shutdown_complete "$work/err" || fail "it does not end"
ok "serves as its own user"
inside apt-get remove -y -qq agent-memory >/dev/null 2>&1 || fail "remove"
[ -d "$root/var/lib/agent-memory/caches" ] || fail "removing the package removed the agents"
inside dpkg --purge agent-memory >/dev/null 2>&1 || fail "purge"
[ ! -e "$root/var/lib/agent-memory" ] && [ ! -e "$root/etc/agent-memory" ] || fail "purging leaves something"
ok "removed, with its agents kept; purged, with nothing left"
