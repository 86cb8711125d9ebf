//! `install` and `uninstall`: the program, its folders, a sample configuration and a systemd unit.
//!
//! With `--prefix` everything goes below that folder as it would below `/`, and systemd is left alone: for
//! packages, images, and tests. A configuration or credentials that exist are never overwritten; when a step
//! fails, what this run has made is removed again.

use crate::cli::{CONFIG_FILE, Failure};
use clap::Args;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The configuration that is installed: all built-in values, as comments.
pub const SAMPLE_CONFIG: &str = include_str!("../../deploy/systemd/agent.toml");
const SAMPLE_CREDENTIALS: &str = include_str!("../../deploy/systemd/credentials.toml");
const UNIT: &str = include_str!("../../deploy/systemd/hashinsight-agent.service");
const UNIT_FILE: &str = "/etc/systemd/system/hashinsight-agent.service";
const PROGRAM: &str = "/usr/local/bin/hashinsight-agent";
const DATA: &str = "/var/lib/hashinsight-agent";
/// Where systemd really keeps the data of a unit with a user of its own.
const DATA_PRIVATE: &str = "/var/lib/private/hashinsight-agent";
const SERVICE: &str = "hashinsight-agent.service";

#[derive(Args)]
pub struct InstallArgs {
    /// Put all files below this folder and leave systemd alone.
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
}

#[derive(Args)]
pub struct UninstallArgs {
    /// Remove files below this folder and leave systemd alone.
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
    /// Remove identity, journal, undelivered readings and configuration too.
    #[arg(long)]
    purge: bool,
}

/// Where everything goes.
struct Root(Option<PathBuf>);

impl Root {
    fn new(prefix: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self(prefix.map(std::path::absolute).transpose()?))
    }

    fn at(&self, path: &str) -> PathBuf {
        let below = path.trim_start_matches('/');
        self.0.as_ref().map_or_else(|| PathBuf::from(path), |prefix| prefix.join(below))
    }

    /// Runs systemctl, where there is one and files went where it looks.
    fn systemctl(&self, arguments: &[&str]) {
        if self.0.is_some() || !Path::new("/run/systemd/system").exists() {
            return;
        }
        let outcome = Command::new("systemctl").args(arguments).output();
        if !outcome.is_ok_and(|output| output.status.success()) {
            eprintln!("systemctl {} did not work; run it by hand", arguments.join(" "));
        }
    }
}

/// What this run has made, newest last; removed again unless all went well.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn folder(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let missing: Vec<_> = path.ancestors().take_while(|p| !p.exists()).map(Path::to_owned).collect();
        for folder in missing.iter().rev() {
            let mode = if folder == path { mode } else { 0o755 };
            DirBuilder::new().mode(mode).create(folder)?;
            self.0.push(folder.clone());
        }
        Ok(())
    }

    /// Writes a file whole, in the place of what was there.
    fn file(&mut self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let partial = path.with_extension(format!("new-{}", std::process::id()));
        let is_new = !path.exists();
        let written =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial).and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()?;
                std::fs::rename(&partial, path)
            });
        match written {
            Ok(()) if is_new => self.0.push(path.to_owned()),
            Ok(()) => {}
            Err(_) => _ = std::fs::remove_file(&partial),
        }
        written
    }

    fn undo(self) {
        for path in self.0.iter().rev() {
            let _ = if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
        }
    }
}

/// Sets everything up.
///
/// # Errors
/// A file or folder can't be made; then nothing is left behind.
pub fn install(args: &InstallArgs) -> Result<(), Failure> {
    let root = Root::new(args.prefix.as_deref())?;
    let mut made = Made::default();
    if let Err(failure) = place(&root, &mut made) {
        made.undo();
        return Err(failure);
    }
    root.systemctl(&["daemon-reload"]);
    root.systemctl(&["enable", SERVICE]);
    println!("Installed. Next:");
    println!("  hashinsight-agent enroll --url https://CONTROL-PLANE:8884 --token TOKEN");
    println!("  hashinsight-agent inventory import MINERS.csv");
    println!("  systemctl start hashinsight-agent");
    Ok(())
}

