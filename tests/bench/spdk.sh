#!/bin/sh
# spdk.sh SOCKET METHOD PARAMETERS: SPDK's vhost serves at SOCKET the one block device that METHOD makes,
# with members of a JSON object as PARAMETERS. Its only thread polls at all times, wherever this one may run.
cpus=$(taskset -cp $$)
RUNTIME_DIRECTORY=${1%/*} exec vhost --lcores "0@(${cpus##* })" --no-huge -s 512 --no-pci --no-rpc-server --num-trace-entries 0 \
    --disable-cpumask-locks --silence-noticelog -S / -c /dev/stdin <<END
{ "subsystems": [
    { "subsystem": "bdev", "config": [
        { "method": "$2", "params": { "name": "disk", $3 } } ] },
    { "subsystem": "vhost_blk", "config": [
        { "method": "vhost_create_blk_controller", "params": { "ctrlr": "$1", "dev_name": "disk" } } ] }
] }
END
