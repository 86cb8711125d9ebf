//! Scripts, styles and images: embedded, and addressed by their content, so that browsers keep them
//! for good and a new version is a new address.

use crate::error::{Error, Result};
use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use hashinsight_protocol::enrolment::hex;
use rust_embed::Embed;
use std::borrow::Cow;

#[derive(Embed)]
#[folder = "assets/"]
struct Assets;

const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// The address of an asset.
pub fn url(name: &str) -> String {
    match Assets::get(name) {
        Some(file) => format!("/assets/{}/{name}", short(&file.metadata.sha256_hash())),
        // Templates name assets by literals; a test walks them.
        None => format!("/assets/missing/{name}"),
    }
}

fn short(hash: &[u8]) -> String {
    hex(&hash[..8])
}

pub async fn serve(Path((hash, name)): Path<(String, String)>) -> Result<Response> {
    let file = Assets::get(&name).ok_or_else(Error::not_found)?;
    // A page from before an upgrade asks for what is no more; it gets the present one, once.
    let cache = if short(&file.metadata.sha256_hash()) == hash { FOR_EVER } else { "no-store" };
    let kind = match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    };
    let body = match file.data {
        Cow::Borrowed(bytes) => axum::body::Body::from(bytes),
        Cow::Owned(bytes) => axum::body::Body::from(bytes),
    };
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_name_what_is_there() {
        let mut named = 0;
        for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/templates")).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for after in text.split("asset(\"").skip(1) {
                let name = after.split('"').next().unwrap();
                assert!(Assets::get(name).is_some(), "{name}");
                named += 1;
            }
        }
        assert!(named > 0);
    }

    #[test]
    fn what_is_taken_from_others_has_its_licence() {
        let names: Vec<_> = Assets::iter().collect();
        for vendored in ["htmx", "uplot"] {
            assert!(names.iter().any(|n| *n == format!("{vendored}-LICENSE.txt")), "{vendored}");
        }
    }
}
