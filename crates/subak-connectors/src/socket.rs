//! Connections that are read in large pieces: what arrives waits in one buffer, in which messages are found and read in place.

use std::io::{Error, ErrorKind};
use std::ops::Range;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Bytes that are asked for at a time.
const BUFFER_LENGTH: usize = 256 * 1024;

/// How long a silent peer is believed before it is asked whether it is there, how long until it is asked again, and how often.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_mins(1), Duration::from_secs(10), 6);

/// A way to send and receive bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to a server by its name, or to the socket at a path.
pub(crate) async fn connect(host: &str, port: u16) -> Result<Box<dyn Stream>, Error> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let (idle, between, count) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(between).with_retries(count);
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(Box::new(tcp))
}

/// Connects to the socket at a path.
pub(crate) async fn connect_path(path: &str) -> Result<Box<dyn Stream>, Error> {
    Ok(Box::new(UnixStream::connect(path).await?))
}

/// A connection and what has arrived on it.
pub(crate) struct Socket {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    /// What has arrived and was not taken.
    waiting: Range<usize>,
}

impl Socket {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, buffer: vec![0; BUFFER_LENGTH], waiting: 0..0 }
    }

    /// The bytes that wait.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.buffer[self.waiting.clone()]
    }

    /// Takes bytes that wait, at least so many of which have been received. They stand where they are until the next [`Self::receive`].
    pub(crate) fn take(&mut self, count: usize) -> Range<usize> {
        let taken = self.waiting.start..(self.waiting.start + count).min(self.waiting.end);
        self.waiting.start = taken.end;
        taken
    }

    /// Bytes that were taken.
    pub(crate) fn bytes(&self, place: Range<usize>) -> &[u8] {
        &self.buffer[place]
    }

    /// Removes `count` of the bytes that wait, `at` bytes behind their beginning.
    pub(crate) fn cut_out(&mut self, at: usize, count: usize) {
        let from = self.waiting.start + at;
        self.buffer.copy_within(from + count..self.waiting.end, from);
        self.waiting.end -= count;
    }

    /// Receives until so many bytes wait.
    pub(crate) async fn receive(&mut self, count: usize) -> Result<(), Error> {
        let Range { start, end } = self.waiting;
        if start + count > self.buffer.len() {
            self.buffer.copy_within(start..end, 0);
            self.waiting = 0..end - start;
        }
        while self.waiting.len() < count {
            if self.waiting.end == self.buffer.len() {
                // As it comes: a length alone, which may be wrong, takes no memory.
                let wanted = self.waiting.start + count;
                self.buffer.resize(wanted.min(self.buffer.len() * 2), 0);
            }
            let received = self.stream.read(&mut self.buffer[self.waiting.end..]).await?;
            if received == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "the server closed the connection"));
            }
            self.waiting.end += received;
        }
        Ok(())
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Puts another stream in the place of this one. Only between messages: what waits is dropped.
    pub(crate) fn replace(&mut self, stream: Box<dyn Stream>) -> Box<dyn Stream> {
        self.waiting = 0..0;
        std::mem::replace(&mut self.stream, stream)
    }
}
