//! `subak server start` on a temporary project.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Sandbox;

/// A served project; the server is killed with the value.
pub struct Served {
    /// The project.
    pub sandbox: Sandbox,
    server: Option<Child>,
}

impl Served {
    /// A project of these files, and its server.
    #[must_use]
    pub fn new(binary: &str, files: &[(&str, &str)]) -> Self {
        let mut served = Self::unstarted(binary, files);
        served.start();
        served
    }

    /// A project of these files, whose server is yet to be started.
    #[must_use]
    pub fn unstarted(binary: &str, files: &[(&str, &str)]) -> Self {
        Self { sandbox: Sandbox::new(binary, files), server: None }
    }

    /// Starts it.
    pub fn start(&mut self) {
        self.start_with(&[], &[]);
    }

    /// Starts it with these arguments and variables.
    pub fn start_with(&mut self, arguments: &[&str], variables: &[(&str, &str)]) {
        let mut command = self.sandbox.command(&["server", "start", "--wait", "20"]);
        command.args(arguments).envs(variables.iter().copied()).stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(command.spawn().expect("starts"));
    }

    /// Kills it, so that it can do nothing about it.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("a server");
        server.kill().expect("killed");
        server.wait().expect("it ends");
    }

    /// Waits until it ends by itself. The exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.server.take().expect("a server").wait().expect("it ends").code()
    }

    /// Asks it to stop, and waits for that. The exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.server.take().expect("a server").wait().expect("it ends").code()
    }

    /// Sends it a signal, by its short name.
    pub fn signal(&self, name: &str) {
        let server = self.server.as_ref().expect("a server");
        let sent = Command::new("kill").args([&format!("-{name}"), &server.id().to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    /// Takes the server out of its project, so that another one can be started there.
    pub fn take_server(&mut self) -> Child {
        self.server.take().expect("a server")
    }

    /// The lines of a file of the project; none where there is no such file.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.sandbox.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..600 {
            if holds(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{what} does not come: {:?}", self.lines("log"));
    }

    /// Ticks as `moment,outcome`, newest first.
    pub fn ticks(&self, name: &str) -> Vec<String> {
        let shown =
            self.sandbox.command(&["automation", "show", name, "--limit", "1000", "--output", "csv"]).output().expect("starts");
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        text.lines().skip(1).map(|line| line.split(',').take(2).collect::<Vec<_>>().join(",")).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            drop(server.kill());
            drop(server.wait());
        }
    }
}
