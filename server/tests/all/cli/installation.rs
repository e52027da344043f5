//! A folder with an installation, and the binary run in it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::web::{Answer, ask};

/// A folder that is deleted with it.
pub(crate) struct Installation {
    folder: TempDir,
    variables: Vec<(String, String)>,
    held_to_permissions: bool,
    descriptors: Option<u32>,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Installation {
    /// Without any file: defaults, shipped graphs, the mock.
    pub(crate) fn bare() -> Self {
        let folder = TempDir::new().unwrap();
        Self { folder, variables: Vec::new(), held_to_permissions: false, descriptors: None }
    }

    /// With a file; folders on the way are made.
    pub(crate) fn with(self, path: &str, text: &str) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// With an environment variable.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Files' permissions hold for the binary even if root runs it.
    pub(crate) fn held_to_permissions(mut self) -> Self {
        self.held_to_permissions = true;
        self
    }

    /// The binary may open so many files and sockets.
    pub(crate) fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// A path inside.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// The admin's key.
    pub(crate) fn key(&self) -> String {
        fs::read_to_string(self.path(".exile/local.key")).unwrap().trim().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let exile = env!("CARGO_BIN_EXE_exile");
        let mut words = vec![exile.to_owned()];
        if self.held_to_permissions {
            let without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
            words.splice(..0, without.map(str::to_owned));
        }
        if let Some(most) = self.descriptors {
            words.splice(..0, ["prlimit".to_owned(), format!("--nofile={most}:{most}")]);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.args(arguments).current_dir(self.folder.path());
        // What the developer has set must not change a test.
        command.env_clear().envs(self.variables.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, "")
    }

    /// Runs a command to its end, with this on its standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = self.command(arguments).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Starts a command that thinks it stands before a person.
    pub(crate) fn in_terminal(&self, arguments: &[&str]) -> InTerminal {
        let exile = env!("CARGO_BIN_EXE_exile");
        let mut command = Command::new("script");
        // `exec`: a shell that stays in between would end by the Ctrl-C that exile has handled.
        command.args(["-qefc", &format!("exec {exile} {}", arguments.join(" ")), "/dev/null"]);
        command.current_dir(self.folder.path());
        // Nor must it change what a command does before a person.
        command.env_clear().envs(self.variables.iter().map(|(k, v)| (k, v)));
        command.env("NO_COLOR", "1").env("SHELL", "/bin/sh").env("TERM", "dumb");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        InTerminal { child: command.spawn().unwrap(), seen: String::new() }
    }

    /// Starts a server on a free port and waits for its ready line.
    pub(crate) fn serve(&self) -> Serving {
        let mut child = self.command(&["serve", "--bind", "127.0.0.1:0"]).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        out.read_line(&mut ready).unwrap();
        let Some(rest) = ready.strip_prefix("exile listening on ") else {
            panic!(
                "no ready line but {ready:?}: {:?}",
                Ended::from(child.wait_with_output().unwrap())
            )
        };
        let url = rest.split_whitespace().next().unwrap().to_owned();
        Serving { child: Some(child), ready, url, key: self.key() }
    }

    /// Every file of the home, and its content.
    pub(crate) fn home_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
        let entries = fs::read_dir(self.path(".exile")).unwrap().map(|e| e.unwrap().path());
        entries.filter(|p: &PathBuf| Path::is_file(p)).map(read).collect()
    }
}

/// A command with a terminal.
pub(crate) struct InTerminal {
    child: Child,
    seen: String,
}

impl InTerminal {
    pub(crate) fn type_in(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Reads on until a text was shown.
    pub(crate) fn read_until(&mut self, text: &str) {
        let out = self.child.stdout.as_mut().unwrap();
        while !self.seen.contains(text) {
            let mut byte = [0; 1];
            out.read_exact(&mut byte).unwrap_or_else(|e| panic!("no {text:?}: {e}: {}", self.seen));
            self.seen.push(char::from(byte[0]));
        }
        self.seen.clear();
    }

    /// Waits for its exit code.
    pub(crate) fn end(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        // A test that failed already says why.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().or(output.status.signal().map(|s| -s)).unwrap();
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A server that runs; killed if a test forgets it.
pub(crate) struct Serving {
    child: Option<Child>,
    /// The ready line.
    pub(crate) ready: String,
    /// Where it listens.
    pub(crate) url: String,
    key: String,
}

impl Serving {
    /// Asks as the administrator.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        ask(&self.url, method, path, Some(&self.key), body)
    }

    /// A header line that says that the administrator asks.
    pub(crate) fn authorization(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.key)
    }

    /// Resident memory in kilobytes, by the kernel's own count.
    pub(crate) fn memory_kb(&self) -> u64 {
        let pid = self.child.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn signal(&self) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), Signal::TERM).unwrap();
    }

    /// SIGTERM, and what it left.
    pub(crate) fn terminate(self) -> Ended {
        self.signal();
        self.ended()
    }

    /// Waits for its end, and what it left.
    pub(crate) fn ended(mut self) -> Ended {
        self.child.take().unwrap().wait_with_output().unwrap().into()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // A test that failed already says why.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
