//! mosquitto with the configuration and the access rules that we ship, on a free port.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PROGRAM: &str = "/usr/sbin/mosquitto";
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/brokers/mosquitto");
/// Set by `tests/run`: nothing is left out there.
const ALL: &str = "HASHINSIGHT_ALL_TESTS";

/// Ends with this.
pub struct Mosquitto {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Mosquitto {
    pub fn is_installed() -> bool {
        let there = Path::new(PROGRAM).exists();
        if !there {
            assert!(std::env::var_os(ALL).is_none(), "{PROGRAM} is not installed");
            eprintln!("left out: {PROGRAM} is not installed");
        }
        there
    }

    pub fn new(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
        Self { folder: folder.to_owned(), port, process: None }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Starts it on the shipped files, but for their paths and the port.
    pub fn start(&mut self) {
        let shipped = std::fs::read_to_string(format!("{SHIPPED}/mosquitto.conf")).unwrap();
        let config = shipped
            .replace("/etc/mosquitto/hashinsight", self.folder.to_str().unwrap())
            .replace("listener 8883", &format!("listener {} 127.0.0.1", self.port));
        assert!(config.contains(&self.port.to_string()));
        // The tests' folders are their user's own.
        let user = if Path::new("/proc/self").exists() && is_root() { "user root\n" } else { "" };
        std::fs::copy(format!("{SHIPPED}/acl"), self.folder.join("acl")).unwrap();
        std::fs::write(self.folder.join("mosquitto.conf"), format!("{config}{user}")).unwrap();
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("-v").arg("-c").arg(self.folder.join("mosquitto.conf")).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("mosquitto does not start: {}", std::fs::read_to_string(self.folder.join("log")).unwrap());
    }

    /// SIGHUP: access rules, and with the next connections certificates and the revocation list.
    pub fn reload(&self) {
        let process = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-HUP", &process]).status().unwrap().success());
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
