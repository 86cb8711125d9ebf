//! The command line: `serve`, `migrate`, and `admin …`, which works on the files of a server that runs.

use crate::clock::Clock;
use crate::config::{Config, Settings, StoreSettings};
use crate::error::{Error, Kind, Result};
use crate::store::{Stores, migrate};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

mod admin;

#[derive(Parser)]
#[command(name = "hashinsight", version, about = "Mining sites: readings, curtailment plans and a console")]
struct Line {
    #[command(subcommand)]
    command: Command,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", global = true, env = "HASHINSIGHT_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve {
        #[command(flatten)]
        settings: Settings,
        /// Write the listeners' addresses to this file, as JSON, once all of them are up
        #[arg(long, value_name = "FILE")]
        ready_file: Option<PathBuf>,
    },
    /// Bring the databases to this version's schema; serve does it by itself
    Migrate {
        /// Folder of databases and keys
        #[arg(long, value_name = "DIR", env = "HASHINSIGHT_DATA")]
        data: Option<PathBuf>,
        #[command(flatten)]
        store: StoreSettings,
    },
    /// Sites, users, keys and agents
    Admin {
        /// Folder of databases and keys
        #[arg(long, value_name = "DIR", env = "HASHINSIGHT_DATA", global = true)]
        data: Option<PathBuf>,
        #[command(flatten)]
        store: StoreSettings,
        #[command(subcommand)]
        command: admin::Admin,
    },
}

/// Runs the program.
pub fn run() -> ExitCode {
    let line = Line::parse();
    // The broker's crate tells of every packet; whoever wants that names it.
    let wanted = std::env::var("HASHINSIGHT_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::new(format!("sqlx=warn,rumqttd=warn,{wanted}"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Error::internal(error)),
    };
    match runtime.block_on(command(line)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Says in one line what is wrong.
fn fail(error: &Error) -> ExitCode {
    if error.kind() == Kind::Internal {
        // Nobody else would see what happened inside.
        eprintln!("hashinsight: {}", error.chain());
    } else {
        eprintln!("hashinsight: {error}");
    }
    ExitCode::FAILURE
}

async fn command(line: Line) -> Result<()> {
    let file = line.config.as_deref().map(Settings::from_file).transpose()?.unwrap_or_default();
    let of = |data: Option<PathBuf>, store: StoreSettings| {
        Settings { data, store, ..Settings::default() }.or(file.clone()).finish(None)
    };
    match line.command {
        Command::Serve { settings, ready_file } => {
            let shutdown = CancellationToken::new();
            tokio::spawn(stop_on_signal(shutdown.clone()));
            crate::serve(settings.or(file).finish(ready_file)?, shutdown).await
        }
        Command::Migrate { data, store } => {
            let config = of(data, store)?;
            let stores = open_existing(&config).await?;
            stores.close().await;
            match config.store {
                Some(_) => println!("The PostgreSQL databases have this version's schema."),
                None => println!("The databases in {} have this version's schema.", config.data.display()),
            }
            Ok(())
        }
        Command::Admin { data, store, command: admin::Admin::Keys(command) } => {
            admin::keys(command, &of(data, store)?.data, Clock::system().now())
        }
        Command::Admin { data, store, command } => {
            let config = of(data, store)?;
            let stores = open_existing(&config).await?;
            let done = admin::run(command, &config, &stores, Clock::system().now()).await;
            stores.close().await;
            done
        }
    }
}

/// The databases of a folder that a server has made; a mistyped folder gets none.
async fn open_existing(config: &Config) -> Result<Stores> {
    if config.store.is_none() && !config.data.join(migrate::BUSINESS_FILE).is_file() {
        let text = format!(
            "there is no HashInsight database in {}; name the server's folder with --data, or run hashinsight serve first",
            config.data.display()
        );
        return Err(Error::new(Kind::NotFound, text));
    }
    Stores::of(config).await
}

async fn stop_on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("Asked to stop.");
            shutdown.cancel();
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "Signals can't be heard; only a kill stops this server.")
        }
    }
}
