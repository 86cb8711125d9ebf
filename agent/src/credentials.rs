//! `credentials.toml` in the data folder: the sign-ins of miners, under names that the inventory uses.
//!
//! ```toml
//! [row-a]
//! user = "root"
//! password = "…"
//! ```
//! The file must be readable by its owner alone. Two names exist without it, with the factory
//! defaults of their vendors; a section of the same name takes their place. Nothing here prints a
//! secret, so a faulty file is described by line and section only.

use hashinsight_firmware::{Credentials, Secret};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use thiserror::Error;

/// The file's name in the data folder.
pub const FILE: &str = "credentials.toml";
/// Far more than one sign-in a miner.
const MAX_BYTES: u64 = 4 << 20;
/// The longest name.
pub const NAME_BYTES: usize = 64;

/// Factory defaults: Bitmain's web interface (realm `antMiner Configuration`), MicroBT's API.
const BUILTIN: [(&str, &str, &str); 2] =
    [("antminer-root", "root", "root"), ("whatsminer-admin", "admin", "admin")];

/// The sign-ins known.
#[derive(Clone, Debug)]
pub struct CredentialStore {
    named: BTreeMap<String, Credentials>,
    /// When the file that was read was last changed.
    modified: Option<SystemTime>,
}

#[derive(Debug, Error)]
pub enum CredentialError {
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} can be read by others (mode {mode:o}); run: chmod 600 {path}")]
    Open { path: PathBuf, mode: u32 },
    #[error("{path} is larger than {MAX_BYTES} bytes")]
    TooLarge { path: PathBuf },
    #[error("{path}, line {line}: not TOML; texts need quotes")]
    Syntax { path: PathBuf, line: usize },
    #[error("{path}, section [{section}]: {reason}")]
    Section { path: PathBuf, section: String, reason: &'static str },
}

impl CredentialStore {
    /// The factory defaults alone.
    pub fn builtin() -> Self {
        let named = BUILTIN
            .into_iter()
            .map(|(name, user, password)| {
                (name.to_owned(), Credentials { user: user.to_owned(), password: Secret::new(password) })
            })
            .collect();
        Self { named, modified: None }
    }

    /// The factory defaults and the file of a data folder, where there is one.
    ///
    /// # Errors
    /// The file can't be read, can be read by others, or is malformed.
    pub fn load(data_dir: &Path) -> Result<Self, CredentialError> {
        let path = data_dir.join(FILE);
        let io = |source| CredentialError::Io { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::builtin()),
            Err(error) => return Err(io(error)),
        };
        let metadata = file.metadata().map_err(io)?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(CredentialError::Open { path, mode });
        }
        let mut text = String::new();
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(io)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(CredentialError::TooLarge { path });
        }
        let mut store = Self::parse(&path, &text)?;
        store.modified = metadata.modified().ok();
        Ok(store)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, CredentialError> {
        let table: toml::Table = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
            CredentialError::Syntax { path: path.to_owned(), line }
        })?;
        let mut store = Self::builtin();
        for (name, value) in table {
            let bad = |reason| CredentialError::Section {
                path: path.to_owned(),
                section: name.chars().filter(|c| !c.is_control()).take(NAME_BYTES).collect(),
                reason,
            };
            if !is_name(&name) {
                return Err(bad("a name has 1 to 64 letters, digits, - and _"));
            }
            let toml::Value::Table(section) = value else {
                return Err(bad("expected a section with user and password"));
            };
            if section.keys().any(|key| key != "user" && key != "password") {
                return Err(bad("only user and password are known here"));
            }
            let text = |key| section.get(key).and_then(toml::Value::as_str);
            let user = text("user").ok_or_else(|| bad("user is missing, or not in quotes"))?;
            let password = text("password").ok_or_else(|| bad("password is missing, or not in quotes"))?;
            let credentials = Credentials { user: user.to_owned(), password: Secret::new(password) };
            store.named.insert(name, credentials);
        }
        Ok(store)
    }

    /// Reads the file again where it was changed since; `None` when it was not.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn reload(&self, data_dir: &Path) -> Result<Option<Self>, CredentialError> {
        let modified = std::fs::metadata(data_dir.join(FILE)).ok().and_then(|m| m.modified().ok());
        if modified == self.modified { Ok(None) } else { Self::load(data_dir).map(Some) }
    }

    pub fn get(&self, name: &str) -> Option<&Credentials> {
        self.named.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }
}

/// Whether a text can name a sign-in.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    fn folder(text: &str, mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        std::fs::write(&path, text).expect("writable");
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
        folder
    }

    fn error(text: &str) -> String {
        CredentialStore::load(folder(text, 0o600).path()).expect_err("faulty").to_string()
    }

    #[test]
    fn defaults_stand_until_they_are_overridden() {
        let none = CredentialStore::load(tempfile::tempdir().expect("a folder").path()).expect("no file");
        assert_eq!(none.get("antminer-root").map(|c| c.password.reveal()), Some("root"));
        let text =
            "[antminer-root]\nuser = \"root\"\npassword = \"changed\"\n[row-a]\nuser='u'\npassword='p'\n";
        let folder = folder(text, 0o600);
        let some = CredentialStore::load(folder.path()).expect("well formed");
        assert_eq!(some.get("antminer-root").map(|c| c.password.reveal()), Some("changed"));
        assert_eq!(some.get("row-a").map(|c| c.user.as_str()), Some("u"));
        assert_eq!(some.get("whatsminer-admin").map(|c| c.password.reveal()), Some("admin"));
        assert!(some.get("row-b").is_none());
        assert!(some.reload(folder.path()).expect("readable").is_none());
        assert!(none.reload(folder.path()).expect("readable").is_some());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let error = CredentialStore::load(folder("", 0o640).path()).expect_err("open to the group");
        assert!(error.to_string().contains("mode 640"), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn no_secret_is_printed() {
        for text in [
            "[a]\nuser = \"x\"\npassword = hunter2\n",
            "[a]\nuser = \"x\"\npassword = \"hunter2\n",
            "[a]\nuser = \"x\"\npassword = 42\n",
            "[a]\nuser = \"x\"\npasword = \"hunter2\"\n",
            "a = \"hunter2\"\n",
            "[\"a b\"]\nuser = \"x\"\npassword = \"hunter2\"\n",
        ] {
            let error = error(text);
            assert!(!error.contains("hunter2") && !error.contains("42"), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        assert!(error("[a]\nuser = \"x\"\npassword = hunter2\n").contains("line 3"));
        let store =
            CredentialStore::parse(Path::new("x"), "[a]\nuser='u'\npassword='hunter2'\n").expect("fine");
        assert!(!format!("{store:?}").contains("hunter2"));
    }
}
