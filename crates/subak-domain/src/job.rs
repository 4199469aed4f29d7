//! Jobs and tasks: declared work that owns no data, and when a step of it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Action, ConnectionName, Notifications, Retry, Schedule, StepId, Work};

/// Slots of pools by the names of the pools: how many there are, or how many one attempt of a step takes.
pub type PoolSlots = BTreeMap<String, NonZeroU32>;

/// When a step runs, by how the steps that it needs ended. Airflow's thirteen rules, by their names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// All succeeded.
    #[default]
    AllSuccess,
    /// All failed, or were not run because of a failure.
    AllFailed,
    /// All ended, however.
    AllDone,
    /// All ended, none was skipped, and one succeeded.
    AllDoneMinOneSuccess,
    /// All ended, and a setup among them succeeded.
    AllDoneSetupSuccess,
    /// At once, whatever they do.
    Always,
    /// None failed; skipped ones do not matter.
    NoneFailed,
    /// None failed, and one succeeded.
    NoneFailedMinOneSuccess,
    /// All ended, and none was skipped.
    NoneSkipped,
    /// One succeeded; the others are not waited for.
    OneSuccess,
    /// One failed; the others are not waited for.
    OneFailed,
    /// One succeeded or failed; the others are not waited for.
    OneDone,
    /// All were skipped.
    AllSkipped,
}

impl Trigger {
    /// Every rule with its name.
    pub const NAMES: [(&str, Self); 13] = [
        ("all_success", Self::AllSuccess),
        ("all_failed", Self::AllFailed),
        ("all_done", Self::AllDone),
        ("all_done_min_one_success", Self::AllDoneMinOneSuccess),
        ("all_done_setup_success", Self::AllDoneSetupSuccess),
        ("always", Self::Always),
        ("none_failed", Self::NoneFailed),
        ("none_failed_min_one_success", Self::NoneFailedMinOneSuccess),
        ("none_skipped", Self::NoneSkipped),
        ("one_success", Self::OneSuccess),
        ("one_failed", Self::OneFailed),
        ("one_done", Self::OneDone),
        ("all_skipped", Self::AllSkipped),
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, trigger)| *trigger == self).map_or("all_success", |(name, _)| name)
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// What a step of a job is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The work itself.
    #[default]
    Work,
    /// Prepares something that a teardown takes away.
    Setup,
    /// Takes away what its setup prepared, even when the work failed. Says nothing about how the run ended.
    Teardown,
    /// The same, and the run fails when it does.
    TeardownThatCounts,
}

