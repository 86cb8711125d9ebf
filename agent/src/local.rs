//! The local socket: how a command on the gateway asks the agent that runs there.
//!
//! - A Unix socket in the data folder, for the folder's owner and root alone; the kernel says who asks.
//! - One question a connection, a line of JSON; the answers come as lines as they become known, and the end
//!   of the connection is the end of them.
//! - Questions are bounded in size and time, and few are served at once.

use crate::executor::wish::Desk;
use hashinsight_firmware::{Change, PoolSetting, Secret};
use hashinsight_protocol::device::{EvidenceV1, FactV1};
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::limits::{TEXT_BYTES, bounded_text};
use hashinsight_protocol::units::Watts;
use serde::{Deserialize, Serialize};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Bytes of a question or an answer.
const LINE: u64 = 64 * 1024;
/// Who has connected asks within this.
const ASKS_WITHIN: Duration = Duration::from_secs(5);
/// Connections served at once; others wait.
const CONNECTIONS: usize = 4;
/// Miners of one question.
pub const MINERS: usize = 64;
/// Miners changed at once: a site's power must not jump because many are restarted together.
const AT_ONCE: usize = 8;
/// Pools that any firmware takes, at most.
const POOLS: usize = 8;

/// What a command asks.
#[derive(Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    Change { by: String, miners: Vec<MinerId>, change: Wanted, follow: bool },
}

/// A change as it is asked for; it holds secrets, so it can't be printed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    Reboot,
    Locate { on: bool },
    Pools(Vec<WantedPool>),
    PowerLimit { watts: f64 },
}

#[derive(Serialize, Deserialize)]
pub struct WantedPool {
    pub url: String,
    pub worker: String,
    pub password: String,
}

/// What came of a change of one miner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    pub miner: MinerId,
    /// `None`: nothing was sent, or the device refused; `detail` says why.
    pub evidence: Option<EvidenceV1>,
    pub detail: String,
}

impl Answer {
    /// Whether every fact that the device can show says that it is done.
    pub fn is_proven(&self) -> bool {
        let holds = |fact| matches!(fact, FactV1::Yes | FactV1::NotApplicable);
        self.evidence.is_some_and(|e| e.accepted != FactV1::No && holds(e.mode) && holds(e.effect))
    }
}

impl Wanted {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn check(self) -> std::result::Result<Change, String> {
        match self {
            Self::Reboot => Ok(Change::Reboot),
            Self::Locate { on } => Ok(Change::Locate { on }),
            Self::PowerLimit { watts } => match Watts::new(watts) {
                Some(watts) if watts.get() >= 1.0 => Ok(Change::PowerLimit(watts)),
                _ => Err("a power limit is at least 1 W".to_owned()),
            },
            Self::Pools(pools) if pools.is_empty() || pools.len() > POOLS => {
                Err(format!("1 to {POOLS} pools can be set"))
            }
            Self::Pools(pools) => pools
                .into_iter()
                .map(WantedPool::check)
                .collect::<std::result::Result<_, _>>()
                .map(Change::Pools),
        }
    }
}

impl WantedPool {
    fn check(self) -> std::result::Result<PoolSetting, String> {
        let Self { url, worker, password } = self;
        for (what, text) in
            [("a pool's address", &url), ("a worker", &worker), ("a pool's password", &password)]
        {
            if text.len() > TEXT_BYTES || text.chars().any(char::is_control) {
                return Err(format!("{what} is too long or has control characters"));
            }
        }
        if url.contains('@') {
            return Err("a pool's address holds no sign-in: name the worker beside it".to_owned());
        }
        let url = url.trim().to_owned();
        if url.is_empty() || url.contains(char::is_whitespace) {
            return Err("a pool's address is empty or has spaces".to_owned());
        }
        Ok(PoolSetting { url, worker: worker.trim().to_owned(), password: Secret::new(password) })
    }
}

fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("local.sock")
}

