//! Nameplates: what makers say of their models.

use crate::profile::ProfileError;
use hashinsight_protocol::units::{Hashrate, JoulesPerTerahash, Watts};
use serde::Deserialize;
use std::collections::HashMap;

/// What a model does at its ordinary setting, as its maker says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nameplate {
    pub hashrate: Hashrate,
    pub power: Watts,
}

impl Nameplate {
    pub fn efficiency(self) -> Option<JoulesPerTerahash> {
        JoulesPerTerahash::of(self.power, self.hashrate)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelsFile {
    model: Vec<ModelFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFile {
    name: String,
    terahash: f64,
    watts: f64,
}

/// Nameplates by model; only the whole name counts, so that "S21 Pro" is not taken for "S21".
#[derive(Debug, Default)]
pub struct Models(HashMap<String, Nameplate>);

impl Models {
    pub fn load(file: &str, text: &str) -> Result<Self, ProfileError> {
        let error = |line: usize, reason: String| ProfileError::Line { file: file.to_owned(), line, reason };
        let parsed: ModelsFile = toml::from_str(text).map_err(|e| {
            let line = e
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |head| head.matches('\n').count() + 1);
            error(line, e.message().to_owned())
        })?;
        let mut models = HashMap::new();
        for model in parsed.model {
            let plate = Hashrate::from_terahash(model.terahash).zip(Watts::new(model.watts));
            let Some((hashrate, power)) = plate else {
                let line = text
                    .find(&model.name)
                    .map_or(1, |at| text.get(..at).unwrap_or(text).matches('\n').count() + 1);
                return Err(error(line, format!("the figures of {} cannot be", model.name)));
            };
            models.entry(plain(&model.name)).or_insert(Nameplate { hashrate, power });
        }
        Ok(Self(models))
    }

    /// The nameplate of a model; `None` rather than that of a similar one.
    pub fn find(&self, model: &str) -> Option<Nameplate> {
        // Other makers' firmware adds its own name: "Antminer S9 (vnish 3.8.6)".
        let model = plain(model.split('(').next().unwrap_or(model));
        let short = || self.0.get(model.strip_prefix("antminer")?);
        self.0.get(&model).or_else(short).copied()
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '+').map(|c| c.to_ascii_lowercase()).collect()
}
