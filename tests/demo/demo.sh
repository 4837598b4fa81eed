#!/bin/sh
# The demo: builds Outboard and boots an unmodified Debian kernel with its disk, net card and console
# each in a daemon of its own; the guest uses all three; then it powers off.
#
#   DEMO_RIG=native|nested   where the guest runs (default: found out by booting a probe guest).
#                            nested: this script runs again, natively, in a machine that QEMU emulates
#   DEMO_NET=tap|user        the guest's network (default: a tap for root and for those whose sudo asks
#                            nothing; the user-mode network of --net user for everybody else)
#   DEMO_BIN=DIR             binaries built already; nothing is built
#   ASSUME_YES=1             install missing packages without asking
set -eu
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
. "$ROOT/tests/rigs/lib.sh"
. "$ROOT/tests/demo/steps.sh"

WORK=$TARGET/demo
TAP=obdemo0
rm -rf "$WORK"
mkdir -p "$WORK/www"
LOG=$WORK/demo.log
: >"$LOG"
choose_net
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -n "${DEMO_INNER:-}" ]; then
    echo "Inside the nested rig: the same script in its native mode."
else
    cat <<END
Outboard's demo. It builds in $TARGET and downloads Debian kernels (98 MB) to $CACHE
without installing them.
END
    case $NET in
    tap) echo "Run natively, it makes a tap device $TAP, and removes it again (by root or sudo)." ;;
    user) echo "The guest's network is passt's, which needs no privileges: only root may make a tap." ;;
    esac
    case ${DEMO_RIG:-} in
    '') echo "Where the guest runs, on this machine's KVM or in the nested rig, a probe guest finds out in step 5." ;;
    *) echo "The guest runs in the $DEMO_RIG way, as DEMO_RIG says." ;;
    esac
    step "Tools: those missing are installed by apt-get, after asking"
    need_tools busybox cpio mke2fs debugfs e2fsck ip ss ps xz cc
    [ "$NET" = tap ] || need_tools passt
    [ -n "${DEMO_BIN:-}" ] || have cargo || die "no cargo: install Rust from https://rustup.rs"
    done_step
fi

step "Build"
if [ -z "${DEMO_BIN:-}" ]; then
    # shellcheck disable=SC2046
    run cargo build --profile quick --locked --manifest-path "$ROOT/Cargo.toml" -p outboard $(daemon_packages)
    DEMO_BIN=$TARGET/quick
else
    note "using the binaries in $DEMO_BIN"
fi
PATH=$DEMO_BIN:$PATH:/usr/sbin:/sbin
done_step

step "Doctor: what this machine offers"
outboard doctor >"$WORK/doctor" 2>&1 || true
cat "$WORK/doctor" >>"$LOG"
sed 's/^/    /' "$WORK/doctor"
done_step

step "Debian's kernel, as a package"
KERNEL=$("$ROOT/tests/rigs/kernel" cloud-amd64 2>>"$LOG") || fail "no kernel"
INITRD=$CACHE/guest.cpio
[ -n "${DEMO_INNER:-}" ] || "$ROOT/tests/rigs/guest/initrd" "$INITRD" >>"$LOG" 2>&1 || fail "no initrd"
note "linux $(cat "$KERNEL/version")"
done_step

if [ -z "${DEMO_RIG:-}" ]; then
    step "Probe: can this machine's KVM run a kernel?"
    if probe; then DEMO_RIG=native; else DEMO_RIG=nested; fi
    done_step
fi
case $DEMO_RIG in
native) note "native: the guest runs on this machine's KVM" ;;
nested)
    note "nested: this machine's KVM cannot run a kernel (or DEMO_RIG says so). QEMU emulates a"
    note "machine with AMD-V, Linux in it brings genuine KVM, and this same script runs natively there"
    step "The nested rig"
    . "$ROOT/tests/demo/nested.sh"
    run_nested || fail "the demo in the nested rig failed"
    done_step
    echo "Done: exit 0."
    exit 0
    ;;
*) die "DEMO_RIG=$DEMO_RIG: use native or nested" ;;
esac

. "$ROOT/tests/demo/native.sh"
. "$ROOT/tests/demo/by-name.sh"
run_native
by_name
echo "Done: exit 0."
