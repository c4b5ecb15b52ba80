//! The download of a published data set: what of it is here, and what has to come.
//!
//! A set that is whole is left alone. A file that somebody put into the set's folder by hand is taken if its checksum is right, and
//! an archive of that kind is left there. Everything else comes into a hidden folder first, which readers do not see, and moves to
//! its place when it is whole and checked: a kill at any moment costs at most what was not on disk yet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::download::{Client, FetchEvent, checked, download};
use super::error::FetchError;
use super::remote::{Remote, Sum};
use super::unpack::unpack;
use crate::entry::Entry;
use crate::registry;
use crate::source::Source;
use kinset_base::fs;
use kinset_base::search_path::DataPaths;

type Result<T> = std::result::Result<T, FetchError>;

/// Where downloads grow, inside the set's folder.
pub(super) const HIDDEN: &str = ".fetch";

#[derive(Clone, Debug)]
pub struct Options {
    /// Where the set shall lie, if not in its usual place.
    pub root: Option<PathBuf>,
    /// An address in front of the files' names that is asked instead of the publishers'.
    pub from: Option<String>,
    /// Other checksums than the published ones: of a file, or of the only one.
    pub sums: Vec<(Option<String>, String)>,
    /// Also the parts that few need.
    pub all: bool,
    /// The first pause after a failure.
    pub pause: Duration,
    /// How long silence is borne.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let (pause, patience) = (Duration::from_secs(1), Duration::from_secs(45));
        Self { root: None, from: None, sums: Vec::new(), all: false, pause, patience }
    }
}

#[derive(Debug)]
pub struct Plan {
    pub folder: PathBuf,
    /// Where the set lies, if it is whole.
    pub there: Option<PathBuf>,
    /// Its published files, those that are here included.
    pub files: Vec<Remote>,
    source: Source,
    places: DataPaths,
    options: Options,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it was there.
    There(PathBuf),
    /// It lies there now.
    Fetched(PathBuf),
}

/// Looks at what is here; asks nobody.
///
/// # Errors
/// A set that nobody offers; a checksum that is none or belongs to no file.
pub fn plan(entry: &Entry, places: &DataPaths, options: Options) -> Result<Plan> {
    let wanted = entry.downloads.iter().filter(|file| options.all || !file.extra);
    let mut files: Vec<Remote> = wanted.map(Remote::from).collect();
    if files.is_empty() {
        return Err(FetchError::NotOffered { name: entry.name.to_owned(), advice: entry.advice.to_owned() });
    }
    if let Some(base) = &options.from {
        for file in &mut files {
            file.urls = vec![format!("{}/{}", base.trim_end_matches('/'), file.name)];
        }
    }
    for (name, digits) in &options.sums {
        replace(&mut files, name.as_deref(), digits)?;
    }
    let whole = files.len() == entry.downloads.len();
    let mut source = Source::named(entry.name).split(if whole { "all" } else { "train+test" });
    if let Some(root) = &options.root {
        source = source.root(fs::absolute(root).unwrap_or_else(|_| root.clone()));
    }
    let folder = options.root.clone().unwrap_or_else(|| places.data().join(entry.folder()));
    let there = registry::locate(&source, places).ok().and_then(|located| located.root);
    Ok(Plan { folder, there, files, source, places: places.clone(), options })
}

/// Takes another checksum on the user's word.
fn replace(files: &mut [Remote], name: Option<&str>, digits: &str) -> Result<()> {
    let wrong = |what: String| Err(FetchError::WrongSum { what });
    let sum = Sum::sha256(digits)?;
    let names: Vec<String> = files.iter().map(|file| format!("`{}`", file.name)).collect();
    match (name, files) {
        (None, [only]) => only.sum = sum,
        (None, _) => return wrong(format!("say which file the checksum is of, `NAME={digits}`: {}", names.join(", "))),
        (Some(name), files) => match files.iter_mut().find(|file| file.name == name) {
            Some(file) => file.sum = sum,
            None => return wrong(format!("no file is called `{name}`; there are {}", names.join(", "))),
        },
    }
    Ok(())
}

