//! This test binary, started again in another role.
//!
//! A role is a test that does nothing unless the variable [`ROLE`] asks for it. A process of a
//! role ends when its standard input does, so that none outlives the test that started it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Holds the role and its parameters.
const ROLE: &str = "EXILE_TEST_ROLE";

/// All that a process takes over of its environment.
const PASSED: [&str; 3] = ["PATH", "TMPDIR", "RUST_BACKTRACE"];

/// What a line of a process begins with; others are the test framework's.
const MARK: &str = "@ ";

/// The parameters of this process if it was started in that role.
pub(super) fn role<T: DeserializeOwned>(name: &str) -> Option<T> {
    let role = std::env::var(ROLE).ok()?;
    let (asked, parameters) = role.split_once(' ').unwrap();
    (asked == name).then(|| serde_json::from_str(parameters).unwrap())
}

/// Tells the test that started this process.
pub(super) fn tell(what: &impl Serialize) {
    let line = format!("{MARK}{}\n", serde_json::to_string(what).unwrap());
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
}

/// What the test that started this process says, until it is gone.
pub(super) fn orders<T: DeserializeOwned + Send + 'static>() -> tokio::sync::mpsc::Receiver<T> {
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(serde_json::from_str(&line).unwrap()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What was heard of a process.
pub(super) enum Heard<T> {
    Told(T),
    /// Nothing for that long.
    Silence,
    /// It has ended.
    Gone,
}

/// A process in a role; killed when dropped.
pub(super) struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// Starts the test `test`, the entry of that role.
    pub(super) fn start(test: &str, role: &str, parameters: &impl Serialize) -> Self {
        let role = format!("{role} {}", serde_json::to_string(parameters).unwrap());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            // Neither keys nor addresses of whoever runs the tests.
            .env_clear()
            .envs(
                std::env::vars_os().filter(|(name, _)| PASSED.iter().any(|passed| name == passed)),
            )
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // The last line of a process that was killed may be cut.
            while out.read_line(&mut line).is_ok() && line.ends_with('\n') {
                if let Some((_, told)) = line.split_once(MARK)
                    && sender.send(told.to_owned()).is_err()
                {
                    return;
                }
                line.clear();
            }
        });
        let orders = child.stdin.take();
        Self { child, orders, lines }
    }

    pub(super) fn order(&mut self, what: &impl Serialize) {
        let line = serde_json::to_string(what).unwrap() + "\n";
        let orders = self.orders.as_mut().unwrap();
        // One that has just died takes no orders; whoever listens learns of its end.
        let _ = orders.write_all(line.as_bytes());
    }

    pub(super) fn hear<T: DeserializeOwned>(&self, patience: Duration) -> Heard<T> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Heard::Told(serde_json::from_str(&line).unwrap()),
            Err(RecvTimeoutError::Timeout) => Heard::Silence,
            Err(RecvTimeoutError::Disconnected) => Heard::Gone,
        }
    }

    /// Listens until `wanted` gives something.
    pub(super) fn hear_until<T: DeserializeOwned, W>(
        &self,
        mut wanted: impl FnMut(T) -> Option<W>,
    ) -> W {
        loop {
            match self.hear(Duration::from_mins(1)) {
                Heard::Told(told) => {
                    if let Some(found) = wanted(told) {
                        return found;
                    }
                }
                Heard::Silence => panic!("the process says nothing for a minute"),
                Heard::Gone => panic!("the process ended"),
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// `kill -9`, unless it is dead already. What it said before can still be heard.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Tells it to end in order, and waits for that.
    pub(super) fn end(mut self) {
        self.orders = None;
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the process ended with {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that failed already says why.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
