# The demo's nested mode: puts the built binaries, the kernel, this script and the tools it uses into
# the nested rig, and runs it there. Sourced by demo.sh.

run_nested() {
    tree=$WORK/tree
    place=$tree/outboard
    mkdir -p "$place/tests/rigs" "$place/cache/kernel-cloud-amd64"
    cp -R "$ROOT/tests/demo" "$place/tests/"
    cp "$ROOT/tests/rigs/lib.sh" "$ROOT/tests/rigs/kernel" "$place/tests/rigs/"
    for name in outboard $DAEMONS; do add_binaries "$tree" outboard/bin "$DEMO_BIN/$name"; done
    add_programs "$tree" ip ss ps mke2fs debugfs e2fsck
    # The same shell too: busybox's takes its own commands before those in PATH.
    add_file "$(where sh)" "$tree/bin/sh"
    add_libraries "$tree" "$tree/bin/sh"
    cp "$KERNEL/vmlinuz" "$KERNEL/version" "$place/cache/kernel-cloud-amd64/"
    cp "$INITRD" "$place/cache/"
    # Whoever is not root here is not root there.
    demo_user=
    if [ "$NET" = user ]; then
        demo_user=1000
        add_programs "$tree" setpriv passt
        ! have passt.avx2 || add_programs "$tree" passt.avx2
    fi
    echo "DEMO_USER=$demo_user" >"$WORK/job"
    cat >>"$WORK/job" <<'END'
export OUTBOARD_CACHE=/outboard/cache CARGO_TARGET_DIR=/outboard/target DEMO_BIN=/outboard/bin
export DEMO_RIG=native DEMO_INNER=1
[ -n "$DEMO_USER" ] || exec /outboard/tests/demo/demo.sh
chmod 666 /dev/kvm
mkdir -p /outboard/target
chown -R "$DEMO_USER:$DEMO_USER" /outboard/target
# A way out, from which passt takes the guest's addresses. It leads nowhere.
tunctl -t up0 >/dev/null
ip addr add 198.51.100.2/24 dev up0
ip link set up0 up
ip route add default via 198.51.100.1 dev up0
exec setpriv --reuid "$DEMO_USER" --regid "$DEMO_USER" --clear-groups --inh-caps=-all \
    env HOME=/tmp DEMO_NET=user /outboard/tests/demo/demo.sh
END
    rm -f "$WORK/nested.status"
    # In the background, so that a signal to this script is heard at once.
    {
        "$ROOT/tests/rigs/nested/boot" --tree "$tree" --timeout 300 --log "$WORK/nested.log" "$WORK/job" 2>&1 &
        echo $! >"$WORK/nested.pid"
        status=0
        wait $! || status=$?
        echo "$status" >"$WORK/nested.status"
    } | tee -a "$LOG" | sed -u 's/^/  L1| /' &
    wait $!
    rm -f "$WORK/nested.pid"
    rm -rf "$tree"
    [ "$(cat "$WORK/nested.status")" = 0 ]
}
