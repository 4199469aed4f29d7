//! Finding, opening, decompressing and decoding files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use subak_connect::{ConnectError, ConnectErrorKind, FileMark};

use super::options::Encoding;
use super::{LEDGER, STAGE_PREFIX};

/// Bytes that are read from a file at a time.
const BUFFER_LENGTH: usize = 256 * 1024;

/// Bytes that are looked at to tell an encoding.
const SAMPLE_LENGTH: usize = 1024 * 1024;

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
    paths.retain(|path| !is_own(path.strip_prefix(folder).unwrap_or(path)));
    paths.sort();
    Ok(paths)
}

/// Whether a file is one of ours that holds no table: what is under way, and what is known of loads.
fn is_own(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name.starts_with(STAGE_PREFIX) || name == LEDGER
    })
}

/// One file, as it was when it was opened for the first time.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(super) path: PathBuf,
    /// The path for people.
    pub(super) name: Arc<str>,
    length: u64,
    modified_at: Modified,
    /// The key of an object that came from a store; its file is a copy, which nobody changes.
    key: Option<Arc<str>>,
}

/// When a file was changed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modified {
    /// As the file system has it.
    File(Option<SystemTime>),
    /// As a store has it, in microseconds since 1970.
    Object(i64),
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, ConnectError> {
        let failed = |error| ConnectError::io(ConnectErrorKind::Read, format!("cannot read `{}`", path.display()), error);
        let metadata = File::open(path).and_then(|file| file.metadata()).map_err(failed)?;
        Ok(Self {
            path: path.to_path_buf(),
            name: path.display().to_string().into(),
            length: metadata.len(),
            modified_at: Modified::File(metadata.modified().ok()),
            key: None,
        })
    }

    /// An object that has not come yet.
    pub(super) fn of_object(key: &str, name: Arc<str>, length: u64, modified_at: i64) -> Self {
        Self { path: PathBuf::from(key), name, length, modified_at: Modified::Object(modified_at), key: Some(key.into()) }
    }

    /// When it was changed last, in microseconds since 1970.
    fn modified_micros(&self) -> i64 {
        let at = match self.modified_at {
            Modified::Object(micros) => return micros,
            Modified::File(at) => at,
        };
        let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        since.and_then(|since| i64::try_from(since.as_micros()).ok()).unwrap_or(0)
    }

    /// Whether a mark is of this very file, without looking into it.
    pub(super) fn is_marked(&self, mark: &FileMark, folder: &Path) -> bool {
        // A server that does not say when an object was changed says nothing about its content.
        self.modified_at != Modified::Object(0)
            && mark.path == self.relative(folder)
            && mark.bytes == self.length
            && mark.modified_at == self.modified_micros()
    }

    /// The path below the connection's folder.
    pub(super) fn relative(&self, folder: &Path) -> String {
        if let Some(key) = &self.key {
            return key.to_string();
        }
        self.path.strip_prefix(folder).unwrap_or(&self.path).display().to_string()
    }

    /// The mark of the file; reads all of it for its hash.
    pub(super) fn mark(&self, folder: &Path) -> Result<FileMark, ConnectError> {
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(&self.path).map_err(|error| self.failed(error))?;
        let mut buffer = vec![0; BUFFER_LENGTH];
        loop {
            let length = file.read(&mut buffer).map_err(|error| self.failed(error))?;
            if length == 0 {
                break;
            }
            hasher.update(&buffer[..length]);
        }
        let hash = hasher.finalize().to_hex().to_string();
        Ok(FileMark { path: self.relative(folder), bytes: self.length, modified_at: self.modified_micros(), hash })
    }

    /// Fails when the file is not the one any more that was opened.
    pub(super) fn refuse_if_changed(&self) -> Result<(), ConnectError> {
        if self.key.is_some() {
            return Ok(());
        }
        let message = format!("`{}` changed while it was read", self.name);
        let changed =
            ConnectError::new(ConnectErrorKind::Unavailable, message).help("run again when nothing writes the file any more");
        match Self::open(&self.path) {
            Ok(now) if (now.length, now.modified_at) == (self.length, self.modified_at) => Ok(()),
            Ok(_) => Err(changed),
            Err(error) => Err(changed.because(error)),
        }
    }

    /// The error for something wrong inside the file.
    pub(super) fn malformed(&self, place: &str, what: &str) -> ConnectError {
        ConnectError::new(ConnectErrorKind::Malformed, format!("`{}`{place}: {what}", self.name))
    }

    /// The error for a read that failed.
    pub(super) fn failed(&self, error: io::Error) -> ConnectError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let help = "deliver the file again; nothing of it was loaded";
                self.malformed("", "the compressed data end too early: the file is not complete").because(error).help(help)
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
        } else if head.starts_with(b"PK\x03\x04") {
            self.zip_entry(raw.into_inner())?
        } else if head.starts_with(b"PK\x05\x06") {
            return Err(self.malformed("", "the archive holds no file"));
        } else {
            Box::new(raw)
        })
    }

    /// The one file of an archive.
    fn zip_entry(&self, file: File) -> Result<Box<dyn BufRead>, ConnectError> {
        let broken = |error| self.malformed("", "this is not a complete ZIP archive").because(error);
        let mut archive = zip::ZipArchive::new(file).map_err(broken)?;
        let names: Vec<String> =
            archive.file_names().map(|name| name.map(std::borrow::Cow::into_owned)).collect::<Result<_, _>>().map_err(broken)?;
        let names: Vec<String> = names.into_iter().filter(|name| !name.ends_with('/')).collect();
        let [name] = names.as_slice() else {
            let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
            let what = format!("the archive holds {} files ({shown}), and one is expected", names.len());
            return Err(self.malformed("", &what).help("unpack it, and load its files by a pattern"));
        };
        let entry = archive.by_name(name).map_err(broken)?;
        let (start, compressed, crc, method) = (entry.data_start(), entry.compressed_size(), entry.crc32(), entry.compression());
        drop(entry);
        let start = start.ok_or_else(|| self.malformed("", "the archive does not say where its file begins"))?;
        let mut file = archive.into_inner();
        file.seek(SeekFrom::Start(start)).map_err(|error| self.failed(error))?;
        let part = BufReader::with_capacity(BUFFER_LENGTH, file.take(compressed));
        let inner: Box<dyn Read> = match method {
            zip::CompressionMethod::Stored => Box::new(part),
            zip::CompressionMethod::Deflated => Box::new(flate2::bufread::DeflateDecoder::new(part)),
            other => return Err(self.malformed("", &format!("the archive is compressed by {other}, which is not known"))),
        };
        let checked = Checked { inner, crc: flate2::Crc::new(), expected: crc };
        Ok(Box::new(BufReader::with_capacity(BUFFER_LENGTH, checked)))
    }

    /// The text as UTF-8 without a byte order mark, and the name of the encoding where it was found out. Bytes that are no text in
    /// `encoding` are an error; UTF-8 input is passed through, and whoever takes values out of it must check them.
    pub(super) fn text(&self, encoding: Encoding) -> Result<(Box<dyn BufRead>, Option<&'static str>), ConnectError> {
        let mut bytes = self.bytes()?;
        let head = bytes.fill_buf().map_err(|error| self.failed(error))?;
        if head.starts_with(&[0xff, 0xfe, 0, 0]) || head.starts_with(&[0, 0, 0xfe, 0xff]) {
            return Err(self.malformed("", "the file is UTF-32, which is not known").help("convert it to UTF-8"));
        }
        let (encoding, mark_length, found) = match (encoding_rs::Encoding::for_bom(head), encoding) {
            (Some((marked, length)), _) => (marked, length, None),
            (None, Encoding::Declared(encoding)) => (encoding, 0, None),
            (None, Encoding::Unsaid) => match wide(head) {
                Some(wide) => (wide, 0, Some(wide.name())),
                None => (encoding_rs::UTF_8, 0, None),
            },
            (None, Encoding::Guessed) => {
                let guessed = match wide(head) {
                    Some(wide) => wide,
                    None => self.guess()?,
                };
                (guessed, 0, Some(guessed.name()))
            }
        };
        bytes.consume(mark_length);
        if encoding == encoding_rs::UTF_8 {
            // Some tools write the mark twice.
            while bytes.fill_buf().map_err(|error| self.failed(error))?.starts_with(&[0xef, 0xbb, 0xbf]) {
                bytes.consume(3);
            }
            return Ok((bytes, found));
        }
        let decoder = Decoding { bytes, decoder: encoding.new_decoder_without_bom_handling(), is_last: false, line: 1 };
        Ok((Box::new(BufReader::with_capacity(BUFFER_LENGTH, decoder)), found))
    }

    /// The most likely encoding by the first mebibyte.
    fn guess(&self) -> Result<&'static encoding_rs::Encoding, ConnectError> {
        let mut sample = Vec::new();
        self.bytes()?.take(SAMPLE_LENGTH as u64).read_to_end(&mut sample).map_err(|error| self.failed(error))?;
        if std::str::from_utf8(&sample).is_ok_and(|_| true) {
            return Ok(encoding_rs::UTF_8);
        }
        let mut detector = chardetng::EncodingDetector::new(chardetng::Iso2022JpDetection::Allow);
        detector.feed(&sample, sample.len() < SAMPLE_LENGTH);
        Ok(detector.guess(None, chardetng::Utf8Detection::Allow))
    }
}

