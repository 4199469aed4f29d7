//! Finding, opening, decompressing and decoding files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use subak_connect::{ConnectError, ConnectErrorKind};

/// Bytes that are read from a file at a time.
const BUFFER_LENGTH: usize = 256 * 1024;

/// The files that match a pattern, sorted by path.
pub(super) fn find(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, ConnectError> {
    let whole = folder.join(pattern);
    // A name that exists is itself, whatever characters it has.
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    let prefix = glob::Pattern::escape(&folder.display().to_string());
    let text = if Path::new(pattern).is_absolute() { pattern.to_owned() } else { format!("{prefix}/{pattern}") };
    let wrong = |error: glob::PatternError| {
        ConnectError::new(ConnectErrorKind::Config, format!("`{pattern}` is not a file pattern")).because(error)
    };
    let mut paths = Vec::new();
    for path in glob::glob(&text).map_err(wrong)? {
        paths.push(path.map_err(|error| {
            let message = format!("cannot look into `{}`", error.path().display());
            ConnectError::io(ConnectErrorKind::Read, message, error.into())
        })?);
    }
    paths.sort();
    Ok(paths)
}

/// One file, as it was when it was opened for the first time.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(super) path: PathBuf,
    /// The path for people.
    pub(super) name: Arc<str>,
    length: u64,
    modified_at: Option<SystemTime>,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, ConnectError> {
        let failed = |error| ConnectError::io(ConnectErrorKind::Read, format!("cannot read `{}`", path.display()), error);
        let metadata = File::open(path).and_then(|file| file.metadata()).map_err(failed)?;
        Ok(Self {
            path: path.to_path_buf(),
            name: path.display().to_string().into(),
            length: metadata.len(),
            modified_at: metadata.modified().ok(),
        })
    }

    /// Fails when the file is not the one any more that was opened.
    pub(super) fn refuse_if_changed(&self) -> Result<(), ConnectError> {
        let now = Self::open(&self.path)?;
        if (now.length, now.modified_at) == (self.length, self.modified_at) {
            return Ok(());
        }
        let message = format!("`{}` changed while it was read", self.name);
        Err(ConnectError::new(ConnectErrorKind::Unavailable, message).help("run again when nothing writes the file any more"))
    }

    /// The error for something wrong inside the file.
    pub(super) fn malformed(&self, place: &str, what: &str) -> ConnectError {
        ConnectError::new(ConnectErrorKind::Malformed, format!("`{}`{place}: {what}", self.name))
    }

    /// The error for a read that failed.
    pub(super) fn failed(&self, error: io::Error) -> ConnectError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.malformed("", "the compressed data end too early: the file is not complete").because(error)
            }
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                self.malformed("", "the data cannot be decoded").because(error)
            }
            _ => ConnectError::io(ConnectErrorKind::Read, format!("cannot read `{}`", self.name), error),
        }
    }

    /// The bytes, decompressed by what they are rather than by how the file is called.
    fn bytes(&self) -> Result<Box<dyn BufRead>, ConnectError> {
        let file = File::open(&self.path)
            .map_err(|error| ConnectError::io(ConnectErrorKind::Read, format!("cannot read `{}`", self.name), error))?;
        let mut raw = BufReader::with_capacity(BUFFER_LENGTH, file);
        let head = raw.fill_buf().map_err(|error| self.failed(error))?;
        Ok(if head.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::with_capacity(BUFFER_LENGTH, flate2::bufread::MultiGzDecoder::new(raw)))
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(|error| self.failed(error))?;
            Box::new(BufReader::with_capacity(BUFFER_LENGTH, decoder))
        } else {
            Box::new(raw)
        })
    }

    /// The text as UTF-8 without a byte order mark. Bytes that are no text in `encoding` are an error; UTF-8 input is passed
    /// through, and whoever takes values out of it must check them.
    pub(super) fn text(&self, encoding: Option<&'static encoding_rs::Encoding>) -> Result<Box<dyn BufRead>, ConnectError> {
        let mut bytes = self.bytes()?;
        let head = bytes.fill_buf().map_err(|error| self.failed(error))?;
        let (encoding, mark_length) = match encoding_rs::Encoding::for_bom(head) {
            Some((marked, length)) => (marked, length),
            None => (encoding.unwrap_or(encoding_rs::UTF_8), 0),
        };
        bytes.consume(mark_length);
        if encoding == encoding_rs::UTF_8 {
            return Ok(bytes);
        }
        let decoder = Decoding { bytes, decoder: encoding.new_decoder_without_bom_handling(), is_last: false };
        Ok(Box::new(BufReader::with_capacity(BUFFER_LENGTH, decoder)))
    }
}

/// Turns bytes of an encoding into UTF-8.
struct Decoding {
    bytes: Box<dyn BufRead>,
    decoder: encoding_rs::Decoder,
    is_last: bool,
}

impl Read for Decoding {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.is_last {
                return Ok(0);
            }
            let input = self.bytes.fill_buf()?;
            let is_end = input.is_empty();
            let (result, consumed, written) = self.decoder.decode_to_utf8_without_replacement(input, output, is_end);
            self.bytes.consume(consumed);
            if matches!(result, encoding_rs::DecoderResult::Malformed(..)) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a byte sequence is no text in the declared encoding"));
            }
            self.is_last = is_end && matches!(result, encoding_rs::DecoderResult::InputEmpty);
            if written > 0 {
                return Ok(written);
            }
        }
    }
}
