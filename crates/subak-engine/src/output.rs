//! What programs write: read as it grows, and kept with its secrets taken out.
//!
//! A program writes to a file and not to a pipe: it goes on when whoever reads it is gone, and the next one reads on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use tokio::io::AsyncWriteExt;

/// The last lines of the output that a failure shows.
const TAIL_LINE_COUNT: usize = 20;

/// Bytes of output that are kept of one attempt; of what comes behind them only the last lines are.
const LOG_LENGTH_MAX: u64 = 64 * 1024 * 1024;

/// The longest line of output that is kept whole.
const LINE_LENGTH_MAX: usize = 64 * 1024;

/// The longest secret that is looked for where a longer line is cut.
const SECRET_LENGTH_MAX: usize = 4 * 1024;

/// Places that are tried, one before the other, until one is found at which a line can be cut.
const CUT_COUNT_MAX: usize = 16;

/// Bytes that are read at a time.
const READ_LENGTH_MAX: u64 = 1024 * 1024;

/// Bytes that were read until their room on the disk is given back.
const RELEASE_LENGTH_MIN: u64 = 4 * 1024 * 1024;

/// What a program writes, as far as it was read.
pub(crate) struct Output {
    file: File,
    /// Up to where it was read.
    offset: u64,
    /// Bytes before the offset that are no whole line yet.
    open: Vec<u8>,
    /// Up to where room on the disk was given back.
    released: u64,
    /// Whether the next line begins before the offset, so that it is no whole line.
    is_inside: bool,
}

impl Output {
    /// Reads a file from `offset` on.
    pub(crate) fn open(path: &Path, offset: u64) -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self { file, offset, open: Vec::new(), released: offset, is_inside: false })
    }

    /// The lines that are complete since the last call, with their secrets taken out by `mask`, in pieces where they are very long; empty when there
    /// is nothing new now.
    pub(crate) fn lines(&mut self, mask: impl Fn(&str) -> String) -> Vec<String> {
        // Whoever opens it anew, as `> /dev/stderr` does, begins it anew.
        if self.file.metadata().is_ok_and(|metadata| metadata.len() < self.offset) {
            (self.offset, self.released, self.is_inside) = (0, 0, false);
            self.open.clear();
        }
        let mut bytes = Vec::new();
        let read = self.file.seek(SeekFrom::Start(self.offset)).and_then(|_| {
            let mut bounded = (&self.file).take(READ_LENGTH_MAX);
            bounded.read_to_end(&mut bytes)
        });
        // What cannot be read now is read the next time.
        let Ok(length) = read else { return Vec::new() };
        self.offset += length as u64;
        let mut found = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            // Of half a line nobody can say whether it holds half a secret.
            if self.is_inside {
                self.is_inside = !part.ends_with(b"\n");
                continue;
            }
            for piece in part.chunks(LINE_LENGTH_MAX) {
                self.open.extend_from_slice(piece);
                while self.open.len() > LINE_LENGTH_MAX + SECRET_LENGTH_MAX {
                    let rest = self.open.split_off(self.cut(&mask));
                    found.push(mask(&self.take()));
                    self.open = rest;
                }
            }
            if part.ends_with(b"\n") {
                found.push(mask(&self.take()));
            }
        }
        self.release();
        found
    }

    /// Leaves out what is older where more than so many bytes wait. Returns how many it left out.
    pub(crate) fn skip(&mut self, most: u64) -> u64 {
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        let waiting = length.saturating_sub(self.offset);
        if waiting <= most {
            return 0;
        }
        let left_out = waiting - READ_LENGTH_MAX.min(waiting) + self.open.len() as u64;
        self.offset = length - READ_LENGTH_MAX.min(waiting);
        self.open.clear();
        let mut before = [b'\n'];
        let read = self.file.seek(SeekFrom::Start(self.offset.saturating_sub(1))).and_then(|_| self.file.read(&mut before));
        self.is_inside = self.offset > 0 && (read.is_err() || before != *b"\n");
        self.release();
        left_out
    }

    /// What stands behind the last whole line.
    pub(crate) fn rest(&mut self) -> Option<String> {
        (!self.open.is_empty()).then(|| self.take())
    }

    /// Where a line that is too long can be cut: between two letters, and in no secret.
    fn cut(&self, mask: &impl Fn(&str) -> String) -> usize {
        let is_letter = |at: &usize| self.open.get(*at).is_none_or(|byte| byte & 0b1100_0000 != 0b1000_0000);
        let places = (0..CUT_COUNT_MAX).map(|count| LINE_LENGTH_MAX - count * SECRET_LENGTH_MAX / 3);
        let places = places.filter_map(|at| (at - 3..=at).rev().find(is_letter));
        let masked = |from: usize, to: usize| mask(&String::from_utf8_lossy(&self.open[from..to]));
        let is_between = |at: &usize| {
            let (from, to) = (at - SECRET_LENGTH_MAX, (at + SECRET_LENGTH_MAX).min(self.open.len()));
            masked(from, *at) + &masked(*at, to) == masked(from, to)
        };
        places.into_iter().find(is_between).unwrap_or(LINE_LENGTH_MAX)
    }

    fn take(&mut self) -> String {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.open)).into_owned();
        line.trim_end_matches(['\n', '\r']).to_owned()
    }

    /// Up to where it was read.
    pub(crate) fn position(&self) -> u64 {
        self.offset
    }

    /// Up to where whole lines were read.
    pub(crate) fn offset(&self) -> u64 {
        self.offset - self.open.len() as u64
    }

    /// Gives the room of what was read back to the disk, so that a program that writes much does not fill it. Where the file system cannot, the
    /// room is free when the attempt has ended.
    fn release(&mut self) {
        let until = self.offset();
        if until - self.released < RELEASE_LENGTH_MIN {
            return;
        }
        #[cfg(target_os = "linux")]
        {
            use nix::fcntl::{FallocateFlags, fallocate};
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let (from, length) = (self.released.cast_signed(), (until - self.released).cast_signed());
            if fallocate(&self.file, flags, from, length).is_err() {}
        }
        self.released = until;
    }
}

