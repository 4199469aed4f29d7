//! What people see while a run goes on: bars on a terminal, plain lines otherwise.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use subak_domain::{CheckOutcome, RunEvent, RunId, Severity, StepId, StepOutcome};
use subak_engine::{Clock, Progress, Reporter, SystemClock};

use crate::printer::{Printer, Tone, bytes, count, counted, duration};

/// Characters of a bad row that a line shows; `run show` and `run logs` have all of it.
const SAMPLE_LENGTH: usize = 160;

/// How often a step that goes on says so where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows events and progress.
pub(crate) struct Watcher {
    printer: Printer,
    /// Rows that each step read last time: the basis of an estimate.
    expected: BTreeMap<StepId, u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    multi: MultiProgress,
    bars: BTreeMap<StepId, ProgressBar>,
    /// When the last line about a step was printed, in milliseconds of the clock.
    lines: BTreeMap<StepId, i64>,
}

impl Watcher {
    pub(crate) fn new(printer: Printer, expected: BTreeMap<StepId, u64>) -> Self {
        Self { printer, expected, state: Mutex::default() }
    }

    fn line(&self, state: &State, line: &str) {
        if self.printer.is_quiet {
            return;
        }
        if self.printer.is_live { state.multi.suspend(|| self.printer.say(line)) } else { self.printer.say(line) }
    }

    fn started(&self, state: &mut State, step: &StepId, attempt: u32) {
        if self.printer.is_live {
            let bar = state.multi.add(self.bar(step));
            bar.enable_steady_tick(Duration::from_millis(120));
            state.bars.insert(step.clone(), bar);
        }
        state.lines.insert(step.clone(), SystemClock.now().as_millisecond());
        if attempt > 1 {
            self.line(state, &format!("  {} {step} (attempt {attempt})", self.printer.err_tone(Tone::Warn, "again")));
        }
    }

    fn bar(&self, step: &StepId) -> ProgressBar {
        let rows_style = |template: &str| {
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_spinner())
                .with_key("rows", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                    text.write_str(&count(state.pos())).unwrap_or_default();
                })
                .with_key("rate", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
                    let rate = state.per_sec() as u64;
                    text.write_str(&count(rate)).unwrap_or_default();
                })
        };
        let bar = match self.expected.get(step) {
            Some(expected) if *expected > 0 => ProgressBar::new(*expected)
                .with_style(rows_style("  {spinner} {prefix} {bar:20} {rows} rows  {rate}/s  {msg}  about {eta} left")),
            _ => {
                ProgressBar::new_spinner().with_style(rows_style("  {spinner} {prefix} {rows} rows  {rate}/s  {msg}  {elapsed}"))
            }
        };
        bar.with_prefix(step.to_string())
    }

    fn end(state: &mut State, step: &StepId) {
        state.lines.remove(step);
        if let Some(bar) = state.bars.remove(step) {
            bar.finish_and_clear();
        }
    }

    fn succeeded(&self, step: &StepId, outcome: &StepOutcome) -> String {
        let word = if outcome.has_failed_check() {
            self.printer.err_tone(Tone::Bad, "checks failed")
        } else {
            self.printer.err_tone(Tone::Good, "done")
        };
        let mut parts = vec![format!("  {word} {step}")];
        if let Some(account) = outcome.account {
            parts.push(format!(
                "read {}, written {}, rejected {}, filtered {}",
                count(account.read),
                count(account.written),
                count(account.rejected),
                count(account.filtered)
            ));
            parts.push(bytes(account.bytes));
        }
        parts.extend(outcome.row_count.map(|rows| format!("{} now", counted(rows, "row"))));
        parts.push(duration(outcome.elapsed_ms));
        parts.extend(outcome.value.as_ref().map(|value| format!("value {}", short(&value.to_string()))));
        parts.extend(outcome.note.clone());
        let mut text = parts.join("  ");
        for change in &outcome.value_changes {
            let what = format!("{} values of {}: {}; first at {}", count(change.count), change.column, change.what, change.first);
            text.push_str(&format!("\n      {} {what}", self.printer.err_tone(Tone::Warn, "changed")));
        }
        for warning in &outcome.warnings {
            text.push_str(&format!("\n      {} {warning}", self.printer.err_tone(Tone::Warn, "note")));
        }
        for check in &outcome.checks {
            text.push('\n');
            text.push_str(&self.check(check));
        }
        text
    }

    fn check(&self, check: &CheckOutcome) -> String {
        let (tone, word) = match (check.passed(), check.severity) {
            (true, _) => (Tone::Good, "passed"),
            (false, Severity::Warn) => (Tone::Warn, "warned"),
            (false, Severity::Error) => (Tone::Bad, "failed"),
        };
        let mut line = format!("      {} {}", self.printer.err_tone(tone, word), check.check);
        match check.row_count {
            Some(0) if check.is_vacuous => line.push_str("  (no rows: nothing was proved)"),
            Some(rows) if check.passed() => line.push_str(&format!("  ({})", counted(rows, "row"))),
            _ => {}
        }
        if !check.passed() {
            let shown: String =
                check.sample.first().map(String::as_str).unwrap_or_default().chars().take(SAMPLE_LENGTH).collect();
            line.push_str(&format!("  {} bad rows, for example {shown}", count(check.bad_row_count)));
        } else if check.bad_row_count > 0 {
            let tolerance = check.tolerance.map(|tolerance| tolerance.to_string()).unwrap_or_default();
            line.push_str(&format!("  {} bad rows, {tolerance} tolerated", count(check.bad_row_count)));
        }
        line
    }
}

