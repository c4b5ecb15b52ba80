//! Where is each data set published, and what must its files add up to?
//!
//! Addresses are those of the data sets' own pages; checksums are those the pages name (CIFAR) or those under which everybody gets
//! them (torchvision 0.2x for MNIST, Fashion-MNIST, STL-10 and SVHN). Most are served without encryption, so nothing is believed
//! before its checksum.

use super::error::FetchError;
use crate::registry::{Entry, Kind};

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
            return Err(FetchError::WrongSum { what: format!("`{digits}` is no SHA-256: 64 hexadecimal digits are") });
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

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// What it is called.
    pub name: String,
    /// Where it can be had, the best address first.
    pub urls: Vec<String>,
    /// What it must add up to.
    pub sum: Sum,
    /// More bytes are not taken.
    pub most: u64,
    /// If it is an archive: more bytes do not come out of it.
    pub unpacked: Option<u64>,
}

/// How a data set is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Supply {
    /// From these addresses.
    Files(Vec<Remote>),
    /// By hand only: it needs an account, or it is part of the repository.
    ByHand,
    /// It is the user's own, or drawn.
    None,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn file(name: &str, bases: &[&str], md5: &str, most: u64) -> Remote {
    let urls = bases.iter().map(|base| format!("{base}{name}")).collect();
    Remote { name: name.to_owned(), urls, sum: Sum::Md5(md5.to_owned()), most, unpacked: None }
}

fn archive(name: &str, bases: &[&str], md5: &str, most: u64, unpacked: u64) -> Remote {
    Remote { unpacked: Some(unpacked), ..file(name, bases, md5, most) }
}

const KRIZ: &[&str] = &["https://www.cs.toronto.edu/~kriz/"];
const COATES: &[&str] = &["http://ai.stanford.edu/~acoates/stl10/", "https://cs.stanford.edu/~acoates/stl10/"];
const NUMBERS: &[&str] = &["http://ufldl.stanford.edu/housenumbers/"];
const MNIST: &[&str] = &["https://ossci-datasets.s3.amazonaws.com/mnist/"];
const FASHION: &[&str] = &[
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
];

/// MNIST's four files.
fn four(bases: &[&str], md5: [&str; 4]) -> Vec<Remote> {
    let names =
        ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"];
    names.into_iter().zip(md5).map(|(name, md5)| file(name, bases, md5, 64 * MIB)).collect()
}

/// How a data set is to be had. `all` adds parts that few need: SVHN's extra images.
pub fn supply(entry: &Entry, all: bool) -> Supply {
    match entry.name {
        "mnist" => Supply::Files(four(
            MNIST,
            [
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ],
        )),
        "fashion-mnist" => Supply::Files(four(
            FASHION,
            [
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ],
        )),
        "cifar10" => {
            let md5 = "c32a1d4ab5d03f1284b67883e8d87530";
            Supply::Files(vec![archive("cifar-10-binary.tar.gz", KRIZ, md5, 256 * MIB, 256 * MIB)])
        }
        "cifar20" | "cifar100" => {
            let md5 = "03b5dce01913d631647c71ecec9e9cb8";
            Supply::Files(vec![archive("cifar-100-binary.tar.gz", KRIZ, md5, 256 * MIB, 256 * MIB)])
        }
        "stl10" => {
            let md5 = "91f7769df0f17e558f3565bffb0c7dfb";
            Supply::Files(vec![archive("stl10_binary.tar.gz", COATES, md5, 3 * GIB, 4 * GIB)])
        }
        "svhn" => {
            let mut files = vec![
                file("train_32x32.mat", NUMBERS, "e26dedcc434d2e4c54c9b2d4a06d8373", 256 * MIB),
                file("test_32x32.mat", NUMBERS, "eb5a983be6a315427106f1b164d9cef3", 256 * MIB),
            ];
            if all {
                files.push(file("extra_32x32.mat", NUMBERS, "a93ce644f1a588dc4d68dda5feec44a7", 2 * GIB));
            }
            Supply::Files(files)
        }
        _ if entry.needs_root() || entry.kind == Kind::Synthetic => Supply::None,
        _ => Supply::ByHand,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::entries;

    #[test]
    fn every_data_set_has_a_supply_and_every_file_a_whole_address_and_checksum() {
        let mut offered = Vec::new();
        for entry in entries() {
            let Supply::Files(files) = supply(entry, true) else { continue };
            offered.push(entry.name);
            for file in files {
                let (_, digits) = file.sum.parts();
                assert!(digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{}", file.name);
                assert!(!file.urls.is_empty() && file.most > 0);
                for url in &file.urls {
                    assert!(url.starts_with("http") && url.ends_with(&file.name), "{url}");
                }
                assert_eq!(file.unpacked.is_some(), file.name.ends_with(".tar.gz"), "{}", file.name);
            }
        }
        assert_eq!(offered, ["fashion-mnist", "mnist", "cifar10", "cifar20", "cifar100", "stl10", "svhn"]);
    }
}
