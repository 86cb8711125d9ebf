//! Rules that the repository keeps of itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn the_top_level_holds_what_it_should() {
    let expected = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "agent",
        "control-plane",
        "deploy",
        "firmware-profiles",
        "protocol",
        "tests",
    ];
    let mut found: Vec<_> = std::fs::read_dir(root())
        .unwrap()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    found.sort();
    assert_eq!(found, expected);
}

/// Arrows of the architecture that must not exist.
#[test]
fn dependencies_point_one_way() {
    let forbidden = [
        ("protocol/Cargo.toml", &["hashinsight-", "tokio", "rusqlite", "sqlx"][..]),
        ("agent/curtailment/Cargo.toml", &["hashinsight-firmware", "tokio", "rusqlite"]),
        ("firmware-profiles/Cargo.toml", &["hashinsight-agent", "hashinsight-control-plane"]),
        ("control-plane/Cargo.toml", &["hashinsight-firmware", "hashinsight-agent"]),
        ("control-plane/broker/Cargo.toml", &["sqlx", "hashinsight-control-plane"]),
        ("agent/Cargo.toml", &["hashinsight-control-plane", "hashinsight-broker", "sqlx"]),
    ];
    for (manifest, names) in forbidden {
        let text = read(manifest);
        let dependencies = text.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
        for line in dependencies.lines() {
            assert!(!names.iter().any(|n| line.starts_with(n)), "{manifest} has {line}");
        }
    }
}

/// Only `protocol` knows postcard and how topics are written.
#[test]
fn the_wire_has_one_owner() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    for file in files {
        let path = file.strip_prefix(root()).unwrap();
        if path.starts_with("protocol") || path.starts_with("tests/repository") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests may say what no program may.
        let text = text.split("#[cfg(test)]").next().unwrap();
        assert!(!text.contains("postcard::"), "{} encodes by itself", path.display());
        let is_test = path.components().any(|c| c.as_os_str() == "tests");
        assert!(is_test || !text.contains("format!(\"/tenants/"), "{} writes a topic", path.display());
    }
}

/// README commands that exist.
#[test]
fn the_readme_names_what_there_is() {
    let readme = read("README.md");
    assert!(readme.contains("cargo demo") && read(".cargo/config.toml").contains("demo ="));
    assert!(readme.contains("tests/run") && root().join("tests/run").is_file());
    assert!(read(".ci/run").contains("tests/run"));
}
