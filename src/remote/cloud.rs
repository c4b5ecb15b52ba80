//! Objects of S3, Google Cloud Storage, Azure, a folder and a web server: the crate `object_store`, asked from ordinary threads.
//!
//! It is asynchronous, and brings an HTTP client of its own if it may. Here each question is a runtime on the thread that asks, and the
//! client is the ureq that fetches data sets. Credentials are what `object_store` finds in the environment, or from the machine in a cloud.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path as FilePath;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::{Body, Frame};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, GetOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    RetryConfig,
};
use ureq::{Agent, AsSendBody};

use kinset_base::fs::{self, FileError};

use super::address::{Address, Scheme};
use super::objects::{Object, Objects, Trouble};

/// Larger objects are sent in parts.
const SMALL: u64 = 8 << 20;
/// The size of a part, unless there would be more than [`PARTS`] of them.
const PART: u64 = 16 << 20;
const PARTS: u64 = 9000;

/// How much of an answer is read at a time.
const PIECE: usize = 1 << 18;

/// Vain questions in a row before a server is given up. One that is silent is given up at once.
const RETRIES: usize = 3;

pub(super) struct Cloud {
    store: Arc<dyn ObjectStore>,
    /// Before the names of all objects.
    prefix: String,
}

impl Cloud {
    pub(super) fn open(address: &Address, patience: Duration) -> Result<Self, Trouble> {
        let Address { scheme, root, prefix } = address;
        let connector = Connector { patience };
        let retry = RetryConfig { max_retries: RETRIES, ..RetryConfig::default() };
        let store: Arc<dyn ObjectStore> = match scheme {
            Scheme::S3 => {
                let builder =
                    AmazonS3Builder::from_env().with_bucket_name(root).with_retry(retry).with_http_connector(connector);
                Arc::new(builder.build().map_err(trouble)?)
            }
            Scheme::Gs => {
                let builder = GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(root)
                    .with_retry(retry)
                    .with_http_connector(connector);
                Arc::new(builder.build().map_err(trouble)?)
            }
            Scheme::Az => {
                let builder = MicrosoftAzureBuilder::from_env()
                    .with_container_name(root)
                    .with_retry(retry)
                    .with_http_connector(connector);
                Arc::new(builder.build().map_err(trouble)?)
            }
            Scheme::Http | Scheme::Https => {
                let options = ClientOptions::new().with_allow_http(*scheme == Scheme::Http);
                let url = Address { prefix: String::new(), ..address.clone() }.to_string();
                let builder = HttpBuilder::new()
                    .with_url(url)
                    .with_client_options(options)
                    .with_retry(retry)
                    .with_http_connector(connector);
                Arc::new(builder.build().map_err(trouble)?)
            }
            Scheme::File => {
                let folder = FilePath::new("/").join(prefix);
                if !fs::exists(&folder) && fs::exists(fs::parent(&folder)) {
                    fs::create_folders(&folder).map_err(|error| Trouble::Refused(error.source.to_string()))?;
                }
                Arc::new(LocalFileSystem::new_with_prefix(&folder).map_err(trouble)?.with_fsync(true))
            }
        };
        let prefix = if *scheme == Scheme::File { String::new() } else { prefix.clone() };
        Ok(Self { store, prefix })
    }

    fn path(&self, name: &str) -> Result<Path, Trouble> {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        Path::parse(format!("{}{slash}{name}", self.prefix)).map_err(|error| Trouble::Refused(error.to_string()))
    }

    fn put(&self, name: &str, content: &[u8], mode: PutMode) -> Result<bool, Trouble> {
        let path = self.path(name)?;
        let options = PutOptions { mode, ..PutOptions::default() };
        match wait(self.store.put_opts(&path, Bytes::copy_from_slice(content).into(), options))? {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(trouble(error)),
        }
    }
}

/// Waits for an answer, on this thread.
fn wait<T>(question: impl Future<Output = T>) -> Result<T, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    Ok(runtime.map_err(|error| Trouble::Unreachable(error.to_string()))?.block_on(question))
}

impl Objects for Cloud {
    fn look(&self, name: &str) -> Result<Option<Object>, Trouble> {
        let path = self.path(name)?;
        match wait(self.store.head(&path))? {
            Ok(found) => Ok(Some(Object { size: found.size, changed: found.last_modified.timestamp() as f64 })),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(trouble(error)),
        }
    }