impl Role {
    /// Whether it takes something away.
    pub fn is_teardown(self) -> bool {
        matches!(self, Self::Teardown | Self::TeardownThatCounts)
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which steps behind one are left out when its value says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShortCircuit {
    /// All behind it, whatever their rules.
    All,
    /// Those right behind it; the rules of the others decide.
    Direct,
}

/// Whether and how a step of a job runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// The task's name in its job, with the group and the item that it belongs to: `load[books].extract`. Empty outside of jobs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
    /// When it runs.
    #[serde(skip_serializing_if = "Trigger::is_default")]
    pub trigger: Trigger,
    /// A condition on values of earlier steps; when it is false the step is skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Role::is_default")]
    pub role: Role,
    /// What is left out when its value is false, zero or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short_circuit: Option<ShortCircuit>,
    /// What `item` stands for in its texts.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub item: Option<Value>,
    /// The start of a program that carries it out together with the other steps that name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// Steps that end, however they do, before that start is made; said by the first step of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<StepId>,
    /// Its bounds, where it is no asset of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<TaskLimits>,
    /// How many slots of which pools one attempt takes, besides those that its asset says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pools: PoolSlots,
}

impl Rule {
    /// Whether it is that of every step that is no task.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// A value that is there, also when it is null.
pub(crate) fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Bounds of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLimits {
    /// Attempts in all, the first one included.
    pub attempts_max: NonZeroU32,
    /// Milliseconds before the second attempt; doubles each time.
    pub delay_first_ms: u64,
    /// The most milliseconds between two attempts.
    pub delay_max_ms: u64,
    /// Share of the wait that is random, in percent.
    pub jitter_percent: u8,
    /// Milliseconds that one attempt may take.
    pub timeout_ms: u64,
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl TaskLimits {
    /// These bounds.
    pub fn new(retry: Retry, timeout: Duration) -> Self {
        Self {
            attempts_max: retry.attempts_max,
            delay_first_ms: milliseconds(retry.delay_first),
            delay_max_ms: milliseconds(retry.delay_max),
            jitter_percent: retry.jitter_percent,
            timeout_ms: milliseconds(timeout),
        }
    }

    /// How often it is tried, and how long it waits in between.
    pub fn retry(&self) -> Retry {
        Retry {
            attempts_max: self.attempts_max,
            delay_first: Duration::from_millis(self.delay_first_ms),
            delay_max: Duration::from_millis(self.delay_max_ms),
            jitter_percent: self.jitter_percent,
        }
    }
}

/// The place of an item in the names of tasks that are made once for each.
const ITEM_PLACE: &str = "[*]";

/// The longest item that is part of a name; others are known by their number.
const ITEM_NAME_LENGTH_MAX: usize = 60;

/// A name with the first place for an item filled.
pub(crate) fn for_item(text: &str, name: &str) -> String {
    text.replacen(ITEM_PLACE, &format!("[{name}]"), 1)
}

/// How items are called in the names of their tasks: by themselves where they are short texts or numbers and none comes twice, else by their
/// numbers from 0.
pub fn item_names(items: &[Value]) -> Vec<String> {
    let name = |item: &Value| match item {
        Value::String(text) if !text.is_empty() && text.len() <= ITEM_NAME_LENGTH_MAX && !text.contains(['[', ']']) => {
            Some(text.clone())
        }
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let names: Option<Vec<String>> = items.iter().map(name).collect();
    let names = names.filter(|names| names.iter().collect::<BTreeSet<_>>().len() == names.len());
    names.unwrap_or_else(|| (0..items.len()).map(|at| at.to_string()).collect())
}

impl Action {
    /// Whether it only waits, so that it takes up no room.
    pub fn is_idle(&self) -> bool {
        matches!(self.work, Work::Task(TaskWork::Wait { .. } | TaskWork::Approve(_)))
    }

    /// The action of a group for one of its items.
    #[must_use]
    pub fn for_item(&self, name: &str, item: &Value) -> Self {
        let mut action = self.clone();
        action.step = self.step.for_item(name);
        action.needs = self.needs.iter().map(|need| need.for_item(name)).collect();
        action.rule.task = for_item(&self.rule.task, name);
        action.rule.item = Some(item.clone());
        if let Work::Task(TaskWork::Expand { actions, leaves, .. }) = &mut action.work {
            for inner in actions.iter_mut() {
                // Its own item comes later.
                *inner = inner.for_item(name, item);
            }
            for leaf in leaves.iter_mut() {
                *leaf = leaf.for_item(name);
            }
        }
        action
    }
}

/// What a task does. Texts are templates, rendered when the step starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskWork {
    /// Runs a program to its end; the exit code says whether it succeeded.
    Run(Program),
    /// Runs one statement.
    Sql {
        /// Where.
        on: ConnectionName,
        /// The statement.
        sql: String,
    },
    /// Asks one question; the first row of the answer is the value.
    Query {
        /// Where.
        on: ConnectionName,
        /// The query.
        sql: String,
    },
    /// Sends one request; the answer is the value.
    Http(HttpCall),
    /// Tells somebody something.
    Notify {
        /// The receiver.
        receiver: String,
        /// What.
        message: String,
    },
    /// Waits.
    Wait {
        /// Milliseconds from the start of the step.
        wait_ms: u64,
    },
    /// Asks a person, and waits for the answer.
    Approve(Approval),
    /// Makes the tasks of a group, once for each item of a list that is known only now.
    Expand {
        /// An expression whose value is the list.
        items: String,
        /// The most items that it may have.
        count_max: u32,
        /// The actions of one item; `[*]` in names stands for the item, and needs of other steps stay as they are.
        actions: Vec<Action>,
        /// Those of them that nothing else in the group waits for.
        leaves: Vec<StepId>,
    },
}

/// A request over HTTP. Its texts are templates, in which references (`${secret:…}`) may stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpCall {
    /// The method, in capitals.
    pub method: String,
    /// The address.
    pub url: String,
    /// Headers by name.
    pub headers: BTreeMap<String, String>,
    /// What is sent; a JSON object or list is sent as JSON.
    pub body: Option<String>,
    /// Status codes that count as success; any from 200 to 299 where there are none.
    pub expect: Vec<u16>,
}

/// What a person is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Approval {
    /// The question; a template.
    pub message: String,
    /// What the answer says besides yes or no.
    pub input: BTreeMap<String, Param>,
    /// What holds when nobody answers in time; without one the task fails then.
    pub default: Option<bool>,
    /// Whether the task succeeds when the answer is no, so that what is behind it can tell; else it fails.
    pub continues: bool,
    /// Who is told that there is a question.
    pub notify: Option<String>,
}

/// What a person answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether it is a yes.
    pub approved: bool,
    /// Who answered.
    pub by: String,
    /// What else was said.
    pub input: BTreeMap<String, Value>,
    /// When.
    pub at: crate::Timestamp,
}

