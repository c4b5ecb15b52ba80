//! A small HTTP/1.1 server, as much as one page of one reader needs: requests with a length, answers with a length, connections that stay
//! open. What is longer, later or other than that is refused.
//!
//! # Source
//! RFC 9112, message syntax and connections.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes of a request before its body.
const HEAD: u64 = 16 << 10;
/// Bytes of a body: a change of a million images is shorter.
const BODY: u64 = 64 << 20;
/// A connection that says nothing for so long is closed.
const IDLE: Duration = Duration::from_mins(1);
/// Connections at a time; a browser opens six.
const CONNECTIONS: usize = 64;

/// What was asked.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    /// From the first `/`, as it came.
    pub(super) path: String,
    /// Names in lower case, in their order.
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    #[cfg(test)]
    pub(super) fn test(method: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { method: method.to_owned(), path: path.to_owned(), headers, body: Vec::new() }
    }

    /// A header; nothing if it is not there, or there twice.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(own, _)| own == name);
        let first = found.next()?;
        found.next().is_none().then_some(first.1.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(own, _)| own == name)
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Its MIME type.
    pub(super) kind: &'static str,
    /// True for what never changes at its address.
    pub(super) keep: bool,
    pub(super) body: Vec<u8>,
}

impl Response {
    pub(super) fn new(status: u16, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, kind, keep: false, body: body.into() }
    }

    pub(super) fn text(status: u16, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text)
    }

    /// To be kept by the browser.
    pub(super) fn kept(self) -> Self {
        Self { keep: true, ..self }
    }
}

/// Answers everybody who connects, each in a thread. Ends only if connections cannot be taken any more.
pub(super) fn serve(listener: &TcpListener, answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> io::Result<()> {
    let (answer, open) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // Whoever has gone before it was taken is nobody's fault.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => continue,
            Err(error) => return Err(error),
        };
        if open.load(Ordering::Relaxed) >= CONNECTIONS {
            continue;
        }
        let (answer, held) = (Arc::clone(&answer), Held::new(&open));
        std::thread::Builder::new().name("connection".into()).spawn(move || {
            let _held = held;
            // A connection that breaks concerns nobody but who has broken it.
            let _ = talk(&stream, &*answer);
        })?;
    }
}

/// Counts a connection as long as it is open.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn talk(stream: &TcpStream, answer: &dyn Fn(&Request) -> Response) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut from = BufReader::new(stream);
    loop {
        match read(&mut from)? {
            Heard::Nothing => return Ok(()),
            Heard::Wrong(status) => return write(stream, &Response::text(status, "this is no request"), false, true),
            Heard::Request(request) => {
                let stays = !request.header("connection").is_some_and(|word| word.eq_ignore_ascii_case("close"));
                write(stream, &answer(&request), request.method == "HEAD", !stays)?;
                if !stays {
                    return Ok(());
                }
            }
        }
    }
}

/// What came in.
enum Heard {
    Request(Request),
    /// The other side has closed the connection.
    Nothing,
    /// Not understood, with the status that says why.
    Wrong(u16),
}

fn read(from: &mut impl BufRead) -> io::Result<Heard> {
    let mut left = HEAD;
    let mut line = |from: &mut dyn BufRead| -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = from.take(left).read_until(b'\n', &mut bytes)?;
        left -= read as u64;
        if !bytes.ends_with(b"\n") {
            return Ok(None);
        }
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    };
    if from.fill_buf()?.is_empty() {
        return Ok(Heard::Nothing);
    }
    let Some(first) = line(from)? else { return Ok(Heard::Wrong(431)) };
    let words: Vec<&str> = first.split(' ').collect();
    let [method, path, "HTTP/1.1" | "HTTP/1.0"] = words[..] else { return Ok(Heard::Wrong(400)) };
    if !path.starts_with('/') {
        return Ok(Heard::Wrong(400));
    }
    let mut request = Request { method: method.to_owned(), path: path.to_owned(), ..Request::default() };
    loop {
        let Some(header) = line(from)? else { return Ok(Heard::Wrong(431)) };
        if header.is_empty() {
            break;
        }
        let Some((name, value)) = header.split_once(':') else { return Ok(Heard::Wrong(400)) };
        if name.is_empty() || name.contains([' ', '\t']) {
            return Ok(Heard::Wrong(400));
        }
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if request.has("transfer-encoding") {
        return Ok(Heard::Wrong(501));
    }
    if request.has("content-length") {
        let length = request.header("content-length").and_then(|text| text.parse::<u64>().ok());
        let Some(length) = length else { return Ok(Heard::Wrong(400)) };
        if length > BODY {
            return Ok(Heard::Wrong(413));
        }
        from.take(length).read_to_end(&mut request.body)?;
        if (request.body.len() as u64) < length {
            return Ok(Heard::Nothing);
        }
    }
    Ok(Heard::Request(request))
}

