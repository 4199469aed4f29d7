//! Conditions from their text.
//!
//! `or` binds weakest, then `and`, then `not`, then `since` and `since_last_handled`, which stand behind what they belong to.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use subak_domain::automation::{Condition, LAST_HANDLED, Operand};
use subak_domain::schedule::ScheduleRule;
use subak_domain::{AssetKey, FreshnessStatus, Schedule};

/// The deepest nesting of one condition.
const DEPTH_MAX: usize = 32;

/// The most conditions of which one that something was replaced in is made.
const SIZE_MAX: usize = 1_000;

/// A text that is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// A word that is none of [`WORDS`].
    #[error("`{0}` is no condition")]
    Unknown(String),
    /// Anything else.
    #[error("{0}")]
    Wrong(String),
}

/// Words that are conditions by themselves.
pub const WORDS: [&str; 45] = [
    "missing",
    "in_progress",
    "execution_failed",
    "newly_updated",
    "data_version_changed",
    "newly_requested",
    "newly_missing",
    "will_be_requested",
    "code_version_changed",
    "initial_evaluation",
    "in_latest_time_window",
    "check_failed",
    "check_passed",
    "any_deps_updated",
    "any_deps_missing",
    "any_deps_in_progress",
    "all_deps_checks_passed",
    "any_deps_match",
    "all_deps_match",
    "newly_true",
    "cron_tick_passed",
    "freshness_failed",
    "freshness_passed",
    "freshness_warned",
    "all_deps_updated_since_cron",
    "eager",
    "on_missing",
    "on_cron",
    "run_in_progress",
    "backfill_in_progress",
    "executed_with_tags",
    "executed_with_root_target",
    "any_new_updates_have_run_tags",
    "all_new_updates_have_run_tags",
    "any_checks_match",
    "all_checks_match",
    "any_blocking_checks_match",
    "all_blocking_checks_match",
    "all_deps_blocking_checks_passed",
    "asset_matches",
    "any_downstream_conditions",
    "allow",
    "ignore",
    "with_label",
    "replace",
];

fn is(operand: Operand) -> Condition {
    Condition::Is(operand)
}

fn not(condition: Condition) -> Condition {
    Condition::Not(Box::new(condition))
}

fn any_deps(condition: Condition) -> Condition {
    Condition::AnyDeps(Box::new(condition))
}

fn newly_missing() -> Condition {
    Condition::Named("newly_missing", Box::new(Condition::NewlyTrue(Box::new(is(Operand::Missing)))))
}

/// True until the asset was asked for or brought up to date, by an attempt that began after that.
fn since_last_handled(condition: Condition) -> Condition {
    let handled = Condition::Or(vec![is(Operand::NewlyRequested), is(Operand::NewlySeen)]);
    Condition::Since(Box::new(condition), Box::new(Condition::Named(LAST_HANDLED, Box::new(handled))))
}

fn any_deps_updated() -> Condition {
    let updated = Condition::Or(vec![is(Operand::ChangedByOthers), is(Operand::WillBeRequested)]);
    Condition::Named("any_deps_updated", Box::new(any_deps(updated)))
}

fn any_deps_missing() -> Condition {
    let missing = Condition::And(vec![is(Operand::Missing), not(is(Operand::WillBeRequested))]);
    Condition::Named("any_deps_missing", Box::new(any_deps(missing)))
}

fn any_deps_in_progress() -> Condition {
    let busy = Condition::And(vec![is(Operand::InProgress), not(is(Operand::WillBeRequested))]);
    Condition::Named("any_deps_in_progress", Box::new(any_deps(busy)))
}

fn all_deps_blocking_checks_passed() -> Condition {
    let passed = Box::new(is(Operand::CheckPassed));
    let all = Condition::Checks { all: true, blocking: true, inner: passed };
    let matched = Condition::AllDeps(Box::new(Condition::Or(vec![all, is(Operand::WillBeRequested)])));
    Condition::Named("all_deps_blocking_checks_passed", Box::new(matched))
}

/// Brings an asset up to date when it is missing, or what it reads has changed, once nothing that it reads is missing or under way.
pub fn eager() -> Condition {
    Condition::And(vec![
        is(Operand::InLatestTimeWindow(None)),
        since_last_handled(Condition::Or(vec![newly_missing(), any_deps_updated()])),
        not(any_deps_missing()),
        not(any_deps_in_progress()),
        not(is(Operand::InProgress)),
    ])
}

/// Brings an asset up to date when it is missing, once nothing that it reads is.
pub fn on_missing() -> Condition {
    Condition::And(vec![
        is(Operand::InLatestTimeWindow(None)),
        since_last_handled(newly_missing()),
        not(any_deps_missing()),
        not(is(Operand::InProgress)),
    ])
}