    fn read(&self, name: &str, take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<bool, Trouble> {
        let path = self.path(name)?;
        wait(async {
            let found = match self.store.get_opts(&path, GetOptions::default()).await {
                Ok(found) => found,
                Err(Error::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(trouble(error)),
            };
            let mut pieces = found.into_stream();
            while let Some(piece) = pieces.next().await {
                if take(&piece.map_err(trouble)?).is_break() {
                    break;
                }
            }
            Ok(true)
        })?
    }

    fn create(&self, name: &str, content: &[u8]) -> Result<bool, Trouble> {
        self.put(name, content, PutMode::Create)
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), Trouble> {
        self.put(name, content, PutMode::Overwrite).map(drop)
    }

    fn upload(
        &self,
        name: &str,
        from: &mut dyn Read,
        size: u64,
        going: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<bool, Trouble> {
        let mut part = |most: u64| {
            let mut bytes = Vec::new();
            let read = from.take(most).read_to_end(&mut bytes);
            read.map(|_| Bytes::from(bytes)).map_err(|error| Trouble::Here(FileError::new("read", FilePath::new(name), error)))
        };
        if size <= SMALL {
            let bytes = part(size)?;
            if going(bytes.len() as u64).is_break() {
                return Ok(false);
            }
            return self.put(name, &bytes, PutMode::Overwrite);
        }
        let length = PART.max(size.div_ceil(PARTS));
        let path = self.path(name)?;
        wait(async {
            let mut upload = self.store.put_multipart_opts(&path, PutMultipartOptions::default()).await.map_err(trouble)?;
            match parts(&mut *upload, size.div_ceil(length), &mut || part(length), going).await {
                Ok(true) => {
                    upload.complete().await.map_err(trouble)?;
                    Ok(true)
                }
                ended => {
                    // What it would say of that, it has said of the part.
                    let _ = upload.abort().await;
                    ended
                }
            }
        })?
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, Object)>, Trouble> {
        let path = self.path(folder)?;
        let before = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        wait(async {
            let (mut found, mut objects) = (Vec::new(), self.store.list(Some(&path)));
            while let Some(object) = objects.next().await {
                let object = object.map_err(trouble)?;
                let name = object.location.as_ref().get(before..).unwrap_or_default().to_owned();
                found.push((name, Object { size: object.size, changed: object.last_modified.timestamp() as f64 }));
            }
            Ok(found)
        })?
    }

    fn remove(&self, name: &str) -> Result<(), Trouble> {
        let path = self.path(name)?;
        match wait(self.store.delete(&path))? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(trouble(error)),
        }
    }
}

/// Sends so many parts. `false`: somebody has enough.
async fn parts(
    upload: &mut dyn MultipartUpload,
    count: u64,
    part: &mut dyn FnMut() -> Result<Bytes, Trouble>,
    going: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<bool, Trouble> {
    for _ in 0..count {
        let bytes = part()?;
        let length = bytes.len() as u64;
        upload.put_part(bytes.into()).await.map_err(trouble)?;
        if going(length).is_break() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn trouble(error: Error) -> Trouble {
    let refuses = matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. } | Error::NotFound { .. });
    let (mut deepest, mut denied): (&dyn std::error::Error, bool) = (&error, false);
    while let Some(cause) = deepest.source() {
        deepest = cause;
        denied |= deepest.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied);
    }
    let why = in_short(&deepest.to_string());
    // Of the server that gives out credentials, say.
    denied |= ["401", "403"].iter().any(|status| why.contains(&format!("status code: {status}")));
    if refuses || denied { Trouble::Refused(why) } else { Trouble::Unreachable(why) }
}

/// What a server says, on one line: of a document its code and message.
fn in_short(text: &str) -> String {
    /// Longer answers are pages for people.
    const LONGEST: usize = 300;
    let between = |tag: &str| {
        let rest = text.split_once(&format!("<{tag}>"))?.1;
        rest.split_once(&format!("</{tag}>")).map(|(said, _)| said.to_owned())
    };
    let said: Vec<String> = ["Code", "Message"].into_iter().filter_map(between).collect();
    let text = match text.find('<') {
        Some(document) => format!("{} {}", &text[..document].trim_end_matches([' ', ':']), said.join(": ")),
        None => text.to_owned(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > LONGEST { line.chars().take(LONGEST).chain(['…']).collect() } else { line }
}

/// Makes clients of ureq.
#[derive(Debug)]
struct Connector {
    /// Silence that is longer is the end of a connection.
    patience: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let config = || {
            Agent::config_builder()
                .http_status_as_error(false)
                .https_only(!plain)
                .timeout_connect(Some(self.patience))
                .timeout_recv_response(Some(self.patience))
                .timeout_per_read(Some(self.patience))
                .user_agent(concat!("kinset/", env!("CARGO_PKG_VERSION")))
        };
        let (agent, direct) = (config().build().new_agent(), config().proxy(None).build().new_agent());
        Ok(HttpClient::new(Client { agent, direct }))
    }
}

#[derive(Debug)]
struct Client {
    agent: Agent,
    /// For servers on this machine, which no proxy of the environment reaches.
    direct: Agent,
}

#[async_trait::async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, mut body) = request.into_parts();
        let mut content: Vec<Bytes> = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            content.extend(frame?.into_data());
        }
        let local = matches!(parts.uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let agent = if local { &self.direct } else { &self.agent };
        let has_body = matches!(parts.method.as_str(), "PUT" | "POST");
        // Most often it is one piece.
        let content = if let [one] = &*content { one.clone() } else { content.concat().into() };
        let answer = if has_body || !content.is_empty() { ask(agent, parts, &*content) } else { ask(agent, parts, ()) };
        let (parts, body) = answer.map_err(failed)?.into_parts();
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(Answer(Mutex::new(body.into_reader())))))
    }
}

