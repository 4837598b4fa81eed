//! `outboard run`: flags and file into one description, and the VM it describes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use outboard::config::{
    CpuConfig, Cpus, Description, Disk, Net, OnOff, PluginDevice, Ram, RawDevice, VmConfig,
    from_keyvals,
};
use outboard::history::Recorder;
use outboard::vm;

use super::say;

const EXAMPLES: &str = "\
Keys of --disk:
  path=FILE | socket=PATH, readonly, format=raw|qcow2 (else by the suffix), backing=on (open the \
files a qcow2 image lies on), direct=on (past the page cache), discard=off (give no space back), \
block-size=512|4096, queues=N, queue-size=N, serial=TEXT

Keys of --net:
  tap=NAME | ip=ADDRESS/BITS (makes a tap) | user | stream=PATH | stream-listen=PATH | socket=PATH, \
create=on (make the tap if there is none of its name; it ends with the card), mac=ADDRESS, queues=N \
(with tap), queue-size=N, mtu=BYTES, forward=2222:22 (with user: [udp:][ADDRESS/]HOST:GUEST, '+' \
between several)

Keys of --device:
  plugin=FILE, host=process|vmm (where its code runs), device=NAME (of a plugin with several), and \
the device's own options, which `outboard plugin inspect FILE` lists; queues=N, name=TEXT

Keys of --device, for somebody's daemon:
  vhost-user, id=NUMBER|NAME (the virtio device: 26, fs, rng, ...), socket=PATH (a daemon listens \
there) | spawn=COMMAND (starts the daemon, and ends it with the VM; '{fd}' in it is the number of an \
inherited listening socket, '{socket}' the path where the daemon is to listen, '{stem}' that path \
for one that appends 0 to it; a comma is written twice), queues=N, queue-size=N (256 unless the \
daemon takes fewer), name=TEXT

Keys of all three:
  addr=SLOT (1 to 31), on-exit=degrade|stop; of disk and net: id=NAME

Examples:
  outboard run --kernel vmlinuz --initrd initrd.img \\
      --cmdline console=ttyS0
  outboard run --cpus 2 --cdrom TinyCore-current.iso
  outboard run --kernel vmlinux --disk path=root.img,serial=root --console
  outboard run --kernel vmlinuz --disk path=root.img \\
      --net user,forward=2222:22
  outboard run --kernel vmlinuz \\
      --device vhost-user,id=fs,socket=/tmp/fs.sock
  outboard run --kernel vmlinuz --device \\
      \"vhost-user,id=fs,spawn=virtiofsd --fd={fd} \\
      --tag=srv --shared-dir=/srv\"
  outboard run --kernel vmlinuz \\
      --device plugin=./libramdisk.so,size=64M,host=vmm
  outboard run vm.toml --cpus 4 --dry-run";

/// Flags say the same as the keys of the file; a flag given beside a file wins over its key, and
/// devices add up.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
#[allow(clippy::struct_excessive_bools)] // switches are
pub(super) struct Run {
    /// A VM description in TOML
    file: Option<PathBuf>,
    /// The VM's name: letters, digits, '-', '_', '.' [default: the file's, or vm]
    #[arg(long)]
    name: Option<String>,
    /// The kernel: a bzImage, or an ELF file with a PVH note (firmware, too)
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// Text to append to the kernel's command line, be it --cmdline's, the file's or the boot menu's
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    cmdline_append: Option<String>,
    /// An ISO image, as a disk that can only be read; without --kernel its boot menu's kernel, initrd
    /// and command line are booted
    #[arg(long, value_name = "FILE")]
    cdrom: Option<PathBuf>,
    /// The entry of the ISO image's boot menu, by name, title or number, as `outboard iso ls` shows
    /// them [default: the menu's]
    #[arg(long, value_name = "ENTRY")]
    boot_entry: Option<String>,
    /// Number of vCPUs, 1 to 254 [default: 1]
    #[arg(long, value_name = "N", value_parser = cpus)]
    cpus: Option<u32>,
    /// CPU features to hide or demand, as QEMU spells them: host,-smap,+avx2
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// Guest memory: SIZE[,hugepages=on][,prefault=on] [default: 512M]
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| from_keyvals::<Ram>(text, Some("size")))]
    memory: Option<Ram>,
    /// A disk; may be repeated
    #[arg(long, value_name = "KEYS", value_parser = |text: &str| from_keyvals::<Disk>(text, Some("path")))]
    disk: Vec<Disk>,
    /// A network card; may be repeated
    #[arg(long, value_name = "KEYS", value_parser = |text: &str| from_keyvals::<Net>(text, None))]
    net: Vec<Net>,
    /// A device of a plugin, or one that somebody's daemon serves; may be repeated
    #[arg(long, value_name = "KEYS", value_parser = AnyDevice::from_keyvals)]
    device: Vec<AnyDevice>,
    /// Where ttyS0 goes: tty, pty, socket[=PATH], file=PATH or off [default: tty]
    #[arg(long, value_name = "PORT")]
    serial: Option<String>,
    /// Add a virtio console, and where it goes: as --serial [default when bare: socket]
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "socket")]
    console: Option<String>,
    /// Where the VM's logs are kept, in DIR/NAME, or off [default: `$XDG_STATE_HOME/outboard`; without
    /// that variable /var/log/outboard for root, ~/.local/state/outboard for others]
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// End when the guest reboots
    #[arg(long)]
    no_reboot: bool,
    /// Print the resolved description as TOML and start nothing; a name is in it where one was given
    #[arg(long = "dry-run")]
    only_print: bool,
    /// Note how the VM ends, for outboard list --all
    #[arg(long, hide = true)]
    record: bool,
    /// Let every notification exit to the VMM: shows what ioeventfds are worth
    #[arg(long, hide = true)]
    no_ioeventfd: bool,
}

