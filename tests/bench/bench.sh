#!/bin/sh
# What docs/bench.md shows, measured here: results and a page with plots in target/bench/.
#
#   FILE     the image (default: /dev/shm/outboard-bench.img, removed in the end)
#   ROUNDS   repetitions by turns (default: 7)
#   SECONDS_EACH  time measured in each turn (default: 1)
#   PUBLISH  1: put the results into docs/bench/ and make the tables of the documents anew
set -eu
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
. "$ROOT/tests/rigs/lib.sh"
cd "$ROOT"
need_tools fio qemu-storage-daemon dpdk-testpmd ip
BENCH=$TARGET/release/outboard-bench
SUBJECTS=tests/bench/subjects
OUT=$TARGET/bench
FILE=${FILE:-/dev/shm/outboard-bench.img}
mkdir -p "$OUT"
rm -f "$OUT"/*.jsonl
[ -e "$FILE" ] || trap 'rm -f "$FILE"' EXIT
trap 'exit 130' INT TERM

# compare NAME SUBJECT... OPTION...: by turns, into NAME.jsonl.
compare() {
    name=$1
    shift
    say "== $name"
    "$BENCH" compare --rounds "${ROUNDS:-7}" --seconds "${SECONDS_EACH:-1}" --warmup 0.5 --json "$OUT/$name.jsonl" "$@"
}

compare ring $SUBJECTS/null.toml $SUBJECTS/qsd-null.toml
compare block $SUBJECTS/block.toml $SUBJECTS/qsd.toml --file "$FILE"
compare block-sleeping $SUBJECTS/block.toml $SUBJECTS/qsd.toml --file "$FILE" --wait sleep --depth 1,32
compare switch $SUBJECTS/switch.toml
if [ "$(id -u)" = 0 ]; then
    compare net $SUBJECTS/net.toml --tap obench0
else
    say "Not root: no tap, and no figures of a card on one."
fi
if [ -w /dev/kvm ]; then
    say "== hosts"
    "$BENCH" hosts --rounds "${ROUNDS:-7}" --json "$OUT/hosts.jsonl"
else
    say "No KVM: no figures of a device in each host."
fi
"$BENCH" report -o "$OUT/report.html" "$OUT"/*.jsonl
"$BENCH" primitives
[ ! -w /dev/kvm ] || "$BENCH" rest
say "A page with plots: $OUT/report.html"

if [ "${PUBLISH:-}" = 1 ]; then
    mkdir -p docs/bench
    cp "$OUT"/*.jsonl docs/bench/
    "$BENCH" docs docs/bench.md docs/plugins.md README.md
fi
