//! Copies out of the server. The driver hands over one row after the other through a queue between two tasks, which costs more than decoding
//! them. So the driver signs in and prepares, on a stream that it is lent; then the stream is taken back, and the messages of the copy
//! are read in place.

use std::io::{Error as IoError, ErrorKind};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use subak_connect::{ConnectError, ConnectErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::JoinSet;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, NoTls};
use tokio_rustls::TlsConnector;

use super::error::{self, Said};
use super::{CONNECT_TIMEOUT, Database};
use crate::socket::{self, Socket, Stream};

/// What asks for encryption: a length and a number that is no version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What says that nothing more comes.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// A stream that the driver uses until it is taken back.
#[derive(Clone)]
struct Lent(Arc<Mutex<Option<Box<dyn Stream>>>>);

impl Lent {
    fn with<T>(&self, work: impl FnOnce(Pin<&mut dyn Stream>) -> Poll<Result<T, IoError>>) -> Poll<Result<T, IoError>> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(stream) => work(Pin::new(stream.as_mut())),
            None => Poll::Ready(Err(IoError::new(ErrorKind::NotConnected, "the stream was taken back"))),
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<(), IoError>> {
        self.with(|stream| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, IoError>> {
        self.with(|stream| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        self.with(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        self.with(|stream| stream.poll_shutdown(context))
    }
}

/// A connection of the driver's that can become a copy.
pub(super) struct Reader {
    client: Client,
    lent: Lent,
    task: JoinSet<()>,
}

impl Deref for Reader {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Database {
    /// A connection of its own on which rows are read.
    pub(super) async fn reader(&self) -> Result<Reader, ConnectError> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.open_reader())
            .await
            .unwrap_or_else(|_| Err(error::unreachable(&self.name, &self.place(), "the server does not answer")))
    }

    async fn open_reader(&self) -> Result<Reader, ConnectError> {
        let unreachable = |error: IoError| error::unreachable(&self.name, &self.place(), &error.to_string());
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let stream = match self.config.get_hosts().first() {
            Some(Host::Unix(folder)) => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                socket::connect_path(&path.to_string_lossy()).await.map_err(unreachable)?
            }
            Some(Host::Tcp(name)) => {
                let plain = socket::connect(name, port).await.map_err(unreachable)?;
                self.encrypted(plain, name).await?
            }
            None => return Err(unreachable(IoError::new(ErrorKind::NotFound, "there is no host"))),
        };
        let lent = Lent(Arc::new(Mutex::new(Some(stream))));
        let mut config = (*self.config).clone();
        config.ssl_mode(SslMode::Disable);
        let connected = config.connect_raw(lent.clone(), NoTls).await;
        let (client, connection) = connected.map_err(|error| error::opening(&self.name, &self.place(), &error))?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // What goes wrong is told to whoever waits for an answer.
            drop(connection.await);
        });
        Ok(Reader { client, lent, task })
    }

    async fn encrypted(&self, mut stream: Box<dyn Stream>, host: &str) -> Result<Box<dyn Stream>, ConnectError> {
        let mode = self.config.get_ssl_mode();
        if mode == SslMode::Disable {
            return Ok(stream);
        }
        let unreachable = |error: IoError| error::unreachable(&self.name, &self.place(), &error.to_string());
        stream.write_all(&SSL_REQUEST).await.map_err(unreachable)?;
        stream.flush().await.map_err(unreachable)?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await.map_err(unreachable)?;
        let refused = |cause: &str| error::refuses_encryption(&self.name, &self.place(), cause);
        match (&answer, mode) {
            (b"S", _) => {
                let name = ServerName::try_from(host.to_owned()).map_err(|error| refused(&error.to_string()))?;
                let connector = TlsConnector::from(Arc::clone(&self.encryption));
                let encrypted = connector.connect(name, stream).await.map_err(|error| refused(&error.to_string()))?;
                Ok(Box::new(encrypted))
            }
            (_, SslMode::Prefer) => Ok(stream),
            _ => Err(refused("server does not support TLS")),
        }
    }
}

impl Reader {
    /// Runs a `copy … to stdout` inside the transaction that is open. The connection is good for nothing else afterwards.
    pub(super) async fn copy_out(mut self, sql: &str, message: &str) -> Result<CopyOut, ConnectError> {
        // What was sent before, such as the end of a statement, is answered before this is.
        self.client.simple_query("").await.map_err(|error| error::failed(message, &error))?;
        self.task.shutdown().await;
        let stream = self.lent.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let none = || ConnectError::new(ConnectErrorKind::Internal, "the connection is gone");
        let mut copy = CopyOut { socket: Socket::new(stream.ok_or_else(none)?), message: message.to_owned() };
        let length = u32::try_from(sql.len() + 5).map_err(|_| none())?;
        let query = [&b"Q"[..], &length.to_be_bytes(), sql.as_bytes(), &[0]].concat();
        copy.socket.send(&query).await.map_err(|error| copy.lost(&error))?;
        Ok(copy)
    }
}

/// A copy under way. Dropping it ends the connection, and with it the copy.
pub(super) struct CopyOut {
    socket: Socket,
    message: String,
}

impl CopyOut {
    /// The next piece of the copy; `None` when it has ended and the server says so.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, ConnectError> {
        loop {
            let (kind, length) = match self.head() {
                Some(head) => head,
                None => {
                    self.socket.receive(5).await.map_err(|error| self.lost(&error))?;
                    self.head().unwrap_or_default()
                }
            };
            if self.socket.waiting().len() < 5 + length {
                self.socket.receive(5 + length).await.map_err(|error| self.lost(&error))?;
            }
            self.socket.take(5);
            let place = self.socket.take(length);
            match kind {
                b'd' => return Ok(Some(self.socket.bytes(place))),
                b'E' => return Err(error::said(&self.message, &Said::parse(self.socket.bytes(place)))),
                b'Z' => {
                    // Best effort: the server would note in its log that we are gone.
                    drop(self.socket.send(&TERMINATE).await);
                    return Ok(None);
                }
                // Its beginning, its end, notices, settings that changed.
                b'H' | b'c' | b'C' | b'N' | b'S' | b'A' => {}
                other => {
                    let message = format!("{}: the server sent a message `{}`", self.message, char::from(other));
                    return Err(ConnectError::new(ConnectErrorKind::Internal, message));
                }
            }
        }
    }

    /// Kind and length of the message whose head has been received.
    fn head(&self) -> Option<(u8, usize)> {
        let [kind, length @ ..] = self.socket.waiting().first_chunk::<5>()?;
        Some((*kind, usize::try_from(u32::from_be_bytes(*length)).ok()?.saturating_sub(4)))
    }

    fn lost(&self, error: &IoError) -> ConnectError {
        ConnectError::new(ConnectErrorKind::Unavailable, self.message.clone()).because(error.to_string())
    }
}
