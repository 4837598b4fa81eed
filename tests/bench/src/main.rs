//! See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    outboard_bench::cli::main()
}
