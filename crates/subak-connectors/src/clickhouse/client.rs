//! ClickHouse over HTTP: statements, small results, blocks of the `Native` format both ways.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::{Body, Certificate, Client as Http, Response, Url};
use subak_connect::{ConnectError, ConnectErrorKind, blocking};
use subak_domain::Secret;

use super::{DIALECT, error};

/// How long a server may take to answer a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be silent before it is asked whether the server is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How often a query of the server's own tables is tried.
const CATALOG_ATTEMPTS_MAX: usize = 50;

/// Bytes of an error that are kept.
const ERROR_LENGTH_MAX: usize = 4096;

/// A version of the server: the first two numbers.
pub(super) type ServerVersion = (u32, u32);

/// One row of texts, NULL as `None`.
pub(super) type Texts = Vec<Option<String>>;

/// How rows are compressed on their way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By its word in the configuration.
    pub(super) fn of(word: Option<&str>) -> Self {
        match word {
            Some("gzip") => Self::Gzip,
            Some("zstd") => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The word in the header of a request.
    fn encoding(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// The blocks as one compressed stream.
    fn pack(self, blocks: &[Bytes]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(blocks.concat()),
            Self::Gzip => {
                let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                blocks.iter().try_for_each(|block| packed.write_all(block))?;
                packed.finish()
            }
            Self::Zstd => {
                let mut packed = zstd::Encoder::new(Vec::new(), 1)?;
                blocks.iter().try_for_each(|block| packed.write_all(block))?;
                packed.finish()
            }
        }
    }
}

/// One configured server.
#[derive(Clone)]
pub(super) struct Client {
    http: Http,
    url: Url,
    user: Arc<str>,
    password: Option<Secret>,
    pub(super) database: Arc<str>,
    name: Arc<str>,
    pub(super) version: ServerVersion,
    is_read_only: bool,
    compression: Compression,
}

/// What is configured.
pub(super) struct Settings<'a> {
    pub(super) name: &'a str,
    pub(super) url: &'a str,
    pub(super) user: &'a str,
    pub(super) password: Option<Secret>,
    pub(super) database: &'a str,
    pub(super) root_file: Option<&'a str>,
    pub(super) is_read_only: bool,
    pub(super) compression: Compression,
}

