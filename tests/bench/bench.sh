#!/bin/sh
# What docs/bench.md shows, measured here: results and a page with plots in target/bench/.
#
#   FILE     the image (default: /dev/shm/outboard-bench.img, removed in the end)
#   ROUNDS   repetitions by turns (default: 7)
#   SECONDS_EACH  time measured in each turn (default: 1)
#   PUBLISH  1: put the results into docs/bench/ and make the tables of the documents anew
#   DIRECT   1: instead of all else, the disk past the page cache: 15 slices of 5 s each by turns, on an image
#            in target/bench, of 4 GiB, removed in the end (13 minutes)
#
# alioth, Cloud Hypervisor's daemons and SPDK's vhost take part where they are in PATH (docs/bench.md).
set -eu
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
. "$ROOT/tests/rigs/lib.sh"
cd "$ROOT"
BENCH=$TARGET/release/outboard-bench
SUBJECTS=tests/bench/subjects
OUT=$TARGET/bench
WARMUP=0.5
# The results that this run has made: only those are published.
MEASURED=
mkdir -p "$OUT"
if [ "${DIRECT:-}" = 1 ]; then
    need_tools fio qemu-storage-daemon
    FILE=${FILE:-$OUT/direct.img}
    ROUNDS=${ROUNDS:-15}
    EACH=${SECONDS_EACH:-5}
    rm -f "$OUT/block-direct.jsonl"
else
    need_tools fio qemu-storage-daemon dpdk-testpmd ip
    FILE=${FILE:-/dev/shm/outboard-bench.img}
    ROUNDS=${ROUNDS:-7}
    EACH=${SECONDS_EACH:-1}
    rm -f "$OUT"/*.jsonl
fi
[ -e "$FILE" ] || trap 'rm -f "$FILE"' EXIT
trap 'exit 130' INT TERM

# compare NAME SUBJECT... OPTION...: by turns, into NAME.jsonl.
compare() {
    name=$1
    shift
    say "== $name"
    "$BENCH" compare --rounds "$ROUNDS" --seconds "$EACH" --warmup $WARMUP --json "$OUT/$name.jsonl" "$@"
    MEASURED="$MEASURED $name"
}

# publish: what was measured, into the documents.
publish() {
    [ "${PUBLISH:-}" = 1 ] || return 0
    mkdir -p docs/bench
    # Where this checkout lies is of no interest to anybody.
    for name in $MEASURED; do sed "s|$ROOT/||g" "$OUT/$name.jsonl" >"docs/bench/$name.jsonl"; done
    "$BENCH" docs docs/bench.md docs/plugins.md docs/performance.md README.md
}

if [ "${DIRECT:-}" = 1 ]; then
    compare block-direct $SUBJECTS/block-direct.toml $SUBJECTS/qsd-direct.toml --file "$FILE" --file-size 4G --direct
    publish
    exit
fi

# rival PROGRAM SUBJECT: the subject's file, where its program is in PATH.
rival() {
    if have "$1"; then
        echo "$SUBJECTS/$2.toml"
    else
        say "No $1 in PATH: no figures of it (docs/bench.md says where it is from)."
    fi
}

# Who is on the same file.
OTHERS="$SUBJECTS/qsd.toml $(rival alioth alioth) $(rival vhost_user_block cloud-hypervisor) $(rival vhost spdk)"
# shellcheck disable=SC2046,SC2086 # words on purpose
{
    compare ring $SUBJECTS/null.toml $SUBJECTS/qsd-null.toml $(rival vhost spdk-null)
    compare block $SUBJECTS/block.toml $OTHERS --file "$FILE"
    compare block-writes $SUBJECTS/block.toml $OTHERS --file "$FILE" --op write --depth 32 --no-floors
    compare block-sleeping $SUBJECTS/block.toml $OTHERS --file "$FILE" --wait sleep --depth 1,32
}
compare switch $SUBJECTS/switch.toml
if [ "$(id -u)" = 0 ]; then
    # shellcheck disable=SC2046 # words on purpose
    compare net $SUBJECTS/net.toml $(rival vhost_user_net cloud-hypervisor-net) --tap obench0
else
    say "Not root: no tap, and no figures of a card on one."
fi
if [ -w /dev/kvm ]; then
    say "== hosts"
    "$BENCH" hosts --rounds "$ROUNDS" --json "$OUT/hosts.jsonl"
    MEASURED="$MEASURED hosts"
else
    say "No KVM: no figures of a device in each host."
fi
# Counts need no long turns.
EACH=0.3 WARMUP=0.1
compare notifications $SUBJECTS/notifications.toml --file "$FILE" --no-floors
"$BENCH" report -o "$OUT/report.html" "$OUT"/*.jsonl
"$BENCH" primitives
if [ -w /dev/kvm ]; then
    "$BENCH" rest --json "$OUT/rest.jsonl"
    MEASURED="$MEASURED rest"
fi
say "A page with plots: $OUT/report.html"
publish
