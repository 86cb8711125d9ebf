//! All profiles known, and what was learned of devices while the program ran.

use crate::models::Models;
use crate::profile::{Profile, ProfileError, file_name};
use crate::whatsminer::Token;
use hashinsight_protocol::units::Millis;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use tokio::time::Instant;

/// The profiles compiled in.
const BUILTIN: &[(&str, &str)] = &[
    ("antminer-stock.toml", include_str!("../profiles/antminer-stock.toml")),
    ("auradine.toml", include_str!("../profiles/auradine.toml")),
    ("avalon-nano3.toml", include_str!("../profiles/avalon-nano3.toml")),
    ("avalon-nano3s.toml", include_str!("../profiles/avalon-nano3s.toml")),
    ("avalon.toml", include_str!("../profiles/avalon.toml")),
    ("axeos.toml", include_str!("../profiles/axeos.toml")),
    ("baikal.toml", include_str!("../profiles/baikal.toml")),
    ("blackminer.toml", include_str!("../profiles/blackminer.toml")),
    ("braiins.toml", include_str!("../profiles/braiins.toml")),
    ("cgminer.toml", include_str!("../profiles/cgminer.toml")),
    ("dragonmint.toml", include_str!("../profiles/dragonmint.toml")),
    ("ebang.toml", include_str!("../profiles/ebang.toml")),
    ("elphapex.toml", include_str!("../profiles/elphapex.toml")),
    ("epic.toml", include_str!("../profiles/epic.toml")),
    ("futurebit.toml", include_str!("../profiles/futurebit.toml")),
    ("goldshell.toml", include_str!("../profiles/goldshell.toml")),
    ("hammer.toml", include_str!("../profiles/hammer.toml")),
    ("hiveon.toml", include_str!("../profiles/hiveon.toml")),
    ("ibelink.toml", include_str!("../profiles/ibelink.toml")),
    ("iceriver.toml", include_str!("../profiles/iceriver.toml")),
    ("innosilicon.toml", include_str!("../profiles/innosilicon.toml")),
    ("ipollo.toml", include_str!("../profiles/ipollo.toml")),
    ("jasminer.toml", include_str!("../profiles/jasminer.toml")),
    ("luxos.toml", include_str!("../profiles/luxos.toml")),
    ("marathon.toml", include_str!("../profiles/marathon.toml")),
    ("minerva.toml", include_str!("../profiles/minerva.toml")),
    ("mskminer.toml", include_str!("../profiles/mskminer.toml")),
    ("obelisk.toml", include_str!("../profiles/obelisk.toml")),
    ("openminer.toml", include_str!("../profiles/openminer.toml")),
    ("proto.toml", include_str!("../profiles/proto.toml")),
    ("sealminer.toml", include_str!("../profiles/sealminer.toml")),
    ("spondoolies.toml", include_str!("../profiles/spondoolies.toml")),
    ("strongu.toml", include_str!("../profiles/strongu.toml")),
    ("vnish.toml", include_str!("../profiles/vnish.toml")),
    ("volcminer.toml", include_str!("../profiles/volcminer.toml")),
    ("whatsminer-v2.toml", include_str!("../profiles/whatsminer-v2.toml")),
    ("whatsminer-v3.toml", include_str!("../profiles/whatsminer-v3.toml")),
    ("zig.toml", include_str!("../profiles/zig.toml")),
];
const MODELS: &str = include_str!("../models.toml");

/// The text of a profile compiled in.
fn builtin_text(firmware: &str) -> Option<&'static str> {
    BUILTIN.iter().find(|(file, _)| file.strip_suffix(".toml") == Some(firmware)).map(|(_, text)| *text)
}

/// Most tokens and shapes that are remembered; beyond it the memory is emptied, which costs a
/// question each.
const MAX_REMEMBERED: usize = 50_000;

/// Who a device said it is: firmware, serial number and MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub firmware: String,
    pub serial: Option<String>,
    pub mac: Option<String>,
}

/// All profiles known: compiled in, plus a site's folder of overrides.
#[derive(Debug)]
pub struct Profiles {
    profiles: Vec<Profile>,
    models: Models,
    tokens: Mutex<HashMap<SocketAddr, Token>>,
    /// Until when a device is not asked for a token, because it has none left.
    paused: Mutex<HashMap<SocketAddr, Millis>>,
    seen: Mutex<HashMap<SocketAddr, (Instant, Seen)>>,
    shapes: Mutex<HashMap<(String, String), String>>,
}

