//! md5crypt, the `$1$` password hash of old Unix systems (as in glibc's and FreeBSD's `crypt`),
//! because Whatsminer's API 2 derives its keys with it.

use md5::{Digest, Md5};

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Bytes of the last digest in the order in which they are printed.
const ORDER: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];

/// The hash's text without the `$1$salt$` before it: 22 characters.
pub fn md5crypt(password: &[u8], salt: &[u8]) -> String {
    // The algorithm takes at most eight bytes of salt.
    let salt = salt.get(..salt.len().min(8)).unwrap_or(salt);
    let mut inner = Md5::new();
    inner.update(password);
    inner.update(salt);
    inner.update(password);
    let inner = inner.finalize();

    let mut context = Md5::new();
    context.update(password);
    context.update(b"$1$");
    context.update(salt);
    let mut left = password.len();
    while left > 0 {
        let take = left.min(16);
        context.update(inner.get(..take).unwrap_or(&inner));
        left -= take;
    }
    let mut bits = password.len();
    while bits > 0 {
        // The algorithm's own oddity: a zero byte, or the first of the password.
        let byte = if bits & 1 == 1 { 0 } else { password.first().copied().unwrap_or(0) };
        context.update([byte]);
        bits >>= 1;
    }
    let mut digest = context.finalize();

    for round in 0..1000_u32 {
        let mut context = Md5::new();
        if round & 1 == 1 {
            context.update(password)
        } else {
            context.update(digest)
        }
        if round % 3 != 0 {
            context.update(salt);
        }
        if round % 7 != 0 {
            context.update(password);
        }
        if round & 1 == 1 {
            context.update(digest)
        } else {
            context.update(password)
        }
        digest = context.finalize();
    }

    let byte = |at: usize| u32::from(digest.get(at).copied().unwrap_or(0));
    let mut text = String::with_capacity(22);
    for [a, b, c] in ORDER {
        print(&mut text, byte(a) << 16 | byte(b) << 8 | byte(c), 4);
    }
    print(&mut text, byte(11), 2);
    text
}

fn print(text: &mut String, mut value: u32, characters: usize) {
    for _ in 0..characters {
        // Six bits are always an index of the alphabet.
        text.push(char::from(ALPHABET[(value & 0x3f) as usize]));
        value >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_openssl_passwd_1_prints_it() {
        assert_eq!(md5crypt(b"admin", b"BQ5hoXV9"), "RxmaDUO33TS7O26yeMHZ81");
    }

    #[test]
    fn any_length_of_password_and_salt() {
        for n in 0..70 {
            assert_eq!(md5crypt(&vec![b'x'; n], &vec![b's'; n]).len(), 22);
        }
    }
}
