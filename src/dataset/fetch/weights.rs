//! The download of one file of weights by its address and checksum, and where it lies once it is here.
//!
//! Nothing is fetched while a pipeline runs: a run on a machine without a network must not begin and then stop. The stage says
//! which command brings the file. The folder carries the beginning of the checksum, so that two files of one name stay apart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::download::{Client, FetchEvent, checked, download};
use super::error::FetchError;
use super::remote::{Remote, Sum};
use super::set::Outcome;
use crate::error::DatasetError;
use kinset_base::fs;
use kinset_base::search_path::DataPaths;

/// More bytes are not taken; the reader of weights refuses larger files too.
const MOST: u64 = 4 << 30;
/// A file's name is cut to this many characters.
const LONGEST_NAME: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    pub url: String,
    /// Its SHA-256, 64 hexadecimal digits.
    pub sha256: String,
    pub folder: PathBuf,
    /// What stands before its name where it is asked for, if not its publisher's.
    mirror: Option<String>,
}

impl Weights {
    /// True if a text is an address and not a path.
    pub fn is_address(text: &str) -> bool {
        text.starts_with("https://") || text.starts_with("http://")
    }

    /// A file by its address and SHA-256, below `weights/` of the folder of data unless `folder` says where.
    pub fn new(url: &str, sha256: &str, folder: Option<&Path>, places: &DataPaths) -> Result<Self, FetchError> {
        let sha256 = Sum::sha256(sha256)?.parts().1.to_owned();
        let folder = folder.map_or_else(|| places.data().join("weights").join(&sha256[..16]), Path::to_path_buf);
        Ok(Self { url: url.to_owned(), sha256, folder, mirror: None })
    }

    /// The same file from another address, in front of its name.
    #[must_use]
    pub fn from(self, mirror: &str) -> Self {
        Self { mirror: Some(mirror.trim_end_matches('/').to_owned()), ..self }
    }

    /// Where it is asked for.
    pub fn asked(&self) -> String {
        self.mirror.as_ref().map_or_else(|| self.url.clone(), |mirror| format!("{mirror}/{}", self.name()))
    }

    /// Where it lies, if it is here.
    pub fn path(&self) -> PathBuf {
        self.folder.join(self.name())
    }

    /// The last part of the address, without what no file name should have.
    fn name(&self) -> String {
        let address = self.url.split(['?', '#']).next().unwrap_or_default();
        let last = address.rsplit('/').next().unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
        let name: String = last.chars().map(plain).take(LONGEST_NAME).collect();
        let name = name.trim_start_matches('.');
        if name.is_empty() { "weights".to_owned() } else { name.to_owned() }
    }

    /// The command that brings it.
    pub fn command(&self) -> String {
        format!("kinset data fetch {} --sha256 {}", self.url, self.sha256)
    }

    /// Its place, if something is there; what it adds up to is for the reader to check.
    ///
    /// # Errors
    /// [`DatasetError::NotFetched`] with the command that brings it.
    pub fn find(&self) -> Result<PathBuf, DatasetError> {
        let path = self.path();
        if fs::metadata(&path)?.is_some_and(|found| found.is_file()) {
            return Ok(path);
        }
        Err(DatasetError::NotFetched { url: self.url.clone(), place: path.display().to_string(), command: self.command() })
    }

    /// Brings it, if it is not here with the right checksum. `pause` is the first one after a failure, `patience` how long
    /// silence is borne.
    pub fn fetch(&self, pause: Duration, patience: Duration, tell: &mut dyn FnMut(FetchEvent)) -> Result<Outcome, FetchError> {
        let path = self.path();
        let sum = Sum::Sha256(self.sha256.clone());
        if fs::exists(&path) {
            tell(FetchEvent::Verifying(self.name()));
            match checked(&sum, &path, &path) {
                Ok(()) => return Ok(Outcome::There(path)),
                Err(FetchError::Checksum { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let remote = Remote { name: self.name(), urls: vec![self.asked()], sum, most: MOST, unpacked: None };
        let hidden = self.folder.join(super::set::HIDDEN);
        let arrived = download(&Client::new(pause, patience), &remote, &hidden, tell).map_err(|error| match error {
            error @ (FetchError::Network { .. } | FetchError::Status { .. } | FetchError::Checksum { .. }) => {
                let how = format!("by hand: get {} and put it at `{}`", self.url, path.display());
                FetchError::ByHand { source: Box::new(error), how }
            }
            other => other,
        })?;
        fs::rename(&arrived, &path)?;
        fs::remove_folder(&hidden)?;
        Ok(Outcome::Fetched(path))
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::super::server::{Reply, Server};
    use super::*;
    use kinset_base::fault::{Exit, Fault};

    const DIGITS: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn weights(url: &str) -> Weights {
        Weights::new(url, &DIGITS.to_uppercase(), None, &DataPaths::new("", Some("d".into()), None)).unwrap()
    }

    #[test]
    fn the_place_is_made_of_checksum_and_name_and_stays_in_its_folder() {
        let folder = Path::new("d/weights/ba7816bf8f01cfea");
        assert_eq!(weights("https://x.org/a/scan_cifar-10.pth.tar").path(), folder.join("scan_cifar-10.pth.tar"));
        assert_eq!(weights("https://x.org/m.safetensors?download=true#x").path(), folder.join("m.safetensors"));
        assert_eq!(weights("https://x.org/").path(), folder.join("weights"));
        for wicked in ["https://x.org/..", "https://x.org/a\\..\\b", "https://x.org/\u{202e}x", "https://x.org/.fetch"] {
            let path = weights(wicked).path();
            assert_eq!(path.parent(), Some(folder), "{}", path.display());
            assert!(path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')), "{}", path.display());
        }
        assert!(Weights::new("https://x.org/a", "abc", None, &DataPaths::new("", None, None)).is_err());
    }

    #[test]
    fn a_missing_file_names_the_command_that_brings_it() {
        let error = weights("https://x.org/a.pth").find().unwrap_err();
        assert_eq!((error.exit(), error.code()), (Exit::Data, "dataset::not-fetched"));
        let hint = error.hint().unwrap();
        assert!(hint.contains(&format!("kinset data fetch https://x.org/a.pth --sha256 {DIGITS}")), "{hint}");
    }

    #[test]
    fn it_comes_once_and_a_wrong_one_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::new(vec![Reply::file(b"abc"), Reply::file(b"abd")]);
        let places = DataPaths::new("", Some(dir.path().into()), None);
        let fetch = |weights: &Weights| weights.fetch(Duration::from_millis(1), Duration::from_millis(500), &mut |_| {});
        let right = Weights::new(&server.url("net.pth"), DIGITS, None, &places).unwrap();
        assert_eq!(fetch(&right).unwrap(), Outcome::Fetched(right.path()));
        assert_eq!(fs::read(&right.find().unwrap()).unwrap(), b"abc");
        assert_eq!(fetch(&right).unwrap(), Outcome::There(right.path()), "the server is not asked again");

        let other = kinset_base::unit::hex(&Sha256::digest(b"abx"));
        let wrong = Weights::new(&server.url("net.pth"), &other, None, &places).unwrap();
        let error = fetch(&wrong).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("by hand")), "{error}");
        assert!(wrong.find().is_err());
    }
}