impl Plan {
    /// What to do without a network, with all addresses and places.
    pub fn by_hand(&self) -> String {
        let mut text = String::from("by hand, or on a machine that reaches them, get\n");
        for file in &self.files {
            text.push_str(&format!("  {}  ({})\n", file.urls.first().map_or("", String::as_str), file.sum));
        }
        let (what, them) = if self.files.len() == 1 { ("file", "it") } else { ("files", "them") };
        text.push_str(&format!(
            "put the {what} into `{}` and give the same command again: it checks {them}{}",
            self.folder.display(),
            if self.files.iter().any(|file| file.unpacked.is_some()) { " and unpacks what is packed" } else { "" }
        ));
        text
    }
}

/// Brings what is missing.
///
/// # Errors
/// [`FetchError::ByHand`] with what went wrong and what to do without a network; [`FetchError::Incomplete`].
pub fn fetch(plan: &Plan, tell: &mut dyn FnMut(FetchEvent)) -> Result<Outcome> {
    if let Some(there) = &plan.there {
        return Ok(Outcome::There(there.clone()));
    }
    let client = Client::new(plan.options.pause, plan.options.patience);
    let hidden = plan.folder.join(HIDDEN);
    for file in &plan.files {
        bring(&client, plan, file, &hidden, tell).map_err(|error| match error {
            error @ (FetchError::Network { .. } | FetchError::Status { .. } | FetchError::Checksum { .. }) => {
                let how = match (&error, kinset_base::fault::Fault::hint(&error)) {
                    (FetchError::Checksum { .. }, Some(hint)) => format!("{hint}\n{}", plan.by_hand()),
                    _ => plan.by_hand(),
                };
                FetchError::ByHand { source: Box::new(error), how }
            }
            other => other,
        })?;
    }
    fs::remove_folder(&hidden)?;
    let located = registry::locate(&plan.source, &plan.places).map_err(|error| FetchError::Incomplete(Box::new(error)))?;
    Ok(Outcome::Fetched(located.root.unwrap_or_else(|| plan.folder.clone())))
}

