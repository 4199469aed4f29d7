//! Exit codes, and errors on their way to one.

use std::process::ExitCode;

use subak_connect::{ConnectError, ConnectErrorKind};
use subak_diag::{Code, Diagnostic, codes};
use subak_domain::{Failure, FailureClass};
use subak_engine::EngineError;
use subak_store::StoreError;

/// The exit codes that `subak --help` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    Invalid = 2,
    Unreachable = 3,
    Permission = 4,
    Changes = 5,
    Conflict = 6,
    TimedOut = 7,
    Bug = 70,
    Interrupted = 130,
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends a command: what to show, and the exit code.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) problems: Vec<Diagnostic>,
    pub(crate) sources: subak_diag::Sources,
    pub(crate) exit: Exit,
}

impl CliError {
    pub(crate) fn new(problem: Diagnostic, exit: Exit) -> Self {
        Self { problems: vec![problem], sources: subak_diag::Sources::default(), exit }
    }

    /// The first problem in one sentence.
    pub(crate) fn summary(&self) -> String {
        self.problems.first().map_or_else(String::new, |problem| problem.message.clone())
    }

    /// Something of this name does not exist.
    pub(crate) fn not_found<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let problem = Diagnostic::error(codes::NOT_FOUND, format!("there is no {what} `{name}`"));
        let problem = match subak_diag::nearest(name, known) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem,
        };
        Self::new(problem, Exit::Invalid)
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let (code, exit) = match &error {
            StoreError::Open { .. } | StoreError::Damaged(_) => (codes::STATE_OPEN, Exit::Unreachable),
            StoreError::Newer { .. } => (codes::STATE_NEWER, Exit::Invalid),
            StoreError::NetworkFileSystem { .. } => (codes::NETWORK_FILE_SYSTEM, Exit::Invalid),
            StoreError::Conflict { .. } | StoreError::Changed { .. } | StoreError::Fenced { .. } => {
                (codes::PROJECT_HELD, Exit::Conflict)
            }
            StoreError::Moved { .. } => (codes::STATE_OPEN, Exit::Unreachable),
            StoreError::Full(_) => (codes::RESOURCE, Exit::Unreachable),
            StoreError::Failed { .. } => (codes::STATE_FAILED, Exit::Unreachable),
        };
        let mut problem = with_causes(Diagnostic::error(code, error.to_string()), &error);
        problem = problem.data("tables hold what was published before; a load that was running published nothing");
        Self::new(problem.help(code.fix), exit)
    }
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Log(error) => {
                let problem = with_causes(Diagnostic::error(codes::INTERNAL, "the log of the run does not fit together"), &error);
                Self::new(
                    problem
                        .caused_by(error.to_string())
                        .help("please report it; a new run starts from a clean plan: `subak run`"),
                    Exit::Bug,
                )
            }
            EngineError::UnknownRun(run) => {
                Self::new(Diagnostic::error(codes::UNKNOWN_RUN, format!("there is no run `{run}`")), Exit::Invalid)
            }
            EngineError::NotResumable { run, status } => {
                let problem = Diagnostic::error(codes::NOT_RESUMABLE, format!("run `{run}` is {status} and cannot be resumed"));
                Self::new(problem.help("start a new run: `subak run`"), Exit::Invalid)
            }
        }
    }
}

impl From<ConnectError> for CliError {
    fn from(error: ConnectError) -> Self {
        let failure = subak_engine::failure::of_connect(&error, "nothing was changed");
        let exit = match error.kind {
            ConnectErrorKind::Config | ConnectErrorKind::Sql | ConnectErrorKind::NotFound => Exit::Failed,
            _ => exit_of(failure.class),
        };
        Self::new(diagnostic_of(&failure), exit)
    }
}

fn with_causes(mut problem: Diagnostic, error: &dyn std::error::Error) -> Diagnostic {
    let mut next = error.source();
    while let Some(cause) = next {
        problem = problem.caused_by(cause.to_string());
        next = cause.source();
    }
    problem
}

/// The failure of a step as a diagnostic.
pub(crate) fn diagnostic_of(failure: &Failure) -> Diagnostic {
    let code: Code = codes::find(&failure.code).copied().unwrap_or(codes::STEP_FAILED);
    let mut problem = Diagnostic::error(code, failure.message.clone());
    problem.causes.clone_from(&failure.causes);
    problem.data = Some(failure.data.clone());
    problem.help.clone_from(&failure.help);
    problem
}

/// The exit code for a run in which a step failed in this way.
pub(crate) fn exit_of(class: FailureClass) -> Exit {
    match class {
        FailureClass::Unavailable => Exit::Unreachable,
        FailureClass::Permission => Exit::Permission,
        FailureClass::Conflict => Exit::Conflict,
        FailureClass::Internal => Exit::Bug,
        FailureClass::Canceled => Exit::Interrupted,
        FailureClass::Lost => Exit::Unreachable,
        FailureClass::Input | FailureClass::Check | FailureClass::Resource | FailureClass::Timeout | FailureClass::Program => {
            Exit::Failed
        }
    }
}
