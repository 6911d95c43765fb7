#!/usr/bin/env bash
# Goes through the page "Debugging Common Issues" of the system this one succeeds, section by section, as an operator would: the page's own commands on
# a running server, each outcome checked. docs/OPERATIONS.md is our page of that kind.
#
# Where the system allows it, everything happens in process, network and mount namespaces of its own: there port 8000 is always free, ps and lsof show
# only what was started here, and nothing here can end anybody else's server. Elsewhere: a free port, and no process is ended that is not ours.
# Outside of a namespace the page's `pkill -f "agent_memory"` is run as `pgrep -f "agent_memory"` (the same program under its other name, the same choice) and a
# kill of what it named, after checking that it named our server: the original would end every server of the machine.
#
# Every command of the page stands here word for word; `paste` runs one with this machine's port in the place of 8000. What belongs to macOS
# (memory_pressure, vm_stat) is not there on Linux; in its place stand the commands that docs/OPERATIONS.md names.
#
# usage: tests/runbook.sh [path of agent-memory]. The last line is "N passed, N failed".
set -uo pipefail
bin=$(realpath "${1:-$(dirname "$0")/../build/agent-memory}")
here=$(realpath "$0")

if [ -z "${RUNBOOK_INSIDE:-}" ]; then
    for how in "--net --pid --mount --fork --mount-proc --kill-child" "--user --map-root-user --net --pid --mount --fork --mount-proc --kill-child"; do
        if unshare $how true 2>/dev/null; then
            RUNBOOK_INSIDE=namespace exec unshare $how bash "$here" "$bin"
        fi
    done
    export RUNBOOK_INSIDE=plain
fi

HOME=$(mktemp -d /tmp/am-runbook-XXXXXX)
export HOME
unset AGENT_MEMORY_DATA_DIR
PORT=8000
if [ "$RUNBOOK_INSIDE" = namespace ]; then
    ip link set lo up
else
    PORT=$(/usr/bin/env python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
fi
LOG=$HOME/server.log
PYTHON=/usr/bin/python3
[ -x $PYTHON ] || PYTHON=python3
SERVER= # the process id of the server under test
passed=0 failed=0

leave() {
    [ -z "$SERVER" ] || kill -9 "$SERVER" 2>/dev/null
    cd / && rm -rf "$HOME"
}
trap leave EXIT

section() { echo "-- $*"; }
check() { # check "what must hold" command...
    local what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok       $what"
    else
        failed=$((failed + 1))
        echo "FAILED   $what"
        tail -n 5 "$LOG" 2>/dev/null | cut -c1-200 | sed 's/^/         /'
    fi
}
same() { [ "$1" = "$2" ] || { echo "         '$1' instead of '$2'"; false; }; }
empty() { [ -z "$1" ] || { echo "         '$1' instead of nothing"; false; }; }
logged() { grep -q -- "$1" "$LOG"; }
not() { ! "$@"; }
# the page's "sleep N": the outcome must be there within N seconds
within() {
    local end=$(($(date +%s%N) + $1 * 1000000000))
    shift
    until "$@"; do
        [ "$(date +%s%N)" -lt "$end" ] || return 1
        sleep 0.05
    done
}
gone() { [ -z "$(lsof -ti:"$PORT")" ]; }

start() { # start [OPTION...]: a server, ready; its start time in $START_MS
    : >"$LOG" # not the server before, whose line would do
    "$bin" serve --port "$PORT" "$@" >"$HOME/server.out" 2>"$LOG" &
    SERVER=$!
    disown
    within 60 logged server_ready || return 1
    START_MS=$(sed -nE 's/.* server_ready .* ms=([0-9]+).*/\1/p' "$LOG")
}
ended() { SERVER=; }

# ask AGENT TEXT [ANSWER]: one greedy turn after a conversation of three long messages; prints TIER MISS_REASON ANSWER
ask() {
    $PYTHON - "$PORT" "$1" "$2" <<'PY'
import json, sys, urllib.request
port, agent, text = sys.argv[1:]
story = " ".join(f"On day {i} the river ran past mill {i * 7 % 31} and on to the town." for i in range(40))
body = {"messages": [{"role": "user", "content": "My number is 4711. " + story}, {"role": "assistant", "content": "I will remember it."},
                     {"role": "user", "content": text}], "temperature": 0, "max_tokens": 16}
r = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(),
                           {"content-type": "application/json", "x-agent-id": agent})
a = json.load(urllib.request.urlopen(r, timeout=120))
print(a["agent_memory"]["tier"], a["agent_memory"].get("miss_reason") or "-", a["choices"][0]["message"]["content"].replace("\n", " "))
PY
}
running() { # is a request being answered, or has been
    [ -s "$HOME/answer" ] || $PYTHON -c 'import json, sys, urllib.request
sys.exit(not json.load(urllib.request.urlopen("http://127.0.0.1:" + sys.argv[1] + "/health"))["requests"]["running"])' "$PORT"
}
paste() { eval "${1//8000/$PORT}"; }
tier() { cut -d' ' -f1 <<<"$1"; }
miss() { cut -d' ' -f2 <<<"$1"; }
answer() { cut -d' ' -f3- <<<"$1"; }
QUESTION="What is my number?"

