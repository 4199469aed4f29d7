//! The binary: arguments, settings, printing, exit codes. Everything else is in the libraries.

mod args;
mod commands;
mod complete;
mod exit;
mod exports;
mod freshness;
mod notices;
mod open;
mod pools;
mod printer;
mod progress;
mod project;
mod queue;
mod redact;
mod retention;
mod settings;
mod version;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser};

use crate::args::Cli;
use crate::printer::Printer;
use crate::settings::Settings;

fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let settings = Arc::new(Settings::from_environment());
    if let Some(point) = &settings.crash_at {
        subak_connect::crash::arm(point);
    }
    let cli = Cli::parse();
    let printer = Printer::new(&cli.global, settings.colors);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("a panic without a message");
        drop(std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("error[SBK0315]: a bug in Subak: {text}{place}\n").as_bytes(),
        ));
    }));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| commands::execute(&cli, &settings, printer)));
    match outcome {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(error)) => {
            let problems: Vec<_> = error.problems.iter().map(redact::redacted).collect();
            printer.problems(&problems, &error.sources);
            error.exit.into()
        }
        Err(_) => exit::Exit::Bug.into(),
    }
}
