//! An S3 server of one test: Moto, which keeps its objects in memory, on a free port, stopped by its process id.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use crate::server::{WAIT, WAIT_COUNT_MAX, free_port};

/// Where Moto is; `make setup` says it.
const SERVER: Option<&str> = option_env!("SUBAK_TEST_MOTO");

/// A running server with one bucket.
#[derive(Debug)]
pub struct Objects {
    process: Child,
    port: u16,
    bucket: String,
}

impl Objects {
    /// Starts a server and makes the bucket.
    ///
    /// # Panics
    /// When Moto is not installed or does not start.
    pub fn start(bucket: &str) -> Self {
        let server = SERVER.unwrap_or_else(|| panic!("Moto is not installed; `make setup` does it"));
        let port = free_port();
        let mut command = Command::new(server);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("the server starts");
        let server = Self { process, port, bucket: bucket.to_owned() };
        for _ in 0..WAIT_COUNT_MAX {
            if server.curl("PUT", "", None) {
                return server;
            }
            std::thread::sleep(WAIT);
        }
        panic!("Moto does not start");
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn curl(&self, method: &str, key: &str, body: Option<&[u8]>) -> bool {
        let mut command = Command::new("curl");
        command.args(["--silent", "--fail", "--max-time", "20", "--request", method]);
        // Moto asks who it is, and takes every signature.
        let who =
            "authorization: AWS4-HMAC-SHA256 Credential=me/20250101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        command.args(["--header", who]);
        if body.is_some() {
            command.args(["--data-binary", "@-", "--header", "content-type: application/octet-stream", "--header", "expect:"]);
        }
        command.arg(format!("{}/{}/{key}", self.url(), self.bucket)).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.stdin(Stdio::piped()).spawn().expect("curl starts");
        let mut input = child.stdin.take().expect("its input");
        // A server that is not there yet takes nothing.
        drop(input.write_all(body.unwrap_or_default()));
        drop(input);
        child.wait().is_ok_and(|status| status.success())
    }

    /// Puts an object; its key as it stands in an address.
    ///
    /// # Panics
    /// When the server does not take it.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        assert!(self.curl("PUT", key, Some(bytes)), "{key} is not taken");
    }

    /// Removes an object.
    ///
    /// # Panics
    /// When the server does not.
    pub fn delete(&self, key: &str) {
        assert!(self.curl("DELETE", key, None), "{key} is not removed");
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