/// The output of one attempt as it is kept: a file, and its last lines.
pub(crate) struct Log {
    file: Option<tokio::fs::File>,
    length: u64,
    dropped_count: u64,
    /// Bytes that nobody has read.
    left_out: u64,
    /// The last lines.
    pub(crate) tail: VecDeque<String>,
}

impl Log {
    /// A new one, or what another process has kept so far.
    /// One that cannot be kept fails no step: its last lines are known all the same.
    pub(crate) async fn open(path: &Path, is_new: bool) -> Self {
        let opened = async {
            if let Some(folder) = path.parent() {
                tokio::fs::create_dir_all(folder).await?;
            }
            if is_new {
                return Ok((tokio::fs::File::create(path).await?, 0));
            }
            let file = tokio::fs::File::options().append(true).create(true).open(path).await?;
            let length = file.metadata().await?.len();
            Ok::<_, std::io::Error>((file, length))
        };
        let (file, length) = opened.await.map_or((None, 0), |(file, length)| (Some(file), length));
        let tail = if is_new { VecDeque::new() } else { last_lines(path, length).unwrap_or_default() };
        Self { file, length, dropped_count: 0, left_out: 0, tail }
    }

    /// Notes that bytes are left out.
    pub(crate) fn leave_out(&mut self, count: u64) {
        self.left_out += count;
    }

    /// Takes lines. A file that cannot be written does not fail the step; what is lost is counted.
    pub(crate) async fn lines(&mut self, lines: impl Iterator<Item = String>) {
        let (mut text, mut count) = (String::new(), 0);
        for line in lines {
            if self.length + text.len() as u64 > LOG_LENGTH_MAX {
                self.dropped_count += 1;
            } else {
                text.push_str(&line);
                text.push('\n');
                count += 1;
            }
            if self.tail.len() == TAIL_LINE_COUNT {
                self.tail.pop_front();
            }
            self.tail.push_back(line);
        }
        self.write(&text, count).await;
    }

    async fn write(&mut self, text: &str, count: u64) {
        let Some(file) = self.file.as_mut().filter(|_| !text.is_empty()) else { return };
        let written = async {
            file.write_all(text.as_bytes()).await?;
            file.flush().await
        };
        match written.await {
            Ok(()) => self.length += text.len() as u64,
            Err(_) => self.dropped_count += count,
        }
    }

