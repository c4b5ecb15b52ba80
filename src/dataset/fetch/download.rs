//! The download of one file, resumed and retried whatever the network does.
//!
//! What came lies in a file that ends in `.part`, beside it a note of the address, the server's name for this version of the file
//! (a strong `ETag`, else `Last-Modified`) and its length. After a cut, the rest is asked for with `Range` and `If-Range`: a server
//! whose file has changed sends all of it, and the download begins again. The same holds after a kill.
//!
//! A server that is busy or breaks off is asked again, after pauses that double; as long as something comes, the patience begins
//! anew. The checksum has the last word: a file that is wrong after a resumed download is got once more from its beginning.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ureq::Agent;

use super::error::FetchError;
use super::remote::{Remote, Sum};
use kinset_base::fs::{self, At};
use kinset_base::unit;

type Result<T> = std::result::Result<T, FetchError>;

/// Vain attempts in a row before an address is given up.
const TRIES: u32 = 6;
/// Cuts in all before an address is given up: a server that sends a byte a time is no server.
const CUTS: u32 = 500;
/// The longest pause, and the longest that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What happens, for whoever shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchEvent {
    Started {
        name: String,
        url: String,
        /// Bytes that are here already.
        have: u64,
        /// Bytes in all, if the server says so.
        total: Option<u64>,
    },
    /// So many bytes are here.
    Received(u64),
    /// It will be asked again.
    Retrying {
        why: String,
        pause: Duration,
    },
    /// A file is here, and its checksum is computed.
    Verifying(String),
    Unpacking(String),
}

#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    /// For servers on this machine, which no proxy of the environment reaches.
    direct: Agent,
    /// The first pause; each further one is twice as long.
    pause: Duration,
}

impl Client {
    /// A client. Silence longer than `patience` is taken for a cut.
    pub fn new(pause: Duration, patience: Duration) -> Self {
        let config = || {
            Agent::config_builder()
                .http_status_as_error(false)
                .timeout_connect(Some(patience))
                .timeout_recv_response(Some(patience))
                .timeout_per_read(Some(patience))
                .user_agent(concat!("kinset/", env!("CARGO_PKG_VERSION")))
        };
        Self { agent: config().build().new_agent(), direct: config().proxy(None).build().new_agent(), pause }
    }

    fn agent(&self, url: &str) -> &Agent {
        let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|host| url.starts_with(host));
        if local { &self.direct } else { &self.agent }
    }
}

/// What is known of the file behind a `.part`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    url: String,
    /// What to send as `If-Range`.
    version: Option<String>,
    total: Option<u64>,
}

/// Why an attempt ended.
enum End {
    /// It may go better next time; after this, if the server says so.
    Cut { why: String, after: Option<Duration> },
    /// It will not.
    Never(FetchError),
}

impl From<FetchError> for End {
    fn from(error: FetchError) -> Self {
        Self::Never(error)
    }
}

impl From<fs::FileError> for End {
    fn from(error: fs::FileError) -> Self {
        Self::Never(error.into())
    }
}