/// Text of two bytes a character, told by the zero bytes that plain letters have in it.
fn wide(head: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    let head = &head[..head.len().min(512) & !1];
    let zeros = |offset: usize| head.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
    let half = head.len() / 2;
    let (even, odd) = (zeros(0), zeros(1));
    match (half >= 2, even, odd) {
        (true, 0, odd) if odd * 10 >= half * 7 => Some(encoding_rs::UTF_16LE),
        (true, even, 0) if even * 10 >= half * 7 => Some(encoding_rs::UTF_16BE),
        _ => None,
    }
}

/// Compares a checksum at the end.
struct Checked {
    inner: Box<dyn Read>,
    crc: flate2::Crc,
    expected: u32,
}

impl Read for Checked {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(output)?;
        self.crc.update(&output[..length]);
        if length == 0 && !output.is_empty() && self.crc.sum() != self.expected {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the checksum of the file in the archive is wrong"));
        }
        Ok(length)
    }
}

/// Turns bytes of an encoding into UTF-8.
struct Decoding {
    bytes: Box<dyn BufRead>,
    decoder: encoding_rs::Decoder,
    is_last: bool,
    /// The line that is being decoded, from 1.
    line: u64,
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
            self.line += memchr::memchr_iter(b'\n', &output[..written]).count() as u64;
            if matches!(result, encoding_rs::DecoderResult::Malformed(..)) {
                let message =
                    format!("line {}: a byte sequence is no text in the encoding {}", self.line, self.decoder.encoding().name());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            self.is_last = is_end && matches!(result, encoding_rs::DecoderResult::InputEmpty);
            if written > 0 {
                return Ok(written);
            }
        }
    }
}
