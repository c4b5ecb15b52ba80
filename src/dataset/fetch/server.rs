//! A server on this machine that misbehaves on request, for tests.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a client asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) range: Option<String>,
    pub(crate) if_range: Option<String>,
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    content: Vec<u8>,
    version: String,
    /// Bytes of the body after which the connection ends.
    cut: Option<usize>,
    /// Bytes of the body after which nothing comes, though the connection stands.
    stall: Option<usize>,
    claims: Option<usize>,
    endless: bool,
    begins_at: Option<usize>,
    location: Option<String>,
    drop: bool,
}

impl Reply {
    pub(crate) fn file(content: &[u8]) -> Self {
        Self {
            status: 200,
            content: content.to_vec(),
            version: "\"v1\"".into(),
            cut: None,
            stall: None,
            claims: None,
            endless: false,
            begins_at: None,
            location: None,
            drop: false,
        }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::file(b"no") }
    }

    /// Hangs up without a word.
    pub(crate) fn drop() -> Self {
        Self { drop: true, ..Self::file(b"") }
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self { location: Some(to.to_owned()), ..Self::status(302) }
    }

    pub(crate) fn cut(self, after: usize) -> Self {
        Self { cut: Some(after), ..self }
    }

    pub(crate) fn stalls(self, after: usize) -> Self {
        Self { stall: Some(after), ..self }
    }

    pub(crate) fn version(self, version: &str) -> Self {
        Self { version: version.to_owned(), ..self }
    }

    pub(crate) fn claims(self, length: usize) -> Self {
        Self { claims: Some(length), ..self }
    }

    /// Without a length, chunk after chunk.
    pub(crate) fn endless(self) -> Self {
        Self { endless: true, ..self }
    }

    /// Answers a question for a rest with the part that begins here.
    pub(crate) fn begins_at(self, place: usize) -> Self {
        Self { begins_at: Some(place), ..self }
    }

    /// Whatever goes wrong is the client's to notice.
    fn send(&self, stream: &mut TcpStream, asked: &Asked) -> std::io::Result<()> {
        if self.drop {
            return stream.shutdown(Shutdown::Both);
        }
        let from =
            asked.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let same = asked.if_range.as_deref() == Some(self.version.as_str());
        let (status, from) = match from {
            Some(from) if self.status == 200 && same => (206, self.begins_at.unwrap_or(from)),
            _ => (self.status, 0),
        };
        let body = &self.content[from.min(self.content.len())..];
        let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
        if !self.version.is_empty() {
            head.push_str(&format!("ETag: {}\r\n", self.version));
        }
        if status == 206 {
            head.push_str(&format!("Content-Range: bytes {from}-{}/{}\r\n", self.content.len() - 1, self.content.len()));
        }
        if let Some(location) = &self.location {
            head.push_str(&format!("Location: {location}\r\n"));
        }
        if self.endless {
            head.push_str("Transfer-Encoding: chunked\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            loop {
                stream.write_all(b"1000\r\n")?;
                stream.write_all(&[7; 0x1000])?;
                stream.write_all(b"\r\n")?;
            }
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.claims.unwrap_or(body.len())));
        stream.write_all(head.as_bytes())?;
        let sent = self.cut.or(self.stall).unwrap_or(body.len()).min(body.len());
        stream.write_all(&body[..sent])?;
        stream.flush()?;
        if self.stall.is_some() {
            std::thread::sleep(Duration::from_secs(2));
        }
        stream.shutdown(Shutdown::Both)
    }
}

/// A server that gives these answers, one after the other, and then hangs up.
pub(crate) struct Server {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) fn new(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut replies = replies.into_iter();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let mut request = Asked::default();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut empty = true;
                while let Some(Ok(line)) = lines.next() {
                    if line.is_empty() {
                        break;
                    }
                    empty = false;
                    let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
                    match name.to_ascii_lowercase().as_str() {
                        "range" => request.range = Some(value.to_owned()),
                        "if-range" => request.if_range = Some(value.to_owned()),
                        _ => {}
                    }
                }
                if empty {
                    continue;
                }
                heard.lock().unwrap().push(request.clone());
                let Some(reply) = replies.next() else { continue };
                // Beside the next answers: one that stalls keeps nobody waiting.
                std::thread::spawn(move || {
                    let _ = reply.send(&mut stream, &request);
                });
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// An address where nobody listens.
    pub(crate) fn nobody() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }
}