/// Brings a file into a folder, whole and checked. What an earlier call left there is gone on with.
///
/// # Errors
/// [`FetchError::Network`], [`FetchError::Status`] of the last address, [`FetchError::TooLarge`], [`FetchError::Checksum`]; a
/// folder that cannot be written.
pub fn download(client: &Client, remote: &Remote, folder: &Path, tell: &mut dyn FnMut(FetchEvent)) -> Result<PathBuf> {
    let (whole, part) = (folder.join(&remote.name), folder.join(format!("{}.part", remote.name)));
    fs::create_folders(folder)?;
    let mut last = None;
    for url in &remote.urls {
        // A wrong file after a resumed download may be two halves of two files: once more, from its beginning.
        for again in [true, false] {
            let resumed = match bring(client, remote, url, &part, tell) {
                Ok(resumed) => resumed,
                Err(error @ FetchError::File(_)) => return Err(error),
                Err(error) => {
                    last = Some(error);
                    break;
                }
            };
            tell(FetchEvent::Verifying(remote.name.clone()));
            match checked(&remote.sum, &part, &whole) {
                Ok(()) => {
                    fs::rename(&part, &whole)?;
                    fs::remove(&note_of(&part))?;
                    return Ok(whole);
                }
                Err(error) => {
                    forget(&part)?;
                    last = Some(error);
                    if !(again && resumed) {
                        break;
                    }
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| FetchError::WrongSum { what: format!("`{}` has no address", remote.name) }))
}

/// Compares a file with a checksum; `name` is for the message.
pub fn checked(sum: &Sum, path: &Path, name: &Path) -> Result<()> {
    let (kind, wanted) = sum.parts();
    let found = match sum {
        Sum::Md5(_) => digits::<Md5>(path)?,
        Sum::Sha256(_) => digits::<Sha256>(path)?,
    };
    if found.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let (file, wanted) = (name.display().to_string(), wanted.to_owned());
    Err(FetchError::Checksum { file, kind, wanted, found })
}

fn digits<D: Digest>(path: &Path) -> Result<String> {
    let (mut file, mut hasher, mut buffer) = (fs::open(path)?, D::new(), vec![0; 1 << 18]);
    loop {
        let count = file.read(&mut buffer).at("read", path)?;
        if count == 0 {
            return Ok(unit::hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

fn note_of(part: &Path) -> PathBuf {
    part.with_extension("note")
}

fn forget(part: &Path) -> Result<()> {
    fs::remove(part)?;
    Ok(fs::remove(&note_of(part))?)
}

fn length(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.map_or(0, |found| found.len()))
}

/// What is known of what lies there, if it came from this address.
fn known(url: &str, part: &Path) -> Option<Note> {
    let note: Note = serde_json::from_slice(&fs::read_at_most(&note_of(part), 1 << 16).ok()?).ok()?;
    (note.url == url).then_some(note)
}

/// Asks an address until the file is there. True if some of it came earlier.
fn bring(client: &Client, remote: &Remote, url: &str, part: &Path, tell: &mut dyn FnMut(FetchEvent)) -> Result<bool> {
    let (mut vain, mut resumed) = (0, false);
    for cuts in 1.. {
        let before = length(part)?;
        resumed |= before > 0;
        match attempt(client, remote, url, part, tell) {
            Ok(()) => return Ok(resumed),
            Err(End::Never(error)) => return Err(error),
            Err(End::Cut { why, after }) => {
                vain = if length(part)? > before { 1 } else { vain + 1 };
                if vain >= TRIES || cuts >= CUTS {
                    return Err(FetchError::Network { url: url.to_owned(), why, tries: cuts });
                }
                let pause = client.pause.saturating_mul(1 << (vain - 1)).max(after.unwrap_or_default()).min(LONGEST_PAUSE);
                tell(FetchEvent::Retrying { why, pause });
                std::thread::sleep(pause);
            }
        }
    }
    unreachable!("the loop ends by returning")
}

/// Asks once for what is missing.
fn attempt(
    client: &Client,
    remote: &Remote,
    url: &str,
    part: &Path,
    tell: &mut dyn FnMut(FetchEvent),
) -> std::result::Result<(), End> {
    let cut = |why: String| End::Cut { why, after: None };
    let mut have = length(part)?;
    let note = known(url, part);
    if have > 0 && note.as_ref().is_some_and(|note| note.total == Some(have)) {
        return Ok(());
    }
    let mut request = client.agent(url).get(url).header("Accept-Encoding", "identity");
    match note.and_then(|note| note.version).filter(|_| have > 0) {
        Some(version) => request = request.header("Range", format!("bytes={have}-")).header("If-Range", version),
        // Without a name for the version, two halves may be of two files.
        None => have = 0,
    }
    let mut response = request.call().map_err(|error| refused(url, error))?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let number = |name: &str| header(name).and_then(|text| text.trim().parse::<u64>().ok());
    match response.status().as_u16() {
        200 => {
            have = 0;
            forget(part)?;
        }
        206 if have > 0 => {
            let range = header("content-range").unwrap_or_default();
            if !range.starts_with(&format!("bytes {have}-")) {
                forget(part)?;
                return Err(cut(format!("the server sends `{range}` instead of the rest from {have}")));
            }
        }
        // What lies here is longer than the file there.
        416 => {
            forget(part)?;
            return Err(cut("the server has no such rest".to_owned()));
        }
        status @ (408 | 425 | 429 | 500..=599) => {
            let after = number("retry-after").map(Duration::from_secs);
            return Err(End::Cut { why: format!("the server answers {status}"), after });
        }
        status => return Err(FetchError::Status { url: url.to_owned(), status }.into()),
    }
    let total = number("content-length").and_then(|rest| rest.checked_add(have));
    let too_large = || FetchError::TooLarge { url: url.to_owned(), most: remote.most };
    if total.is_some_and(|total| total > remote.most) {
        return Err(too_large().into());
    }
    if have == 0 {
        let strong = header("etag").filter(|tag| tag.starts_with('"'));
        let note = Note { url: url.to_owned(), version: strong.or_else(|| header("last-modified")), total };
        let text = serde_json::to_vec(&note).unwrap_or_default();
        fs::write_atomic(&note_of(part), &text)?;
    }
    tell(FetchEvent::Started { name: remote.name.clone(), url: url.to_owned(), have, total });
    let mut file = fs::append(part)?;
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 17];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) => return Err(cut(error.to_string())),
        };
        have += count as u64;
        if have > remote.most {
            return Err(too_large().into());
        }
        file.write_all(&buffer[..count]).at("write", part)?;
        tell(FetchEvent::Received(have));
    }
    if total.is_some_and(|total| have < total) {
        return Err(cut(format!("the connection ends after {have} of {} bytes", total.unwrap_or(0))));
    }
    file.sync_all().at("flush", part)?;
    Ok(())
}

fn refused(url: &str, error: ureq::Error) -> End {
    let why = error.to_string();
    match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
            End::Never(FetchError::Network { url: url.to_owned(), why, tries: 1 })
        }
        _ => End::Cut { why, after: None },
    }
}
