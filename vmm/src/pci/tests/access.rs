//! The ports and ECAM.

use super::*;

struct Reset(Mutex<Vec<u8>>);

impl BusDevice for Reset {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0x42);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        assert_eq!(offset, 0);
        lock(&self.0).extend_from_slice(data);
    }
}

fn read<const N: usize>(device: &dyn BusDevice, offset: u64) -> [u8; N] {
    let mut data = [0; N];
    device.read(offset, &mut data);
    data
}

#[test]
fn ports_reach_every_byte_of_config_space() {
    let (_, root) = root();
    root.add(3, Probe::new(&[bar32(0)])).unwrap();
    let ports = ConfigPorts::new(root, None);
    ports.write(0, &0x8000_1800_u32.to_le_bytes());
    assert_eq!(read(&ports, 0), 0x8000_1800_u32.to_le_bytes());
    assert_eq!(read(&ports, 4), [0x34, 0x12, 0x78, 0x56]);
    assert_eq!(read(&ports, 6), [0x78, 0x56]);
    assert_eq!(read(&ports, 5), [0x12]);
    assert_eq!(read(&ports, 7), [0xff; 2], "across the end of the register");
    ports.write(0, &0x8000_183c_u32.to_le_bytes());
    ports.write(4, &[0x0b]);
    assert_eq!(read(&ports, 4), [0x0b]);
}

#[test]
fn ports_off_or_aimed_elsewhere_read_all_ones() {
    let (_, root) = root();
    root.add(3, Probe::new(&[])).unwrap();
    let ports = ConfigPorts::new(root, None);
    // Off; no function there; another function; another bus.
    for address in [0x0000_1800_u32, 0x8000_2000, 0x8000_1900, 0x8001_1800] {
        ports.write(0, &address.to_le_bytes());
        assert_eq!(read(&ports, 4), [0xff; 4], "{address:#x}");
        ports.write(4, &[0; 4]);
    }
    ports.write(0, &0x8000_0000_u32.to_le_bytes());
    assert_eq!(read(&ports, 4), [0x36, 0x1b, 0x08, 0x00]);
}

#[test]
fn only_dwords_reach_the_address_register() {
    let (_, root) = root();
    let reset = Arc::new(Reset(Mutex::default()));
    let ports = ConfigPorts::new(root, Some(reset.clone()));
    ports.write(3, &[1]);
    ports.write(0, &[1, 2]);
    assert_eq!(read(&ports, 0), [0; 4]);
    assert_eq!(read(&ports, 0), [0xff; 2]);
    ports.write(1, &[6]);
    ports.write(1, &[6, 6]);
    assert_eq!((*lock(&reset.0)).as_slice(), [6]);
    assert_eq!(read(&ports, 1), [0x42]);
    ports.write(0, &[0xff; 4]);
    assert_eq!(read(&ports, 0), 0x80ff_fffc_u32.to_le_bytes());
    ports.reset();
    assert_eq!(read(&ports, 0), [0; 4]);
}

#[test]
fn ecam_reaches_bus_0_function_0() {
    let (_, root) = root();
    root.add(31, Probe::new(&[])).unwrap();
    let ecam = Ecam::new(root);
    assert_eq!(read(&ecam, 31 << 15), [0x34, 0x12, 0x78, 0x56]);
    assert_eq!(read(&ecam, 31 << 15 | 2), [0x78, 0x56]);
    assert_eq!(
        read(&ecam, 31 << 15 | 0x100),
        [0; 4],
        "no extended capabilities"
    );
    assert_eq!(read(&ecam, 31 << 15 | 1 << 12), [0xff; 4]);
    assert_eq!(read(&ecam, 1 << 20), [0xff; 4]);
    assert_eq!(read(&ecam, 255 << 20 | 0xf_fffc), [0xff; 4]);
    assert_eq!(read(&ecam, 0xffc), [0; 4]);
    assert_eq!(
        read(&ecam, 0xffe),
        [0xff; 4],
        "across the end of the function"
    );
    assert_eq!(read(&ecam, u64::MAX), [0xff; 1]);
    ecam.write(u64::MAX, &[0; 8]);
}

#[test]
fn the_host_bridge_is_one() {
    let (_, root) = root();
    assert_eq!(config_read(&root, 0, 8) >> 8, 0x06_0000);
    assert_eq!(config_read(&root, 0, 0x0c), 0, "a single function, type 0");
    for offset in (0..256).step_by(4) {
        config_write(&root, 0, offset, u32::MAX);
    }
    assert_eq!(config_read(&root, 0, 0), 0x0008_1b36);
    root.reset();
    assert_eq!(config_read(&root, 0, 4), 0);
}
