//! PostgreSQL servers for tests and figures: started by whoever needs one, in a temporary folder, on a
//! unix socket, never as root.
//!
//! - **The same tests on both**: a test program runs on SQLite, and one of its tests, [`same_tests`],
//!   starts a server and runs the program once more with [`TEST_STORE`] set. Tests ask [`url_for`] where
//!   their stores are.
//! - **Ends with its starter**: a shell stands between the two and waits for the end of its input, which
//!   comes however the starter dies. It stops the server and removes the folder.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The socket's folder of the server that the tests of this process use.
pub const TEST_STORE: &str = "HASHINSIGHT_TEST_STORE";
/// Set by `tests/run`: nothing is left out there.
const ALL: &str = "HASHINSIGHT_ALL_TESTS";
/// The server's one user.
const USER: &str = "hashinsight";

/// $1 the folder of the programs, $2 whether commits are on the disk.
const SCRIPT: &str = r#"
set -eu
dir=$(mktemp -d /tmp/hashinsight-postgres.XXXXXX)
trap 'rm -rf "$dir"' EXIT
"$1/initdb" -D "$dir/data" -U hashinsight -A trust -E UTF8 --locale=C --no-sync >"$dir/log" 2>&1 ||
    { cat "$dir/log" >&2; exit 1; }
"$1/postgres" -D "$dir/data" -k "$dir" -p 5432 -c listen_addresses= -c fsync="$2" -c full_page_writes="$2" \
    -c max_connections=400 -c autovacuum_naptime=10s >>"$dir/log" 2>&1 </dev/null &
server=$!
until "$1/pg_isready" -q -h "$dir" -p 5432; do
    kill -0 $server 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
    sleep 0.1
done
echo "$dir $server"
cat >/dev/null || true
kill -QUIT $server
wait $server || true
"#;

/// A server that ends with this value, or with the process.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    process: u32,
    keeper: Child,
}

impl Server {
    /// Starts a server. A `durable` one has commits on the disk before it says so.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or doesn't start.
    pub fn start(durable: bool) -> Result<Self, String> {
        let programs = programs().ok_or("PostgreSQL is not installed")?;
        let mut command = as_anybody();
        command.args(["sh", "-c", SCRIPT, "sh"]).arg(&programs).arg(if durable { "on" } else { "off" });
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().map_err(|e| format!("PostgreSQL doesn't start: {e}"))?;
        let out = keeper.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map_err(|e| e.to_string())?;
        let mut words = line.split_whitespace();
        let (Some(folder), Some(process)) = (words.next(), words.next().and_then(|p| p.parse().ok())) else {
            return Err("PostgreSQL doesn't start; what it says stands above".to_owned());
        };
        Ok(Self { folder: folder.into(), process, keeper })
    }

    /// Where it keeps its data and its socket.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The server's first process; others are its children.
    pub fn process(&self) -> u32 {
        self.process
    }

    /// Makes a database and says its URL.
    ///
    /// # Errors
    /// The server refuses.
    pub fn database(&self, name: &str) -> Result<String, String> {
        database(&self.folder, name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input tells the keeper to end.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// PostgreSQL doesn't run as root.
fn as_anybody() -> Command {
    use std::os::unix::fs::MetadataExt as _;
    if !std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0) {
        return Command::new("env");
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let has = |name: &str| users.lines().any(|line| line.split(':').next() == Some(name));
    let user = if has("postgres") { "postgres" } else { "nobody" };
    let mut command = Command::new("runuser");
    command.args(["-u", user, "--"]);
    command
}

/// The folder of `initdb` and `postgres`: the newest version under Debian's, else where the path says.
pub fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = debian
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin).or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|folder| folder.join("initdb").is_file())
    })
}

fn database(folder: &Path, name: &str) -> Result<String, String> {
    static MADE: Mutex<Option<HashSet<(PathBuf, String)>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if made.get_or_insert_default().insert((folder.to_owned(), name.to_owned())) {
        let programs = programs().ok_or("PostgreSQL is not installed")?;
        let mut command = Command::new(programs.join("createdb"));
        command.arg("-h").arg(folder).args(["-p", "5432", "-U", USER, name]);
        let output = command.output().map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && !said.contains("already exists") {
            return Err(said.into_owned());
        }
    }
    Ok(format!("postgres://{USER}@localhost/{name}?host={}", folder.display()))
}

/// The URL of the database that stands for a test's folder; `None` where tests run on SQLite.
///
/// # Panics
/// The server that was named is not there.
pub fn url_for(folder: &Path) -> Option<String> {
    let server = std::env::var_os(TEST_STORE)?;
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    let name = format!("test_{:016x}", hasher.finish());
    Some(database(Path::new(&server), &name).expect("the server that the tests were told of"))
}

/// Runs this test program once more, on PostgreSQL. Where that is not installed it is left out aloud;
/// where all tests are to run, it fails.
///
/// # Panics
/// A test fails, or the server doesn't start.
pub fn same_tests(what: &str) {
    if std::env::var_os(TEST_STORE).is_some() {
        return;
    }
    if programs().is_none() {
        assert!(std::env::var_os(ALL).is_none(), "{what} needs postgresql, which is not installed");
        // Past the test runner's capture, so that it is seen.
        let _ = writeln!(std::io::stderr(), "left out: {what} (needs postgresql)");
        return;
    }
    let server = Server::start(false).expect("PostgreSQL starts");
    let program = std::env::current_exe().expect("a test knows its program");
    let output = Command::new(program)
        .env(TEST_STORE, server.folder())
        .args(["--test-threads=4"])
        .output()
        .expect("a test program starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "on PostgreSQL:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