impl Client {
    /// Connects and asks for the server's version.
    pub(super) async fn connect(settings: Settings<'_>) -> Result<Self, ConnectError> {
        let Settings { name, url, user, password, database, root_file, is_read_only, compression } = settings;
        let refused = |message: String| ConnectError::new(ConnectErrorKind::Config, format!("connection `{name}`: {message}"));
        let url =
            Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()).ok_or_else(|| {
                refused(format!("`{url}` is no URL of a server"))
                    .help("write `url: http://host:8123` or `url: https://host:8443`")
            })?;
        // The first one stays; every connection of ours asks for the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut http =
            Http::builder().connect_timeout(CONNECT_TIMEOUT).tcp_keepalive(KEEPALIVE).no_proxy().pool_max_idle_per_host(4);
        if let Some(file) = root_file {
            let unread = |problem: String| refused(format!("`sslrootcert` cannot be read from `{file}`: {problem}"));
            let pem = std::fs::read(file).map_err(|error| unread(error.to_string()))?;
            let roots = Certificate::from_pem_bundle(&pem).map_err(|error| unread(error.to_string()))?;
            http = http.tls_certs_only(roots);
        }
        let http = http.build().map_err(|error| refused("encryption cannot be set up".to_owned()).because(error))?;
        let mut client = Self {
            http,
            url,
            user: user.into(),
            password,
            database: database.into(),
            name: name.into(),
            version: (0, 0),
            is_read_only,
            compression,
        };
        let rows = client.rows("select version()").await.map_err(|error| client.opening(error))?;
        let text = rows.first().and_then(|row| row.first()).and_then(Option::as_deref).unwrap_or_default();
        let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
        client.version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if client.version.0 == 0 {
            let message = format!("what answers at {} is no ClickHouse server", client.url);
            return Err(refused(message).help("correct `url:`; it is that of the HTTP interface, by default on port 8123"));
        }
        if compression == Compression::Zstd && !client.is_modern() {
            let message = format!("ClickHouse {text} takes no `compression: zstd`");
            return Err(refused(message).help("set `compression: gzip`, or `none`"));
        }
        let known = format!("select count() from system.databases where name = {}", DIALECT.literal(database));
        if client.count(&known).await? == 0 { Err(client.no_database()) } else { Ok(client) }
    }

    /// Whether nothing may be written.
    pub(super) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Whether the server has what came in the years after 18.16: `EXCHANGE`, `Bool`, `DateTime64`, window functions.
    pub(super) fn is_modern(&self) -> bool {
        self.version >= (23, 3)
    }

    fn no_database(&self) -> ConnectError {
        let message = format!("connection `{}`: there is no database `{}` at {}", self.name, self.database, self.url);
        ConnectError::new(ConnectErrorKind::NotFound, message).help("correct `database:`, or create it")
    }

    fn opening(&self, error: ConnectError) -> ConnectError {
        if error.kind == ConnectErrorKind::NotFound {
            return self.no_database();
        }
        let place = format!("{}:{}", self.url.host_str().unwrap_or_default(), self.url.port_or_known_default().unwrap_or(0));
        let help = match error.kind {
            ConnectErrorKind::Permission => "correct `user:` and `password:`",
            ConnectErrorKind::Unavailable => "is the server running, and is `url:` that of its HTTP interface?",
            _ => "the server's log says more",
        };
        let mut opening = ConnectError::new(error.kind, format!("connection `{}`: cannot connect to {place}", self.name));
        opening.source = error.source;
        opening.help(help)
    }

    async fn send(
        &self,
        query: Option<&str>,
        body: impl Into<Body>,
        settings: &[(&str, &str)],
        is_whole: bool,
        encoding: Option<&str>,
    ) -> Result<Response, ConnectError> {
        let mut url = self.url.clone();
        {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("database", &self.database);
            if let Some(query) = query {
                pairs.append_pair("query", query);
            }
            for (name, value) in settings {
                pairs.append_pair(name, value);
            }
            // NULL is what SQL says it is: a row without a partner has NULLs, and a cast keeps them.
            let has_own = settings.iter().any(|(name, _)| *name == "join_use_nulls");
            if !has_own && self.version.0 > 0 {
                pairs.append_pair("join_use_nulls", "1");
            }
            if self.is_modern() {
                pairs.append_pair("cast_keep_nullable", "1");
                // A NULL where the table takes none is an error, and no default.
                pairs.append_pair("insert_null_as_default", "0");
                // A table that is divided by day takes a year of days at once.
                pairs.append_pair("max_partitions_per_insert_block", "0");
            }
            if is_whole {
                // The server answers when it is done, so that an error is one and no text behind a result.
                pairs.append_pair("wait_end_of_query", "1");
            }
            if self.is_read_only {
                // Settings may still be set.
                pairs.append_pair("readonly", "2");
            }
        }
        let mut request = self.http.post(url).body(body).header("X-ClickHouse-User", &*self.user);
        if let Some(encoding) = encoding {
            request = request.header("Content-Encoding", encoding);
        }
        if let Some(password) = &self.password {
            request = request.header("X-ClickHouse-Key", password.expose());
        }
        let response = request.send().await.map_err(|error| error::transport(&error))?;
        if response.status().is_success() && !response.headers().contains_key("X-ClickHouse-Exception-Code") {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        Err(error::said(status.as_u16(), text.get(..ERROR_LENGTH_MAX).unwrap_or(&text)))
    }

    /// Runs a statement.
    pub(super) async fn execute(&self, sql: &str) -> Result<(), ConnectError> {
        self.execute_with(sql, &[]).await
    }

    pub(super) async fn execute_with(&self, sql: &str, settings: &[(&str, &str)]) -> Result<(), ConnectError> {
        let response = self.send(None, sql.to_owned(), settings, true, None).await?;
        response.bytes().await.map(drop).map_err(|error| error::transport(&error))
    }

    /// The rows of a small result as texts.
    pub(super) async fn rows(&self, sql: &str) -> Result<Vec<Texts>, ConnectError> {
        self.rows_with(sql, &[]).await
    }

    pub(super) async fn rows_with(&self, sql: &str, settings: &[(&str, &str)]) -> Result<Vec<Texts>, ConnectError> {
        let response = self.send(None, format!("{sql}\nformat TabSeparated"), settings, true, None).await?;
        let text = response.text().await.map_err(|error| error::transport(&error))?;
        Ok(text.lines().map(|line| line.split('\t').map(cell).collect()).collect())
    }

    /// The rows of a query of the server's own tables. Old servers look at every table for it, and fail when one is dropped meanwhile.
    pub(super) async fn catalog(&self, sql: &str) -> Result<Vec<Texts>, ConnectError> {
        for _ in 1..CATALOG_ATTEMPTS_MAX {
            match self.rows(sql).await {
                Err(error) if error.kind == ConnectErrorKind::NotFound => {}
                result => return result,
            }
        }
        self.rows(sql).await
    }

    /// The number in the first column of the first row.
    pub(super) async fn count(&self, sql: &str) -> Result<u64, ConnectError> {
        let rows = self.rows(sql).await?;
        Ok(rows.first().and_then(|row| row.first()).and_then(|cell| cell.as_deref()?.parse().ok()).unwrap_or(0))
    }

    /// Names and types of what a query returns.
    pub(super) async fn describe(&self, sql: &str) -> Result<Vec<(String, String)>, ConnectError> {
        let sql = format!("select * from (\n{sql}\n) limit 0\nformat TabSeparatedWithNamesAndTypes");
        let response = self.send(None, sql, &[], true, None).await?;
        let text = response.text().await.map_err(|error| error::transport(&error))?;
        let mut lines = text.lines().map(|line| line.split('\t').map(|part| cell(part).unwrap_or_default()).collect::<Vec<_>>());
        let (names, types) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        Ok(names.into_iter().zip(types).collect())
    }

    /// Sends blocks of rows into a table, as one insert.
    pub(super) async fn insert(&self, table: &str, columns: &str, blocks: Vec<Bytes>) -> Result<(), ConnectError> {
        let settings: &[(&str, &str)] = if self.is_modern() { &[("async_insert", "0")] } else { &[] };
        let sql = format!("insert into {table} ({columns}) format Native");
        let compression = self.compression;
        let body = if compression == Compression::None {
            Body::wrap_stream(futures::stream::iter(blocks.into_iter().map(Ok::<Bytes, std::convert::Infallible>)))
        } else {
            let packed = blocking::run(move || {
                compression
                    .pack(&blocks)
                    .map_err(|error| ConnectError::io(ConnectErrorKind::Internal, "rows cannot be compressed", error))
            });
            Body::from(packed.await?)
        };
        let response = self.send(Some(&sql), body, settings, true, compression.encoding()).await?;
        response.bytes().await.map(drop).map_err(|error| error::transport(&error))
    }

    /// The bytes of a result in the `Native` format.
    pub(super) async fn stream(&self, sql: &str) -> Result<BoxStream<'static, Result<Bytes, ConnectError>>, ConnectError> {
        let settings = [("max_block_size", "32768")];
        let response = self.send(None, format!("{sql}\nformat Native"), &settings, false, None).await?;
        Ok(response.bytes_stream().map(|piece| piece.map_err(|error| error::transport(&error))).boxed())
    }
}

/// A cell of `TabSeparated`.
fn cell(text: &str) -> Option<String> {
    if text == "\\N" {
        return None;
    }
    if !text.contains('\\') {
        return Some(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('0') => out.push('\0'),
            Some(other) => out.push(other),
            None => {}
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_one_stream() {
        let blocks = [Bytes::from_static(b"one "), Bytes::from_static(b"two")];
        let packed = Compression::Zstd.pack(&blocks).expect("packed");
        assert_eq!(zstd::decode_all(packed.as_slice()).expect("unpacked"), b"one two");
        let packed = Compression::Gzip.pack(&blocks).expect("packed");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut text).expect("unpacked");
        assert_eq!(text, "one two");
    }

    #[test]
    fn cells_are_unescaped() {
        assert_eq!(cell("\\N"), None);
        assert_eq!(cell("a\\tb\\\\n\\'"), Some("a\tb\\n'".to_owned()));
        assert_eq!(DIALECT.literal("it's \\ here"), "'it\\'s \\\\ here'");
    }
}