/// Brings an asset up to date once for each tick, when everything that it reads was brought up to date since.
pub fn on_cron(line: &str, timezone: &str) -> Result<Condition, ConditionError> {
    Ok(Condition::And(vec![
        is(Operand::InLatestTimeWindow(None)),
        since_last_handled(tick(line, timezone)?),
        all_deps_updated_since_cron(line, timezone)?,
        not(is(Operand::InProgress)),
    ]))
}

/// Brings an asset up to date when that was too long ago, once nothing that it reads is missing.
pub fn fresh_within(age: Duration) -> Condition {
    let failed = Condition::Or(vec![newly_missing(), Condition::NewlyTrue(Box::new(is(Operand::FreshnessFailed(age))))]);
    Condition::And(vec![
        is(Operand::InLatestTimeWindow(None)),
        since_last_handled(failed),
        not(any_deps_missing()),
        not(is(Operand::InProgress)),
    ])
}

fn tick(line: &str, timezone: &str) -> Result<Condition, ConditionError> {
    let schedule = Schedule::new(ScheduleRule::Cron(vec![line.to_owned()]), timezone);
    crate::schedule::check(&schedule).map_err(|error| ConditionError::Wrong(error.to_string()))?;
    Ok(is(Operand::CronTickPassed(line.to_owned(), Box::new(schedule))))
}

fn all_deps_updated_since_cron(line: &str, timezone: &str) -> Result<Condition, ConditionError> {
    let since = Condition::Since(Box::new(is(Operand::NewlyUpdated)), Box::new(tick(line, timezone)?));
    Ok(Condition::AllDeps(Box::new(Condition::Or(vec![since, is(Operand::WillBeRequested)]))))
}

/// Refuses what is not known of a single check.
fn refuse_unknown_of_checks(word: &str, inner: &Condition) -> Result<(), ConditionError> {
    let mut other = None;
    inner.walk(&mut |condition| {
        let is_known = match condition {
            Condition::Is(operand) => {
                matches!(operand, Operand::CheckFailed | Operand::CheckPassed | Operand::Missing | Operand::WillBeRequested)
            }
            Condition::And(_) | Condition::Or(_) | Condition::Not(_) | Condition::Labeled(..) => true,
            _ => false,
        };
        if !is_known {
            other.get_or_insert_with(|| condition.to_string());
        }
    });
    if let Some(other) = other {
        let known = "`check_passed`, `check_failed`, `missing` and `will_be_requested`";
        return Err(ConditionError::Wrong(format!("`{word}` is over single checks, of which {known} are known, not `{other}`")));
    }
    Ok(())
}

/// A condition from its text. Cron lines in it count by the clock of `timezone`.
pub fn parse(text: &str, timezone: &str) -> Result<Condition, ConditionError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, timezone };
    let condition = parser.any()?;
    match parser.tokens.get(parser.at) {
        None => Ok(condition),
        Some(token) => Err(ConditionError::Wrong(format!("`{token}` stands where `and`, `or` or `since` could"))),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
    Comma,
}

impl std::fmt::Display for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(word) => formatter.write_str(word),
            Self::Text(text) => write!(formatter, "'{text}'"),
            Self::Open => formatter.write_str("("),
            Self::Close => formatter.write_str(")"),
            Self::Comma => formatter.write_str(","),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, ConditionError> {
    let (mut found, mut letters) = (Vec::new(), text.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '(' => found.push(Token::Open),
            ')' => found.push(Token::Close),
            ',' => found.push(Token::Comma),
            '\'' | '"' => {
                let mut inner = String::new();
                loop {
                    match letters.next() {
                        Some(end) if end == letter => break,
                        Some(other) => inner.push(other),
                        None => return Err(ConditionError::Wrong(format!("a text that begins with {letter} has no end"))),
                    }
                }
                found.push(Token::Text(inner));
            }
            letter if letter.is_whitespace() => {}
            letter if letter.is_ascii_alphanumeric() || letter == '_' => {
                let mut word = letter.to_string();
                while let Some(next) = letters.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
                    word.push(next);
                }
                found.push(Token::Word(word));
            }
            other => return Err(ConditionError::Wrong(format!("`{other}` is no part of a condition"))),
        }
    }
    Ok(found)
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    timezone: &'a str,
}

