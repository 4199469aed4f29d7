//! Automation that is code: `cargo xtask tidy` holds the rules that no other tool knows, `cargo xtask generate` writes what is
//! made from tables in the code.

mod generate;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "a command that prints")]
fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    let problems = match command.as_str() {
        "tidy" => tidy::run(&root()),
        "generate" => generate::write(&root()),
        _ => vec!["usage: cargo xtask tidy | generate".to_owned()],
    };
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        println!("{command}: ok");
        return ExitCode::SUCCESS;
    }
    eprintln!("{command}: {} problems", problems.len());
    ExitCode::FAILURE
}
