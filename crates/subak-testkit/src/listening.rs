//! A served project that answers HTTP, and requests to it as they stand on the wire: nothing is mended on the way.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::Served;
use crate::server::free_port;

/// A served project that answers HTTP; the server is killed with the value.
pub struct Listening {
    /// The project.
    pub served: Served,
    /// Where it answers.
    pub port: u16,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The status.
    pub status: u16,
    /// The head and the body, as they came.
    pub text: String,
}

impl Heard {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> serde_json::Value {
        let body = self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body.trim()).unwrap_or_default()
    }

    /// A header by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = self.text.split_once("\r\n\r\n").map_or(self.text.as_str(), |(head, _)| head);
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The code of an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Listening {
    /// A project of these files and its server, with more arguments and variables.
    pub fn new(binary: &str, files: &[(&str, &str)], arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut listening = Self { served: Served::unstarted(binary, files), port: 0, arguments, variables };
        listening.restart();
        listening
    }

    /// Starts the server, or another one after it was killed.
    pub fn restart(&mut self) {
        self.port = free_port();
        let address = format!("127.0.0.1:{}", self.port);
        let mut arguments = vec!["--listen", &address];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let variables: Vec<(&str, &str)> = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.served.start_with(&arguments, &variables);
        let port = self.port;
        self.served.wait("the interface", |_| TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    /// Sends the head and the body of a request, and leaves the connection open.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut said = BTreeMap::from([("Host", "localhost"), ("Connection", "close")]);
        said.extend(headers.iter().copied());
        let said: Vec<String> = said.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let head = format!("{method} {path} HTTP/1.1\r\n{}Content-Length: {}\r\n\r\n", said.concat(), body.len());
        stream.write_all(head.as_bytes()).expect("sent");
        // A body that is too long is answered before all of it is read.
        drop(stream.write_all(body));
        stream
    }

    /// Sends a request, and waits for its answer.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Heard {
        let mut answer = Vec::new();
        drop(self.send(method, path, headers, body).read_to_end(&mut answer));
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        Heard { status: status.unwrap_or_else(|| panic!("no answer to {method} {path}: {text}")), text }
    }

    /// Sends JSON with a token.
    pub fn call(&self, token: &str, method: &str, path: &str, body: &str) -> Heard {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("Authorization", bearer.as_str())];
        if method != "GET" {
            headers.push(("Content-Type", "application/json"));
        }
        self.ask(method, path, &headers, body.as_bytes())
    }

    /// A user of this role, and a token that may do what they may.
    pub fn token(&self, role: &str) -> String {
        let name = format!("{role}-of-tests");
        let mut command = self.served.sandbox.command(&["user", "add", &name, "--role", role]);
        let mut child = command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().expect("starts");
        child.stdin.take().expect("open").write_all(format!("{PASSWORD}\n").as_bytes()).expect("written");
        child.wait().expect("it ends");
        let made = self.served.sandbox.command(&["token", "create", "tests", "--user", &name, "--role", role]).output();
        String::from_utf8(made.expect("it ends").stdout).expect("text").trim().to_owned()
    }
}

/// The password of every user that [`Listening::token`] adds.
pub const PASSWORD: &str = "a password of tests";