impl Parser<'_> {
    fn is_word(&self, word: &str) -> bool {
        matches!(self.tokens.get(self.at), Some(Token::Word(found)) if found == word)
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_there = self.is_word(word);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, token: &Token) -> Result<(), ConditionError> {
        match self.tokens.get(self.at) {
            Some(found) if found == token => {
                self.at += 1;
                Ok(())
            }
            Some(found) => Err(ConditionError::Wrong(format!("`{found}` stands where `{token}` belongs"))),
            None => Err(ConditionError::Wrong(format!("`{token}` is missing at the end"))),
        }
    }

    fn any(&mut self) -> Result<Condition, ConditionError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ConditionError::Wrong(format!("it is nested more than {DEPTH_MAX} times")));
        }
        let mut parts = vec![self.all()?];
        while self.take_word("or") {
            parts.push(self.all()?);
        }
        self.depth -= 1;
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::Or(parts) })
    }

    fn all(&mut self) -> Result<Condition, ConditionError> {
        let mut parts = vec![self.negated()?];
        while self.take_word("and") {
            parts.push(self.negated()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::And(parts) })
    }

    fn negated(&mut self) -> Result<Condition, ConditionError> {
        let mut count = 0;
        while self.take_word("not") {
            count += 1;
        }
        let found = self.since()?;
        Ok(if count % 2 == 1 { not(found) } else { found })
    }

    fn since(&mut self) -> Result<Condition, ConditionError> {
        let mut found = self.atom()?;
        loop {
            if self.take_word("since_last_handled") {
                found = since_last_handled(found);
            } else if self.take_word("since") {
                found = Condition::Since(Box::new(found), Box::new(self.atom()?));
            } else {
                return Ok(found);
            }
        }
    }

    fn atom(&mut self) -> Result<Condition, ConditionError> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        match token {
            Some(Token::Open) => {
                let inner = self.any()?;
                self.expect(&Token::Close)?;
                Ok(inner)
            }
            Some(Token::Word(word)) => self.named(&word),
            Some(other) => Err(ConditionError::Wrong(format!("`{other}` stands where a condition belongs"))),
            None => Err(ConditionError::Wrong("a condition is missing at the end".to_owned())),
        }
    }

    fn inner(&mut self) -> Result<Box<Condition>, ConditionError> {
        self.expect(&Token::Open)?;
        let inner = self.any()?;
        self.expect(&Token::Close)?;
        Ok(Box::new(inner))
    }

    fn quoted(&mut self, of: &str) -> Result<String, ConditionError> {
        let Some(Token::Text(text)) = self.tokens.get(self.at).cloned() else {
            return Err(ConditionError::Wrong(format!("`{of}` takes a text in quotes")));
        };
        self.at += 1;
        Ok(text)
    }

    fn text(&mut self, of: &str) -> Result<String, ConditionError> {
        self.expect(&Token::Open)?;
        let text = self.quoted(of)?;
        self.expect(&Token::Close)?;
        Ok(text)
    }

    /// One text or several, with commas between them.
    fn texts(&mut self, of: &str) -> Result<Vec<String>, ConditionError> {
        self.expect(&Token::Open)?;
        let mut found = vec![self.quoted(of)?];
        while self.tokens.get(self.at) == Some(&Token::Comma) {
            self.at += 1;
            found.push(self.quoted(of)?);
        }
        self.expect(&Token::Close)?;
        Ok(found)
    }

    /// A text and a condition.
    fn text_and_inner(&mut self, of: &str) -> Result<(String, Box<Condition>), ConditionError> {
        self.expect(&Token::Open)?;
        let text = self.quoted(of)?;
        self.expect(&Token::Comma)?;
        let inner = self.any()?;
        self.expect(&Token::Close)?;
        Ok((text, Box::new(inner)))
    }

    /// A condition over each check. What is not known of a single check has no place in it.
    fn of_checks(&mut self, word: &str) -> Result<Condition, ConditionError> {
        let inner = self.inner()?;
        refuse_unknown_of_checks(word, &inner)?;
        Ok(Condition::Checks { all: word.starts_with("all_"), blocking: word.contains("blocking"), inner })
    }

    /// `replace(condition, part, other)`: the condition, with another one in place of a part of it.
    fn replaced(&mut self) -> Result<Condition, ConditionError> {
        self.expect(&Token::Open)?;
        let whole = self.any()?;
        self.expect(&Token::Comma)?;
        let part = self.any()?;
        self.expect(&Token::Comma)?;
        let other = self.any()?;
        self.expect(&Token::Close)?;
        let mut count = 0;
        let shown = whole.to_string();
        let found = whole.map(&mut |condition| {
            if condition == part {
                count += 1;
                other.clone()
            } else {
                condition
            }
        });
        if count == 0 {
            return Err(ConditionError::Wrong(format!("`{part}` is no part of `{shown}`")));
        }
        let (mut size, mut wrong) = (0, Ok(()));
        found.walk(&mut |condition| {
            size += 1;
            if let (Condition::Checks { inner, .. }, Ok(())) = (condition, &wrong) {
                wrong = refuse_unknown_of_checks("replace", inner);
            }
        });
        wrong?;
        if size > SIZE_MAX {
            return Err(ConditionError::Wrong(format!("it is made of more than {SIZE_MAX} conditions")));
        }
        Ok(found)
    }

    /// A condition over other assets, or over some of them.
    fn elsewhere(&mut self, word: &str) -> Result<Condition, ConditionError> {
        let (text, inner) = self.text_and_inner(word)?;
        if word == "asset_matches" {
            let asset: Result<AssetKey, _> = text.parse();
            let asset = asset.map_err(|error| ConditionError::Wrong(format!("`{text}` names no asset: {error}")))?;
            return Ok(Condition::OfAsset(asset, inner));
        }
        if word == "with_label" {
            return Ok(Condition::Labeled(text, inner));
        }
        if text.split([' ', ',']).any(|term| term.trim_matches(['+', '@']) == "changed") {
            return Err(ConditionError::Wrong(format!("`{word}` takes what is so for good; `changed` is not")));
        }
        Ok(Condition::Where { allow: word == "allow", selection: text, inner })
    }

    fn duration(&mut self, of: &str) -> Result<Duration, ConditionError> {
        let text = self.text(of)?;
        let span = text.parse::<Span>().ok().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        let found = span.and_then(|found| Duration::try_from(found).ok()).filter(|found| !found.is_zero());
        found.ok_or_else(|| ConditionError::Wrong(format!("`{of}` takes a duration such as '6h', and '{text}' is none")))
    }

    fn named(&mut self, word: &str) -> Result<Condition, ConditionError> {
        Ok(match word {
            "missing" => is(Operand::Missing),
            "in_progress" => is(Operand::InProgress),
            "run_in_progress" => is(Operand::RunInProgress),
            "backfill_in_progress" => is(Operand::BackfillInProgress),
            "executed_with_tags" => is(Operand::ExecutedWithTags(self.texts(word)?)),
            "executed_with_root_target" => is(Operand::ExecutedWithRootTarget),
            "any_new_updates_have_run_tags" | "all_new_updates_have_run_tags" => {
                is(Operand::NewUpdatesWithTags { all: word.starts_with("all"), tags: self.texts(word)? })
            }
            "any_checks_match" | "all_checks_match" | "any_blocking_checks_match" | "all_blocking_checks_match" => {
                self.of_checks(word)?
            }
            "all_deps_blocking_checks_passed" => all_deps_blocking_checks_passed(),
            "asset_matches" | "allow" | "ignore" | "with_label" => self.elsewhere(word)?,
            "any_downstream_conditions" => Condition::AnyDownstream,
            "replace" => self.replaced()?,
            "on_missing" => on_missing(),
            "on_cron" => on_cron(&self.text(word)?, self.timezone)?,
            "execution_failed" => is(Operand::ExecutionFailed),
            "newly_updated" => is(Operand::NewlyUpdated),
            "data_version_changed" => is(Operand::DataVersionChanged),
            "newly_requested" => is(Operand::NewlyRequested),
            "newly_missing" => newly_missing(),
            "will_be_requested" => is(Operand::WillBeRequested),
            "code_version_changed" => is(Operand::CodeVersionChanged),
            "initial_evaluation" => is(Operand::InitialEvaluation),
            "in_latest_time_window" if self.tokens.get(self.at) == Some(&Token::Open) => {
                is(Operand::InLatestTimeWindow(Some(self.duration(word)?)))
            }
            "in_latest_time_window" => is(Operand::InLatestTimeWindow(None)),
            "check_failed" => is(Operand::CheckFailed),
            "check_passed" => is(Operand::CheckPassed),
            "any_deps_updated" => any_deps_updated(),
            "any_deps_missing" => any_deps_missing(),
            "any_deps_in_progress" => any_deps_in_progress(),
            "all_deps_checks_passed" => Condition::AllDeps(Box::new(not(is(Operand::CheckFailed)))),
            "any_deps_match" => Condition::AnyDeps(self.inner()?),
            "all_deps_match" => Condition::AllDeps(self.inner()?),
            "newly_true" => Condition::NewlyTrue(self.inner()?),
            "cron_tick_passed" => tick(&self.text(word)?, self.timezone)?,
            "freshness_failed" if self.tokens.get(self.at) == Some(&Token::Open) => {
                is(Operand::FreshnessFailed(self.duration(word)?))
            }
            "freshness_failed" => is(Operand::Freshness(FreshnessStatus::Late)),
            "freshness_passed" => is(Operand::Freshness(FreshnessStatus::Fresh)),
            "freshness_warned" => is(Operand::Freshness(FreshnessStatus::Warned)),
            "all_deps_updated_since_cron" => all_deps_updated_since_cron(&self.text(word)?, self.timezone)?,
            "eager" => eager(),
            "and" | "or" | "since" | "since_last_handled" => {
                return Err(ConditionError::Wrong(format!("`{word}` stands where a condition belongs")));
            }
            other => return Err(ConditionError::Unknown(other.to_owned())),
        })
    }
}
