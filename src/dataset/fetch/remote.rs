//! Published files: where they can be had, and what they must add up to.
//!
//! Addresses are those of the data sets' own pages; checksums are those the pages name (CIFAR) or those under which everybody gets
//! them (torchvision 0.2x for MNIST, Fashion-MNIST, STL-10 and SVHN). Most are served without encryption, so nothing is trusted
//! before its checksum.

use super::error::FetchError;

/// A checksum as published, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sum {
    /// 32 digits.
    Md5(String),
    /// 64 digits.
    Sha256(String),
}

impl Sum {
    /// A SHA-256 that somebody typed, in small letters.
    ///
    /// # Errors
    /// [`FetchError::WrongSum`] if it has not 64 hexadecimal digits.
    pub fn sha256(digits: &str) -> Result<Self, FetchError> {
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(FetchError::WrongSum { what: format!("`{digits}` is not a SHA-256, which has 64 hexadecimal digits") });
        }
        Ok(Self::Sha256(digits.to_ascii_lowercase()))
    }

    /// Its name and digits.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Md5(digits) => ("MD5", digits),
            Self::Sha256(digits) => ("SHA-256", digits),
        }
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, digits) = self.parts();
        write!(f, "{name} {digits}")
    }
}

pub(in super::super) const MIB: u64 = 1 << 20;
pub(in super::super) const GIB: u64 = 1 << 30;

#[derive(Debug)]
pub struct Download {
    name: &'static str,
    /// What stands before the name in its addresses, the best first.
    bases: &'static [&'static str],
    md5: &'static str,
    most: u64,
    unpacked: Option<u64>,
    /// It belongs to a part that few need.
    pub(in super::super) extra: bool,
}

impl Download {
    /// A file of at most so many bytes.
    pub(in super::super) const fn file(
        name: &'static str,
        bases: &'static [&'static str],
        md5: &'static str,
        most: u64,
    ) -> Self {
        Self { name, bases, md5, most, unpacked: None, extra: false }
    }

    /// An archive of at most so many bytes, from which at most so many come.
    pub(in super::super) const fn archive(
        name: &'static str,
        bases: &'static [&'static str],
        md5: &'static str,
        most: u64,
        unpacked: u64,
    ) -> Self {
        Self { unpacked: Some(unpacked), ..Self::file(name, bases, md5, most) }
    }

    /// The same file, of a part that few need.
    pub(in super::super) const fn extra(self) -> Self {
        Self { extra: true, ..self }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub name: String,
    /// Where it can be had, the best address first.
    pub urls: Vec<String>,
    pub sum: Sum,
    /// More bytes are not taken.
    pub most: u64,
    /// If it is an archive: more bytes do not come out of it.
    pub unpacked: Option<u64>,
}

impl From<&Download> for Remote {
    fn from(file: &Download) -> Self {
        let Download { name, bases, md5, most, unpacked, .. } = *file;
        let urls = bases.iter().map(|base| format!("{base}{name}")).collect();
        Self { name: name.to_owned(), urls, sum: Sum::Md5(md5.to_owned()), most, unpacked }
    }
}
