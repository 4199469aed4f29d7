//! A connection that hands over rows as the server sends them. The driver makes a value of each cell and waits for each packet, which costs
//! more than all of the decoding; here packets are found in one large buffer, and rows are read out of it in place.
//!
//! Protocol: MySQL's client/server protocol, version 10, as MySQL 8 and MariaDB 10.6 and newer speak it. Packets of more than 16 MiB are put
//! together in the buffer. Passwords go as the driver sends them: scrambled, or for `caching_sha2_password` inside TLS or encrypted with
//! the server's key.

use std::io::{Error as IoError, ErrorKind};
use std::ops::Range;
use std::sync::Arc;

use mysql_async::consts::{CapabilityFlags, Command};
use mysql_async::{Column, DriverError, Error, Opts, ServerError};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::socket::{self, Socket};

/// The length that says that a packet goes on in the next one.
const PIECE_LENGTH: usize = 0xff_ffff;

/// Columns of a table, at most.
const COLUMN_COUNT_MAX: usize = 4096;

/// Bytes of a password that a server's key seals: those of a key of 2,048 bits less what the padding takes.
const SEALED_LENGTH_MAX: usize = 214;

/// `utf8mb4_general_ci`, which both families know.
const CHARACTER_SET: u8 = 45;

/// How it connects.
pub(super) struct Target<'a> {
    pub(super) options: &'a Opts,
    /// What encrypts; `None` where it is not wanted.
    pub(super) tls: Option<&'a Arc<ClientConfig>>,
    /// Whether a server without encryption is spoken to all the same.
    pub(super) may_be_plain: bool,
}

/// An open connection.
pub(super) struct Wire {
    socket: Socket,
    /// The number of the next packet of an exchange.
    sequence: u8,
    is_private: bool,
}

fn unexpected(what: &str) -> Error {
    Error::Io(IoError::new(ErrorKind::InvalidData, format!("the server sent {what}")).into())
}

fn of_io(error: IoError) -> Error {
    Error::Io(error.into())
}

/// The error that a packet is.
fn refusal(packet: &[u8]) -> Error {
    let code = packet.get(1..3).map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
    let (state, message) = match packet.get(3) {
        Some(b'#') => (packet.get(4..9).unwrap_or_default(), packet.get(9..).unwrap_or_default()),
        _ => (&b"HY000"[..], packet.get(3..).unwrap_or_default()),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Error::Server(ServerError { code, state: text(state), message: text(message) })
}

/// Whether a packet ends a list of columns or rows.
fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&0xfe) && packet.len() < 9
}

impl Wire {
    /// Connects and signs in.
    pub(super) async fn connect(target: &Target<'_>) -> Result<Self, Error> {
        let options = target.options;
        let stream = match options.socket() {
            Some(path) => socket::connect_path(path).await,
            None => socket::connect(options.ip_or_hostname(), options.tcp_port()).await,
        };
        let is_private = options.socket().is_some();
        let mut wire = Self { socket: Socket::new(stream.map_err(of_io)?), sequence: 0, is_private };
        wire.sign_in(target).await?;
        Ok(wire)
    }

    async fn sign_in(&mut self, target: &Target<'_>) -> Result<(), Error> {
        let place = self.packet().await?;
        if self.socket.bytes(place.clone()).first() == Some(&0xff) {
            // Too many connections, a host that is not let in.
            return Err(refusal(self.socket.bytes(place)));
        }
        let greeting = ParseBuf(self.socket.bytes(place)).parse::<HandshakePacket<'_>>(()).map_err(of_io)?.into_owned();
        let offered = greeting.capabilities();
        let mut wanted = CapabilityFlags::CLIENT_PROTOCOL_41
            | CapabilityFlags::CLIENT_LONG_PASSWORD
            | CapabilityFlags::CLIENT_SECURE_CONNECTION
            | CapabilityFlags::CLIENT_TRANSACTIONS
            | CapabilityFlags::CLIENT_PLUGIN_AUTH
            | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA;
        // The request for encryption says all of them already.
        if target.options.db_name().is_some() {
            wanted |= CapabilityFlags::CLIENT_CONNECT_WITH_DB;
        }
        if let Some(tls) = target.tls {
            if offered.contains(CapabilityFlags::CLIENT_SSL) {
                wanted |= CapabilityFlags::CLIENT_SSL;
                let request = SslRequest::new(wanted & offered, PIECE_LENGTH as u32, CHARACTER_SET);
                self.send_struct(&request).await?;
                self.encrypt(tls, target.options.ip_or_hostname()).await?;
            } else if !target.may_be_plain {
                return Err(DriverError::NoClientSslFlagFromServer.into());
            }
        }
        let plugin = match greeting.auth_plugin() {
            Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
            _ => AuthPlugin::MysqlNativePassword,
        };
        let nonce = greeting.nonce();
        let proof = plugin.gen_data(target.options.pass(), &nonce);
        let version = greeting.maria_db_server_version_parsed().or_else(|| greeting.server_version_parsed());
        let response = HandshakeResponse::new(
            proof.as_deref(),
            version.unwrap_or((8, 0, 0)),
            target.options.user().map(str::as_bytes),
            target.options.db_name().map(str::as_bytes),
            Some(plugin.clone()),
            wanted & offered,
            None,
            PIECE_LENGTH as u32,
        );
        self.send_struct(&response).await?;
        self.prove(plugin, nonce, target.options.pass()).await
    }