/// What every answer says: nobody else may frame, read, guess or pass on what it is.
const ALWAYS: &str = "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\nCross-Origin-Opener-Policy: same-origin\r\n\
    Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n";

fn write(mut to: &TcpStream, response: &Response, head_only: bool, last: bool) -> io::Result<()> {
    let Response { status, kind, keep, body } = response;
    let reason = match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        _ => "Refused",
    };
    let cache = if *keep { "private, max-age=86400, immutable" } else { "no-store" };
    let connection = if last { "close" } else { "keep-alive" };
    let length = if *status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let mut bytes = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\n{length}Cache-Control: {cache}\r\nConnection: {connection}\r\n{ALWAYS}\r\n",
    )
    .into_bytes();
    if !head_only && *status != 204 {
        bytes.extend_from_slice(body);
    }
    to.write_all(&bytes)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bytes: &[u8]) -> Heard {
        read(&mut BufReader::new(bytes)).unwrap()
    }

    fn request(bytes: &[u8]) -> Request {
        match heard(bytes) {
            Heard::Request(request) => request,
            _ => panic!("{}", String::from_utf8_lossy(bytes)),
        }
    }

    #[test]
    fn requests_are_read_one_after_the_other_with_their_bodies() {
        let bytes = b"POST /a/b HTTP/1.1\r\nHost: x\r\nCONTENT-length: 3\r\n\r\nabcGET / HTTP/1.1\r\nhost:y\n\n";
        let mut from = BufReader::new(&bytes[..]);
        let (Heard::Request(first), Heard::Request(second)) = (read(&mut from).unwrap(), read(&mut from).unwrap()) else {
            panic!("two requests")
        };
        assert_eq!((first.method.as_str(), first.path.as_str(), first.body.as_slice()), ("POST", "/a/b", &b"abc"[..]));
        assert_eq!((first.header("host"), second.header("host"), second.path.as_str()), (Some("x"), Some("y"), "/"));
        assert!(matches!(read(&mut from).unwrap(), Heard::Nothing));
    }

    #[test]
    fn what_is_no_request_is_refused_and_a_header_that_is_there_twice_is_none() {
        let wrong = |bytes: &[u8]| match heard(bytes) {
            Heard::Wrong(status) => status,
            Heard::Nothing => 0,
            Heard::Request(_) => 200,
        };
        assert_eq!(wrong(b"GET http://evil/ HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(wrong(b"GET / HTTP/2\r\n\r\n"), 400);
        assert_eq!(wrong(b"GET / HTTP/1.1\r\nno header\r\n\r\n"), 400);
        assert_eq!(wrong(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"), 400);
        assert_eq!(wrong(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 501);
        assert_eq!(wrong(b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"), 413);
        assert_eq!(wrong(b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"), 400);
        assert_eq!(wrong(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab"), 0, "it ends too early");
        assert_eq!(wrong(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000)).as_bytes()), 431);
        let endless = [&b"GET / HTTP/1.1\r\n"[..], &b"a: b\r\n".repeat(4000)].concat();
        assert_eq!(wrong(&endless), 431);
        assert_eq!(request(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").header("host"), None);
    }

    #[test]
    fn answers_go_out_whole_and_a_connection_is_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener, |request| Response::text(200, &request.path).kept()));
        let mut stream = TcpStream::connect(address).unwrap();
        for (path, last) in [("/one", ""), ("/two", "Connection: close\r\n")] {
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{last}\r\n").as_bytes()).unwrap();
        }
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 2, "{said}");
        assert!(said.contains("\r\n\r\n/one") && said.ends_with("\r\n\r\n/two") && said.contains("immutable"), "{said}");
        assert_eq!(said.matches("frame-ancestors 'none'").count(), 2);
    }
}