/// Opens the socket of a data folder that this process has locked; one that a killed agent left is replaced.
///
/// # Errors
/// The folder can't be written to, or its path is too long for a socket.
pub fn listen(data_dir: &Path) -> Result<UnixListener> {
    let path = socket(data_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it's stopped.
pub async fn serve(listener: UnixListener, desk: Desk, stop: CancellationToken) {
    let turns = Arc::new(Semaphore::new(CONNECTIONS));
    let mut served = JoinSet::new();
    loop {
        // Never closed.
        let turn = tokio::select! {
            () = stop.cancelled() => return,
            turn = turns.clone().acquire_owned() => turn,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        while served.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let desk = desk.clone();
                served.spawn(async move {
                    let _turn = turn;
                    if let Err(error) = answer(stream, &desk).await {
                        tracing::debug!(%error, "A local question was not answered.");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "The local socket takes no connection.");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, desk: &Desk) -> Result<()> {
    let user = stream.peer_cred()?.uid();
    let (reading, mut writing) = stream.into_split();
    let mut line = Vec::new();
    let mut reading = BufReader::new(reading.take(LINE));
    timeout(ASKS_WITHIN, reading.read_until(b'\n', &mut line)).await??;
    let mut change = match read(&line, user) {
        Ok(change) => change,
        Err(why) => return say(&mut writing, &serde_json::json!({ "error": why })).await,
    };
    let mut waiting = std::mem::take(&mut change.miners).into_iter();
    let mut open: JoinSet<Answer> = JoinSet::new();
    loop {
        while open.len() < AT_ONCE
            && let Some(miner) = waiting.next()
        {
            let (desk, change) = (desk.clone(), change.clone());
            open.spawn(async move {
                let granted = desk.wish(miner, change.change, change.by, change.follow).await;
                match granted {
                    Ok(granted) => Answer { miner, evidence: Some(granted.evidence), detail: granted.detail },
                    Err(detail) => Answer { miner, evidence: None, detail },
                }
            });
        }
        match open.join_next().await {
            Some(Ok(answer)) => say(&mut writing, &answer).await?,
            Some(Err(error)) => tracing::error!(%error, "A change failed within this program."),
            None => return Ok(()),
        }
    }
}

#[derive(Clone)]
struct Asked {
    miners: Vec<MinerId>,
    change: Arc<Change>,
    by: String,
    follow: bool,
}

fn read(line: &[u8], user: u32) -> std::result::Result<Asked, String> {
    let question = serde_json::from_slice(line).map_err(|error| format!("not a question: {error}"))?;
    let Question::Change { by, miners, change, follow } = question;
    if miners.is_empty() || miners.len() > MINERS {
        return Err(format!("1 to {MINERS} miners can be changed at once"));
    }
    let by = bounded_text(&format!("{} (uid {user})", by.chars().take(64).collect::<String>()));
    Ok(Asked { miners, change: Arc::new(change.check()?), by, follow })
}

async fn say(stream: &mut (impl AsyncWriteExt + Unpin), line: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    stream.write_all(&bytes).await
}

/// Asks the agent that runs on a data folder; `each` is given the answers as they come.
///
/// # Errors
/// No agent listens there, it refused the question, or the connection broke.
pub async fn ask(data_dir: &Path, question: &Question, mut each: impl FnMut(Answer)) -> Result<()> {
    let mut stream = UnixStream::connect(socket(data_dir)).await?;
    say(&mut stream, question).await?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        if (&mut lines).take(LINE).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let value: serde_json::Value = serde_json::from_slice(&line)?;
        if let Some(error) = value["error"].as_str() {
            return Err(Error::other(error.to_owned()));
        }
        each(serde_json::from_value(value)?);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked(change: Wanted, miners: usize) -> std::result::Result<Asked, String> {
        let miners = vec![MinerId::from_random([1; 16]); miners];
        let question = Question::Change { by: "li\n".to_owned(), miners, change, follow: false };
        read(&serde_json::to_vec(&question).unwrap(), 7)
    }

    fn pool(url: &str) -> Wanted {
        let [worker, password] = ["w", "hidden-word"].map(str::to_owned);
        Wanted::Pools(vec![WantedPool { url: url.to_owned(), worker, password }])
    }

    #[test]
    fn a_question_is_checked_before_anything_is_sent() {
        let asks = asked(Wanted::Reboot, 2).unwrap();
        assert_eq!((asks.miners.len(), asks.by.as_str()), (2, "li  (uid 7)"));
        for (change, miners, why) in [
            (Wanted::Reboot, 0, "1 to 64 miners"),
            (Wanted::Reboot, 65, "1 to 64 miners"),
            (Wanted::PowerLimit { watts: -5.0 }, 1, "at least 1 W"),
            (Wanted::PowerLimit { watts: f64::MAX }, 1, "at least 1 W"),
            (Wanted::Pools(Vec::new()), 1, "1 to 8 pools"),
            (pool("stratum+tcp://me:secret@pool:3333"), 1, "no sign-in"),
            (pool("a b"), 1, "spaces"),
            (pool("pool\n"), 1, "control characters"),
        ] {
            let error = asked(change, miners).err().unwrap();
            assert!(error.contains(why), "{error}");
        }
        assert!(read(b"{\"ask\":\"format\"}", 0).is_err_and(|why| why.contains("not a question")));
    }

    #[test]
    fn what_is_told_of_pools_has_no_password() {
        let asks = asked(pool("stratum+tcp://pool:3333"), 1).unwrap();
        let told = format!("{} {:?}", asks.change.words(), asks.change);
        assert!(told.contains("pool:3333 as w") && !told.contains("hidden-word"), "{told}");
    }
}