/// The beginning of a text that may be long.
fn short(text: &str) -> String {
    if text.chars().count() <= SAMPLE_LENGTH {
        text.to_owned()
    } else {
        text.chars().take(SAMPLE_LENGTH).chain("…".chars()).collect()
    }
}

impl Reporter for Watcher {
    fn event(&self, run: RunId, event: &RunEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            RunEvent::Planned { actions, .. } => {
                self.line(&state, &format!("run {run}: {}", counted(actions.len() as u64, "step")));
            }
            RunEvent::StepStarted { step, attempt } => self.started(&mut state, step, *attempt),
            RunEvent::StepSucceeded { step, outcome } => {
                Self::end(&mut state, step);
                self.line(&state, &self.succeeded(step, outcome));
            }
            RunEvent::StepErrored { step, failure, retry_at } => {
                Self::end(&mut state, step);
                let next = retry_at.map_or_else(String::new, |at| {
                    let wait = at.duration_since(SystemClock.now()).as_millis().max(0);
                    format!("; again in {}", duration(u64::try_from(wait).unwrap_or(0)))
                });
                let word = if retry_at.is_some() {
                    self.printer.err_tone(Tone::Warn, "failed")
                } else {
                    self.printer.err_tone(Tone::Bad, "failed")
                };
                self.line(&state, &format!("  {word} {step}  {}{next}", failure.message));
            }
            RunEvent::StepSkipped { step, reason } => {
                let why = reason.to_string();
                self.line(&state, &format!("  {} {step}  {why}", self.printer.err_tone(Tone::Dim, "skipped")));
            }
            RunEvent::CancelRequested { .. } => {
                self.line(&state, "stopping: running steps end without publishing; what is published stays. Once more kills");
            }
            RunEvent::Expanded { step, actions, .. } => {
                self.line(&state, &format!("  {step}: {} more", counted(actions.len() as u64, "step")));
            }
            RunEvent::Started { .. } | RunEvent::Lost { .. } | RunEvent::Resumed { .. } | RunEvent::Finished { .. } => {}
        }
    }

    fn progress(&self, progress: &Progress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = state.bars.get(&progress.step) {
            bar.set_message(bytes(progress.bytes));
            bar.set_position(progress.rows);
            return;
        }
        let now = SystemClock.now().as_millisecond();
        let is_due = state
            .lines
            .get(&progress.step)
            .is_some_and(|last| u128::from((now - last).unsigned_abs()) >= LINE_INTERVAL.as_millis());
        if is_due {
            state.lines.insert(progress.step.clone(), now);
            self.line(
                &state,
                &format!("  running {}  {}  {}", progress.step, counted(progress.rows, "row"), bytes(progress.bytes)),
            );
        }
    }
}