section "Memory accumulation after crash cycles: what took a reboot there does not happen"
meminfo_kb() { awk -v k="$1:" '$1 == k { print $2 }' /proc/meminfo; }
shared() { ls -A /dev/shm 2>/dev/null | wc -l; }
locked_before=$(meminfo_kb Mlocked) shared_before=$(shared)
check "the server starts" start
first_ms=$START_MS
for _ in 1 2 3 4 5 6 7 8; do
    ask crash "$QUESTION" >/dev/null 2>&1 &
    asker=$!
    sleep 0.3
    kill -9 "$SERVER"
    wait "$asker" 2>/dev/null
    within 2 gone
    start || break
done
check "it starts after eight kill -9 in the middle of answers" same "$(lsof -ti:"$PORT" -sTCP:LISTEN)" "$SERVER"
check "in the time of the first start ($first_ms ms then, $START_MS ms now)" [ "$START_MS" -le $((first_ms * 4 + 1000)) ]
check "no shared memory is left behind" [ "$(shared)" -le "$shared_before" ]
check "no locked memory is left behind" [ "$(meminfo_kb Mlocked)" -le $((locked_before + 65536)) ]
check "no temporary file is left behind" empty "$(find ~/.agent_memory -name '*.tmp*')"

section "Server won't start (port in use)"
"$bin" serve --port "$PORT" --data-dir "$HOME/other" >/dev/null 2>"$HOME/second.log"
check "a second server says so and fails" grep -q "ddress already in use" "$HOME/second.log"
check "and leaves no data folder behind" [ ! -e "$HOME/other" ]
PID=$(lsof -ti:$PORT)
check "lsof -ti:$PORT names the server" same "$PID" "$SERVER"
kill -TERM $PID
check "kill -TERM ends it within the page's 5 seconds: lsof -ti:$PORT returns empty" within 5 gone
ended
check "the log says server_shutdown_complete" within 5 logged server_shutdown_complete
check "it starts again at once" start
kill -STOP "$SERVER" # a server that hangs
PID=$(lsof -ti:$PORT)
kill -TERM $PID
sleep 1
check "a server that hangs is still there" same "$(lsof -ti:$PORT)" "$SERVER"
[ "$(lsof -ti:$PORT)" = "$SERVER" ] && kill -9 $(lsof -ti:$PORT)
check "kill -9 \$(lsof -ti:$PORT) ends it within 2 seconds" within 2 gone
ended

section "Zombie processes"
check "after the shutdown ps aux | grep agent_memory shows nothing" empty "$(ps aux | grep agent_memory | grep -v grep | grep -- "--port $PORT")"
check "the server starts" start
check "ps aux | grep agent_memory shows the server" same "$(ps aux | grep agent_memory | grep -v grep | grep -- "--port $PORT" | awk '{ print $2 }')" "$SERVER"
check "ps aux | grep \"python.*agent_memory\" shows nothing" empty "$(ps aux | grep "python.*agent_memory" | grep -v grep)"
check "pkill -f \"agent_memory\" would choose the server and nothing else" same "$(pgrep -f "agent_memory" | grep -x "$SERVER")" "$SERVER"
[ "$RUNBOOK_INSIDE" != namespace ] || check "(nothing else at all)" same "$(pgrep -f "agent_memory")" "$SERVER"
if [ "$RUNBOOK_INSIDE" = namespace ] && [ "$(pgrep -f "agent_memory")" = "$SERVER" ]; then
    pkill -f streamlit
    check "pkill -f streamlit ends nothing of ours" same "$(lsof -ti:"$PORT" -sTCP:LISTEN)" "$SERVER"
    pkill -f "agent_memory"
