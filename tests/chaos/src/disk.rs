//! A small disk for each agent, that can be filled.

use hashinsight_demo::{Failure, Result};
use std::fs::{File, create_dir_all, remove_file};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Room of a disk, in MiB: twice what an agent keeps for its journal, and a backlog of some minutes.
const SIZE: &str = "size=48m";

/// A mounted memory disk; unmounted when dropped.
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts a disk at `folder`; `None` where this user may not.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn mount(folder: &Path) -> Result<Option<Self>> {
        create_dir_all(folder).map_err(Failure::of(folder.display()))?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(folder);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        Ok(status.is_ok_and(|s| s.success()).then(|| Self { folder: folder.to_owned() }))
    }

    /// Fills all that is left.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn fill(&self) -> Result<()> {
        let path = self.filler();
        let mut file = File::create(&path).map_err(Failure::of(path.display()))?;
        // The error that ends it is what is wanted.
        while file.write_all(&[0; 4096]).is_ok() {}
        Ok(())
    }

    /// Gives the room back.
    pub fn relieve(&self) {
        // It may never have been filled.
        let _ = remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