/// A program and how it is started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// The program and its arguments; a single text is a line for the shell.
    pub command: Command,
    /// Variables of its environment, beside those of the process that starts it. `${secret:…}` is resolved at the start.
    pub env: BTreeMap<String, String>,
    /// The folder in which it runs, relative to the project.
    pub dir: Option<String>,
    /// What it may use.
    #[serde(skip_serializing_if = "ProgramLimits::is_none")]
    pub limits: ProgramLimits,
}

impl Program {
    /// What of it decides about its data, as text for a version: what it may use does not.
    pub fn version_text(&self) -> String {
        let Self { command, env, dir, limits: _ } = self;
        format!("Program {{ command: {command:?}, env: {env:?}, dir: {dir:?} }}")
    }
}

/// What a program may use, together with whatever it starts. What uses more is killed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgramLimits {
    /// Bytes of memory at a time.
    pub memory_bytes_max: Option<u64>,
    /// Milliseconds of processor time in all.
    pub cpu_ms_max: Option<u64>,
}

impl ProgramLimits {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// A program and its arguments, with nothing in between.
    Direct(Vec<String>),
    /// A Python file and its arguments: by `uv` where that is installed, so that the file's own dependencies are there, else by `python3`.
    Python(Vec<String>),
}

impl Default for Command {
    fn default() -> Self {
        Self::Direct(Vec::new())
    }
}

/// A declared, named set of work that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// What it is for, for people.
    pub description: Option<String>,
    /// The file that declares it.
    pub path: String,
    /// What it does.
    pub work: JobWork,
    /// What can be said at the start.
    pub params: BTreeMap<String, Param>,
    /// When it starts by itself.
    pub schedule: Option<Schedule>,
    /// Who is told about its runs.
    pub notifications: Notifications,
    /// Runs of a higher one are begun first.
    pub priority: i64,
    /// How many of its runs go on at a time.
    pub runs_max: NonZeroU32,
    /// What becomes of one more.
    pub when_full: WhenFull,
    /// Whether a run waits until the one before it has succeeded.
    pub needs_previous: bool,
    /// Labels of its runs, as templates over its parameters; limits of the project hold for runs with the same one.
    pub tags: Vec<String>,
}

/// What becomes of a run of a job that has as many runs as it may have at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits.
    #[default]
    Wait,
    /// It is canceled.
    Cancel,
}

/// What a job does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobWork {
    /// Brings assets up to date, by a selection in words.
    Select(Vec<String>),
    /// Runs tasks, in the order of their needs.
    Tasks(Vec<Action>),
}

/// One thing that can be said when a job is started, or a question answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// What it is.
    pub kind: ParamKind,
    /// What it is where nobody says; `None` where somebody must.
    pub default: Option<Value>,
    /// The values that it can have; any where there are none.
    pub choices: Vec<Value>,
    /// What it means, for people.
    pub description: Option<String>,
}

/// The kind of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    /// Any text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A day, `2026-11-21`.
    Date,
}

impl ParamKind {
    /// Every kind with its name.
    pub const NAMES: [(&str, Self); 5] = [
        ("text", Self::Text),
        ("integer", Self::Integer),
        ("number", Self::Number),
        ("boolean", Self::Boolean),
        ("date", Self::Date),
    ];

    /// A value from its text; `None` where the text is none of this kind.
    pub fn parse(self, text: &str) -> Option<Value> {
        Some(match self {
            Self::Text => Value::from(text),
            Self::Integer => Value::from(text.parse::<i64>().ok()?),
            Self::Number => Value::from(text.parse::<f64>().ok().filter(|number| number.is_finite())?),
            Self::Boolean => Value::from(text.parse::<bool>().ok()?),
            Self::Date => {
                text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() == 10)?;
                Value::from(text)
            }
        })
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("text", |(name, _)| name)
    }
}
