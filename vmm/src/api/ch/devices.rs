//! Devices in Cloud Hypervisor's words, and in ours.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fixed::{Absent, ByteRange, Client, Off, On, Zero, list};
use crate::config::{Disk, Handed, Net, NewDevice, OnOff, RawDevice, Subnet, VirtioId};

/// What it means in our words, or why it cannot be.
type Ours<T> = Result<T, String>;

/// A disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // as there
pub(crate) struct DiskConfig {
    id: Option<String>,
    /// An image, raw or qcow2, or a block device.
    #[schema(value_type = Option<String>)]
    path: Option<PathBuf>,
    readonly: bool,
    /// Past the host's page cache.
    direct: bool,
    num_queues: u16,
    /// A power of two.
    queue_size: u16,
    /// `vhost_socket` says where a daemon listens.
    vhost_user: bool,
    #[schema(value_type = Option<String>)]
    vhost_socket: Option<PathBuf>,
    /// 20 bytes at most.
    serial: Option<String>,
    /// The files that a qcow2 image lies on may be opened.
    backing_files: bool,
    image_type: ImageType,
    /// The PCI slot, 1 to 31.
    pci_device_id: Option<u8>,
    pci_segment: Zero,
    iommu: Off,
    rate_limit_group: Absent,
    rate_limiter_config: Absent,
    queue_affinity: Absent,
    /// Space that the guest no longer needs is given back.
    sparse: bool,
    lock_granularity: ByteRange,
    disable_io_uring: Off,
    disable_aio: Off,
}

/// What an image is; by the suffix of its path where nobody says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) enum ImageType {
    Raw,
    Qcow2,
    #[default]
    Unknown,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self {
            id: None,
            path: None,
            readonly: false,
            direct: false,
            num_queues: 1,
            queue_size: 128,
            vhost_user: false,
            vhost_socket: None,
            serial: None,
            backing_files: false,
            image_type: ImageType::Unknown,
            pci_device_id: None,
            pci_segment: Zero,
            iommu: Off,
            rate_limit_group: Absent,
            rate_limiter_config: Absent,
            queue_affinity: Absent,
            sparse: true,
            lock_granularity: ByteRange,
            disable_io_uring: Off,
            disable_aio: Off,
        }
    }
}

impl DiskConfig {
    pub(super) fn ours(self) -> Ours<Disk> {
        Ok(Disk {
            socket: daemon("disk", self.vhost_user, self.vhost_socket)?,
            path: self.path,
            id: self.id,
            addr: self.pci_device_id,
            readonly: OnOff(self.readonly),
            format: match self.image_type {
                ImageType::Raw => Some("raw".into()),
                ImageType::Qcow2 => Some("qcow2".into()),
                ImageType::Unknown => None,
            },
            backing: OnOff(self.backing_files),
            direct: OnOff(self.direct),
            discard: (!self.sparse).then_some(OnOff(false)),
            serial: self.serial,
            queues: Some(self.num_queues),
            queue_size: Some(self.queue_size),
            ..Disk::default()
        })
    }

    pub(super) fn of(disk: &Disk) -> Self {
        Self {
            id: disk.id.clone(),
            path: disk.path.clone(),
            readonly: disk.readonly.0,
            direct: disk.direct.0,
            sparse: disk.discard != Some(OnOff(false)),
            num_queues: disk.queues.unwrap_or(1),
            queue_size: disk.queue_size.unwrap_or(OUR_QUEUE_SIZE),
            vhost_user: disk.socket.is_some(),
            vhost_socket: disk.socket.clone(),
            serial: disk.serial.clone(),
            backing_files: disk.backing.0,
            image_type: match disk.format.as_deref() {
                Some("raw") => ImageType::Raw,
                Some("qcow2") => ImageType::Qcow2,
                _ => ImageType::Unknown,
            },
            pci_device_id: disk.addr,
            ..Self::default()
        }
    }
}

/// What a device's queues take when nobody says.
const OUR_QUEUE_SIZE: u16 = 256;

/// The socket of somebody's daemon, where there is to be one.
fn daemon(kind: &str, asked: bool, socket: Option<PathBuf>) -> Ours<Option<PathBuf>> {
    match (asked, socket) {
        (true, None) => Err(format!(
            "{kind}: vhost_user is true and vhost_socket is missing; say where the daemon listens"
        )),
        (false, Some(_)) => Err(format!(
            "{kind}: vhost_socket is given and vhost_user is not; write true"
        )),
        (_, socket) => Ok(socket),
    }
}

