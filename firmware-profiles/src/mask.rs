//! Takes the secrets out of a reply before it is written down: pool and workers' passwords, tokens,
//! keys of wireless networks, sign-ins within addresses.
//!
//! Replies are often broken, so nothing is parsed: every quote may begin a name, and what stands after
//! a name that means a secret is replaced. A byte too many is masked rather than one too few; figures
//! have other names and stay.

/// What stands where a secret was.
const MASK: &[u8] = b"***";
/// Longest name of a secret.
const MAX_NAME: usize = 64;

/// A reply without its secrets, and how many there were.
pub fn mask(reply: &[u8]) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(reply.len());
    let (mut at, mut masked) = (0, 0);
    while let Some(byte) = reply.get(at) {
        let secret = match byte {
            b'"' => quoted(reply, at),
            b'=' => assigned(reply, at),
            b':' => in_address(reply, at),
            _ => None,
        };
        if let Some(Secret { from, to, quotes }) = secret.filter(|s| s.to > s.from && !is_plain(reply, s)) {
            out.extend_from_slice(reply.get(at..from).unwrap_or_default());
            let quote: &[u8] = if quotes { b"\"" } else { b"" };
            out.extend_from_slice(quote);
            out.extend_from_slice(MASK);
            out.extend_from_slice(quote);
            masked += 1;
            at = to;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    (out, masked)
}

/// Where a secret stands.
struct Secret {
    from: usize,
    to: usize,
    /// It is no text in the reply, and has to become one.
    quotes: bool,
}

/// Whether nothing is hidden: no value, or one that is masked already.
fn is_plain(reply: &[u8], secret: &Secret) -> bool {
    let value = reply.get(secret.from..secret.to).unwrap_or_default();
    matches!(value, b"null" | b"true" | b"false") || value == MASK
}

/// `"name": value`, also within a text, where quotes are escaped.
fn quoted(reply: &[u8], at: usize) -> Option<Secret> {
    let begin = at + 1;
    let rest = reply.get(begin..)?;
    let length = rest.iter().take(MAX_NAME + 2).position(|b| *b == b'"')?;
    let name = rest.get(..length)?;
    let escaped = name.last() == Some(&b'\\');
    if !is_secret(name.strip_suffix(b"\\").unwrap_or(name)) {
        return None;
    }
    let mut next = skip_blanks(reply, begin + length + 1);
    if reply.get(next) != Some(&b':') {
        return None;
    }
    next = skip_blanks(reply, next + 1);
    if escaped && reply.get(next) == Some(&b'\\') {
        next += 1;
    }
    match reply.get(next)? {
        b'"' => {
            let from = next + 1;
            Some(Secret { from, to: text_end(reply, from, escaped), quotes: false })
        }
        b'[' | b'{' => Some(Secret { from: next, to: group_end(reply, next), quotes: true }),
        _ => {
            let rest = reply.get(next..)?;
            let length = rest
                .iter()
                .position(|b| matches!(b, b',' | b'}' | b']' | b'"') || b.is_ascii_whitespace())
                .unwrap_or(rest.len());
            Some(Secret { from: next, to: next + length, quotes: true })
        }
    }
}

/// `name=value`, up to a separator.
fn assigned(reply: &[u8], at: usize) -> Option<Secret> {
    let before = reply.get(..at)?;
    let length = before
        .iter()
        .rev()
        .take(MAX_NAME)
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b' ' | b'.'))
        .count();
    if !is_secret(before.get(before.len() - length..)?) {
        return None;
    }
    let rest = reply.get(at + 1..)?;
    let length = rest
        .iter()
        .position(|b| matches!(b, b',' | b'|' | b'&' | b'"' | b'<' | b'\n' | b'\r' | 0))
        .unwrap_or(rest.len());
    Some(Secret { from: at + 1, to: at + 1 + length, quotes: false })
}

/// `scheme://user:secret@host`.
fn in_address(reply: &[u8], at: usize) -> Option<Secret> {
    let begin = at + 3;
    if reply.get(at..begin) != Some(b"://") {
        return None;
    }
    let rest = reply.get(begin..)?;
    let ends = |b: &u8| matches!(b, b'/' | b'\\' | b'"' | b',' | b'|' | b'<' | 0) || b.is_ascii_whitespace();
    let host = rest.iter().take(512).position(ends).unwrap_or(rest.len().min(512));
    let user = rest.get(..host)?.iter().rposition(|b| *b == b'@')?;
    let colon = rest.get(..user)?.iter().position(|b| *b == b':')?;
    Some(Secret { from: begin + colon + 1, to: begin + user, quotes: false })
}

