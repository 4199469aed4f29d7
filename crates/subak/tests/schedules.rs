//! Schedules against another reader of cron lines: `cronsim`, which does what Debian's cron does.

use std::io::Write as _;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use subak_domain::Schedule;
use subak_domain::schedule::ScheduleRule;
use subak_plan::schedule::Times;
use subak_testkit::python;

/// Ticks that are compared of each case.
const TICK_COUNT: usize = 4;

const CASE_COUNT: usize = 10_000;

/// Not Lord Howe, whose clock goes back by half an hour: there the other reader leaves out the first half of an hour later that day. The published
/// table of that zone is a test of `subak-plan`.
const ZONES: &[&str] = &[
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Asia/Jakarta",
    "Asia/Kathmandu",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Pacific/Apia",
    "America/St_Johns",
];

/// Reads `line TAB zone TAB seconds`, writes the next ticks in seconds since 1970.
const ORACLE: &str = "
import sys
from datetime import datetime, timezone
from zoneinfo import ZoneInfo
from cronsim import CronSim, CronSimError
for row in sys.stdin:
    line, zone, seconds = row.rstrip('\\n').split('\\t')
    try:
        found = CronSim(line, datetime.fromtimestamp(int(seconds), ZoneInfo(zone)))
        print(' '.join([str(int(next(found).astimezone(timezone.utc).timestamp())) for _ in range(4)]))
    except (CronSimError, StopIteration):
        print('none')
";

/// xorshift64*: cases are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    /// One field: a star, a step, a value, a range, a list.
    fn field(&mut self, low: u64, high: u64) -> String {
        let any = |random: &mut Self| low + random.below(high - low + 1);
        match self.below(8) {
            0..=2 => "*".to_owned(),
            3 => format!("*/{}", 1 + self.below(high - low)),
            4 => {
                let (a, b) = (any(self), any(self));
                format!("{}-{}", a.min(b), a.max(b))
            }
            5 => {
                // Of one value and a step (`4-4/2`) the other reader makes all values from there on (`4/2`), which no cron does.
                let (a, b) = (low + self.below(high - low), any(self));
                let (a, b) = (a.min(b), a.max(b));
                format!("{a}-{}/{}", if a == b { b + 1 } else { b }, 1 + self.below(5))
            }
            6 => format!("{},{}", any(self), any(self)),
            _ => any(self).to_string(),
        }
    }

    fn line(&mut self) -> String {
        let day = if self.below(12) == 0 { "L".to_owned() } else { self.field(1, 31) };
        let weekday = if self.below(12) == 0 { format!("{}#{}", self.below(7), 1 + self.below(4)) } else { self.field(0, 6) };
        // Early hours, where clocks change.
        let hour = if self.below(2) == 0 { self.field(0, 4) } else { self.field(0, 23) };
        format!("{} {hour} {day} {} {weekday}", self.field(0, 59), self.field(1, 12))
    }
}

fn ours(line: &str, zone: &str, after: i64) -> String {
    let schedule = Schedule::new(ScheduleRule::Cron(vec![line.to_owned()]), zone);
    let Ok(times) = Times::new(&schedule) else { return "none".to_owned() };
    let mut at = Timestamp::from_second(after).expect("an instant");
    let mut found = Vec::new();
    while found.len() < TICK_COUNT {
        let Some(next) = times.next_after(at) else { return "none".to_owned() };
        found.push(next.as_second().to_string());
        at = next;
    }
    found.join(" ")
}

#[test]
fn ticks_are_those_of_another_reader() {
    let mut random = Random(0x5EED);
    let cases: Vec<(String, &str, i64)> = (0..CASE_COUNT)
        .map(|_| {
            let zone = ZONES[random.below(ZONES.len() as u64) as usize];
            // 2015 to 2030, to the minute.
            let seconds = 1_420_070_400 + i64::try_from(random.below(15 * 365 * 1440)).expect("minutes") * 60;
            (random.line(), zone, seconds)
        })
        .collect();
    let mut oracle = Command::new(python())
        .args(["-c", ORACLE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the other reader starts");
    let mut input = oracle.stdin.take().expect("its input");
    let rows: Vec<String> = cases.iter().map(|(line, zone, seconds)| format!("{line}\t{zone}\t{seconds}")).collect();
    let text = rows.join("\n");
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = oracle.wait_with_output().expect("it ends");
    writer.join().expect("written").expect("written");
    let theirs = String::from_utf8(output.stdout).expect("text");
    let mut differing = Vec::new();
    for ((line, zone, seconds), theirs) in cases.iter().zip(theirs.lines()) {
        let ours = ours(line, zone, *seconds);
        if ours != theirs {
            differing.push(format!("{line} in {zone} after {seconds}: ours {ours}, theirs {theirs}"));
        }
    }
    assert_eq!(theirs.lines().count(), CASE_COUNT);
    assert!(differing.is_empty(), "{} differ, for example\n{}", differing.len(), differing[..differing.len().min(12)].join("\n"));
}