/// A network card. Its tap is named by `tap`, and made if there is none of that name; made for it when
/// there is an `ip`; or comes as descriptors with the request, one for each pair of queues.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NetConfig {
    id: Option<String>,
    tap: Option<String>,
    /// The address of the tap that is made.
    #[schema(value_type = Option<String>)]
    ip: Option<Ipv4Addr>,
    #[schema(value_type = Option<String>)]
    mask: Option<Ipv4Addr>,
    mac: Option<String>,
    mtu: Option<u16>,
    /// Two for each pair.
    num_queues: u16,
    /// A power of two.
    queue_size: u16,
    /// `vhost_socket` says where a daemon listens.
    vhost_user: bool,
    #[schema(value_type = Option<String>)]
    vhost_socket: Option<PathBuf>,
    /// The PCI slot, 1 to 31.
    pci_device_id: Option<u8>,
    pci_segment: Zero,
    iommu: Off,
    host_mac: Absent,
    vhost_mode: Client,
    /// The client's own numbers of the descriptors that come with the request. They mean nothing to
    /// another process: it is their count that must be right.
    #[serde(deserialize_with = "list")]
    fds: Vec<i32>,
    rate_limiter_config: Absent,
    offload_tso: On,
    offload_ufo: On,
    offload_csum: On,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            id: None,
            tap: None,
            ip: None,
            mask: None,
            mac: None,
            mtu: None,
            num_queues: 2,
            queue_size: OUR_QUEUE_SIZE,
            vhost_user: false,
            vhost_socket: None,
            pci_device_id: None,
            pci_segment: Zero,
            iommu: Off,
            host_mac: Absent,
            vhost_mode: Client,
            fds: Vec::new(),
            rate_limiter_config: Absent,
            offload_tso: On,
            offload_ufo: On,
            offload_csum: On,
        }
    }
}

impl NetConfig {
    /// `fds`: those that came with the request.
    pub(super) fn ours(self, fds: Vec<Handed>) -> Ours<Net> {
        let pairs = self.num_queues / 2;
        if pairs == 0 || !self.num_queues.is_multiple_of(2) {
            return Err(format!(
                "net: num_queues is {}; there are two to a pair: write 2, 4, ...",
                self.num_queues
            ));
        }
        let has_queues = self.tap.is_some() || !fds.is_empty();
        if pairs > 1 && !has_queues {
            return Err("net: num_queues is for a tap; leave it out, or write 2".into());
        }
        if self.mask.is_some() && self.ip.is_none() {
            return Err("net: mask is given and ip is not; give both".into());
        }
        if !self.fds.is_empty() && self.fds.len() != fds.len() {
            return Err(format!(
                "net: fds is {:?}, and {} descriptors came with the request; send them with it, or \
                 leave fds out",
                self.fds,
                fds.len()
            ));
        }
        let mut ip = self.ip.map(|ip| subnet(ip, self.mask)).transpose()?;
        if let Some(ip) = ip.take_if(|_| !fds.is_empty()) {
            // Clients that hand a tap over send it nevertheless: of a tap of ours, which this is not.
            tracing::info!("{ip} is left to whoever made the tap");
        }
        Ok(Net {
            socket: daemon("net", self.vhost_user, self.vhost_socket)?,
            ip,
            fds,
            // As there: the tap is made where there is none.
            create: OnOff(self.tap.is_some()),
            tap: self.tap,
            id: self.id,
            addr: self.pci_device_id,
            mac: self.mac,
            mtu: self.mtu,
            queues: has_queues.then_some(pairs),
            queue_size: Some(self.queue_size),
            ..Net::default()
        })
    }

    pub(super) fn of(net: &Net) -> Self {
        let (ip, mask) = net.ip.map(|ip| (ip.address(), ip.mask())).unzip();
        Self {
            id: net.id.clone(),
            tap: net.tap.clone(),
            ip,
            mask,
            mac: net.mac.clone(),
            mtu: net.mtu,
            num_queues: net.queues.unwrap_or(1).saturating_mul(2),
            queue_size: net.queue_size.unwrap_or(OUR_QUEUE_SIZE),
            vhost_user: net.socket.is_some(),
            vhost_socket: net.socket.clone(),
            pci_device_id: net.addr,
            ..Self::default()
        }
    }
}

/// Cloud Hypervisor's own netmask is that of 24 bits.
fn subnet(ip: Ipv4Addr, mask: Option<Ipv4Addr>) -> Ours<Subnet> {
    let mask = mask.unwrap_or(Ipv4Addr::new(255, 255, 255, 0));
    Subnet::masked(ip, mask).ok_or_else(|| format!("net: mask is {mask}, which is no netmask"))
}

/// A shared file system, served by somebody's daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FsConfig {
    #[serde(default)]
    id: Option<String>,
    /// What the guest mounts it by. The daemon tells it: this says it again.
    tag: String,
    #[schema(value_type = String)]
    socket: PathBuf,
    /// Request queues; there is one more.
    #[serde(default = "one")]
    num_queues: u16,
    /// A power of two.
    #[serde(default = "fs_queue_size")]
    queue_size: u16,
    /// The PCI slot, 1 to 31.
    #[serde(default)]
    pci_device_id: Option<u8>,
    #[serde(default)]
    pci_segment: Zero,
    #[serde(default)]
    iommu: Off,
}

fn one() -> u16 {
    1
}

