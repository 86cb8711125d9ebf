use clap::Parser;
use hashinsight_farm::cli::{Args, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            // One line; clap's own text goes on about usage.
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            eprintln!("hashinsight-farm: {}", line.strip_prefix("error: ").unwrap_or(line));
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("hashinsight-farm: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hashinsight-farm: {error}");
            ExitCode::FAILURE
        }
    }
}
