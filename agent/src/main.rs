fn main() -> std::process::ExitCode {
    hashinsight_agent::cli::main()
}
