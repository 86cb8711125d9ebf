//! The console's pages: one file a page, its template beside the others in `templates/`.

pub mod curtailment;
pub mod language;
pub mod login;
mod order_form;
pub mod password;
pub mod plan;
mod plan_targets;
mod preview;
pub mod site;
pub mod sites;
mod words;

/// A path of ours to go back to; anything else goes to the start.
fn safe_path(path: Option<&str>) -> &str {
    let ours = |path: &&str| {
        path.starts_with('/')
            && !path.starts_with("//")
            && path.len() <= 2000
            && !path.contains('\\')
            && path.bytes().all(|b| (0x21..0x7f).contains(&b))
    };
    path.filter(ours).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::safe_path;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for ours in ["/", "/sites/x?sort=power&page=2"] {
            assert_eq!(safe_path(Some(ours)), ours);
        }
        for other in
            ["", "sites", "//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nb", "/ä"]
        {
            assert_eq!(safe_path(Some(other)), "/", "{other}");
        }
        assert_eq!(safe_path(None), "/");
    }
}