fn place(root: &Root, made: &mut Made) -> Result<(), Failure> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| {
            let hint = if error.kind() == io::ErrorKind::PermissionDenied { " (run it as root)" } else { "" };
            Failure::new(format!("cannot make {path}: {error}{hint}"))
        }
    };
    let mut folder = |path: &str, mode| {
        let path = root.at(path);
        made.folder(&path, mode).map_err(failed(&path))
    };
    for path in ["/usr/local/bin", "/etc/hashinsight-agent", "/etc/systemd/system"] {
        folder(path, 0o755)?;
    }
    folder(DATA, 0o700)?;
    let program = root.at(PROGRAM);
    let running = std::env::current_exe().map_err(failed(&program))?;
    if running != program {
        let bytes = std::fs::read(&running).map_err(failed(&program))?;
        made.file(&program, &bytes, 0o755).map_err(failed(&program))?;
    }
    let unit = root.at(UNIT_FILE);
    made.file(&unit, UNIT.as_bytes(), 0o644).map_err(failed(&unit))?;
    let credentials = format!("{DATA}/credentials.toml");
    for (path, sample, mode) in
        [(CONFIG_FILE, SAMPLE_CONFIG, 0o644), (credentials.as_str(), SAMPLE_CREDENTIALS, 0o600)]
    {
        let path = root.at(path);
        if path.exists() {
            println!("{} is left as it is.", path.display());
        } else {
            made.file(&path, sample.as_bytes(), mode).map_err(failed(&path))?;
        }
    }
    Ok(())
}

/// Takes the unit and the program away; data and configuration stay unless purged.
///
/// # Errors
/// A file or folder can't be removed.
pub fn uninstall(args: &UninstallArgs) -> Result<(), Failure> {
    let root = Root::new(args.prefix.as_deref())?;
    root.systemctl(&["disable", "--now", SERVICE]);
    for file in [UNIT_FILE, PROGRAM] {
        remove(&root.at(file), |path| std::fs::remove_file(path))?;
    }
    root.systemctl(&["daemon-reload"]);
    if args.purge {
        let data = root.at(DATA);
        // With a user of its own the folder is a link to the private one.
        if data.is_symlink() {
            remove(&data, |path| std::fs::remove_file(path))?;
        }
        for folder in [DATA, DATA_PRIVATE, "/etc/hashinsight-agent"] {
            remove(&root.at(folder), |path| std::fs::remove_dir_all(path))?;
        }
        println!("Removed, with all data of {}.", root.at(DATA).display());
    } else {
        println!(
            "Removed. {} and {} stay; --purge removes them.",
            root.at(DATA).display(),
            root.at(CONFIG_FILE).display()
        );
    }
    Ok(())
}

fn remove(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Failure> {
    match how(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn files(below: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![below.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(below).expect("below").display().to_string());
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn it_comes_and_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let prefix = Some(dir.path().to_owned());
        let install_again = || install(&InstallArgs { prefix: prefix.clone() }).expect("installed");
        install_again();
        let all = [
            "etc/hashinsight-agent/agent.toml",
            "etc/systemd/system/hashinsight-agent.service",
            "usr/local/bin/hashinsight-agent",
            "var/lib/hashinsight-agent/credentials.toml",
        ];
        assert_eq!(files(dir.path()), all);
        let mode =
            |path: &str| std::fs::metadata(dir.path().join(path)).expect(path).permissions().mode() & 0o777;
        assert_eq!(mode("var/lib/hashinsight-agent"), 0o700);
        assert_eq!(mode(all[3]), 0o600);
        assert_eq!(mode(all[2]), 0o755);
        let config = dir.path().join(all[0]);
        std::fs::write(&config, "cycle_s = 30\n").expect("writable");
        install_again();
        assert_eq!(std::fs::read_to_string(&config).expect("there"), "cycle_s = 30\n");
        uninstall(&UninstallArgs { prefix: prefix.clone(), purge: false }).expect("removed");
        assert_eq!(files(dir.path()), [all[0], all[3]]);
        uninstall(&UninstallArgs { prefix: prefix.clone(), purge: true }).expect("removed");
        assert_eq!(files(dir.path()), [""; 0]);
        uninstall(&UninstallArgs { prefix, purge: true }).expect("again is no error");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("etc")).expect("a folder");
        // Where a folder should be there is a file.
        std::fs::write(dir.path().join("etc/systemd"), "").expect("writable");
        let failure = install(&InstallArgs { prefix: Some(dir.path().to_owned()) });
        assert!(format!("{failure:?}").contains("cannot make"), "{failure:?}");
        assert_eq!(files(dir.path()), ["etc/systemd"]);
        assert!(!dir.path().join("usr").exists());
    }

    #[test]
    fn the_unit_runs_what_is_installed_where_it_is_installed() {
        assert!(UNIT.contains(&format!("ExecStart={PROGRAM} run --config {CONFIG_FILE}\n")));
        assert!(UNIT.contains(&format!("StateDirectory={}\n", DATA.trim_start_matches("/var/lib/"))));
        assert!(UNIT.contains(&format!("ConditionPathExists={DATA}/identity/agent.json\n")));
        assert_eq!(crate::config::Config::default().data_dir, Path::new(DATA));
    }
}
