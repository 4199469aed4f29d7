//! A request over HTTP and what came back. Those who make them and those who send them know nothing else of each other.

use std::time::Duration;

/// A request with everything filled in.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// The method, in capitals.
    pub method: String,
    /// The address.
    pub url: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// What is sent.
    pub body: Option<String>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The body: at most a mebibyte of it.
    pub text: String,
    /// How long the other side asks to wait before another try.
    pub retry_after: Option<Duration>,
}