impl Run {
    pub(super) fn execute(self) -> ExitCode {
        let (only_print, record) = (self.only_print, self.record);
        let (mut description, config) = match self.resolve() {
            Ok(both) => both,
            Err(why) => {
                say::complain(&format!("outboard: {why}"));
                return ExitCode::from(super::USAGE);
            }
        };
        if only_print {
            description.make_absolute();
            return print(&description);
        }
        let logs = config.logs.as_ref().map(|logs| logs.folder.as_path());
        let recorder = record.then(|| Recorder::begin(&config.name, logs));
        let ended = vm::run(&config);
        if let Some(recorder) = recorder {
            recorder.end(&match &ended {
                Ok(end) => end.how(),
                Err(error) => format!("failed: {}", super::chained(error)),
            });
        }
        match ended {
            Ok(end) => super::finished(&end),
            Err(error) => {
                super::complain(&error);
                ExitCode::FAILURE
            }
        }
    }

    fn resolve(self) -> Result<(Description, VmConfig), String> {
        let mut description = match &self.file {
            Some(path) => Description::from_file(path)?,
            None => Description::default(),
        };
        let (file, read) = (self.file.clone(), description.clone());
        self.override_with_flags(&mut description);
        let given = description.clone();
        let beside = if description == read {
            ""
        } else {
            " with the flags beside it"
        };
        let config = description.resolve().map_err(|why| match file {
            Some(file) if !why.contains(&file.display().to_string()) => {
                format!("In {}{beside}: {why}", file.display())
            }
            _ => why,
        })?;
        if given.name.is_none() {
            description.forget_name(&given);
        }
        Ok((description, config))
    }

    fn override_with_flags(self, vm: &mut Description) {
        replace(&mut vm.name, self.name);
        replace(&mut vm.kernel, self.kernel);
        replace(&mut vm.initrd, self.initrd);
        replace(&mut vm.cmdline, self.cmdline);
        replace(&mut vm.cmdline_append, self.cmdline_append);
        replace(&mut vm.cdrom, self.cdrom);
        replace(&mut vm.boot_entry, self.boot_entry);
        replace(&mut vm.memory, self.memory);
        replace(&mut vm.serial, self.serial);
        replace(&mut vm.console, self.console);
        replace(&mut vm.log_dir, self.log_dir);
        if self.cpus.is_some() || self.cpu.is_some() {
            let cpus = vm.cpus.get_or_insert_with(Cpus::default);
            replace(&mut cpus.count, self.cpus);
            replace(&mut cpus.model, self.cpu);
        }
        vm.disks.extend(self.disk);
        vm.nets.extend(self.net);
        for device in self.device {
            match device {
                AnyDevice::Raw(device) => vm.devices.push(*device),
                AnyDevice::Plugin(plugin) => vm.plugins.push(*plugin),
            }
        }
        vm.no_reboot = OnOff(vm.no_reboot.0 || self.no_reboot);
        vm.no_ioeventfd = OnOff(vm.no_ioeventfd.0 || self.no_ioeventfd);
    }
}

fn cpus(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("write a number of vCPUs, 1 to {}", CpuConfig::MAX))
}

/// What `--device` may be.
#[derive(Clone)]
pub(super) enum AnyDevice {
    Raw(Box<RawDevice>),
    Plugin(Box<PluginDevice>),
}

impl AnyDevice {
    pub(super) fn from_keyvals(text: &str) -> Result<Self, String> {
        if text.starts_with("plugin=") {
            return PluginDevice::from_keyvals(text).map(|plugin| Self::Plugin(Box::new(plugin)));
        }
        let mut keys = text.split(',');
        if !text.starts_with("vhost-user") && !keys.any(|key| key.starts_with("kind=")) {
            return Err("begin with plugin=FILE or vhost-user".into());
        }
        from_keyvals(text, Some("kind")).map(|device| Self::Raw(Box::new(device)))
    }
}

fn replace<T>(field: &mut Option<T>, flag: Option<T>) {
    if flag.is_some() {
        *field = flag;
    }
}

fn print(description: &Description) -> ExitCode {
    match toml::to_string(description) {
        Ok(text) => say::answer(&text, ExitCode::SUCCESS),
        Err(error) => {
            super::complain(&error);
            ExitCode::FAILURE
        }
    }
}
