//! `journal.reserve`: disk space that is given up when there is no other, so that plans, wake-ups and
//! evidence go on while somebody makes room.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FILE: &str = "journal.reserve";
/// Evidence of a few thousand targets and a book of as many.
const BYTES: u64 = 8 << 20;

pub(crate) struct Reserve {
    path: PathBuf,
    held: bool,
}

impl Reserve {
    pub fn open(dir: &Path) -> Self {
        let mut reserve = Self { path: dir.join(FILE), held: false };
        reserve.restore();
        reserve
    }

    /// Takes the space where it is not held. Real blocks: a sparse file reserves nothing.
    pub fn restore(&mut self) {
        if self.held {
            return;
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        self.held = file.is_ok_and(|file| allocate(&file));
        if !self.held {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Gives the space to whoever writes next. `false` when there is none left.
    pub fn release(&mut self) -> bool {
        let released = self.held && std::fs::remove_file(&self.path).is_ok();
        self.held = false;
        if released {
            tracing::error!("the disk is full: the journal lives on its reserve; make room");
        }
        released
    }

    pub fn is_held(&self) -> bool {
        self.held
    }
}

fn allocate(file: &File) -> bool {
    let flags = rustix::fs::FallocateFlags::empty();
    match rustix::fs::fallocate(file, flags, 0, BYTES) {
        Ok(()) => true,
        // A file system without it gets plain zeros.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            use std::io::Write;
            let zeros = vec![0; 64 * 1024];
            let mut file = file;
            (0..BYTES / zeros.len() as u64).all(|_| file.write_all(&zeros).is_ok()) && file.sync_all().is_ok()
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_reserve_is_real_space_and_is_given_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut reserve = Reserve::open(dir.path());
        let blocks = std::fs::metadata(dir.path().join(FILE)).expect("made").blocks();
        assert!(blocks * 512 >= BYTES);
        assert!(reserve.release());
        assert!(!reserve.release());
        assert!(!dir.path().join(FILE).exists());
        reserve.restore();
        assert!(reserve.is_held());
    }
}
