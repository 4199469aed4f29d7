//! A disk that loses what was not synced, and one that fails. Everything that is done to the state of a project is written down by a library that is
//! loaded before the system's; what would be on the disk after the power is gone at any moment is put together from that.

use std::path::Path;

use subak_testkit::{Sandbox, Served};

#[path = "support/preload.rs"]
mod preload;
#[path = "support/served.rs"]
mod served;

const BINARY: &str = env!("CARGO_BIN_EXE_subak");

const FILES: &[(&str, &str)] = &[
    ("subak.yml", "project: disk\ntimezone: UTC\nconnections:\n  warehouse: { type: duckdb, path: w.duckdb }\n"),
    ("jobs/jobs.yml", "job: ok\ntasks:\n  a: { run: 'true' }\n  b: { needs: a, run: 'true' }\n  c: { needs: b, run: 'true' }\n"),
];

/// Disks that are tried for each moment at which the power may go.
const DISK_COUNT: u64 = 3;

/// What a disk writes at once.
const SECTOR_LENGTH: usize = 512;

/// Something that was done to one of the two files.
struct Done {
    what: u8,
    file: usize,
    offset: usize,
    bytes: Vec<u8>,
}

fn log_of(path: &Path) -> Vec<Done> {
    let bytes = std::fs::read(path).expect("a log");
    let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
    let number = |bytes: &[u8]| usize::try_from(u64::from_le_bytes(bytes.try_into().expect("8 bytes"))).expect("a length");
    while let Some((head, tail)) = rest.split_at_checked(18) {
        let (what, file, offset) = (head[0], usize::from(head[1]), number(&head[2..10]));
        let length = if what == b'W' { number(&head[10..18]) } else { 0 };
        let (bytes, tail) = tail.split_at(length);
        found.push(Done { what, file, offset, bytes: bytes.to_vec() });
        rest = tail;
    }
    found
}

/// The database and its log, as they lie on a disk.
#[derive(Clone)]
struct Disk([Vec<u8>; 2]);

impl Disk {
    fn apply(&mut self, done: &Done, length: usize) {
        let file = &mut self.0[done.file];
        match done.what {
            b'W' => {
                let end = done.offset + length;
                file.resize(file.len().max(end), 0);
                file[done.offset..end].copy_from_slice(&done.bytes[..length]);
            }
            b'T' => file.resize(done.offset, 0),
            _ => {}
        }
    }

    /// The events that are found on it, by whoever opens it next.
    fn events(&self, folder: &Path, why: &str) -> Vec<(i64, String, i64, String)> {
        let path = folder.join("state.db");
        for (name, bytes) in ["state.db", "state.db-wal"].iter().zip(&self.0) {
            std::fs::write(folder.join(name), bytes).expect("written");
        }
        drop(std::fs::remove_file(folder.join("state.db-shm")));
        let opened = rusqlite::Connection::open(&path).expect("opened");
        let verdict: String = opened.query_row("pragma integrity_check", [], |row| row.get(0)).expect("looked at");
        assert_eq!(verdict, "ok", "{why}");
        let mut rows = opened.prepare("select position, run, sequence, body from events order by position").expect("events");
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).expect("events");
        rows.collect::<Result<_, _>>().expect("events")
    }
}

