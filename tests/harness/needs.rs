//! Tools that some tests need beside the programs.

use std::io::Write as _;
use std::path::PathBuf;

/// Set by `tests/run`: nothing is left out there.
const ALL: &str = "HASHINSIGHT_ALL_TESTS";

/// The first of these programs that is installed. Where there is none, the test is left out aloud; where
/// all tests are to run, it fails.
///
/// # Panics
/// None is installed and all tests are to run.
pub fn tool(what: &str, names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = names.iter().find_map(|name| {
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
    });
    if found.is_none() {
        assert!(std::env::var_os(ALL).is_none(), "{what} needs {}, which is not installed", names[0]);
        // Past the test runner's capture, so that it is seen.
        let _ = writeln!(std::io::stderr(), "left out: {what} (needs {})", names[0]);
    }
    found
}
