# The demo itself, on a KVM that runs kernels. Sourced by demo.sh.

SERIAL=$WORK/serial.log

# wait_line PATTERN SECONDS [FILE]: until the guest has printed such a line on ttyS0, or to the console
# in FILE, and shows what it printed.
wait_line() {
    file=${3:-$SERIAL}
    left=$(($2 * 5))
    while ! grep -aq "$1" "$file" 2>/dev/null; do
        notice
        kill -0 "$VMM" 2>/dev/null || { cat "$SERIAL" >>"$LOG"; fail "the VM ended before the guest said: $1"; }
        left=$((left - 1))
        [ "$left" -gt 0 ] || { cat "$SERIAL" >>"$LOG"; fail "the guest did not say within $2 s: $1"; }
        sleep 0.2
    done
    show "$1" "$file"
}
# notice: once, when the guest tells of its connections because nothing comes, what is known on this side. Of the
# stream between outboard-net and passt (where ss may not name them, outboard-net has the lower number): bytes in
# Recv-Q of outboard-net's end wait for us, in that of passt's for passt. Both empty, and the web server's timer (tr)
# at 04: the window is closed. No connection here, and one (st 01) in the guest: it has missed a reset.
notice() {
    [ -z "${NOTICED:-}" ] && grep -aq '^guest: tcp' "$SERIAL" 2>/dev/null || return 0
    NOTICED=1
    note "the guest gets nothing; what this side knows:"
    {
        awk -v "port=:$(printf %04X "${PORT:-8000}")\$" 'NR == 1 || $2 ~ port || $3 ~ port' /proc/net/tcp
        ss -xp | awk 'NR == 1 || $3 + $4 > 0 || /"(outboard-net|passt)/'
        outboard top demo --once
    } 2>&1 | tee -a "$LOG" | sed 's/^/      /'
}
ESCAPE=$(printf '\033')
# show PATTERN [FILE]: its lines, without what is meant for a terminal.
show() {
    grep -aE "$1" "${2:-$SERIAL}" | tr -d '\r' | sed "s/$ESCAPE\[[0-9;]*[A-Za-z]//g; s/^guest# //; s/^/    /"
}

make_disk() {
    root=$WORK/root
    add_busybox "$root"
    mkdir -p "$root/data" "$root/etc"
    rm -f "$root/sbin/init" "$root/bin/init"
    cp "$ROOT/tests/demo/guest-init" "$root/sbin/init"
    chmod +x "$root/sbin/init"
    # From a folder to a file system: no mount, no privileges.
    run mke2fs -q -t ext4 -d "$root" "$WORK/root.img" 64M
    rm -rf "$root"
}

# The guest's network, and a web server that it can reach. Sets the VM's --net.
make_net() {
    dd if=/dev/urandom of="$WORK/www/file.bin" bs=64k count=32 2>/dev/null
    sha256sum <"$WORK/www/file.bin" | cut -d' ' -f1 >"$WORK/www/file.sha256"
    case $NET in
    tap)
        make_tap
        VM_NET=tap=$TAP
        serve 192.0.2.1:8000 || fail "no web server at 192.0.2.1:8000"
        ;;
    user)
        VM_NET=user
        # What the guest sends to its gateway, passt brings to our own loopback interface.
        for PORT in 8000 8001 8002 8003 8004; do ! serve "127.0.0.1:$PORT" || return 0; done
        fail "no web server at 127.0.0.1: ports 8000 to 8004 are taken"
        ;;
    esac
}

make_tap() {
    ! ip link show "$TAP" >/dev/null 2>&1 || run $AS_ROOT ip link del "$TAP"
    run $AS_ROOT ip tuntap add dev "$TAP" mode tap user "$(id -u)"
    TAP_MADE=1
    run $AS_ROOT ip addr add 192.0.2.1/24 dev "$TAP"
    run $AS_ROOT ip link set "$TAP" up
}

serve() {
    busybox httpd -f -p "$1" -h "$WORK/www" >>"$LOG" 2>&1 &
    HTTPD=$!
    sleep 0.3
    kill -0 "$HTTPD" 2>/dev/null
}

run_native() {
    step "Root disk: ext4 with busybox, $WORK/root.img"
    make_disk
    done_step

    case $NET in
    tap) step "Net: tap $TAP, 192.0.2.1, with a web server behind it" ;;
    user) step "Net: passt, with a web server on this machine's loopback interface" ;;
    esac
    make_net
    done_step

    step "Boot: outboard run, every device in a daemon"
    set -- outboard run --name demo --kernel "$KERNEL/vmlinuz" --initrd "$INITRD" \
        --cmdline "console=ttyS0 root=/dev/vda rw quiet panic=-1 demo.net=$NET demo.port=${PORT:-8000}" --cpus 2 --memory 256M \
        --disk "path=$WORK/root.img" --net "$VM_NET" \
        --serial "file=$SERIAL" --console pty --log-dir "$WORK/logs"
    note "$*"
    "$@" >"$WORK/vmm.log" 2>&1 </dev/null &
    VMM=$!
    LOG=$WORK/vmm.log
    wait_line 'guest: Linux' 90
    terminal=$(grep -o '/dev/pts/[0-9]*' "$WORK/vmm.log" | head -n 1)
    [ -n "$terminal" ] || fail "the VMM named no pty for the console"
    cat "$terminal" >"$WORK/console" 2>/dev/null &
    READER=$!
    done_step

    step "Processes: the VMM and its daemons"
    ps -o pid,ppid,args -p "$VMM" --ppid "$VMM" | cut -c1-150 | sed 's/^/    /'
    for name in $DEVICES; do
        ps -o args --ppid "$VMM" | grep -q "$name" || fail "no $name among the VMM's children"
    done
    processes=$(ps -o pid= --ppid "$VMM")
    done_step

    step "The guest uses its disk, its net card and its console"
    # As long as it may take the guest at worst: 60 s for an address, 62 s for its fetches, and its disk.
    wait_line 'guest: asks on the console' 150
    note "the console is $terminal:"
    wait_line 'call you?' 30 "$WORK/console"
    note "typing: Ada"
    echo Ada >"$terminal"
    wait_line 'Hello, Ada' 30 "$WORK/console"
    wait_line 'guest: .* console line: Ada' 10
    show '^guest: (virtio|ok|FAIL|disk|fetching|10 s|tcp)'
    ! grep -aq '^guest: FAIL' "$SERIAL" || fail "a check in the guest failed"
    done_step

    step "Power off"
    ended "$VMM" 30 || fail "the VM did not end within 30 s of powering off"
    status=0
    wait "$VMM" || status=$?
    VMM=
    [ "$status" = 0 ] || fail "outboard ended with $status, not 0"
    for process in $processes; do
        ! kill -0 "$process" 2>/dev/null || fail "process $process of the VM was left behind"
    done
    note "outboard ended with 0 and left no daemon behind"
    done_step

    step "The disk, as the host reads it"
    run e2fsck -fn "$WORK/root.img"
    run debugfs -R "dump /data/random.bin $WORK/random.bin" "$WORK/root.img"
    sum=$(sha256sum <"$WORK/random.bin" | cut -d' ' -f1)
    said=$(grep -a '^guest: disk-sha256' "$SERIAL" | tr -d '\r' | cut -d' ' -f3)
    [ "$sum" = "$said" ] || fail "the file on the disk has sha256 $sum, the guest wrote $said"
    note "file system clean; /data/random.bin has the sha256 the guest printed: $sum"
    done_step
}
