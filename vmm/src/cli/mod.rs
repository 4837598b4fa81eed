//! The command line: one file per verb.

mod completions;
mod console;
mod define;
mod device;
mod doctor;
mod image;
mod info;
mod iso;
mod list;
mod log;
mod man;
mod manage;
mod plugin;
mod run;
mod say;
mod start;
mod top;
mod vmm;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use outboard::logs;
use outboard::vm::End;
use tracing::level_filters::LevelFilter;

/// Exit code of a command line that cannot be meant, as clap's own; and of a VM's file.
const USAGE: u8 = 2;

/// How a program ends that stays with a VM.
macro_rules! ends {
    () => {
        "  0  the guest powered off (or reset under --no-reboot), or Ctrl-A x
  1  the VM could not start, or the host failed it
  2  the command line is wrong, or the file that describes the VM
  3  a device ended and its on-exit is stop
  4  KVM reported an internal error or an exit nobody handles
  5  the guest triple-faulted under --no-reboot, or right after each of several boots
  129, 130, 143  ended by SIGHUP, Ctrl-C or SIGTERM"
    };
}

const ENDS: &str = ends!();

const EXAMPLES: &str = concat!(
    "\
Examples:
  Boot a kernel with a disk and a network card, ttyS0 on this terminal:
    outboard run --kernel vmlinuz --initrd initrd.img --memory 1G \\
        --cmdline 'console=ttyS0 root=/dev/vda rw' \\
        --disk path=root.img --net tap=tap0
  See whether this machine is ready:
    outboard doctor

Exit codes:
",
    ends!()
);

/// A KVM virtual machine monitor whose every device runs outside it.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    /// How much to say on standard error, the daemons too: off, error, warn, info, debug or trace
    /// [default: `RUST_LOG`, or warn]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "LEVEL",
        help_heading = "Global options",
        hide_possible_values = true
    )]
    log_level: Option<LogLevel>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Launch a VM and stay with it until it ends
    Run(Box<run::Run>),
    /// Keep a VM's description, so that it can be started by name
    Define(define::Define),
    /// Forget a definition
    Undefine(manage::Named),
    /// Print a definition
    Show(define::Show),
    /// Change a definition, in your editor
    Edit(manage::Named),
    /// Start a defined VM in the background
    Start(start::Start),
    /// Show a VM's console on this terminal
    Console(console::Console),
    /// List the VMs that run
    List(list::List),
    /// Tell what a running VM is and has
    Info(info::Tell),
    /// Show what a VM, its daemons and its guest have said, also when it has ended
    Log(log::Log),
    /// Show what VMs do, as it happens
    Top(top::Top),
    /// Ask a VM's guest to shut down, by the power button
    Shutdown(manage::Shutdown),
    /// Reset a VM, as its reset button would
    Reboot(manage::Named),
    /// End a VM at once, whatever its guest is doing
    Destroy(manage::Named),
    /// Stop a VM's vCPUs and devices where they are
    Suspend(manage::Named),
    /// Let a suspended VM go on
    Resume(manage::Named),
    /// Plug a device into a running VM
    Attach(Box<manage::Attach>),
    /// Take a device out of a running VM
    Detach(manage::Detach),
    /// Start a VMM without a VM, steered by Cloud Hypervisor's API
    Vmm(vmm::Vmm),
    /// Say whether this machine can run VMs, and what to do where it cannot
    Doctor(doctor::Doctor),
    /// Take a kernel and its initrd out of a disk image
    Image(image::Image),
    /// Look at ISO images
    Iso(iso::Iso),
    /// Look at device plugins
    Plugin(plugin::Plugin),
    /// Begin a device of your own
    Device(device::Device),
    /// Print completions for a shell
    Completions(completions::Completions),
    /// Write manual pages
    Man(man::Man),
}

#[derive(Clone, Copy, ValueEnum)]
enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    if vmm::is_cloud_hypervisor() {
        return vmm::as_cloud_hypervisor();
    }
    if completions::answered() {
        return ExitCode::SUCCESS;
    }
    let cli = Cli::parse();
    logs::start(cli.log_level.map(LogLevel::filter));
    match cli.verb {
        Verb::Run(run) => run.execute(),
        Verb::Define(define) => define.execute(),
        Verb::Undefine(vm) => define::undefine(&vm),
        Verb::Show(show) => show.execute(),
        Verb::Edit(vm) => define::edit(&vm),
        Verb::Start(start) => start.execute(),
        Verb::Console(console) => console.execute(),
        Verb::List(list) => list.execute(),
        Verb::Info(tell) => tell.execute(),
        Verb::Log(log) => log.execute(),
        Verb::Top(top) => top.execute(),
        Verb::Shutdown(shutdown) => shutdown.execute(),
        Verb::Reboot(vm) => vm.ask("vm.reboot"),
        Verb::Destroy(vm) => vm.ask("vm.shutdown"),
        Verb::Suspend(vm) => vm.ask("vm.pause"),
        Verb::Resume(vm) => vm.ask("vm.resume"),
        Verb::Attach(attach) => attach.execute(),
        Verb::Detach(detach) => detach.execute(),
        Verb::Vmm(vmm) => vmm.execute(),
        Verb::Doctor(doctor) => doctor.execute(),
        Verb::Image(image) => image.execute(),
        Verb::Iso(iso) => iso.execute(),
        Verb::Plugin(plugin) => plugin.execute(),
        Verb::Device(device) => device.execute(),
        Verb::Completions(completions) => completions.execute(),
        Verb::Man(man) => man.execute(),
    }
}

impl LogLevel {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// Says how a VM ended, where something went wrong, and keeps it.
fn finished(end: &End) -> ExitCode {
    if let Some(message) = end.message() {
        say::complain(&format!("outboard: {message}"));
        logs::note(&message);
    }
    logs::note(&format!("-- the VM ended: {}", end.how()));
    end.exit_code()
}

/// Prints an error and its causes, each once, and keeps it.
fn complain(error: &dyn std::error::Error) {
    let text = format!("outboard: {}", chained(error));
    say::complain(&text);
    logs::note(&text);
}

/// An error and its causes, each once.
fn chained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
