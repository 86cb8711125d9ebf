//! One run of the server: listeners first, then the folder, then everything else, so that what can
//! fail for a simple reason fails before anything is made.

use crate::clock::Clock;
use crate::config::{Addresses, Config};
use crate::error::{Error, Kind, Result};
use crate::store::Stores;
use crate::{App, agents, curtailment, identity, mqtt, telemetry, web};
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Held by the one server of a data folder.
const LOCK_FILE: &str = "serve.lock";

/// Serves until `shutdown`, or until a part of the program fails for good.
///
/// # Errors
/// A port is taken, the folder can't be written, or a part fails; the text says which.
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<()> {
    // A guard, so that every task ends when this one does, however it ends.
    let all = shutdown.child_token();
    let _guard = all.clone().drop_guard();
    let http = listen("http", config.http).await?;
    // With a broker of the operator's own there is nothing to listen for.
    let mqtt = match config.broker {
        Some(_) => None,
        None => Some(listen("mqtt", config.mqtt).await?),
    };
    let enrol = listen("enrol", config.enrol).await?;
    let addresses = Addresses {
        http: http.local_addr().map_err(Error::internal)?,
        mqtt: match &mqtt {
            Some(mqtt) => mqtt.local_addr().map_err(Error::internal)?,
            None => config.mqtt,
        },
        enrol: enrol.local_addr().map_err(Error::internal)?,
    };
    let _lock = prepare_folder(&config.data)?;
    let stores = Stores::of(&config).await?;
    let app = App::open(config, addresses, Clock::system(), stores).await?;
    let first_password = identity::users::add_first_owner(&app.stores.business, app.clock.now()).await?;

    let mut parts = JoinSet::new();
    parts.spawn(agents::serve(Arc::clone(&app), enrol, all.clone()));
    parts.spawn(mqtt::serve(Arc::clone(&app), mqtt, all.clone()));
    parts.spawn(curtailment::serve(Arc::clone(&app), all.clone()));
    parts.spawn(telemetry::upkeep::serve(Arc::clone(&app), all.clone()));
    parts.spawn(web::serve(Arc::clone(&app), http, all.clone()));
    if let Some(password) = first_password {
        println!(
            "\nFirst start. Sign in as \"{}\" with the one-time password  {password}\n\
             It is shown only now; \"hashinsight admin user password {}\" makes another one.\n",
            identity::users::OWNER,
            identity::users::OWNER
        );
    }
    println!(
        "HashInsight is running: open http://{}/  (data in {})",
        addresses.http,
        app.config.data.display()
    );
    if let Some(file) = &app.config.ready_file {
        say_ready(file, &addresses)?;
    }

    let mut outcome = Ok(());
    while let Some(ended) = parts.join_next().await {
        let ended = ended.unwrap_or_else(|e| Err(Error::internal(e)));
        outcome = outcome.and(ended);
        // One part that ended takes the others with it: half a server looks alive and is not.
        all.cancel();
    }
    app.stores.close().await;
    outcome
}

/// Writes the listeners' addresses where whoever started the server waits for them.
fn say_ready(file: &Path, addresses: &Addresses) -> Result<()> {
    let refused = |error: std::io::Error| {
        let text = format!("the ready file {} can't be written ({error})", file.display());
        Error::new(Kind::Unavailable, text)
    };
    // Under another name first, so that nobody reads half of it.
    let half = file.with_extension("half");
    std::fs::write(&half, serde_json::to_vec(addresses)?).map_err(refused)?;
    std::fs::rename(&half, file).map_err(refused)
}

async fn listen(name: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::AddrInUse => "is taken by another program",
            std::io::ErrorKind::PermissionDenied => "may not be used by this user (below 1024?)",
            std::io::ErrorKind::AddrNotAvailable => "is not an address of this machine",
            _ => "can't be listened on",
        };
        let text = format!("{name} address {address} {help}; give another with --{name}");
        Error::new(Kind::Unavailable, text).because(error)
    })
}

/// Makes the folder where it is missing, proves that it can be written, and takes its lock.
fn prepare_folder(folder: &Path) -> Result<File> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let refused = |what: &str, error: std::io::Error| {
        let text = format!("data folder {} {what} ({error}); give another with --data", folder.display());
        Error::new(Kind::Unavailable, text)
    };
    // Keys and password hashes lie here: nobody else reads them.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| refused("can't be made", e))?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(folder.join(LOCK_FILE))
        .map_err(|e| refused("can't be written", e))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(_) => {
            let text = format!("data folder {} is in use by another hashinsight serve", folder.display());
            Err(Error::new(Kind::Unavailable, text))
        }
    }
}
