//! Content digests: 256 bits of BLAKE3.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use kinset_base::fs::{self, At};

/// Files shorter than this are read in one go.
const SMALL: usize = 64 << 10;

/// Of larger ones, so much is digested at a time, by all threads together.
const PIECE: usize = 4 << 20;

/// 256 bits of BLAKE3, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    pub fn of_file(path: &Path) -> fs::Result<Self> {
        Self::of_open(&mut fs::open(path)?, u64::MAX, path)
    }

    /// The digest of a file from where it stands, of at most `length` bytes: whoever knows it saves the look for the end. `path` is for
    /// errors.
    pub fn of_open(file: &mut File, length: u64, path: &Path) -> fs::Result<Self> {
        let mut file = file.take(length);
        let mut read = |bytes: &mut Vec<u8>, most: usize| {
            bytes.clear();
            file.by_ref().take(most as u64).read_to_end(bytes).at("read", path)
        };
        let mut bytes = Vec::with_capacity(SMALL);
        if read(&mut bytes, SMALL)? < SMALL {
            return Ok(Self::of(&bytes));
        }
        let mut hasher = Hasher::plain();
        hasher.update(&bytes);
        while read(&mut bytes, PIECE)? > 0 {
            hasher.0.update_rayon(&bytes);
        }
        Ok(hasher.finish())
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// All 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// The first 12 digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a digest: 64 hexadecimal digits were expected")]
pub struct NotADigest(String);

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| NotADigest(text.to_owned()))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Clone, Debug)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// The digest of the bytes themselves.
    pub fn plain() -> Self {
        Self(blake3::Hasher::new())
    }

    /// A digest in a space of its own: it never equals a digest of the same bytes made for another purpose.
    pub fn derived(purpose: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(purpose))
    }

    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// Takes a text so that its end is part of the digest: `"ab", "c"` differs from `"a", "bc"`.
    pub fn field(&mut self, text: &str) -> &mut Self {
        self.0.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        self
    }

    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let digest = Digest::of(b"kinset");
        assert_eq!(digest.hex().parse::<Digest>().unwrap(), digest);
        assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
        assert!("abc".parse::<Digest>().is_err());
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes_whatever_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..2 * PIECE + SMALL + 5).map(|i| ((i * i) >> 7) as u8).collect();
        for length in [0, 1, SMALL - 1, SMALL, SMALL + 1, SMALL + PIECE, bytes.len()] {
            let path = dir.path().join(length.to_string());
            fs::write_atomic(&path, &bytes[..length]).unwrap();
            assert_eq!(Digest::of_file(&path).unwrap(), Digest::of(&bytes[..length]), "{length}");
        }
    }

    #[test]
    fn purposes_and_field_ends_count() {
        assert_ne!(Hasher::derived("a").update(b"x").finish(), Hasher::plain().update(b"x").finish());
        assert_ne!(Hasher::plain().field("ab").field("c").finish(), Hasher::plain().field("a").field("bc").finish());
    }
}
