# The demo's nested mode: puts the built binaries, the kernel, this script and the tools it uses into
# the nested rig, and runs it there. Sourced by demo.sh.

run_nested() {
    tree=$WORK/tree
    place=$tree/outboard
    mkdir -p "$place/tests/rigs" "$place/cache/kernel-cloud-amd64"
    cp -R "$ROOT/tests/demo" "$place/tests/"
    cp "$ROOT/tests/rigs/lib.sh" "$ROOT/tests/rigs/kernel" "$place/tests/rigs/"
    for name in outboard $DAEMONS; do add_binaries "$tree" outboard/bin "$DEMO_BIN/$name"; done
    add_programs "$tree" ip ps mke2fs debugfs e2fsck
    # The same shell too: busybox's takes its own commands before those in PATH.
    add_file "$(where sh)" "$tree/bin/sh"
    add_libraries "$tree" "$tree/bin/sh"
    cp "$KERNEL/vmlinuz" "$KERNEL/version" "$place/cache/kernel-cloud-amd64/"
    cp "$INITRD" "$place/cache/"
    cat >"$WORK/job" <<'END'
export OUTBOARD_CACHE=/outboard/cache CARGO_TARGET_DIR=/outboard/target DEMO_BIN=/outboard/bin
export DEMO_RIG=native DEMO_INNER=1
exec /outboard/tests/demo/demo.sh
END
    rm -f "$WORK/nested.status"
    {
        "$ROOT/tests/rigs/nested/boot" --tree "$tree" --log "$WORK/nested.log" "$WORK/job" 2>&1
        echo $? >"$WORK/nested.status"
    } | tee -a "$LOG" | sed -u 's/^/  L1| /'
    rm -rf "$tree"
    [ "$(cat "$WORK/nested.status")" = 0 ]
}
