//! The address of a remote store: `s3://bucket/team`, `file:///mnt/team`.

use std::fmt;
use std::str::FromStr;

use super::error::RemoteError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    S3,
    Gs,
    Az,
    File,
    Http,
    Https,
}

impl Scheme {
    const NAMES: [(&'static str, Self); 6] = [
        ("s3", Self::S3),
        ("gs", Self::Gs),
        ("az", Self::Az),
        ("file", Self::File),
        ("http", Self::Http),
        ("https", Self::Https),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|(_, scheme)| *scheme == self).map_or("", |(name, _)| name)
    }

    /// True if it is only read, by the names of its objects: it has no list of them.
    pub fn is_web(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// Where a remote store lies. Secrets are no part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub scheme: Scheme,
    /// The bucket, the container, the host with its port; empty for a folder.
    pub root: String,
    /// What stands before the names of all objects, without a slash at either end; of a folder its path.
    pub prefix: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, root, prefix } = self;
        let slash = if prefix.is_empty() { "" } else { "/" };
        write!(f, "{}://{root}{slash}{prefix}", scheme.name())
    }
}

/// What may stand for a URL.
pub const FORMS: &str =
    "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, file:///FOLDER, or to read only https://HOST/PATH";

impl FromStr for Address {
    type Err = RemoteError;

    fn from_str(url: &str) -> Result<Self, RemoteError> {
        let refuse = |why: &str| Err(RemoteError::Address { url: without_secrets(url), why: why.to_owned() });
        let Some((scheme, rest)) = url.split_once("://") else {
            let why =
                if url.starts_with('/') { format!("a folder is written `file://{url}`") } else { "it names no scheme".into() };
            return refuse(&why);
        };
        let scheme = scheme.to_ascii_lowercase();
        let Some((_, scheme)) = Scheme::NAMES.into_iter().find(|(name, _)| *name == scheme) else {
            return refuse("its scheme is not known");
        };
        let (root, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // Anywhere: a password may hold a slash.
        if scheme != Scheme::File && rest.contains('@') {
            return refuse("it holds a user or a password, which belong into the environment");
        }
        if url.contains(['?', '#', '%', '\\'])
            || url.chars().any(|c| c.is_control() || c.is_whitespace() && scheme != Scheme::File)
        {
            return refuse("it holds more than a place: no `?`, `#`, `%`, `\\` or blanks");
        }
        let prefix = prefix.trim_matches('/');
        if prefix.split('/').any(|part| matches!(part, "." | "..") || (part.is_empty() && !prefix.is_empty())) {
            return refuse("a part of its path is empty, `.` or `..`");
        }
        match scheme {
            Scheme::File if !matches!(root, "" | "localhost") || prefix.is_empty() => {
                return refuse("a folder is written with its whole path: `file:///mnt/team`");
            }
            Scheme::File => {}
            _ if root.is_empty() => return refuse("it names no bucket, container or host"),
            _ if root.contains(':') && !scheme.is_web() => return refuse("a bucket or container has no `:`"),
            _ => {}
        }
        let root = if scheme == Scheme::File { String::new() } else { root.to_owned() };
        Ok(Self { scheme, root, prefix: prefix.to_owned() })
    }
}

/// A URL as it may be shown: what stands before an `@`, or after a `?`, may be a secret.
fn without_secrets(url: &str) -> String {
    let url = url.split_once(['?', '#']).map_or(url, |(before, _)| before);
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::fault::{Exit, Fault};

    #[test]
    fn places_are_read_and_shown_as_they_are_written() {
        for (url, root, prefix, shown) in [
            ("s3://bucket", "bucket", "", "s3://bucket"),
            ("s3://bucket/", "bucket", "", "s3://bucket"),
            ("S3://bucket/a/b/", "bucket", "a/b", "s3://bucket/a/b"),
            ("gs://b/team", "b", "team", "gs://b/team"),
            ("az://c/team", "c", "team", "az://c/team"),
            ("file:///mnt/my team", "", "mnt/my team", "file:///mnt/my team"),
            ("file://localhost/mnt", "", "mnt", "file:///mnt"),
            ("http://127.0.0.1:8000/x", "127.0.0.1:8000", "x", "http://127.0.0.1:8000/x"),
        ] {
            let address: Address = url.parse().unwrap();
            assert_eq!((address.root.as_str(), address.prefix.as_str()), (root, prefix), "{url}");
            assert_eq!(address.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_place_is_refused_and_no_secret_is_repeated() {
        for url in [
            "",
            "bucket/team",
            "ftp://host/x",
            "s3://",
            "s3:///x",
            "s3://b/a//b",
            "s3://b/../x",
            "s3://b/a b",
            "file://",
            "file:///",
            "file://host/x",
            "az://c/x?sig=SECRET",
            "https://host/x#SECRET",
            "https://user:SECRET@host/x",
            "https://user:12/SECRET@host/x",
            "user:SECRET@host/x",
            "s3://key:SECRET/x@bucket",
            "s3://a:b/x",
            "s3://SECRET@bucket/x",
            "s3://b/a%20b",
        ] {
            let error = url.parse::<Address>().unwrap_err();
            assert_eq!((error.code(), error.exit()), ("remote::address", Exit::Usage), "{url}");
            assert!(!error.to_string().contains("SECRET") && !error.hint().unwrap().contains("SECRET"), "{error}");
        }
        assert!("/mnt/team".parse::<Address>().unwrap_err().to_string().contains("`file:///mnt/team`"));
    }
}
