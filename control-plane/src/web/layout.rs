//! What every page has around it: language, navigation, who is signed in.

use super::assets;
use super::i18n::Language;
use super::session;
use crate::App;
use crate::error::Error;
use crate::identity::{By, Caller};
use askama::Template;
use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{Html, IntoResponse, Response};
use std::sync::Arc;

/// Where a page belongs in the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Sites,
    Account,
    None,
}

/// What a template needs beside its own content.
#[derive(Clone, Debug)]
pub struct Page {
    pub t: Language,
    pub title: String,
    pub section: Section,
    pub caller: Option<Caller>,
    /// Path and query, to come back to after a switch of language.
    pub path: String,
    /// Milliseconds since 1970, for ages that the page's script keeps.
    pub now: i64,
}

impl Page {
    pub fn asset(&self, name: &str) -> String {
        assets::url(name)
    }

    /// A page for whoever it may be: no navigation.
    pub fn for_nobody(app: &App, t: Language, title: String) -> Self {
        Self { t, title, section: Section::None, caller: None, path: "/".to_owned(), now: app.clock.now().0 }
    }

    pub fn csrf(&self) -> &str {
        self.caller.as_ref().map_or("", Caller::csrf)
    }

    /// Whether the caller may go anywhere yet.
    pub fn has_navigation(&self) -> bool {
        match self.caller.as_ref().map(|c| &c.by) {
            Some(By::Session { must_change_password, .. }) => !must_change_password,
            Some(By::ApiKey) => true,
            None => false,
        }
    }

    #[must_use]
    pub fn titled(mut self, section: Section, title: impl Into<String>) -> Self {
        (self.section, self.title) = (section, title.into());
        self
    }

    pub fn languages(&self) -> [Language; 2] {
        Language::ALL
    }
}

impl FromRequestParts<Arc<App>> for Page {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        Ok(Self {
            t: session::language(&parts.headers),
            title: String::new(),
            section: Section::None,
            caller: parts.extensions.get::<Caller>().cloned(),
            path: parts.uri.path_and_query().map_or_else(|| "/".to_owned(), |p| p.as_str().to_owned()),
            now: app.clock.now().0,
        })
    }
}

/// A template as an answer.
pub fn html(template: &impl Template) -> Response {
    match template.render() {
        // The language decides the page, and whether htmx asked decides what becomes of an error.
        Ok(text) => ([(header::VARY, "Cookie, Accept-Language, HX-Request")], Html(text)).into_response(),
        Err(error) => Error::internal(error).into_response(),
    }
}
