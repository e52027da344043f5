//! The `exile` binary: the command line and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    exile_server::cli::run(std::env::args_os())
}
