//! Key files: readable by their owner alone, whole or not there at all.

use crate::error::{Error, Kind, Result};
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// No key or certificate of ours is larger.
const LIMIT: u64 = 64 * 1024;

/// The content of a file; `None` when there is no such file.
///
/// # Errors
/// The file is there and can't be read.
pub fn read(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = folder.join(name);
    match std::fs::metadata(&path) {
        Ok(meta) if meta.len() <= LIMIT => {}
        Ok(_) => return Err(failed(&path, "is too large to be a key of ours", None)),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(&path, "can't be read", Some(e))),
    }
    std::fs::read(&path).map(Some).map_err(|e| failed(&path, "can't be read", Some(e)))
}

/// [`read`] as text.
///
/// # Errors
/// As [`read`], and when it is no text.
pub fn read_text(folder: &Path, name: &str) -> Result<Option<String>> {
    let Some(bytes) = read(folder, name)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| failed(&folder.join(name), "is no text", None))
}

/// Writes a file that was not there: whole, on the disk, for its owner's eyes. When another process
/// was faster its content stands; the caller reads the file again.
///
/// # Errors
/// The folder can't be written.
pub fn create(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let temporary = write_beside(folder, name, content)?;
    // A link never replaces what is there, a rename would.
    let linked = std::fs::hard_link(&temporary, folder.join(name));
    let _ = std::fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync_folder(folder),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(failed(&folder.join(name), "can't be written", Some(e))),
    }
}

/// Writes a file in place of the one that may be there.
///
/// # Errors
/// The folder can't be written.
pub fn replace(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let temporary = write_beside(folder, name, content)?;
    std::fs::rename(&temporary, folder.join(name))
        .map_err(|e| failed(&folder.join(name), "can't be written", Some(e)))?;
    sync_folder(folder)
}

/// Puts a file in the place of another.
///
/// # Errors
/// The folder can't be written.
pub fn rename(folder: &Path, from: &str, to: &str) -> Result<()> {
    std::fs::rename(folder.join(from), folder.join(to))
        .map_err(|e| failed(&folder.join(to), "can't be written", Some(e)))?;
    sync_folder(folder)
}

fn write_beside(folder: &Path, name: &str, content: &[u8]) -> Result<std::path::PathBuf> {
    let unique = hashinsight_protocol::enrolment::hex(&crate::random::bytes::<8>());
    let path = folder.join(format!(".{name}.{unique}"));
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|e| failed(&path, "can't be written", Some(e)))?;
    Ok(path)
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed(folder, "can't be written", Some(e)))
}

/// An error that names the file: it is for the one who started the program.
pub fn failed(path: &Path, what: &str, because: Option<std::io::Error>) -> Error {
    match because {
        Some(e) => Error::new(Kind::Unavailable, format!("{} {what}: {e}", path.display())),
        None => Error::new(Kind::Unavailable, format!("{} {what}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_first_writer_stands_and_nobody_else_reads() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), "a.key").unwrap(), None);
        create(folder.path(), "a.key", b"one").unwrap();
        create(folder.path(), "a.key", b"two").unwrap();
        assert_eq!(read(folder.path(), "a.key").unwrap().unwrap(), b"one");
        replace(folder.path(), "a.key", b"three").unwrap();
        assert_eq!(read_text(folder.path(), "a.key").unwrap().unwrap(), "three");
        let mode = std::fs::metadata(folder.path().join("a.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }
}
