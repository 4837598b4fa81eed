//! vCPUs and the device's thread at the same time.

use std::thread;

use super::*;

#[test]
fn vcpus_and_the_device_do_not_hold_each_other_up() {
    let rig = &Rig::running();
    let rounds = 300_u32;
    thread::scope(|scope| {
        // The device holds a lock of its own while it speaks, as the transport's calls may.
        scope.spawn(|| {
            for _ in 0..rounds {
                let _own = lock(&rig.device.config);
                rig.device.events().config_changed();
                rig.device.events().needs_reset();
            }
        });
        scope.spawn(|| {
            for round in 0..rounds {
                rig.config_write(0x10, &(0xc100_0000 | (round & 1) << 20).to_le_bytes());
                rig.config_write(0x10, &(BAR0 as u32).to_le_bytes());
            }
        });
        scope.spawn(|| {
            for _ in 0..rounds {
                rig.mmio.read(BAR0 + DEVICE.start, &mut [0; 4]);
                rig.mmio.write(BAR0 + 0x14, &[0]);
                rig.try_driver_ok();
            }
        });
        scope.spawn(|| {
            for round in 0..rounds {
                rig.mmio.write(BAR1 + 16 + 12, &(round & 1).to_le_bytes());
                rig.mmio.read(BAR1 + 2048, &mut [0; 8]);
                rig.wiring.delivered();
            }
        });
    });
    rig.drive();
}

impl Rig {
    fn try_driver_ok(&self) {
        for status in [3, 0xb, 0xf] {
            self.mmio.write(BAR0 + 0x14, &[status]);
        }
    }
}