impl Profiles {
    /// The profiles compiled in.
    ///
    /// # Panics
    /// Never in a built program: a test loads each of them.
    pub fn builtin() -> Self {
        let profiles = BUILTIN
            .iter()
            .map(|(file, text)| {
                Profile::load(file, text, &builtin_text)
                    .expect("the profiles compiled in are checked by a test")
            })
            .collect();
        let models =
            Models::load("models.toml", MODELS).expect("the models compiled in are checked by a test");
        Self {
            profiles,
            models,
            tokens: Mutex::default(),
            paused: Mutex::default(),
            seen: Mutex::default(),
            shapes: Mutex::default(),
        }
    }

    /// The profiles compiled in, with each `*.toml` of a folder in place of its namesake or beside
    /// them.
    pub fn with_folder(path: impl AsRef<Path>) -> Result<Self, ProfileError> {
        let path = path.as_ref();
        let io = |source| ProfileError::Io { path: path.to_owned(), source };
        let mut all = Self::builtin();
        let mut files = std::fs::read_dir(path)
            .map_err(io)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(io)?;
        files.retain(|file| file.extension().is_some_and(|ext| ext == "toml"));
        // The same folder means the same profiles on every machine.
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file)
                .map_err(|source| ProfileError::Io { path: file.clone(), source })?;
            let profile = Profile::load(&file_name(&file), &text, &builtin_text)?;
            all.profiles.retain(|known| known.firmware != profile.firmware);
            all.profiles.push(profile);
        }
        Ok(all)
    }

    /// The profile of a firmware.
    pub fn get(&self, firmware: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.firmware == firmware)
    }

    pub fn all(&self) -> impl Iterator<Item = &Profile> {
        self.profiles.iter()
    }

    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Remembers which write shape worked, so that the next device of the same model and version
    /// gets it first. The caller keeps it across restarts by telling it again.
    pub fn learn_shape(&self, model: &str, version: &str, shape: &str) {
        if let Ok(mut shapes) = self.shapes.lock() {
            if shapes.len() >= MAX_REMEMBERED {
                shapes.clear();
            }
            shapes.insert((model.to_owned(), version.to_owned()), shape.to_owned());
        }
    }

    /// The shape that worked on a model and version.
    pub fn learned_shape(&self, model: &str, version: &str) -> Option<String> {
        self.shapes.lock().ok()?.get(&(model.to_owned(), version.to_owned())).cloned()
    }

    /// Remembers that a device has just said who it is.
    pub(crate) fn saw(&self, address: SocketAddr, at: Instant, who: Seen) {
        if let Ok(mut seen) = self.seen.lock() {
            if seen.len() >= MAX_REMEMBERED {
                seen.clear();
            }
            seen.insert(address, (at, who));
        }
    }

    /// Who answered at an address, and when.
    pub(crate) fn last_seen(&self, address: SocketAddr) -> Option<(Instant, Seen)> {
        self.seen.lock().ok()?.get(&address).cloned()
    }

    pub(crate) fn tokens_paused(&self, address: SocketAddr, now: Millis) -> bool {
        self.paused.lock().is_ok_and(|paused| paused.get(&address).is_some_and(|until| *until > now))
    }

    pub(crate) fn pause_tokens(&self, address: SocketAddr, until: Millis) {
        if let Ok(mut paused) = self.paused.lock() {
            if paused.len() >= MAX_REMEMBERED {
                paused.clear();
            }
            paused.entry(address).and_modify(|at| *at = (*at).max(until)).or_insert(until);
        }
    }

    pub(crate) fn token(&self, address: SocketAddr) -> Option<Token> {
        self.tokens.lock().ok()?.get(&address).cloned()
    }

    pub(crate) fn keep_token(&self, address: SocketAddr, token: Option<Token>) {
        if let Ok(mut tokens) = self.tokens.lock() {
            if tokens.len() >= MAX_REMEMBERED {
                tokens.clear();
            }
            match token {
                Some(token) => tokens.insert(address, token),
                None => tokens.remove(&address),
            };
        }
    }
}

impl Default for Profiles {
    fn default() -> Self {
        Self::builtin()
    }
}
