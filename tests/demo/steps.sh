# Numbered steps with times, and what a failure prints. Sourced by demo.sh.

STEP=0
STEP_NAME=start
now() { cut -d' ' -f1 /proc/uptime; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

step() {
    STEP=$((STEP + 1))
    STEP_NAME=$*
    STEP_START=$(now)
    printf '[%d] %s\n' "$STEP" "$*"
    printf '== [%d] %s\n' "$STEP" "$*" >>"$LOG"
}
done_step() { printf '    done in %s s\n' "$(since "$STEP_START")"; }
note() { printf '    %s\n' "$*"; }

fail() {
    trap - EXIT
    printf '\nFAILED in step %d (%s): %s\nThe last lines of the log:\n' "$STEP" "$STEP_NAME" "$*" >&2
    tail -n 20 "$LOG" | sed 's/^/  | /' >&2
    printf 'The whole log: %s\n' "$LOG" >&2
    cleanup
    exit 1
}

# On every way out; a step that ended by a command's failure (set -e) fails the demo here.
finish() {
    status=$?
    [ "$status" = 0 ] || [ "$status" = 130 ] || [ "$status" = 143 ] || fail "a command failed with $status"
    cleanup
}

# run COMMAND...: its output goes to the log.
run() { "$@" >>"$LOG" 2>&1 || fail "$* failed"; }

# ended PID SECONDS: waits for a process to end; false when it has not.
ended() {
    left=$(($2 * 5))
    while kill -0 "$1" 2>/dev/null; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.2
    done
}

# Who may make a tap: root, and those whom sudo asks nothing. Sets NET and AS_ROOT.
choose_net() {
    AS_ROOT=
    if [ "$(id -u)" != 0 ]; then
        if have sudo && sudo -n true 2>/dev/null; then AS_ROOT=sudo; else NET=user; fi
    fi
    NET=${DEMO_NET:-${NET:-tap}}
    case $NET in tap | user) ;; *) die "DEMO_NET=$NET: use tap or user" ;; esac
}

# Boots a kernel for as long as it takes to say hello: no CPU flag tells whether KVM can run one.
probe() {
    [ -w /dev/kvm ] || { note "no /dev/kvm to write to"; return 1; }
    outboard run --kernel "$KERNEL/vmlinuz" --initrd "$INITRD" --memory 256M \
        --cmdline "console=ttyS0 quiet panic=-1 outboard.job=hello" \
        --serial "file=$WORK/probe.serial" --log-dir off --no-reboot >>"$LOG" 2>&1 </dev/null &
    probe=$!
    VMM=$probe
    ended "$probe" 8 || kill "$probe" 2>/dev/null
    ended "$probe" 5 || kill -9 "$probe" 2>/dev/null
    wait "$probe" 2>/dev/null || true
    VMM=
    cat "$WORK/probe.serial" >>"$LOG" 2>/dev/null || true
    grep -q '^hello from Linux' "$WORK/probe.serial" 2>/dev/null
}

# stop PID: ends a process of ours, if there is one.
stop() {
    [ -n "$1" ] && kill "$1" 2>/dev/null || return 0
    ended "$1" 12 || kill -9 "$1" 2>/dev/null || true
}

# The demo's devices; the doctor looks for all daemons.
DEVICES="outboard-block outboard-net outboard-console"
DAEMONS="$DEVICES outboard-plugin-host"
daemon_packages() { for name in $DAEMONS; do echo "-p $name"; done; }

# When it returns nothing of ours runs any more.
cleanup() {
    stop "${VMM:-}"
    stop "$(cat "$WORK/nested.pid" 2>/dev/null)"
    rm -rf "$WORK/tree" "$WORK/nested.pid"
    [ -z "${READER:-}" ] || kill "$READER" 2>/dev/null || true
    [ -z "${HTTPD:-}" ] || kill "$HTTPD" 2>/dev/null || true
    [ -z "${TAP_MADE:-}" ] || $AS_ROOT ip link del "$TAP" 2>/dev/null || true
}