    /// Writes what is still to be said about lines that were left out, and the last of them.
    pub(crate) async fn end(&mut self) {
        let mut text = match (self.dropped_count, self.left_out) {
            (0, 0) => return,
            (count, 0) => format!("… {count} lines were left out; the last ones are:\n"),
            (count, bytes) => format!("… {count} lines and {bytes} bytes more were left out; the last ones are:\n"),
        };
        for line in &self.tail {
            text.push_str(line);
            text.push('\n');
        }
        self.write(&text, 0).await;
    }
}

/// The last lines of a file.
fn last_lines(path: &Path, length: u64) -> std::io::Result<VecDeque<String>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(length.saturating_sub(LINE_LENGTH_MAX as u64)))?;
    let mut bytes = Vec::new();
    file.take(LINE_LENGTH_MAX as u64).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: VecDeque<String> = text.lines().rev().take(TAIL_LINE_COUNT).map(str::to_owned).collect();
    lines.make_contiguous().reverse();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// FM-37: a line without an end is taken in pieces.
    #[test]
    fn lines_are_read_as_they_become_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("output");
        let mut file = File::create(&path).expect("made");
        let mut output = Output::open(&path, 0).expect("opened");
        assert!(output.lines(str::to_owned).is_empty());
        write!(file, "one\r\ntwo\nth").expect("written");
        assert_eq!(output.lines(str::to_owned), ["one", "two"]);
        assert_eq!(output.offset(), 9);
        // Whoever reads on begins with what was no line yet.
        let mut next = Output::open(&path, output.offset()).expect("opened");
        write!(file, "ree\n\nfour").expect("written");
        assert_eq!(output.lines(str::to_owned), ["three", ""]);
        assert_eq!(next.lines(str::to_owned), ["three", ""]);
        assert_eq!((next.rest().as_deref(), next.rest()), (Some("four"), None));
        file.write_all(&vec![b'x'; 3 * LINE_LENGTH_MAX / 2]).expect("written");
        writeln!(file).expect("written");
        let lengths: Vec<usize> = next.lines(str::to_owned).iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_LENGTH_MAX, LINE_LENGTH_MAX / 2]);
    }

    /// FM-37: what is begun anew is read from its beginning; of what is far behind the oldest is left out.
    #[test]
    fn a_file_that_is_begun_anew_or_runs_away_is_read_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("output");
        std::fs::write(&path, "a long line\nopen").expect("written");
        let mut output = Output::open(&path, 0).expect("opened");
        assert_eq!(output.lines(str::to_owned), ["a long line"]);
        std::fs::write(&path, "new\n").expect("written");
        assert_eq!(output.lines(str::to_owned), ["new"]);
        assert_eq!(output.skip(10), 0);
        let line = format!("{}\n", "x".repeat(1023));
        std::fs::write(&path, line.repeat(3 * 1024)).expect("written");
        let left_out = output.skip(2 * READ_LENGTH_MAX);
        assert_eq!(left_out, 3 * READ_LENGTH_MAX - READ_LENGTH_MAX - 4, "all but the last megabyte");
        assert_eq!(output.lines(str::to_owned).len(), 1024);
    }

    /// FM-37: what was read takes no room, however much it is.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_was_read_takes_no_room() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("output");
        let mut file = File::create(&path).expect("made");
        let mut output = Output::open(&path, 0).expect("opened");
        let line = format!("{}\n", "x".repeat(1023));
        let mut count = 0;
        for _ in 0..20 {
            file.write_all(line.repeat(1024).as_bytes()).expect("written");
            count += output.lines(str::to_owned).len();
        }
        assert_eq!(count, 20 * 1024);
        let room = path.metadata().expect("there").blocks() * 512;
        assert!(room < 8 * 1024 * 1024, "{room} bytes of 20 MiB");
    }

    #[tokio::test]
    async fn a_log_is_gone_on_with() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("logs/a.log");
        let lines = |from: usize, to: usize| (from..to).map(|at| format!("line {at}"));
        Log::open(&path, true).await.lines(lines(0, 30)).await;
        let mut next = Log::open(&path, false).await;
        assert_eq!(next.tail.iter().next().map(String::as_str), Some("line 10"));
        next.lines(lines(30, 31)).await;
        next.end().await;
        assert_eq!(std::fs::read_to_string(&path).expect("read").lines().count(), 31);
        assert_eq!(next.tail.back().map(String::as_str), Some("line 30"));
    }
}
