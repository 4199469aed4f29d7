//! Secrets that were resolved never show: every failure and outcome passes here before it is recorded or printed.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use subak_domain::secret::REDACTED;
use subak_domain::{Action, CheckOutcome, Failure, RunId, StepOutcome};
use subak_engine::{StepExecutor, StopSignal};

/// Values that must not show. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Arc<Mutex<Vec<String>>>);

impl Redactor {
    /// Adds a value. Very short ones would make everything unreadable and protect nothing.
    ///
    /// Of an address the password alone must not show either, as it is written and as it is meant.
    pub(crate) fn add(&self, value: &str) {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let password = password_of(value);
        let meant = password.map(percent_decoded);
        for value in [Some(value), password, meant.as_deref()].into_iter().flatten() {
            if value.len() > 2 && !values.iter().any(|known| known == value) {
                values.push(value.to_owned());
            }
        }
    }

    /// The text without the values.
    pub(crate) fn redact(&self, text: &str) -> String {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.iter().fold(text.to_owned(), |text, value| text.replace(value, REDACTED))
    }

    fn all(&self, texts: &mut [String]) {
        for text in texts {
            *text = self.redact(text);
        }
    }

    fn checks(&self, checks: &mut [CheckOutcome]) {
        for check in checks {
            self.all(&mut check.sample);
        }
    }
}

/// The password in an address such as `scheme://user:password@host`.
fn password_of(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    let (who, _) = rest.rsplit_once('@')?;
    who.split_once(':').map(|(_, password)| password)
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = text.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(|code| u8::from_str_radix(code, 16).ok());
        decoded.push(code.unwrap_or(*byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Executes steps, and redacts what they report.
pub(crate) struct Redacting<E> {
    pub(crate) inner: E,
    pub(crate) redactor: Redactor,
}

#[async_trait]
impl<E: StepExecutor> StepExecutor for Redacting<E> {
    async fn execute(&self, run: RunId, action: &Action, stop: &StopSignal) -> Result<StepOutcome, Box<Failure>> {
        match self.inner.execute(run, action, stop).await {
            Ok(mut outcome) => {
                self.redactor.checks(&mut outcome.checks);
                self.redactor.all(&mut outcome.warnings);
                Ok(outcome)
            }
            Err(mut failure) => {
                failure.message = self.redactor.redact(&failure.message);
                failure.data = self.redactor.redact(&failure.data);
                self.redactor.all(&mut failure.causes);
                self.redactor.all(&mut failure.help);
                self.redactor.checks(&mut failure.checks);
                Err(failure)
            }
        }
    }

    async fn recover(&self, run: RunId, action: &Action) -> Option<StepOutcome> {
        self.inner.recover(run, action).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_out_wherever_they_stand() {
        let redactor = Redactor::default();
        redactor.add("hunter2");
        redactor.add("x");
        assert_eq!(redactor.redact("open /home/hunter2/hunter2.db x"), "open /home/[redacted]/[redacted].db x");
    }

    #[test]
    fn the_password_of_an_address_shows_in_no_form() {
        let redactor = Redactor::default();
        redactor.add("postgresql://me:p%40ss%20word@db:5432/x");
        for text in ["postgresql://me:p%40ss%20word@db:5432/x", "in p%40ss%20word there", "user me, password p@ss word"] {
            let shown = redactor.redact(text);
            assert!(!shown.contains("word@") && !shown.contains("p%40") && !shown.contains("p@ss"), "{shown}");
        }
        assert_eq!(percent_decoded("100%"), "100%");
    }
}
