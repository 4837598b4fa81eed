# The end of the demo: a VM of a definition, and everything done to it by its name. Sourced by native.sh.

NAME=outboard-demo

# verb ARGUMENTS...: an outboard command, shown, with what it says.
verb() {
    note "\$ outboard $*"
    outboard "$@" >"$WORK/said" 2>&1 || { cat "$WORK/said" >>"$LOG"; fail "outboard $* failed"; }
    sed 's/^/      /' "$WORK/said" | cut -c1-120
}
# listed STATE...: what the list says of the VM has to be this.
listed() {
    verb list --all
    grep -q "$NAME *$1" "$WORK/said" || fail "the list does not say: $1"
}
# types LINE: at the VM's console.
types() {
    note "typing at its console: $1"
    echo "$1" >&3
}
started() {
    verb start $NAME
    VMM=$(outboard info $NAME | sed -n 's/^Process *//p')
}

define() {
    dd if=/dev/zero of="$WORK/more.img" bs=1M count=16 2>/dev/null
    echo "hello from the host" | dd of="$WORK/more.img" conv=notrunc 2>/dev/null
    cat >"$WORK/$NAME.toml" <<END
kernel = "$KERNEL/vmlinuz"
initrd = "$INITRD"
cmdline = "console=ttyS0 quiet panic=-1 outboard.job=stay"
cpus = 2
memory = "256M"
serial = "socket"
log-dir = "$WORK/logs"
END
    verb define "$WORK/$NAME.toml"
}

by_name() {
    # Not among the definitions and records of whoever runs this.
    export XDG_CONFIG_HOME="$WORK/config" XDG_STATE_HOME="$WORK/state"

    step "By name: a VM is defined, and starts in the background with two vCPUs"
    define
    listed "shut off"
    started
    listed running
    done_step

    step "Its console, from another terminal; what it is and has"
    mkfifo "$WORK/typed"
    outboard console $NAME <"$WORK/typed" >"$WORK/console2" 2>>"$LOG" &
    READER=$!
    exec 3>"$WORK/typed"
    SERIAL=$WORK/console2
    wait_line '^stay: ready' 90
    types 'echo "$(nproc) CPUs, $(uname -sr)"'
    wait_line '^2 CPUs, Linux' 30
    note "\$ outboard info $NAME"
    outboard info $NAME >"$WORK/said" || fail "no info"
    grep -E '^(State|KVM|vCPU|Daemon|  port-)' "$WORK/said" | sed 's/^/      /'
    done_step

    step "A disk is added while it runs, used by its guest, and removed"
    verb attach $NAME --disk "path=$WORK/more.img,id=more"
    wait_line 'stay: a disk has come: hello from the host' 30
    verb detach $NAME more
    wait_line 'stay: the disk has gone' 30
    done_step

    step "Suspended, it uses no CPU; resumed, it goes on"
    verb suspend $NAME
    listed paused
    before=$(ticks)
    sleep 1
    [ "$(ticks)" -le $((before + 2)) ] || fail "a suspended VM uses CPU"
    verb resume $NAME
    types 'echo "still here"'
    wait_line '^still here' 30
    done_step

    step "Its power button; and after another start the plug"
    verb shutdown $NAME --wait
    show 'stay: the power button'
    exec 3>&-
    ended "$READER" 10 || fail "the console does not end with its VM"
    listed "shut off"
    started
    verb destroy $NAME
    ended "$VMM" 20 || fail "the VM does not end"
    VMM=
    listed "shut off"
    verb undefine $NAME
    note "what they said stays in $WORK/logs"
    done_step
}
# Ticks of CPU that the VM's process has used.
ticks() { awk '{ print $14 + $15 }' "/proc/$VMM/stat"; }