fn ask(agent: &Agent, parts: http::request::Parts, body: impl AsSendBody) -> Result<http::Response<ureq::Body>, ureq::Error> {
    agent.run(http::Request::from_parts(parts, body))
}

/// The rest of an answer. The lock is for its type alone: one thread reads.
struct Answer(Mutex<ureq::BodyReader<'static>>);

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let mut piece = vec![0; PIECE];
        let mut reader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Poll::Ready(match reader.read(&mut piece) {
            Ok(0) => None,
            Ok(count) => {
                piece.truncate(count);
                Some(Ok(Frame::data(piece.into())))
            }
            Err(error) => Some(Err(failed(error.into()))),
        })
    }
}

/// An error by whether it is worth another try. Whoever is silent has had its time.
fn failed(error: ureq::Error) -> HttpError {
    let kind = match &error {
        ureq::Error::ConnectionFailed => HttpErrorKind::Connect,
        ureq::Error::Io(io) => match io.kind() {
            std::io::ErrorKind::ConnectionRefused => HttpErrorKind::Connect,
            std::io::ErrorKind::TimedOut => HttpErrorKind::Unknown,
            _ => HttpErrorKind::Interrupted,
        },
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_one_line() {
        let page = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code>\
                    <Message>Access Denied</Message></Error>";
        assert_eq!(in_short(page), "Server returned non-2xx status code: 403 Forbidden AccessDenied: Access Denied");
        assert_eq!(in_short("connection\n refused"), "connection refused");
        assert_eq!(in_short(&"x".repeat(1000)).chars().count(), 301);
    }

    #[test]
    fn a_folder_holds_objects_as_any_place_does() {
        let folder = tempfile::tempdir().unwrap();
        let address: Address = format!("file://{}/with blank", folder.path().display()).parse().unwrap();
        let cloud = Cloud::open(&address, Duration::from_secs(5)).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(cloud.look("records/12/x.json").unwrap(), None);
        assert!(cloud.create("records/12/x.json", b"one").unwrap());
        assert!(!cloud.create("records/12/x.json", b"two").unwrap());
        let mut read = Vec::new();
        let mut take = |piece: &[u8]| {
            read.extend_from_slice(piece);
            ControlFlow::Continue(())
        };
        assert!(cloud.read("records/12/x.json", &mut take).unwrap());
        assert_eq!(read, b"one");
        cloud.replace("records/12/x.json", b"three").unwrap();
        assert_eq!(cloud.look("records/12/x.json").unwrap().unwrap().size, 5);
        // In parts, and broken off.
        let large = vec![7_u8; 20 << 20];
        let mut gone = 0;
        let sent = cloud.upload("blobs/ab/large", &mut &*large, large.len() as u64, &mut |bytes| {
            gone += bytes;
            ControlFlow::Continue(())
        });
        assert!(sent.unwrap());
        assert_eq!((gone, cloud.look("blobs/ab/large").unwrap().unwrap().size), (20 << 20, 20 << 20));
        let sent = cloud.upload("blobs/ab/broken", &mut &*large, large.len() as u64, &mut |_| ControlFlow::Break(()));
        assert!(!sent.unwrap());
        assert_eq!(cloud.look("blobs/ab/broken").unwrap(), None);
        let mut names: Vec<String> = cloud.list("blobs").unwrap().into_iter().map(|(name, _)| name).collect();
        names.extend(cloud.list("records").unwrap().into_iter().map(|(name, _)| name));
        assert_eq!(names, ["blobs/ab/large", "records/12/x.json"]);
        cloud.remove("blobs/ab/large").unwrap();
        cloud.remove("blobs/ab/large").unwrap();
        assert_eq!(cloud.list("blobs").unwrap(), []);
        assert_eq!(fs::list(&folder.path().join("with blank/blobs/ab")).unwrap_or_default(), Vec::<std::path::PathBuf>::new());
    }
}