fn skip_blanks(reply: &[u8], from: usize) -> usize {
    from + reply.iter().skip(from).take_while(|b| b.is_ascii_whitespace()).count()
}

/// Where a text ends that begins at `from`: at its quote, or with the reply.
fn text_end(reply: &[u8], from: usize, escaped: bool) -> usize {
    let mut at = from;
    while let Some(byte) = reply.get(at) {
        match byte {
            b'\\' if escaped => return at,
            b'\\' => at += 1,
            b'"' => return at,
            _ => {}
        }
        at += 1;
    }
    reply.len()
}

/// Where a list or an object ends that begins at `from`.
fn group_end(reply: &[u8], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in reply.iter().enumerate().skip(from) {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    reply.len()
}

/// Whether a name is that of a secret.
fn is_secret(name: &[u8]) -> bool {
    let name: String = name
        .iter()
        .filter(|b| b.is_ascii_alphanumeric())
        .map(|b| char::from(b.to_ascii_lowercase()))
        .collect();
    let ends =
        ["pass", "passwd", "passphrase", "pwd", "psw", "psk", "apikey", "wifikey", "wlankey", "wpakey"];
    let holds = ["password", "secret", "token", "privatekey", "authorization", "cookie"];
    let of_a_pool = name.contains("pool") && name.ends_with("pw");
    name != "bypass"
        && (name == "pw"
            || of_a_pool
            || ends.iter().any(|end| name.ends_with(end))
            || holds.iter().any(|part| name.contains(part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(reply: &str, expected: &str) {
        let (masked, _) = mask(reply.as_bytes());
        assert_eq!(String::from_utf8_lossy(&masked), expected);
        assert_eq!(mask(&masked).1, 0, "masked twice: {expected}");
    }

    #[test]
    fn secrets_go_and_figures_stay() {
        check(r#"{"url":"a","pass":"hunter2","user":"w"}"#, r#"{"url":"a","pass":"***","user":"w"}"#);
        check(r#"{"_ant_pool1pw" : "hunter2", "pw":123}"#, r#"{"_ant_pool1pw" : "***", "pw":"***"}"#);
        check(
            r#"{"chain_pw":3250,"passed":1,"bypass":"on"}"#,
            r#"{"chain_pw":3250,"passed":1,"bypass":"on"}"#,
        );
        check(r#"{"wifiPass":"a\"b","ssid":"site"}"#, r#"{"wifiPass":"***","ssid":"site"}"#);
        check(r#"{"tokens":["a",{"b":"c"}],"x":1}"#, r#"{"tokens":"***","x":1}"#);
        check(r#"{"password":null,"token":"","a":1}"#, r#"{"password":null,"token":"","a":1}"#);
        check(
            "POOL=0,URL=stratum+tcp://a:1,Pass=hunter2,User=w|",
            "POOL=0,URL=stratum+tcp://a:1,Pass=***,User=w|",
        );
        check(
            r#"{"url":"stratum+tcp://me:hunter2@pool:3333"}"#,
            r#"{"url":"stratum+tcp://me:***@pool:3333"}"#,
        );
        check(r#"{"url":"stratum+tcp://pool:3333/a@b"}"#, r#"{"url":"stratum+tcp://pool:3333/a@b"}"#);
        check(r#"{"conf":"{\"pass\":\"hunter2\",\"a\":1}"}"#, r#"{"conf":"{\"pass\":\"***\",\"a\":1}"}"#);
    }

    #[test]
    fn a_broken_reply_hides_nothing() {
        check(r#"{"a":"x","b:1,"pass":"hunter2}"#, r#"{"a":"x","b:1,"pass":"***"#);
        check(r#"}{"password":"hunter2"}{"#, r#"}{"password":"***"}{"#);
    }

    proptest! {
        #[test]
        fn a_password_never_stays(
            before in "[ -~]{0,40}", name in "(pass|Password|poolpw|api_key|accessToken|WPA-PSK)",
            secret in "[A-Za-z0-9!#$%()*+.;<>?@^_~]{6,20}", after in "[ -~]{0,40}"
        ) {
            prop_assume!(!before.contains(&secret) && !after.contains(&secret) && !before.contains('"'));
            let (masked, _) = mask(format!("{before}{{\"{name}\":\"{secret}\"}}{after}").as_bytes());
            prop_assert!(!String::from_utf8_lossy(&masked).contains(&secret));
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = mask(&bytes);
        }

        #[test]
        fn odd_quotes_are_taken(text in "[\"\\\\:={}\\[\\]@/a pass,]{0,120}") {
            let _ = mask(text.as_bytes());
        }
    }
}
