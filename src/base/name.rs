//! Names that others gave: of files, folders, classes, members of archives.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::ops::Deref;
use std::path::PathBuf;

/// UTF-8 texts of some programs begin with it (U+FEFF). It is no part of the first name.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A name somebody else gave, or several with `/` between them. Names are bytes, mostly but not always UTF-8. Held is their shown
/// form, in which each byte that is no UTF-8 stands as `\xe9`, and the backslash of a name that looks so by itself as `\x5c`:
/// different names stay different, and [`Name::bytes`] gives back what they were. Any other name is shown as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut shown = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            let mut rest = chunk.valid();
            while let Some(at) = find_escape(rest) {
                shown.push_str(&rest[..at]);
                shown.push_str("\\x5c");
                rest = &rest[at + 1..];
            }
            shown.push_str(rest);
            for byte in chunk.invalid() {
                let _ = write!(shown, "\\x{byte:02x}");
            }
        }
        Self(shown)
    }

    /// The name of an entry of a folder, or a whole path.
    pub fn of(name: impl AsRef<OsStr>) -> Self {
        Self::from_bytes(name.as_ref().as_encoded_bytes())
    }

    /// This name and one below it; `self` ends in `/` or is empty.
    #[must_use]
    pub fn below(&self, name: &Self) -> Self {
        Self(format!("{}{}", self.0, name.0))
    }

    /// The shown form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }

    /// The bytes of a name in its shown form.
    pub fn bytes(shown: &str) -> Cow<'_, [u8]> {
        let (mut bytes, mut rest) = (Vec::new(), shown);
        while let Some(at) = find_escape(rest) {
            bytes.extend_from_slice(&rest.as_bytes()[..at]);
            bytes.extend(u8::from_str_radix(&rest[at + 2..at + 4], 16));
            rest = &rest[at + 4..];
        }
        if bytes.is_empty() && rest.len() == shown.len() {
            return Cow::Borrowed(shown.as_bytes());
        }
        bytes.extend_from_slice(rest.as_bytes());
        Cow::Owned(bytes)
    }

    /// The path of a name in its shown form.
    pub fn path(shown: &str) -> PathBuf {
        match Self::bytes(shown) {
            Cow::Borrowed(_) => PathBuf::from(shown),
            Cow::Owned(bytes) => path(bytes),
        }
    }
}

#[cfg(unix)]
fn path(bytes: Vec<u8>) -> PathBuf {
    <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes).into()
}

/// Names that are no Unicode cannot be made here without `unsafe`; such a path leads nowhere.
#[cfg(not(unix))]
fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where a text has the form of an escaped byte.
fn find_escape(text: &str) -> Option<usize> {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.as_bytes().windows(4).position(|four| four[0] == b'\\' && four[1] == b'x' && digit(four[2]) && digit(four[3]))
}

/// The bytes of a text without its byte order mark.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, shown: &&str) -> bool {
        self.0 == *shown
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self::from_bytes(name.as_bytes())
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        if find_escape(&name).is_none() { Self(name) } else { Self::from_bytes(name.as_bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_are_no_utf8_are_shown_escaped_and_stay_apart() {
        let shown = |bytes: &[u8]| Name::from_bytes(bytes).into_string();
        assert_eq!([shown(b"cl\xe9"), shown(b"cl\xe8")], ["cl\\xe9", "cl\\xe8"]);
        assert_eq!([shown("clé".as_bytes()), shown(b"a\\b"), shown(b"a\\x5")], ["clé", "a\\b", "a\\x5"]);
        assert_eq!(shown(b"cl\\xe9"), "cl\\x5cxe9", "a name that is written so is another one");
        assert_eq!(Name::from("a\\x00b"), Name::from("a\\x00b".to_owned()));
        assert_eq!(&*Name::bytes("a/cl\\xe9.png"), b"a/cl\xe9.png");
        assert_eq!(Name::of("a/").below(&Name::from_bytes(b"\xff")).as_str(), "a/\\xff");
        assert_eq!(Name::path("plain/ü.png"), PathBuf::from("plain/ü.png"));
    }

    #[test]
    #[cfg(unix)]
    fn a_path_comes_back_byte_by_byte() {
        use std::os::unix::ffi::OsStrExt;
        let path = PathBuf::from(OsStr::from_bytes(b"a/cl\xe9/\\x41.png"));
        assert_eq!(Name::path(&Name::of(&path)), path);
    }

    #[test]
    fn a_byte_order_mark_is_dropped_once() {
        assert_eq!(without_mark(b"\xef\xbb\xbfcat"), b"cat");
        assert_eq!(without_mark(b"cat\xef\xbb\xbf"), b"cat\xef\xbb\xbf");
    }

    proptest! {
        #[test]
        fn every_name_comes_back_from_its_shown_form(
            bytes in prop::collection::vec(prop_oneof![Just(b'\\'), Just(b'x'), b'0'..=b'9', b'a'..=b'f', any::<u8>()], 0..24),
        ) {
            let name = Name::from_bytes(&bytes);
            prop_assert_eq!(&*Name::bytes(&name), &bytes[..]);
        }
    }
}