    /// Answers what the server asks until it lets us in.
    async fn prove(&mut self, mut plugin: AuthPlugin<'_>, mut nonce: Vec<u8>, password: Option<&str>) -> Result<(), Error> {
        for _ in 0..8 {
            let place = self.packet().await?;
            let packet = self.socket.bytes(place).to_vec();
            match packet.as_slice() {
                [0x00, ..] => return Ok(()),
                [0xff, ..] => return Err(refusal(&packet)),
                [0xfe, ..] => {
                    let switch = ParseBuf(&packet).parse::<AuthSwitchRequest<'_>>(()).map_err(of_io)?;
                    plugin = switch.auth_plugin().clone().into_owned();
                    nonce = switch.plugin_data().to_vec();
                    let proof = match plugin {
                        AuthPlugin::CachingSha2Password | AuthPlugin::MysqlNativePassword => plugin.gen_data(password, &nonce),
                        ref other => {
                            let name = String::from_utf8_lossy(other.as_bytes()).into_owned();
                            return Err(DriverError::UnknownAuthPlugin { name }.into());
                        }
                    };
                    self.send(proof.as_deref().unwrap_or_default()).await?;
                }
                // The server knows the password already, …
                [0x01, 0x03] => {}
                // … or wants to see it …
                [0x01, 0x04] if matches!(plugin, AuthPlugin::CachingSha2Password) => {
                    let mut secret = password.unwrap_or_default().as_bytes().to_vec();
                    secret.push(0);
                    if self.is_private {
                        self.send(&secret).await?;
                    } else {
                        self.send(&[0x02]).await?;
                        let place = self.packet().await?;
                        let Some((0x01, key)) = self.socket.bytes(place).split_first().map(|(first, key)| (*first, key.to_vec()))
                        else {
                            return Err(unexpected("no key"));
                        };
                        for (at, byte) in secret.iter_mut().enumerate() {
                            *byte ^= nonce.get(at % nonce.len().max(1)).copied().unwrap_or_default();
                        }
                        if secret.len() > SEALED_LENGTH_MAX {
                            return Err(unexpected("a key that is too short for the password; use an encrypted connection"));
                        }
                        // … sealed with its key.
                        self.send(&mysql_common::crypto::encrypt(&secret, &key)).await?;
                    }
                }
                _ => return Err(unexpected("something else than an answer to the sign-in")),
            }
        }
        Err(unexpected("questions without end"))
    }

