//! Starts the parts of the agent, watches over them, and ends them in order.
//!
//! The watchdog of systemd is fed only while poller, executor and outbox progress: an agent that hangs is
//! restarted. On SIGTERM or SIGINT all parts are told to stop; what they have in hand is finished within
//! [`GRACE`].

use crate::cli::Failure;
use crate::clock::Clock;
use crate::config::Config;
use crate::credentials::CredentialStore;
use crate::executor::Executor;
use crate::identity_files::{self, Identity};
use crate::local;
use crate::poller::contact::Contacts;
use crate::poller::devices::Devices;
use crate::poller::{Field, Poller, Settings, follow};
use crate::renewal::Holder;
use crate::store::{Journal, Outbox};
use crate::uplink::{self, Uplink};
use hashinsight_firmware::Profiles;
use hashinsight_protocol::units::{BootMillis, DurationMs};
use rustix::fs::{FlockOperation, flock};
use sd_notify::NotifyState;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// For what is in hand when the agent stops.
const GRACE: Duration = Duration::from_secs(10);
/// How often progress is looked at, at least.
const LOOK: Duration = Duration::from_secs(10);
/// The executor takes a step every 30 s; beyond this it hangs.
const EXECUTOR_HANGS: DurationMs = DurationMs::from_secs(120);
/// The outbox answers within this or hangs.
const OUTBOX_HANGS: Duration = Duration::from_secs(30);
/// Messages of what an earlier journal held that may wait; what has no room is sent again.
const HELD_MESSAGES: usize = 32;
/// The good time is remembered this often, for the next start.
const REMEMBER: DurationMs = DurationMs::from_minutes(60);

/// Runs the agent until it's told to stop.
///
/// # Errors
/// It can't start; or a part of it has ended by itself.
pub async fn run(config: Config) -> Result<(), Failure> {
    log_to_stderr(&config.log)?;
    let holder = Holder::new(&config.data_dir, Identity::load(&config.data_dir)?, config.broker.clone());
    let identity = holder.identity();
    let _lock = lock(&config.data_dir)?;
    let clock = Clock::system()?;
    let credentials = CredentialStore::load(&config.data_dir)?;
    let profiles = match &config.profiles {
        Some(folder) => Profiles::with_folder(folder)?,
        None => Profiles::builtin(),
    };
    let journal = Journal::open(&config.data_dir, identity.sealer())?;
    clock.remember_good(journal.last_good().await?);
    let clean = journal.started(clock.now()).await?;
    let quota = u64::from(config.outbox_quota_mb) << 20;
    let outbox =
        Outbox::open(&config.data_dir, quota, identity.sealer(), journal.clone(), clock.now()).await?;
    let agent = identity.agent();
    tracing::info!(%agent, clean, version = env!("CARGO_PKG_VERSION"), "started");

    let stop = CancellationToken::new();
    let watched = watch::Sender::new(None);
    let contacts = Contacts::new(clock.clone(), profiles, credentials, config.api_port, config.web_port)
        .on_v3_port(config.v3_port);
    let (settings, devices) = (Settings::of(&config), Devices::start()?);
    let field = Arc::new(Field::new(contacts, outbox.clone(), journal.clone(), settings, devices));
    let poller = Poller::new(field.clone(), watched.subscribe());
    let (executor, answers) = Executor::new(field.clone(), config.policy(seed(agent.as_bytes()))).await?;
    let socket = local::listen(&config.data_dir)
        .map_err(|error| Failure::new(format!("cannot listen in {}: {error}", config.data_dir.display())))?;
    let desk = executor.desk();
    let watchdog = Watchdog {
        started: clock.now().boot,
        poller: poller.progress(),
        poller_hangs: DurationMs::from_secs(u64::from(config.cycle_s) * 3 + 60),
        executor: executor.progress(),
    };
    let (held_before, recovered) = mpsc::channel(HELD_MESSAGES);
    let uplink = Uplink {
        agent,
        sealer: identity.sealer(),
        trust: holder.trust().clone(),
        doubted: holder.doubted(),
        refused: Mutex::default(),
        clock: clock.clone(),
        outbox: outbox.clone(),
        journal: journal.clone(),
        held_before,
        watched,
        watched_cycle_s: u16::try_from(config.watched_cycle_s).unwrap_or(u16::MAX),
        stop: stop.clone(),
    };

    let mut parts: JoinSet<&'static str> = JoinSet::new();
    let named = |name, part: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| async move {
        part.await;
        name
    };
    parts.spawn(named("the poller", Box::pin(poller.run(stop.clone()))));
    parts.spawn(named("the executor", Box::pin(executor.run(answers, recovered, stop.clone()))));
    if config.follow {
        let networks = config.networks().map_err(Failure::new)?;
        parts
            .spawn(named("the search for lost miners", Box::pin(follow::run(field, networks, stop.clone()))));
    }
    parts.spawn(named("the local socket", Box::pin(local::serve(socket, desk, stop.clone()))));
    let data_dir = config.data_dir.clone();
    let (renewing, renew_clock, renew_stop) = (holder.clone(), clock.clone(), stop.clone());
    parts.spawn(named("the renewal", Box::pin(renewing.run(renew_clock, renew_stop))));
    parts.spawn(named("the uplink", Box::pin(async move { uplink::run(uplink, holder, &data_dir).await })));
    let (tended, tend_clock, tend_stop) = (journal.clone(), clock.clone(), stop.clone());
    parts.spawn(named("the journal", Box::pin(async move { tended.tend(tend_clock, tend_stop).await })));

    notify(&[NotifyState::Ready]);
    let outcome = watch_over(&mut parts, &watchdog, &clock, &journal, &outbox).await;
    notify(&[NotifyState::Stopping]);
    stop.cancel();
    let ended = timeout(GRACE, async { while parts.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!("not all was finished in time");
    }
    remember_good(&clock, &journal).await;
    if outcome.is_ok() {
        outbox.settle().await?;
        journal.ended().await?;
        tracing::info!("stopped");
    }
    outcome
}

/// Feeds the watchdog until a signal, or a part that ends by itself.
async fn watch_over(
    parts: &mut JoinSet<&'static str>,
    watchdog: &Watchdog,
    clock: &Clock,
    journal: &Journal,
    outbox: &Outbox,
) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let wanted = sd_notify::watchdog_enabled();
    let mut look = tokio::time::interval(wanted.map_or(LOOK, |wanted| (wanted / 4).min(LOOK)));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut remembered = clock.now().boot;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            Some(part) = parts.join_next() => {
                let name = part.unwrap_or("a part that failed");
                return Err(Failure::new(format!("{name} has ended by itself")));
            }
            _ = look.tick() => {
                let now = clock.now().boot;
                let outbox_lives = matches!(timeout(OUTBOX_HANGS, outbox.usage()).await, Ok(Ok(_)));
                match watchdog.hanging(now, outbox_lives) {
                    None if wanted.is_some() => notify(&[NotifyState::Watchdog]),
                    None => {}
                    Some(part) => tracing::error!("{part} makes no progress"),
                }
                if now.since(remembered) >= REMEMBER {
                    remembered = now;
                    remember_good(clock, journal).await;
                }
            }
        }
    }
}

