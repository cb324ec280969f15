//! A cluster of real processes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crossfade_distributed::Cluster;
use crossfade_test_harness::{Program, Running};
use tempfile::TempDir;

const HOST: &str = "127.0.0.1";

/// A scheduler and two executors. All end with the value.
pub(crate) struct Processes {
    pub(crate) cluster: Cluster,
    pub(crate) scheduler: Running,
    pub(crate) executors: Vec<Running>,
    _folder: TempDir,
}

impl Processes {
    /// Starts them, and waits until both executors are known to the scheduler.
    pub(crate) fn start() -> Self {
        Self::with_executors(free_ports::<5>())
    }

    /// Starts a scheduler that has nobody to give work to.
    pub(crate) fn without_executors() -> Self {
        Self::with_executors(free_ports::<1>())
    }

    /// A scheduler on the first of the ports, and an executor for each two of the others.
    fn with_executors<const N: usize>(ports: [u16; N]) -> Self {
        let (scheduler_port, ports) = (ports[0], &ports[1..]);
        let folder = tempfile::tempdir().unwrap();
        let scheduler = Program::at(built("scheduler")).args([HOST, &scheduler_port.to_string()]).spawn();
        scheduler.stdout_line("listening on");
        let executors: Vec<Running> = ports
            .chunks_exact(2)
            .enumerate()
            .map(|(number, ports)| {
                let work_folder = folder.path().join(number.to_string());
                std::fs::create_dir(&work_folder).unwrap();
                Program::at(built("executor"))
                    .args([HOST, &scheduler_port.to_string(), &ports[0].to_string(), &ports[1].to_string()])
                    .arg(&work_folder)
                    .spawn()
            })
            .collect();
        for executor in &executors {
            executor.stdout_line("Executor registration succeed");
        }
        let cluster = format!("df://{HOST}:{scheduler_port}").parse().unwrap();
        Self { cluster, scheduler, executors, _folder: folder }
    }
}

/// The operator's binary, with clusters in it.
pub(crate) fn crossfade() -> PathBuf {
    program("crossfade".as_ref())
}

fn built(example: &str) -> PathBuf {
    program(&Path::new("examples").join(example))
}

/// A program that was built beside these tests.
fn program(path: &Path) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(|deps| deps.parent()).unwrap().join(path);
    assert!(path.exists(), "{}: run `scripts/test --cluster`, which builds it", path.display());
    path
}

/// Ports that nobody listens on. All are held until the last is found, so that none is given twice.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind((HOST, 0)).expect("the loopback has a free port"));
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