    async fn encrypt(&mut self, tls: &Arc<ClientConfig>, host: &str) -> Result<(), Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| of_io(IoError::new(ErrorKind::InvalidInput, error)))?;
        let plain = self.socket.replace(Box::new(tokio::io::empty()));
        let connected = TlsConnector::from(Arc::clone(tls)).connect(name, plain).await;
        let stream = connected.map_err(|error| {
            // It is told apart from a server that went away by what it is made of.
            of_io(IoError::new(ErrorKind::InvalidData, format!("certificate or encryption refused: {error}")))
        })?;
        self.socket.replace(Box::new(stream));
        self.is_private = true;
        Ok(())
    }

    async fn send_struct(&mut self, packet: &impl MySerialize) -> Result<(), Error> {
        let mut bytes = Vec::new();
        packet.serialize(&mut bytes);
        self.send(&bytes).await
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), Error> {
        let mut packet = Vec::with_capacity(payload.len() + 4);
        let mut rest = payload;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(PIECE_LENGTH));
            let length = u32::try_from(piece.len()).unwrap_or_default().to_le_bytes();
            packet.extend_from_slice(&[length[0], length[1], length[2], self.sequence]);
            packet.extend_from_slice(piece);
            self.sequence = self.sequence.wrapping_add(1);
            if piece.len() < PIECE_LENGTH {
                break;
            }
            rest = after;
        }
        self.socket.send(&packet).await.map_err(of_io)
    }

    async fn command(&mut self, command: Command, argument: &[u8]) -> Result<(), Error> {
        self.sequence = 0;
        self.send(&[&[command as u8], argument].concat()).await
    }

    /// Length and number of the piece whose head stands `at` bytes behind the first one that waits.
    fn head(&self, at: usize) -> Option<(usize, u8)> {
        let head = self.socket.waiting().get(at..)?.first_chunk::<4>()?;
        let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
        Some((length, head[3]))
    }

    /// Where the payload of the next packet stands, if it has been received as a whole and is one piece.
    fn received(&mut self) -> Option<Range<usize>> {
        let (length, number) = self.head(0)?;
        if length == PIECE_LENGTH || self.socket.waiting().len() < 4 + length {
            return None;
        }
        Some(self.payload(length, number))
    }

    fn payload(&mut self, length: usize, number: u8) -> Range<usize> {
        self.sequence = number.wrapping_add(1);
        self.socket.take(4);
        self.socket.take(length)
    }

    /// Where the payload of the next packet stands, until the next call.
    async fn packet(&mut self) -> Result<Range<usize>, Error> {
        if let Some(place) = self.received() {
            return Ok(place);
        }
        // Bytes of the payload so far; they stand together behind the first head.
        let (mut total, mut offset) = (0, 0);
        loop {
            self.socket.receive(offset + 4).await.map_err(of_io)?;
            let (length, number) = self.head(offset).ok_or_else(|| unexpected("no packet"))?;
            self.socket.receive(offset + 4 + length).await.map_err(of_io)?;
            if offset > 0 {
                self.socket.cut_out(offset, 4);
            }
            total += length;
            offset = 4 + total;
            if length < PIECE_LENGTH {
                return Ok(self.payload(total, number));
            }
        }
    }

    /// Runs a statement that returns no rows.
    pub(super) async fn execute(&mut self, sql: &str) -> Result<(), Error> {
        self.command(Command::COM_QUERY, sql.as_bytes()).await?;
        let place = self.packet().await?;
        match self.socket.bytes(place) {
            [0x00, ..] => Ok(()),
            packet @ [0xff, ..] => Err(refusal(packet)),
            _ => Err(unexpected("rows for a statement that has none")),
        }
    }

    /// Prepares a query without parameters. Returns its number and what it returns.
    pub(super) async fn prepare(&mut self, sql: &str) -> Result<(u32, Vec<Column>), Error> {
        self.command(Command::COM_STMT_PREPARE, sql.as_bytes()).await?;
        let place = self.packet().await?;
        let packet = self.socket.bytes(place);
        let counts = packet.get(5..9).and_then(|counts| counts.first_chunk::<4>());
        let (number, counts) = match (packet.first(), packet.get(1..5).and_then(|number| number.first_chunk()), counts) {
            (Some(0x00), Some(number), Some(counts)) => (u32::from_le_bytes(*number), *counts),
            (Some(0xff), ..) => return Err(refusal(packet)),
            _ => return Err(unexpected("no statement")),
        };
        let column_count = u16::from_le_bytes([counts[0], counts[1]]);
        let parameter_count = u16::from_le_bytes([counts[2], counts[3]]);
        self.columns(parameter_count.into()).await?;
        Ok((number, self.columns(column_count.into()).await?))
    }

    /// Descriptions of columns and the packet that ends them.
    async fn columns(&mut self, count: usize) -> Result<Vec<Column>, Error> {
        let mut columns = Vec::with_capacity(count.min(COLUMN_COUNT_MAX));
        for _ in 0..count {
            let place = self.packet().await?;
            columns.push(ParseBuf(self.socket.bytes(place)).parse::<Column>(()).map_err(of_io)?);
        }
        if count > 0 {
            let place = self.packet().await?;
            if !is_end(self.socket.bytes(place)) {
                return Err(unexpected("more columns than it said"));
            }
        }
        Ok(columns)
    }

    /// Runs a prepared query; [`Self::row`] hands over what it returns. Returns what it is.
    pub(super) async fn run(&mut self, statement: u32) -> Result<Vec<Column>, Error> {
        let mut argument = statement.to_le_bytes().to_vec();
        // No cursor, one iteration.
        argument.extend_from_slice(&[0, 1, 0, 0, 0]);
        self.command(Command::COM_STMT_EXECUTE, &argument).await?;
        let place = self.packet().await?;
        let count = match self.socket.bytes(place) {
            packet @ [0xff, ..] => return Err(refusal(packet)),
            [0x00, ..] => return Err(unexpected("no rows for a query")),
            packet => ParseBuf(packet).checked_eat_lenenc_int().ok_or_else(|| unexpected("no number of columns"))?,
        };
        self.columns(usize::try_from(count).unwrap_or_default()).await
    }

    /// Says that nothing more comes. Best effort.
    pub(super) async fn quit(&mut self) {
        drop(self.command(Command::COM_QUIT, &[]).await);
    }

    /// The next row in the form of the binary protocol; `None` after the last one.
    pub(super) async fn row(&mut self) -> Result<Option<&[u8]>, Error> {
        let place = self.packet().await?;
        match self.socket.bytes(place.clone()) {
            [0x00, ..] => Ok(Some(self.socket.bytes(place))),
            packet @ [0xff, ..] => Err(refusal(packet)),
            packet if is_end(packet) => Ok(None),
            _ => Err(unexpected("something else than a row")),
        }
    }
}