async fn remember_good(clock: &Clock, journal: &Journal) {
    let now = clock.now();
    if now.state.is_sure()
        && let Err(error) = journal.remember_good(now.wall).await
    {
        tracing::warn!(%error, "the time could not be remembered");
    }
}

/// When each part was last seen to progress, on the boot clock.
struct Watchdog {
    started: BootMillis,
    poller: Arc<AtomicU64>,
    poller_hangs: DurationMs,
    executor: Arc<AtomicU64>,
}

impl Watchdog {
    /// Who hangs.
    fn hanging(&self, now: BootMillis, outbox_lives: bool) -> Option<&'static str> {
        let since =
            |progress: &AtomicU64| now.since(BootMillis(progress.load(Ordering::Relaxed)).max(self.started));
        if since(&self.poller) > self.poller_hangs {
            Some("the poller")
        } else if since(&self.executor) > EXECUTOR_HANGS {
            Some("the executor")
        } else if !outbox_lives {
            Some("the outbox")
        } else {
            None
        }
    }
}

/// Each agent draws its own random parts of ramps.
fn seed(agent: &[u8; 16]) -> u64 {
    let mut seed = [0; 8];
    seed.copy_from_slice(&agent[..8]);
    u64::from_le_bytes(seed)
}

fn log_to_stderr(filter: &str) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // systemd's journal has times and no colours.
    let outcome = if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.with_ansi(false).without_time().try_init()
    } else {
        use std::io::IsTerminal;
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    outcome.map_err(Failure::new)
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

/// Whether an agent runs on a data folder.
pub fn is_running(data_dir: &Path) -> bool {
    let Ok(file) = File::open(data_dir.join("lock")) else { return false };
    // Taken and given back at once when nobody holds it.
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// One agent a data folder.
fn lock(data_dir: &Path) -> Result<File, Failure> {
    let path = data_dir.join("lock");
    let failed = |error: std::io::Error| Failure::new(format!("cannot use {}: {error}", path.display()));
    identity_files::private_folder(data_dir).map_err(failed)?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Failure::new(format!("an agent runs on {} already", data_dir.display())))
        }
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_do_not_share_a_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(!is_running(dir.path()));
        let held = lock(dir.path()).expect("free");
        assert!(is_running(dir.path()));
        let refused = lock(dir.path()).expect_err("held");
        assert!(format!("{refused:?}").contains("already"), "{refused:?}");
        drop(held);
        lock(dir.path()).expect("free again");
    }

    #[test]
    fn the_watchdog_starves_when_any_part_hangs() {
        let watchdog = Watchdog {
            started: BootMillis(1000),
            poller: Arc::new(AtomicU64::new(0)),
            poller_hangs: DurationMs::from_secs(240),
            executor: Arc::new(AtomicU64::new(0)),
        };
        assert_eq!(watchdog.hanging(BootMillis(2000), true), None);
        assert_eq!(watchdog.hanging(BootMillis(2000), false), Some("the outbox"));
        assert_eq!(watchdog.hanging(BootMillis(200_000), true), Some("the executor"));
        watchdog.executor.store(250_000, Ordering::Relaxed);
        assert_eq!(watchdog.hanging(BootMillis(250_000), true), Some("the poller"));
        watchdog.poller.store(240_000, Ordering::Relaxed);
        assert_eq!(watchdog.hanging(BootMillis(250_000), true), None);
    }
}