fn fs_queue_size() -> u16 {
    1024
}

impl FsConfig {
    pub(super) fn ours(self) -> Ours<RawDevice> {
        let Some(queues) = self.num_queues.checked_add(1) else {
            return Err(format!("fs: num_queues is {}, too many", self.num_queues));
        };
        Ok(RawDevice {
            id: VirtioId::FS,
            queues: Some(queues),
            queue_size: Some(self.queue_size),
            tag: Some(self.tag),
            ..raw(self.id, self.socket, self.pci_device_id)
        })
    }
}

/// Any device that somebody's daemon serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenericVhostUserConfig {
    #[serde(default)]
    id: Option<String>,
    #[schema(value_type = String)]
    socket: PathBuf,
    /// The sizes of its queues, powers of two, all the same.
    queue_sizes: Vec<u16>,
    /// The virtio device id.
    device_type: u32,
    /// The PCI slot, 1 to 31.
    #[serde(default)]
    pci_device_id: Option<u8>,
    #[serde(default)]
    pci_segment: Zero,
    #[serde(default)]
    iommu: Off,
}

impl GenericVhostUserConfig {
    pub(super) fn ours(self) -> Ours<RawDevice> {
        let size = self.queue_sizes.first().copied();
        if self.queue_sizes.iter().any(|other| Some(*other) != size) {
            return Err("generic_vhost_user: queue_sizes differ; one size is possible".into());
        }
        let Some(count) = u16::try_from(self.queue_sizes.len())
            .ok()
            .filter(|n| *n > 0)
        else {
            return Err("generic_vhost_user: queue_sizes has no size for any queue".into());
        };
        Ok(RawDevice {
            id: self.device_type.to_string().parse()?,
            queues: Some(count),
            queue_size: size,
            ..raw(self.id, self.socket, self.pci_device_id)
        })
    }
}

fn raw(name: Option<String>, socket: PathBuf, addr: Option<u8>) -> RawDevice {
    RawDevice {
        kind: "vhost-user".into(),
        id: VirtioId::FS,
        socket: Some(socket),
        spawn: None,
        name,
        queues: None,
        queue_size: None,
        addr,
        on_exit: crate::config::OnExit::default(),
        tag: None,
    }
}

/// The device of somebody's daemon that listens, as one or the other.
pub(super) enum Strangers {
    Fs(FsConfig),
    Generic(GenericVhostUserConfig),
}

impl Strangers {
    /// `None` for a daemon that we start: Cloud Hypervisor has no words for it.
    pub(super) fn of(raw: &RawDevice) -> Option<Self> {
        let socket = raw.socket.clone()?;
        let (id, pci_device_id) = (raw.name.clone(), raw.addr);
        let size = raw.queue_size.unwrap_or(OUR_QUEUE_SIZE);
        if let Some(tag) = &raw.tag {
            return Some(Self::Fs(FsConfig {
                id,
                tag: tag.clone(),
                socket,
                num_queues: raw.queues.map_or(1, |queues| queues.saturating_sub(1)),
                queue_size: size,
                pci_device_id,
                pci_segment: Zero,
                iommu: Off,
            }));
        }
        Some(Self::Generic(GenericVhostUserConfig {
            id,
            socket,
            queue_sizes: vec![size; usize::from(raw.queues.unwrap_or(1))],
            device_type: raw.id.get(),
            pci_device_id,
            pci_segment: Zero,
            iommu: Off,
        }))
    }
}

/// A device that a request brings.
pub(crate) trait Described {
    /// In our words; `fds` came with the request.
    fn device(self, fds: Vec<Handed>) -> Ours<NewDevice>;
}

impl Described for DiskConfig {
    fn device(self, fds: Vec<Handed>) -> Ours<NewDevice> {
        none(&fds)?;
        self.ours().map(NewDevice::Disk)
    }
}

impl Described for NetConfig {
    fn device(self, fds: Vec<Handed>) -> Ours<NewDevice> {
        self.ours(fds).map(NewDevice::Net)
    }
}

impl Described for FsConfig {
    fn device(self, fds: Vec<Handed>) -> Ours<NewDevice> {
        none(&fds)?;
        self.ours().map(NewDevice::Raw)
    }
}

impl Described for GenericVhostUserConfig {
    fn device(self, fds: Vec<Handed>) -> Ours<NewDevice> {
        none(&fds)?;
        self.ours().map(NewDevice::Raw)
    }
}

/// Our own words.
impl Described for NewDevice {
    fn device(mut self, fds: Vec<Handed>) -> Ours<NewDevice> {
        match &mut self {
            Self::Net(net) => net.fds = fds,
            _ => none(&fds)?,
        }
        Ok(self)
    }
}

pub(crate) fn none(fds: &[Handed]) -> Ours<()> {
    match fds.len() {
        0 => Ok(()),
        count => Err(format!(
            "{count} descriptors came with the request, which takes none"
        )),
    }
}
