//! Words in the reader's language.
//!
//! All text of the console is in `locales/`, one folder a language, and is embedded. Code names keys;
//! a test holds every language to the same keys and variables.

use fluent_templates::fluent_bundle::FluentValue;
use fluent_templates::{LanguageIdentifier, langid, static_loader};
use std::collections::HashMap;

static_loader! {
    static LOCALES = {
        locales: "./locales",
        fallback_language: "en",
        // The isolating marks around variables are for mixed writing directions; both languages run
        // the same way, and the marks would end up in attributes and scripts.
        customise: |bundle| bundle.set_use_isolating(false),
    };
}

static ENGLISH: LanguageIdentifier = langid!("en");
static CHINESE: LanguageIdentifier = langid!("zh-CN");

/// A language of the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Language {
    #[default]
    English,
    Chinese,
}

/// A variable of a text.
pub type Argument = (&'static str, Value);

/// What a variable holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    /// A number that may choose a plural form; formatted numbers are texts.
    Count(i64),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Count(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl Value {
    fn fluent(&self) -> FluentValue<'_> {
        match self {
            Self::Text(text) => FluentValue::from(text.as_str()),
            Self::Count(count) => FluentValue::from(*count),
        }
    }
}

impl Language {
    pub const ALL: [Self; 2] = [Self::English, Self::Chinese];

    /// The language's tag, as in HTML's `lang`.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-CN",
        }
    }

    /// What its speakers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Chinese => "中文",
        }
    }

    pub fn from_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.tag() == tag)
    }

    /// The best language for an Accept-Language header.
    pub fn accepted(header: &str) -> Self {
        let mut best = (0.0, Self::English);
        for part in header.split(',').take(32) {
            let (tag, weight) = part.split_once(';').unwrap_or((part, ""));
            let weight = weight.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.parse::<f64>().ok());
            let tag = tag.trim().to_ascii_lowercase();
            let language = match tag.split('-').next() {
                Some("en") => Self::English,
                Some("zh") => Self::Chinese,
                _ => continue,
            };
            if weight.is_some_and(|w| w > best.0) {
                best = (weight.unwrap_or_default(), language);
            }
        }
        best.1
    }

    fn id(self) -> &'static LanguageIdentifier {
        match self {
            Self::English => &ENGLISH,
            Self::Chinese => &CHINESE,
        }
    }

    /// The text of a key.
    pub fn t(self, key: &str) -> String {
        self.with(key, &[])
    }

    /// The text of a key with its variables.
    pub fn with(self, key: &str, args: &[Argument]) -> String {
        let map: HashMap<&str, FluentValue<'_>> =
            args.iter().map(|(name, value)| (*name, value.fluent())).collect();
        let args = (!args.is_empty()).then_some(&map);
        LOCALES
            .lookup_single_language(self.id(), key, args)
            .or_else(|_| LOCALES.lookup_single_language(&ENGLISH, key, args))
            .unwrap_or_else(|_| key.to_owned())
    }

    /// The text of a key with one variable.
    pub fn with1(self, key: &str, name: &'static str, value: impl Into<Value>) -> String {
        self.with(key, &[(name, value.into())])
    }
}

/// A text that is put into words only when its reader is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A key of the translations.
    Key(&'static str, Vec<Argument>),
    /// Words as they are, for those who read English: the command line, the API.
    Plain(String),
}

impl Message {
    pub fn key(key: &'static str) -> Self {
        Self::Key(key, Vec::new())
    }

    /// The same message with a variable.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        if let Self::Key(_, args) = &mut self {
            args.push((name, value.into()));
        }
        self
    }

    pub fn in_language(&self, language: Language) -> String {
        match self {
            Self::Key(key, args) => language.with(key, args),
            Self::Plain(text) => text.clone(),
        }
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Each key of a language with the variables that its text names.
    fn keys(language: Language) -> BTreeMap<String, BTreeSet<String>> {
        let folder = format!("{}/locales/{}", env!("CARGO_MANIFEST_DIR"), language.tag());
        let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let mut key = String::new();
            for line in std::fs::read_to_string(file.unwrap().path()).unwrap().lines() {
                if line.starts_with(|c: char| c.is_ascii_lowercase())
                    && let Some((name, _)) = line.split_once(" =")
                {
                    key = name.to_owned();
                    assert!(!keys.contains_key(&key), "{key} stands twice");
                    keys.entry(key.clone()).or_default();
                }
                for variable in line.split('$').skip(1) {
                    let end = variable
                        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                        .unwrap_or(variable.len());
                    keys.entry(key.clone()).or_default().insert(variable[..end].to_owned());
                }
            }
        }
        keys
    }

    #[test]
    fn both_languages_have_the_same_keys_and_variables() {
        let (english, chinese) = (keys(Language::English), keys(Language::Chinese));
        assert!(english.len() > 50);
        for (key, variables) in &english {
            assert_eq!(chinese.get(key), Some(variables), "{key}");
        }
        for key in chinese.keys() {
            assert!(english.contains_key(key), "{key} is in no English file");
        }
    }

    #[test]
    fn every_text_can_be_made() {
        for language in Language::ALL {
            for (key, variables) in keys(language) {
                let args: Vec<Argument> = variables
                    .into_iter()
                    // A test's names live as long as the test.
                    .map(|name| (&*Box::leak(name.into_boxed_str()), Value::Count(3)))
                    .collect();
                let text = language.with(&key, &args);
                assert!(text != key && !text.is_empty() && !text.contains("{$"), "{key}: {text}");
            }
        }
    }

    #[test]
    fn templates_and_code_name_keys_that_exist() {
        let known = keys(Language::English);
        let root = env!("CARGO_MANIFEST_DIR");
        let mut named = 0;
        let mut folders = vec![format!("{root}/templates"), format!("{root}/src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.display().to_string());
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for opening in ["t.t(\"", "t.with(\"", "t.with1(\"", "Message::key(\""] {
                    for after in text.split(opening).skip(1) {
                        let key = after.split('"').next().unwrap();
                        // Keys that are put together are held by the test of what they are made of.
                        if key.contains('{') || path.ends_with("i18n.rs") {
                            continue;
                        }
                        assert!(known.contains_key(key), "{key} in {}", path.display());
                        named += 1;
                    }
                }
            }
        }
        assert!(named > 50);
        for status in crate::fleet::status::Status::ALL {
            assert!(known.contains_key(&format!("status-{}", status.name())));
        }
        for sort in crate::fleet::table::Sort::ALL {
            assert!(known.contains_key(&format!("column-{}", sort.name())));
        }
        for role in crate::identity::Role::ALL {
            assert!(known.contains_key(&format!("role-{}", role.name())));
        }
        for state in crate::curtailment::state::PlanState::ALL {
            assert!(known.contains_key(&format!("plan-state-{}", state.name())));
        }
    }

    #[test]
    fn a_browser_gets_its_language() {
        for (header, language) in [
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Chinese),
            ("en-US,en;q=0.9,zh;q=0.8", Language::English),
            ("de-DE,zh-TW;q=0.7,en;q=0.3", Language::Chinese),
            ("fr", Language::English),
            ("zh;q=0", Language::English),
            ("zh;q=nonsense,,;;", Language::English),
            ("", Language::English),
        ] {
            assert_eq!(Language::accepted(header), language, "{header}");
        }
    }
}
