//! Child processes with captured output, which tests wait for, interrupt and kill.

use std::{
    ffi::OsStr,
    fmt,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long a program may take before its test fails. A test that waits this long is stuck: none is meant to
/// come near it, however loaded the machine.
const WITHIN: Duration = Duration::from_secs(120);

/// A pause between two looks at whether a process has ended, short against starting one.
const EXIT_POLL: Duration = Duration::from_millis(5);

/// Variables of the developer's own environment that would change what the program does.
const NOT_INHERITED: &[&str] = &["DATABASE_URL", "CROSSFADE_CONTROL", "RUST_LOG", "RUST_BACKTRACE"];

/// A program to run, with its arguments and environment.
///
/// ```no_run
/// use crossfade_test_harness::Program;
///
/// # let path = "crossfade"; // In an integration test: env!("CARGO_BIN_EXE_crossfade").
/// let finished = Program::at(path).args(["status", "subscriptions"]).run();
/// assert!(finished.status.success(), "{finished}");
/// ```
#[derive(Debug)]
pub struct Program {
    command: Command,
}

/// A program that runs. It is killed when the value is dropped.
#[derive(Debug)]
pub struct Running {
    process: Child,
    stdout: Capture,
    stderr: Capture,
}

/// A program that has ended, with everything that it printed.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

/// A signal that a running program can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C at the terminal.
    Interrupt,
    /// A polite request to end.
    Terminate,
    /// Stands still until [`Signal::Continue`], as in a long pause of its machine.
    Stop,
    /// Goes on.
    Continue,
}

impl Program {
    /// The program at a path; in an integration test that is `env!("CARGO_BIN_EXE_crossfade")`. It inherits the
    /// environment but for the variables that would point it at the developer's own databases, and reads
    /// nothing from standard input.
    pub fn at(path: impl AsRef<Path>) -> Self {
        let mut command = Command::new(path.as_ref());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for variable in NOT_INHERITED {
            command.env_remove(variable);
        }
        Self { command }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, variable: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(variable, value);
        self
    }

    /// Sets the folder that the program runs in.
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs the program to its end.
    ///
    /// # Panics
    ///
    /// When it cannot be started, or does not end within two minutes.
    pub fn run(self) -> Finished {
        self.spawn().wait()
    }

    /// Starts the program.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn spawn(mut self) -> Running {
        let mut process = match self.command.spawn() {
            Ok(process) => process,
            Err(error) => panic!("could not run {}: {error}", self.command.get_program().display()),
        };
        let stdout = Capture::of(process.stdout.take().expect("its output is a pipe"));
        let stderr = Capture::of(process.stderr.take().expect("its output is a pipe"));
        Running { process, stdout, stderr }
    }
}

impl Running {
    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a line on standard output that contains `text`, and returns it. Lines printed earlier count.
    ///
    /// # Panics
    ///
    /// When the output ends without one, or none comes within two minutes.
    pub fn stdout_line(&self, text: &str) -> String {
        self.line(&self.stdout, text)
    }

    /// Waits for a line on standard error that contains `text`, and returns it. Lines printed earlier count.
    ///
    /// # Panics
    ///
    /// When the output ends without one, or none comes within two minutes.
    pub fn stderr_line(&self, text: &str) -> String {
        self.line(&self.stderr, text)
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// When the process has ended already.
    pub fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Interrupt => "INT",
            Signal::Terminate => "TERM",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        // The shell's own `kill`: the program of that name is not on every machine.
        let status = Command::new("/bin/sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &self.process.id().to_string()])
            .status()
            .expect("a shell runs");
        assert!(status.success(), "the process {} takes the signal {name}", self.process.id());
    }

    /// Kills the program with `SIGKILL`, wherever it is, and returns what it had printed.
    pub fn kill(mut self) -> Finished {
        // An error means that it has ended by itself, which the status will show.
        let _ = self.process.kill();
        self.wait()
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    ///
    /// When it does not end within two minutes; it is killed then.
    pub fn wait(mut self) -> Finished {
        let deadline = Instant::now() + WITHIN;
        let status = loop {
            if let Some(status) = self.process.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "the program did not end within {} s; it printed:\n{}{}",
                WITHIN.as_secs(),
                self.stdout.text(),
                self.stderr.text()
            );
            thread::sleep(EXIT_POLL);
        };
        Finished { status, stdout: self.stdout.finish(), stderr: self.stderr.finish() }
    }

    fn line(&self, capture: &Capture, text: &str) -> String {
        capture.line(text).unwrap_or_else(|| {
            panic!("no line with {text:?}; printed were:\n{}{}", self.stdout.text(), self.stderr.text())
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where the process has ended and was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Finished {
    /// The exit status, if it was not a signal that ended the program.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.status)?;
        writeln!(f, "--- stdout ---\n{}", self.stdout.trim_end())?;
        write!(f, "--- stderr ---\n{}", self.stderr.trim_end())
    }
}

/// A thread that collects what a pipe brings.
#[derive(Debug)]
struct Capture {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Captured>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Captured {
    text: String,
    ended: bool,
}

impl Capture {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let reader = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut pipe = BufReader::new(pipe);
                let mut line = Vec::new();
                while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                    let mut state = shared.state.lock().expect("no reader panics");
                    state.text.push_str(&String::from_utf8_lossy(&line));
                    shared.changed.notify_all();
                    line.clear();
                }
                shared.state.lock().expect("no reader panics").ended = true;
                shared.changed.notify_all();
            }
        });
        Self { shared, reader: Some(reader) }
    }

    fn text(&self) -> String {
        self.shared.state.lock().expect("no reader panics").text.clone()
    }

    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no reader panics");
        }
        self.text()
    }

    fn line(&self, text: &str) -> Option<String> {
        let state = self.shared.state.lock().expect("no reader panics");
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, WITHIN, |state| !state.ended && find_line(&state.text, text).is_none())
            .expect("no reader panics");
        find_line(&state.text, text).map(str::to_owned)
    }
}

fn find_line<'a>(output: &'a str, text: &str) -> Option<&'a str> {
    output.lines().find(|line| line.contains(text))
}