fn bring(client: &Client, plan: &Plan, file: &Remote, hidden: &Path, tell: &mut dyn FnMut(FetchEvent)) -> Result<()> {
    let own = plan.folder.join(&file.name);
    let mut whole = None;
    if fs::metadata(&own)?.is_some_and(|found| found.is_file()) {
        tell(FetchEvent::Verifying(file.name.clone()));
        match (checked(&file.sum, &own, &own), file.unpacked) {
            (Ok(()), None) => return Ok(()),
            (Ok(()), Some(_)) => whole = Some(own.clone()),
            // An archive that is not the published one stays where it is; a file that must be replaced is.
            (Err(FetchError::Checksum { .. }), _) => {}
            (Err(error), _) => return Err(error),
        }
    }
    let arrived = if let Some(own) = whole {
        own
    } else {
        let arrived = hidden.join(&file.name);
        let ready = fs::exists(&arrived) && checked(&file.sum, &arrived, &arrived).is_ok();
        if ready { arrived } else { download(client, file, hidden, tell)? }
    };
    match file.unpacked {
        None => fs::rename(&arrived, &own)?,
        Some(most) => {
            tell(FetchEvent::Unpacking(file.name.clone()));
            unpack(&arrived, &plan.folder, &hidden.join("unpacked"), most)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use md5::{Digest, Md5};

    use super::super::server::{Reply, Server};
    use super::*;
    use kinset_base::fault::Fault;

    fn remote(name: &str, content: &[u8], server: &Server) -> Remote {
        let digits = kinset_base::unit::hex(&Md5::digest(content));
        Remote { name: name.into(), urls: vec![server.url(name)], sum: Sum::Md5(digits), most: 1 << 20, unpacked: None }
    }

    fn content() -> Vec<u8> {
        (0..60_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect()
    }

    fn get(remote: &Remote, folder: &Path) -> (Result<PathBuf>, Vec<FetchEvent>) {
        let mut told = Vec::new();
        let client = Client::new(Duration::from_millis(1), Duration::from_millis(500));
        let result = download(&client, remote, folder, &mut |tell| {
            if !matches!(tell, FetchEvent::Received(_)) {
                told.push(tell);
            }
        });
        (result, told)
    }

    #[test]
    fn a_file_comes_whole_and_nothing_else_is_left() {
        let (dir, content) = (tempfile::tempdir().unwrap(), content());
        let server = Server::new(vec![Reply::file(&content)]);
        let path = get(&remote("a.bin", &content, &server), dir.path()).0.unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(fs::list(dir.path()).unwrap(), [path]);
    }

    #[test]
    fn cut_connections_are_resumed_where_they_broke() {
        let (dir, content) = (tempfile::tempdir().unwrap(), content());
        let server = Server::new(vec![
            Reply::file(&content).cut(50_000),
            Reply::file(&content).cut(80_000),
            Reply::file(&content).cut(1),
            Reply::file(&content),
        ]);
        let path = get(&remote("a.bin", &content, &server), dir.path()).0.unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        let asked = server.asked();
        assert!(asked[0].range.is_none());
        assert_eq!(asked[1].range.as_deref(), Some("bytes=50000-"));
        assert_eq!(asked[2].range.as_deref(), Some("bytes=130000-"));
        assert_eq!(asked[3].range.as_deref(), Some("bytes=130001-"));
        assert!(asked[1..].iter().all(|request| request.if_range.as_deref() == Some("\"v1\"")));
    }

    #[test]
    fn a_file_that_changes_on_the_way_begins_again() {
        let (dir, new) = (tempfile::tempdir().unwrap(), content());
        let old: Vec<u8> = new.iter().map(|byte| byte ^ 1).collect();
        let server = Server::new(vec![Reply::file(&old).cut(70_000), Reply::file(&new).version("\"v2\"")]);
        let path = get(&remote("a.bin", &new, &server), dir.path()).0.unwrap();
        assert_eq!(fs::read(&path).unwrap(), new);
    }

    #[test]
    fn a_server_that_mixes_two_versions_is_found_out_and_asked_from_the_beginning() {
        let (dir, new) = (tempfile::tempdir().unwrap(), content());
        let old: Vec<u8> = new.iter().map(|byte| byte ^ 1).collect();
        // The second answer claims to be the rest of the first, and is of another file.
        let server = Server::new(vec![Reply::file(&old).cut(70_000), Reply::file(&new), Reply::file(&new)]);
        let (result, told) = get(&remote("a.bin", &new, &server), dir.path());
        assert_eq!(fs::read(&result.unwrap()).unwrap(), new);
        assert_eq!(server.asked().len(), 3);
        assert_eq!(told.iter().filter(|tell| matches!(tell, FetchEvent::Verifying(_))).count(), 2);
    }

    #[test]
    fn without_a_name_for_the_version_nothing_is_pieced_together() {
        let (dir, content) = (tempfile::tempdir().unwrap(), content());
        let server = Server::new(vec![Reply::file(&content).version("").cut(70_000), Reply::file(&content).version("")]);
        get(&remote("a.bin", &content, &server), dir.path()).0.unwrap();
        assert!(server.asked().iter().all(|request| request.range.is_none()));
        let weak = Server::new(vec![Reply::file(&content).version("W/\"v1\"").cut(9), Reply::file(&content)]);
        get(&remote("b.bin", &content, &weak), dir.path()).0.unwrap();
        assert!(weak.asked().iter().all(|request| request.range.is_none()));
    }

    #[test]
    fn lengths_that_lie_cost_nothing_but_patience() {
        let (dir, content) = (tempfile::tempdir().unwrap(), content());
        // Promises more than it sends; then tells the truth.
        let server = Server::new(vec![Reply::file(&content).claims(300_000), Reply::file(&content)]);
        get(&remote("a.bin", &content, &server), dir.path()).0.unwrap();
        // Promises less: the file is short, and its checksum is wrong.
        let server = Server::new(vec![Reply::file(&content).claims(1000); 2]);
        let error = get(&remote("b.bin", &content, &server), dir.path()).0.unwrap_err();
        assert!(matches!(error, FetchError::Checksum { .. }), "{error}");
        // Promises more than any such file has, or sends without end.
        let large = Remote { most: 100_000, ..remote("c.bin", &content, &server) };
        for reply in [Reply::file(&content), Reply::file(&content).endless()] {
            let server = Server::new(vec![reply]);
            let error = get(&Remote { urls: vec![server.url("c.bin")], ..large.clone() }, dir.path()).0.unwrap_err();
            assert!(matches!(error, FetchError::TooLarge { most: 100_000, .. }), "{error}");
        }
    }

    #[test]
    fn busy_servers_are_asked_again_and_a_no_is_a_no() {
        let (dir, content) = (tempfile::tempdir().unwrap(), content());
        let server = Server::new(vec![Reply::status(503), Reply::status(429), Reply::drop(), Reply::file(&content)]);
        let (result, told) = get(&remote("a.bin", &content, &server), dir.path());
        result.unwrap();
        let pauses: Vec<u128> = told
            .iter()
            .filter_map(|tell| if let FetchEvent::Retrying { pause, .. } = tell { Some(pause.as_millis()) } else { None })
            .collect();
        assert_eq!(pauses, [1, 2, 4], "each twice as long");
        let server = Server::new(vec![Reply::status(404)]);
        let error = get(&remote("b.bin", &content, &server), dir.path()).0.unwrap_err();
        assert!(matches!(error, FetchError::Status { status: 404, .. }), "{error}");
        assert_eq!(server.asked().len(), 1);
        let server = Server::new(vec![Reply::status(500); 20]);
        let error = get(&remote("c.bin", &content, &server), dir.path()).0.unwrap_err();
        assert!(error.to_string().contains("500") && error.to_string().contains("tried 6 times"), "{error}");
    }

    #[test]
    fn a_second_address_helps_where_the_first_fails_and_redirects_are_followed() {
        let (dir, content) = (tempfile::tempdir().unwrap(), content());
        let (gone, good) = (Server::new(vec![Reply::status(410)]), Server::new(vec![Reply::file(&content)]));
        let urls = vec![gone.url("a.bin"), good.url("a.bin")];
        get(&Remote { urls, ..remote("a.bin", &content, &good) }, dir.path()).0.unwrap();
        let target = Server::new(vec![Reply::file(&content)]);
        let first = Server::new(vec![Reply::redirect(&target.url("b.bin"))]);
        get(&remote("b.bin", &content, &first), dir.path()).0.unwrap();
        let circle = Server::new(vec![Reply::redirect("/c.bin"); 40]);
        assert!(get(&remote("c.bin", &content, &circle), dir.path()).0.is_err());
    }

    #[test]
    fn what_an_earlier_run_left_is_gone_on_with_and_a_wrong_range_is_noticed() {
        let (dir, content) = (tempfile::tempdir().unwrap(), content());
        let server = Server::new(vec![Reply::file(&content).cut(100_000), Reply::status(404), Reply::file(&content)]);
        let remote_ = remote("a.bin", &content, &server);
        assert!(get(&remote_, dir.path()).0.is_err(), "as if killed");
        let (result, told) = get(&remote_, dir.path());
        result.unwrap();
        assert!(matches!(&told[0], FetchEvent::Started { have: 100_000, total: Some(240_000), .. }), "{told:?}");
        // A server that answers a question for the rest with another part.
        let server =
            Server::new(vec![Reply::file(&content).cut(9000), Reply::file(&content).begins_at(5), Reply::file(&content)]);
        let path = get(&remote("b.bin", &content, &server), dir.path()).0.unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
    }

    #[test]
    fn silence_is_a_cut() {
        let (dir, content) = (tempfile::tempdir().unwrap(), content());
        let server = Server::new(vec![Reply::file(&content).stalls(20_000), Reply::file(&content)]);
        get(&remote("a.bin", &content, &server), dir.path()).0.unwrap();
        assert_eq!(server.asked()[1].range.as_deref(), Some("bytes=20000-"));
    }

    #[test]
    fn nobody_there_is_said_with_what_to_do_by_hand() {
        let dir = tempfile::tempdir().unwrap();
        let places = DataPaths::new("", Some(dir.path().to_owned()), None);
        let from = Server::nobody();
        let options = Options { from: Some(from), pause: Duration::from_millis(1), ..Options::default() };
        let plan = plan(registry::find("stl10").unwrap(), &places, options).unwrap();
        let error = fetch(&plan, &mut |_| {}).unwrap_err();
        assert_eq!((error.code(), error.exit()), ("fetch::network", kinset_base::fault::Exit::Data));
        let hint = error.hint().unwrap();
        for words in ["stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb", "same command", "unpacks"] {
            assert!(hint.contains(words), "{hint}");
        }
        assert!(hint.contains(&dir.path().join("stl10").display().to_string()), "{hint}");
    }

    /// CIFAR's archive with records of zeros.
    fn cifar() -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let batch = vec![0_u8; 10_000 * 3073];
        for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(batch.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("cifar-10-batches-bin/{name}.bin"), batch.as_slice()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn a_whole_set_comes_is_checked_unpacked_and_then_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let places = DataPaths::new("", Some(dir.path().to_owned()), None);
        let archive = cifar();
        let sum = kinset_base::unit::hex(&sha2::Sha256::digest(&archive));
        let server = Server::new(vec![Reply::file(&archive).cut(archive.len() / 2), Reply::file(&archive)]);
        let entry = registry::find("cifar10").unwrap();
        let quick = Options { pause: Duration::from_millis(1), ..Options::default() };
        let options = |sums| Options { from: Some(server.url("")), sums, ..quick.clone() };
        let plan_ = plan(entry, &places, options(vec![(None, sum.clone())])).unwrap();
        let root = dir.path().join("cifar10/cifar-10-batches-bin");
        assert_eq!(fetch(&plan_, &mut |_| {}).unwrap(), Outcome::Fetched(root.clone()));
        assert_eq!(fs::list(&dir.path().join("cifar10")).unwrap(), std::slice::from_ref(&root));
        let again = plan(entry, &places, options(vec![])).unwrap();
        assert_eq!(fetch(&again, &mut |_| panic!("nothing is to be done")).unwrap(), Outcome::There(root));
        assert_eq!(server.asked().len(), 2);

        // Put there by hand, it is taken without asking anybody, and stays.
        let other = tempfile::tempdir().unwrap();
        let places = DataPaths::new("", Some(other.path().to_owned()), None);
        let own = other.path().join("cifar10/cifar-10-binary.tar.gz");
        fs::create_folders(own.parent().unwrap()).unwrap();
        fs::write_atomic(&own, &archive).unwrap();
        let nobody = Options { from: Some(Server::nobody()), sums: vec![(None, sum)], ..quick.clone() };
        fetch(&plan(entry, &places, nobody).unwrap(), &mut |_| {}).unwrap();
        assert!(fs::exists(&own));

        // The published checksum is not that of this archive.
        let third = tempfile::tempdir().unwrap();
        let places = DataPaths::new("", Some(third.path().to_owned()), None);
        let server = Server::new(vec![Reply::file(&archive)]);
        let plain = Options { from: Some(server.url("")), ..quick };
        let error = fetch(&plan(entry, &places, plain).unwrap(), &mut |_| {}).unwrap_err();
        assert_eq!(error.code(), "fetch::checksum");
        assert!(error.hint().unwrap().contains("--sha256"), "{}", error.hint().unwrap());
        assert!(!fs::exists(&third.path().join("cifar10/cifar-10-batches-bin")));
    }

    #[test]
    fn sets_that_nobody_offers_and_checksums_of_nothing_are_refused() {
        let places = DataPaths::new("", Some("/nowhere".into()), None);
        let fault = |name: &str, sums: Vec<(Option<String>, String)>| {
            plan(registry::find(name).unwrap(), &places, Options { sums, ..Options::default() }).unwrap_err()
        };
        for name in ["digits", "imagenet", "folder", "synthetic"] {
            assert_eq!(fault(name, vec![]).code(), "fetch::not-offered", "{name}");
        }
        let digits = "0".repeat(64);
        assert!(fault("mnist", vec![(None, digits.clone())]).to_string().contains("say which file"));
        assert!(fault("mnist", vec![(Some("x".into()), digits)]).to_string().contains("no file is called `x`"));
        assert!(fault("stl10", vec![(None, "abc".into())]).to_string().contains("64 hexadecimal digits"));
    }
}
