//! Stamps the time of the build into the program: no wall clock is right that is earlier.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    // The variable is the convention of reproducible builds.
    let stamped = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|s| s.parse::<u64>().ok());
    #[expect(clippy::disallowed_methods, reason = "the time of the build itself")]
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    println!("cargo:rustc-env=HASHINSIGHT_BUILD_TIME={}", stamped.unwrap_or_else(now));
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=build.rs");
}
