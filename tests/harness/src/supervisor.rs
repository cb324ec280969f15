//! A small shell process that owns the server, so that the server never outlives the tests.
//!
//! Destructors do not run for statics, nor in a process that is killed. A pipe closes in every case, and the
//! supervisor waits for that.

use std::{
    fmt,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{HarnessError, installation::Installation};

const SCRIPT: &str = include_str!("supervisor.sh");

/// An order to the supervisor.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    /// Starts the server.
    Start,
    /// The server ends its connections and writes its data (`SIGINT`).
    StopFast,
    /// The server drops everything and will recover at its next start (`SIGQUIT`).
    StopImmediate,
    /// All processes of the server are gone at once (`SIGKILL`).
    Kill,
}

impl Order {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::StopFast => "INT",
            Self::StopImmediate => "QUIT",
            Self::Kill => "KILL",
        }
    }
}

/// The process that owns a server and its folder.
pub(crate) struct Supervisor {
    process: Child,
    // None once the supervisor was told, by closing it, to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Supervisor {
    /// Starts a supervisor which owns `folder` and will run `server` when told to.
    pub(crate) fn spawn(
        installation: &Installation,
        folder: &Path,
        server: &Command,
    ) -> Result<Self, HarnessError> {
        let mut process = installation
            .command("/bin/sh")
            .args(["-c", SCRIPT, "supervisor"])
            .arg(folder)
            .arg(server.get_program())
            .args(server.get_args())
            .current_dir(folder)
            // In a group of its own it survives a Ctrl-C at the terminal for long enough to tidy up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Test runners wait for the inherited outputs of a test to close.
            .stderr(Stdio::null())
            .spawn()
            .map_err(HarnessError::io("run", "/bin/sh"))?;
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("its output is a pipe"));
        Ok(Self { process, orders, answers, folder: folder.to_owned() })
    }

    /// Gives an order and returns when it was carried out.
    ///
    /// # Panics
    ///
    /// When the supervisor is gone: something other than the tests ended it.
    pub(crate) fn order(&mut self, order: Order) {
        let orders = self.orders.as_mut().expect("orders close only in drop");
        writeln!(orders, "{}", order.word()).expect("the server's supervisor takes orders");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the server's supervisor answers");
        assert_eq!(answer, "done\n", "the server's supervisor ended after the order {order:?}");
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.orders.take());
        // Nothing to do about a failure here: the folder is in the temporary folder.
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("process", &self.process.id())
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}