/// Numbers that follow from a seed (`SplitMix64`).
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// FM-16: whenever the power goes, and whatever of what was not synced reaches the disk, in part or whole: the state is whole, and what was committed
/// before the last sync is in it.
#[test]
fn fm_16_nothing_that_was_acknowledged_is_lost_with_the_power() {
    let sandbox = Sandbox::new(BINARY, FILES);
    let library = preload::library(sandbox.path(), "disk");
    sandbox.run(&["run", "--job", "ok"]).expect(0);
    let state = sandbox.path().join(".subak/state.db");
    let before = Disk([std::fs::read(&state).expect("the state"), Vec::new()]);
    let log = sandbox.path().join("disk.log");
    for _ in 0..2 {
        let mut command = sandbox.command(&["run", "--job", "ok"]);
        let ran = command.env("LD_PRELOAD", &library).env("DISK_LOG", &log).output().expect("starts");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let (done, folder) = (log_of(&log), tempfile::tempdir().expect("a folder"));
    let after = |count: usize| {
        let mut disk = before.clone();
        done[..count].iter().for_each(|done| disk.apply(done, done.bytes.len()));
        disk
    };
    let all = after(done.len()).events(folder.path(), "all of it");
    assert_eq!(all.len() % 3, 0, "three runs alike");
    let mut acknowledged = before.events(folder.path(), "before");
    let (mut synced, mut seed, mut tried) = ([0, 0], 1, 0);
    for count in 0..=done.len() {
        if let Some(last) = count.checked_sub(1).map(|at| &done[at]).filter(|last| last.what == b'S') {
            synced[last.file] = count;
            acknowledged = after(count).events(folder.path(), "what was synced");
        }
        for _ in 0..DISK_COUNT {
            let (mut disk, first) = (before.clone(), seed);
            for (at, done) in done[..count].iter().enumerate() {
                let length = match random(&mut seed) % 3 {
                    _ if at < synced[done.file] => done.bytes.len(),
                    0 => continue,
                    1 => done.bytes.len(),
                    // A part of it, sector by sector.
                    _ => done.bytes.len().min(SECTOR_LENGTH * usize::try_from(random(&mut seed) % 8).expect("small")),
                };
                disk.apply(done, length);
            }
            let why = format!("operation {count} of {}, seed {first}", done.len());
            let found = disk.events(folder.path(), &why);
            assert!(found.len() >= acknowledged.len(), "{why}: {} of {} events", found.len(), acknowledged.len());
            assert_eq!(found[..], all[..found.len()], "{why}: nothing else than what was written");
            tried += 1;
        }
    }
    assert!(done.iter().filter(|done| done.what == b'S').count() > 10 && tried > 300, "{tried} disks");
}

/// FM-15: when a sync fails, nobody knows what is on the disk, and another sync that succeeds says nothing: nothing more is written, the server ends, and
/// the next one goes on from what is there.
#[test]
fn fm_15_a_sync_that_fails_is_the_end() {
    let mut served = Served::unstarted(BINARY, FILES);
    let library = preload::library(served.sandbox.path(), "disk");
    let (flag, library) = (served.sandbox.path().join("fails"), library.to_str().expect("a path").to_owned());
    served.start_with(&[], &[("LD_PRELOAD", &library), ("DISK_FAILS", flag.to_str().expect("a path"))]);
    served::wait(served.sandbox.path());
    served.sandbox.run(&["run", "--job", "ok"]).expect(0);
    std::fs::write(&flag, "").expect("written");
    assert_eq!(served.ended(), Some(3));
    std::fs::remove_file(&flag).expect("removed");
    served.sandbox.run(&["db", "check"]).expect(0);
    served.start();
    // The one that is gone could not give the project back.
    served.wait("the next server", |served| served.sandbox.run(&["run", "--job", "ok"]).code == Some(0));
    let listed = served.sandbox.run(&["run", "list", "--output", "csv"]).expect(0).out;
    assert_eq!(listed.matches("succeeded").count(), 2, "{listed}");
}

/// FM-18: a log or an index of it that is gone while nothing runs costs nothing that a database held.
#[test]
fn fm_18_files_beside_the_state_may_be_missing() {
    let sandbox = Sandbox::new(BINARY, FILES);
    sandbox.run(&["run", "--job", "ok"]).expect(0);
    for name in ["state.db-wal", "state.db-shm"] {
        drop(std::fs::remove_file(sandbox.path().join(".subak").join(name)));
        sandbox.run(&["run", "--job", "ok"]).expect(0);
    }
    // An index that is none is made anew.
    std::fs::write(sandbox.path().join(".subak/state.db-shm"), "no index").expect("written");
    sandbox.run(&["run", "--job", "ok"]).expect(0);
    let listed = sandbox.run(&["run", "list", "--output", "csv"]).expect(0).out;
    assert_eq!(listed.matches("succeeded").count(), 4, "{listed}");
}
