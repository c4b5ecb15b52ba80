//! Access control: only the page that was opened at the address with the token is answered.
//!
//! Any page in the same browser can send requests to this machine, and a name that somebody else owns can lead to it (DNS rebinding).
//! So the host must be this machine by one of its own names, whatever the port, because a port may be forwarded; the origin, where a
//! browser says one, must be that host; and the first part of the path is a secret.

use super::http::{Request, Response};
use crate::base::unit::hex;

/// Bytes of the token.
const TOKEN: usize = 16;
/// This machine, as browsers call it.
const HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// What is asked of whoever comes.
#[derive(Debug)]
pub(super) struct Access {
    token: String,
}

impl Access {
    /// With a new token.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; TOKEN];
        getrandom::fill(&mut bytes)?;
        Ok(Self { token: hex(&bytes) })
    }

    /// The first part of every path.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// What is asked for behind the token, or the refusal.
    pub(super) fn pass<'r>(&self, request: &'r Request) -> Result<&'r str, Response> {
        let refused = |why: &str| Response::text(403, why);
        let host = request.header("host").ok_or_else(|| refused("no host"))?;
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(host, |(name, _)| name);
        if !HOSTS.contains(&name) {
            return Err(refused("this host is not known here"));
        }
        let foreign = |origin: &str| origin != format!("http://{host}");
        if request.has("origin") && request.header("origin").is_none_or(foreign) {
            return Err(refused("another origin"));
        }
        let elsewhere = |site: &str| !matches!(site, "same-origin" | "none");
        if request.has("sec-fetch-site") && request.header("sec-fetch-site").is_none_or(elsewhere) {
            return Err(refused("another site"));
        }
        let path = request.path.strip_prefix('/').unwrap_or_default();
        let (token, rest) = path.split_once('/').unwrap_or((path, ""));
        if !same(token, &self.token) {
            return Err(refused("the address lacks the token that `kinset view` has printed, or has an earlier one"));
        }
        match request.method.as_str() {
            "GET" | "HEAD" => Ok(rest),
            // Forms of other pages cannot send this type.
            "POST" if request.header("content-type") == Some("application/json") => Ok(rest),
            "POST" => Err(refused("not JSON")),
            _ => Err(Response::text(405, "GET or POST")),
        }
    }
}

/// Compares without telling by its time how much is right.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_of_this_machine_with_the_token_is_let_in() {
        let access = Access::new().unwrap();
        assert_eq!(access.token().len(), 2 * TOKEN);
        assert_ne!(access.token(), Access::new().unwrap().token());
        let path = format!("/{}/data", access.token());
        let asked = |method: &str, path: &str, headers: &[(&str, &str)]| {
            access.pass(&Request::test(method, path, headers)).map(str::to_owned).map_err(|refused| refused.status)
        };
        let host = ("host", "127.0.0.1:8000");
        let json = ("content-type", "application/json");
        assert_eq!(asked("GET", &path, &[host]), Ok("data".into()));
        assert_eq!(asked("GET", &path, &[("host", "localhost:9")]), Ok("data".into()), "a forwarded port");
        assert_eq!(asked("POST", &path, &[host, json, ("origin", "http://127.0.0.1:8000")]), Ok("data".into()));
        for (method, path, headers) in [
            ("GET", "/data", &[host][..]),
            ("GET", "/", &[host]),
            ("GET", &path[..path.len() - 6], &[host]),
            ("GET", &path, &[]),
            ("GET", &path, &[("host", "evil.example:8000")]),
            ("GET", &path, &[("host", "127.0.0.1.evil.example")]),
            ("GET", &path, &[host, ("host", "evil.example")]),
            ("GET", &path, &[host, ("origin", "http://evil.example")]),
            ("GET", &path, &[host, ("origin", "null")]),
            ("GET", &path, &[host, ("origin", "http://127.0.0.1:8001")]),
            ("GET", &path, &[host, ("sec-fetch-site", "cross-site")]),
            ("GET", &path, &[host, ("sec-fetch-site", "same-site")]),
            ("POST", &path, &[host]),
            ("POST", &path, &[host, ("content-type", "text/plain")]),
        ] {
            assert_eq!(asked(method, path, headers), Err(403), "{method} {path} {headers:?}");
        }
        assert_eq!(asked("PUT", &path, &[host]), Err(405));
    }
}
