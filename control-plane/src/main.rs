//! `hashinsight`: the control plane's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    hashinsight_control_plane::cli::run()
}