else
    kill "$(pgrep -f "agent_memory" | grep -x "$SERVER")"
fi
check "which ends it" within 5 gone
ended
check "properly: server_shutdown_complete" within 5 logged server_shutdown_complete
check "no process of it is left, zombie or not" within 5 eval '[ -z "$(ps -e -o stat=,args= | grep agent_memory | grep -v grep | grep -- "--port $PORT")" ]'

section "Graceful shutdown: six stages"
check "the server starts" start
ask shutdown "Tell me a long story." >"$HOME/answer" 2>&1 &
asker=$!
check "(a request is being answered)" within 10 running
PID=$(lsof -ti:$PORT -sTCP:LISTEN)
kill -TERM $PID
check "done within 10 seconds" within 10 logged server_shutdown_complete
check "the port is free: lsof -ti:$PORT returns empty" within 5 gone
ended
check "the request that ran was answered" wait "$asker"
stages=$(sed -nE 's/.* shutdown_stage stage=([0-9]) name=([a-z_]+) .*/\1 \2/p' "$LOG" | tr '\n' ',')
check "six stages in order" same "$stages" "1 stop_admitting,2 drain,3 persist,4 stop_engine,5 unload_model,6 free_memory,"
check "server_shutdown_complete is the last line" same "$(tail -n 1 "$LOG" | awk '{ print $3 }')" server_shutdown_complete
check "every head that was dirty is on disk" logged "server_shutdown_complete not_durable=0"

