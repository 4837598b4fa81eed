# Shared by the rigs' scripts: places, words, and the tools they need. POSIX sh; source it, after
# setting ROOT to the repository's root.
#
#   OUTBOARD_CACHE     where downloaded and unpacked packages are kept (default: target/rigs)
#   CARGO_TARGET_DIR   where cargo builds (default: target)
#   ASSUME_YES=1       install packages without asking; CI=true means the same

TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
CACHE=${OUTBOARD_CACHE:-$TARGET/rigs}

say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}

# The Debian package that brings a tool or a file.
package_of() {
    case $1 in
    busybox) echo busybox-static ;;
    cpio | xz | dpkg) [ "$1" = xz ] && echo xz-utils || echo "$1" ;;
    debugfs | mke2fs | e2fsck) echo e2fsprogs ;;
    ip | ss) echo iproute2 ;;
    qemu-img | qemu-io) echo qemu-utils ;;
    qemu-system-x86_64) echo qemu-system-x86 ;;
    cc | c++ | gcc | g++ | ld) echo build-essential ;;
    ps) echo procps ;;
    sfdisk) echo fdisk ;;
    mkfs.vfat) echo dosfstools ;;
    mmd | mcopy) echo mtools ;;
    iasl) echo acpica-tools ;;
    qemu-storage-daemon) echo qemu-system-common ;;
    dpdk-testpmd) echo dpdk-dev ;;
    setpriv | unshare) echo util-linux ;;
    /usr/include/cap-ng.h) echo libcap-ng-dev ;;
    /usr/include/seccomp.h) echo libseccomp-dev ;;
    *) echo "$1" ;;
    esac
}

# where TOOL: its path. Not `command -v`: a busybox shell answers that for its own commands without one.
where() {
    case $1 in */*) echo "$1" && return ;; esac
    rest=$PATH:/usr/sbin:/sbin:
    while [ -n "$rest" ]; do
        if [ -x "${rest%%:*}/$1" ]; then echo "${rest%%:*}/$1" && return; fi
        rest=${rest#*:}
    done
    return 1
}
have() { where "$1" >/dev/null; }

# need_tools TOOL...: makes sure that each is here, or says what it will install and asks. A path is a
# file that a library's package for developers brings.
need_tools() {
    packages=
    for tool in "$@"; do
        case $tool in
        /*) [ ! -e "$tool" ] || continue ;;
        *) ! have "$tool" || continue ;;
        esac
        package=$(package_of "$tool")
        case " $packages " in *" $package "*) ;; *) packages="$packages $package" ;; esac
    done
    [ -n "$packages" ] || return 0
    have apt-get || die "these Debian packages' tools are missing and there is no apt-get: install$packages by your own means"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        have sudo || die "missing packages:$packages. As root: apt-get install$packages"
        as_root=sudo
    fi
    say "To install:$packages (by: $as_root apt-get install --no-install-recommends)"
    if [ "${ASSUME_YES:-}" != 1 ] && [ "${CI:-}" != true ]; then
        if ! [ -t 0 ] || ! [ -t 2 ]; then
            die "may not install without asking, and there is no terminal to ask on: set ASSUME_YES=1, or install them yourself"
        fi
        printf 'Go on? [y/N] ' >&2
        read -r answer
        case $answer in [yY]*) ;; *) die "stopped; nothing was installed" ;; esac
    fi
    # A fresh machine has no package lists, an old one stale ones: update once when install fails.
    # shellcheck disable=SC2086 # words on purpose
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -q --no-install-recommends $packages >&2 ||
        { $as_root apt-get update -q >&2 &&
            DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -q --no-install-recommends $packages >&2; } ||
        die "apt-get could not install:$packages"
}

# download_packages DIR PACKAGE...: Debian packages into DIR, without installing them. Where there are no
# usable package lists, private ones are made.
download_packages() {
    dir=$1
    shift
    lists=$CACHE/apt
    private="-o Dir::State::lists=$lists/lists -o Dir::Cache=$lists/cache"
    (cd "$dir" && apt-get -q download "$@" >&2) && return
    mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
    # shellcheck disable=SC2086 # words on purpose
    apt-get $private -q update >&2 && (cd "$dir" && apt-get $private -q download "$@" >&2)
}

# add_modules DIR KERNEL MODULE...: copies a kernel's modules into DIR/modules, numbered in the order
# given, which is the order in which load_modules loads them. One that is built in is left out.
add_modules() {
    dir=$1 kernel=$2
    shift 2
    mkdir -p "$dir/modules"
    number=10
    for module in "$@"; do
        path=$(find "$kernel/modules/kernel" -name "$module.ko*" | head -n 1)
        if [ -n "$path" ]; then
            cp "$path" "$dir/modules/$number-$module.ko"
        elif ! grep -q "/$module\.ko" "$kernel/modules/modules.builtin"; then
            die "$kernel has no module $module"
        fi
        number=$((number + 1))
    done
}

# add_programs DIR PROGRAM...: copies programs of this machine (names in PATH, or paths) to their own
# absolute paths below DIR, with the libraries they need.
add_programs() {
    dir=$1
    shift
    for program in "$@"; do
        path=$(where "$program") || die "no $program to put into the rig"
        add_file "$path" "$dir$path"
        add_libraries "$dir" "$path"
    done
}

# add_libraries DIR FILE...: the loader and every library that ldd names for them.
add_libraries() {
    dir=$1
    shift
    for file in "$@"; do
        ldd "$file" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
            [ -e "$dir$library" ] || add_file "$library" "$dir$library"
        done
    done
}

# add_binaries DIR TO BINARY...: our own, without their debug information, into DIR/TO.
add_binaries() {
    dir=$1 to=$2
    shift 2
    mkdir -p "$dir/$to"
    for file in "$@"; do
        [ -x "$file" ] || die "no $file: build it first"
        cp "$file" "$dir/$to/"
        ! have strip || strip "$dir/$to/$(basename "$file")" 2>/dev/null || true
        add_libraries "$dir" "$file"
    done
}

# add_file FROM TO: copies what FROM is or links to.
add_file() {
    mkdir -p "$(dirname "$2")"
    cp -L "$1" "$2"
}

# add_busybox DIR: a static busybox and a link for each of its commands that DIR lacks.
add_busybox() {
    busybox=$(where busybox) || die "no busybox here: install busybox-static"
    if ldd "$busybox" >/dev/null 2>&1; then die "$busybox is not static: install busybox-static"; fi
    mkdir -p "$1/bin" "$1/sbin" "$1/usr/bin" "$1/usr/sbin" "$1/dev" "$1/proc" "$1/sys" "$1/tmp" "$1/run" "$1/mnt"
    add_file "$busybox" "$1/bin/busybox"
    "$busybox" --list | while read -r applet; do
        for place in bin sbin usr/bin usr/sbin; do [ -e "$1/$place/$applet" ] && continue 2; done
        ln -s /bin/busybox "$1/bin/$applet"
    done
}

# pack_initrd DIR FILE: an uncompressed cpio, which costs a slow guest the least.
pack_initrd() {
    (cd "$1" && find . | cpio --quiet -o -H newc -R 0:0) >"$2.part"
    mv "$2.part" "$2"
}
