//! The command line `gpafuzz`; see [`gpafuzz::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    gpafuzz::cli::main()
}