section "If SIGTERM doesn't work: clean up orphan cache files"
mkdir -p ~/.agent_memory/caches
touch ~/.agent_memory/caches/half.tmp.safetensors
rm -f ~/.agent_memory/caches/*.tmp.safetensors
check "rm -f ~/.agent_memory/caches/*.tmp.safetensors removes what a crash left" empty "$(ls ~/.agent_memory/caches | grep tmp)"
touch ~/.agent_memory/caches/half.tmp.safetensors ~/.agent_memory/caches/half.tmp
check "(the next start would have removed it too)" start
check "(and says so)" same "$(grep -c orphan_removed "$LOG")" 2

section "Full cleanup between model switches"
rm -rf ~/.agent_memory/caches/*.safetensors ~/.agent_memory/caches/*.tmp
cold=$(ask keeper "$QUESTION")
check "an agent answers" same "$(tier "$cold")" cold
PID=$(lsof -ti:$PORT) && kill -TERM $PID && within 5 gone
ended
[ -z "$(lsof -ti:$PORT)" ] || check "dead" false
check "its cache is on disk" [ -n "$(ls ~/.agent_memory/caches/*.safetensors 2>/dev/null)" ]
start
warm=$(ask keeper "$QUESTION")
check "the next server brings it back" same "$(tier "$warm")" warm
check "with the same answer" same "$(answer "$warm")" "$(answer "$cold")"
PID=$(lsof -ti:$PORT) && kill -TERM $PID && within 5 gone
ended
rm -rf ~/.agent_memory/caches/*.safetensors ~/.agent_memory/caches/*.tmp
check "rm -rf of the page removes all cached KV data" empty "$(ls ~/.agent_memory/caches/*.safetensors 2>/dev/null)"
start
again=$(ask keeper "$QUESTION")
check "which forces a cold start" same "$(tier "$again")" cold
check "with the same answer" same "$(answer "$again")" "$(answer "$cold")"

section "The page's blocks as they stand, one after the other"
paste 'PID=$(lsof -ti:8000)'
paste 'kill -TERM $PID'
paste 'sleep 5'
check "standard shutdown: lsof -ti:8000 returns empty" empty "$(paste 'lsof -ti:8000')"
ended
check "and the log says server_shutdown_complete" logged server_shutdown_complete
check "the server starts" start
kill -STOP "$SERVER"
paste 'kill -TERM $(lsof -ti:8000)'
paste 'sleep 10'
check "a server that hangs is still there after the page's ten seconds" same "$(paste 'lsof -ti:8000')" "$SERVER"
paste 'kill -9 $(lsof -ti:8000)'
paste 'sleep 2'
paste 'rm -f ~/.agent_memory/caches/*.tmp.safetensors'
check "force kill as last resort: it is gone" empty "$(paste 'lsof -ti:8000')"
ended
check "the server starts" start
ask keeper "$QUESTION" >/dev/null
paste 'PID=$(lsof -ti:8000) && kill -TERM $PID && sleep 5'
ended
paste '[ -z "$(lsof -ti:8000)" ] || { kill -9 $(lsof -ti:8000); sleep 2; }'
check "full cleanup: dead, and by the first kill" logged "server_shutdown_complete not_durable=0"
paste 'rm -rf ~/.agent_memory/caches/*.safetensors ~/.agent_memory/caches/*.tmp'
check "the server starts" start
check "which forces a cold start" same "$(tier "$(ask keeper "$QUESTION")")" cold

section "The same in one command"
check "doctor finds nothing bad about a healthy server" "$bin" doctor --port "$PORT" >/dev/null
check "stop ends it and says so" grep -q "gone after" <<<"$("$bin" stop --port "$PORT")"
check "the port is free" gone
ended
check "the log says server_shutdown_complete" logged server_shutdown_complete
check "it starts again" start

section "Checking memory pressure before and after"
rss() { awk '/^VmRSS/ { print $2 }' "/proc/$SERVER/status"; }
check "the server's memory can be read from outside" [ "$(rss)" -gt 1000 ]
check "ps aux | grep -E \"(Metal|mlx|agent_memory)\" | grep -v grep shows it" [ -n "$(ps aux | grep -E "(Metal|mlx|agent_memory)" | grep -v grep)" ]
check "free -m says how much can be had" [ "$(free -m | awk '/^Mem:/ { print $7 }')" -gt 0 ]
check "/proc/meminfo has what stands for wired memory" same "$(grep -cE '^(MemAvailable|Mlocked|Shmem):' /proc/meminfo)" 3
check "ps --memory says where ours is" grep -q "add up to" <<<"$("$bin" ps --memory --port "$PORT")"

section "Crashes: what faulthandler was for"
ask crash "$QUESTION" >/dev/null
kill -SEGV "$SERVER"
check "a crash ends the server" within 5 gone
ended
check "the log has a report with a backtrace" logged "^backtrace"
check "and the data folder has it too" grep -q "crashed: SIGSEGV" ~/.agent_memory/crash/*.txt
check "the server starts again" start
check "and what was finished is warm" same "$(tier "$(ask crash "$QUESTION")")" warm

section "Cache corruption"
rm -rf ~/.agent_memory/caches/*.safetensors ~/.agent_memory/caches/*.tmp
check "Recovery while the server runs: the answer stays right" same "$(answer "$(ask keeper "$QUESTION")")" "$(answer "$cold")"
PID=$(lsof -ti:$PORT) && kill -TERM $PID && within 5 gone
ended
check "(a start right after an end waits for its predecessor's last bytes)" start --kv-bits 8,8
other=$(ask keeper "$QUESTION")
check "a cache of another quantization is never used" same "$(tier "$other") $(miss "$other")" "cold model_changed"
PID=$(lsof -ti:$PORT) && kill -TERM $PID && within 5 gone
ended
rm -f ~/.agent_memory/caches/*.safetensors
start
ask keeper "$QUESTION" >/dev/null
PID=$(lsof -ti:$PORT) && kill -TERM $PID && within 5 gone
ended
for f in ~/.agent_memory/caches/*.safetensors; do
    $PYTHON -c 'import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(-40, 2); b = f.read(1)[0]; f.seek(-40, 2); f.write(bytes([b ^ 4]))' "$f"
done
"$bin" agents verify >"$HOME/verified"
check "agents verify names each damaged file" same "$(grep -c "^wrong .*checksum" "$HOME/verified")" "$(ls ~/.agent_memory/caches/*.safetensors | wc -l)"
start
damaged=$(ask keeper "$QUESTION")
check "files with a flipped bit give no garbage: the answer is that of a cold start" same "$(answer "$damaged")" "$(answer "$cold")"
check "and the log says which files were refused" logged file_refused
PID=$(lsof -ti:$PORT) && kill -TERM $PID && within 5 gone
check "what is left is good, to the last bit" "$bin" agents verify --deep
check "exit in order after all that" within 5 logged server_shutdown_complete
ended

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
