//! Secrets that were resolved never show: every failure and outcome passes here before it is recorded or printed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use subak_diag::Diagnostic;
use subak_domain::secret::REDACTED;
use subak_domain::{Action, CheckOutcome, Failure, RunId, StepOutcome};
use subak_engine::{Inputs, StepExecutor, StopSignal};

/// Every value that this process has resolved, for what is printed on a way that knows no connections.
fn everywhere() -> MutexGuard<'static, Vec<String>> {
    static VALUES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    VALUES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text without these values.
fn without(values: &[String], text: &str) -> String {
    values.iter().fold(text.to_owned(), |text, value| text.replace(value, REDACTED))
}

/// A text without any value that this process has resolved.
pub(crate) fn text(text: &str) -> String {
    without(&everywhere(), text)
}

/// A problem without any value that this process has resolved.
pub(crate) fn redacted(problem: &Diagnostic) -> Diagnostic {
    let values = everywhere();
    let text = |text: &String| without(&values, text);
    Diagnostic {
        message: text(&problem.message),
        causes: problem.causes.iter().map(text).collect(),
        data: problem.data.as_ref().map(text),
        help: problem.help.iter().map(text).collect(),
        ..problem.clone()
    }
}

/// The shortest line of a secret of several lines that is taken out by itself.
const LINE_LENGTH_MIN: usize = 8;

/// Values that must not show. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Arc<Mutex<Vec<String>>>);

impl Redactor {
    /// Adds a value. Very short ones would make everything unreadable and protect nothing.
    ///
    /// Of an address the password alone must not show either, as it is written and as it is meant.
    pub(crate) fn add(&self, value: &str) {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passwords = passwords_of(value);
        let meant = passwords.iter().map(|password| percent_decoded(password));
        let own = passwords.iter().map(|password| (*password).to_owned());
        // Output is looked at line by line.
        let lines = value.lines().filter(|line| value.contains('\n') && line.len() >= LINE_LENGTH_MIN).map(str::to_owned);
        for value in std::iter::once(value.to_owned()).chain(own).chain(meant).chain(lines) {
            if value.len() > 2 && !values.contains(&value) {
                values.push(value.clone());
                everywhere().push(value);
            }
        }
    }

    /// The text without the values.
    pub(crate) fn redact(&self, text: &str) -> String {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        without(&values, text)
    }

    /// A value with the values taken out of all texts in it.
    pub(crate) fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::from(self.redact(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(entries) => {
                let entries = entries.into_iter().map(|(name, value)| (self.redact(&name), self.value(value)));
                entries.collect::<serde_json::Map<_, _>>().into()
            }
            other => other,
        }
    }

    fn all(&self, texts: &mut [String]) {
        for text in texts {
            *text = self.redact(text);
        }
    }

    fn outcome(&self, outcome: &mut StepOutcome) {
        self.checks(&mut outcome.checks);
        self.all(&mut outcome.warnings);
        outcome.note = outcome.note.take().map(|note| self.redact(&note));
        outcome.value = outcome.value.take().map(|value| self.value(value));
        for value in outcome.metadata.values_mut() {
            *value = self.value(value.take());
        }
    }

    fn checks(&self, checks: &mut [CheckOutcome]) {
        for check in checks {
            self.all(&mut check.sample);
        }
    }
}

/// The passwords in an address such as `scheme://user:password@host?password=…`, with or without a scheme.
fn passwords_of(address: &str) -> Vec<&str> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["password", "passwd", "pwd", "token", "secret", "key"].iter().any(|word| name.contains(word))
    };
    let values = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| is_secret(name));
    // A password may have any letter but the one behind it; what is written in a path comes later.
    let who = place.split_once('@').map(|(who, _)| who).filter(|_| !place.starts_with('@'));
    let password = who.and_then(|who| who.split_once(':')).map(|(_, password)| password);
    password.into_iter().chain(values.map(|(_, value)| value)).collect()
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Executes steps, and redacts what they report.
pub(crate) struct Redacting<E> {
    pub(crate) inner: E,
    pub(crate) redactor: Redactor,
}

#[async_trait]
impl<E: StepExecutor> StepExecutor for Redacting<E> {
    async fn execute(
        &self,
        run: RunId,
        action: &Action,
        inputs: &Inputs,
        stop: &StopSignal,
    ) -> Result<StepOutcome, Box<Failure>> {
        match self.inner.execute(run, action, inputs, stop).await {
            Ok(mut outcome) => {
                self.redactor.outcome(&mut outcome);
                Ok(outcome)
            }
            Err(mut failure) => {
                failure.message = self.redactor.redact(&failure.message);
                failure.data = self.redactor.redact(&failure.data);
                self.redactor.all(&mut failure.causes);
                self.redactor.all(&mut failure.help);
                self.redactor.checks(&mut failure.checks);
                if let Some(published) = &mut failure.published {
                    self.redactor.outcome(published);
                }
                Err(failure)
            }
        }
    }

    fn forget(&self, run: RunId, action: &Action) {
        self.inner.forget(run, action);
    }

    fn goes_on(&self, run: RunId, action: &Action) -> bool {
        self.inner.goes_on(run, action)
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
        assert_eq!(passwords_of("db://u:pw@h/x?x=a@b&access_token=t"), ["pw", "t"]);
        assert_eq!(passwords_of("me:pw@account/db"), ["pw"]);
        assert!(passwords_of("postgresql://host:5432/x").is_empty() && passwords_of("plain words").is_empty());
    }
}
