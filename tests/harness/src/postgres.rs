//! Postgres servers on private unix sockets.

use std::{
    env, fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgPoolOptions};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    HarnessError, TestDatabase,
    database::Home,
    installation::Installation,
    supervisor::{Order, Supervisor},
};

/// The environment variable that names a server for [`Postgres::shared`] to use, by a URL of any database on it.
pub const SERVER_VARIABLE: &str = "CROSSFADE_TEST_POSTGRES";

/// The superuser of the servers that are started here.
const USER: &str = "crossfade";

/// How long a server may take to accept connections. It takes half a second on an idle machine, and has to
/// recover first after it was killed; an overloaded machine is given the benefit of the doubt.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A pause between two looks at whether the server accepts connections: short against its start.
const READY_POLL: Duration = Duration::from_millis(20);

/// The longest path of a unix socket that all systems take, without the socket's own name.
const SOCKET_FOLDER_LENGTH_MAX: usize = 80;

/// The settings of a server for tests, as arguments of the server.
const SETTINGS: &[&str] = &[
    // No TCP: nothing but this user and root reaches the server.
    "listen_addresses=",
    "unix_socket_permissions=0700",
    // Enough for a test runner's threads with a pool each and clients by the dozen.
    "max_connections=200",
    "shared_buffers=64MB",
    // The data need not survive the machine. It must survive the server: `synchronous_commit` stays on, so
    // that an acknowledged commit is with the operating system when the server is killed.
    "fsync=off",
    "full_page_writes=off",
    "max_wal_size=256MB",
    // Tests read the log when something went wrong; then they want to see waits for locks.
    "log_lock_waits=on",
];

/// A Postgres server.
#[derive(Debug)]
pub struct Postgres {
    url: String,
    // None for a server that another process owns.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    supervisor: Supervisor,
    installation: Installation,
    folder: PathBuf,
}

impl Postgres {
    /// The server that the tests of this process share: the one that [`SERVER_VARIABLE`] names, otherwise one
    /// that is started at the first call.
    ///
    /// # Panics
    ///
    /// When no server can be started; the message says why and what to do.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Postgres> = LazyLock::new(|| match env::var(SERVER_VARIABLE) {
            Ok(url) if !url.is_empty() => Postgres { url, own: None },
            _ => Postgres::start(),
        });
        &SHARED
    }

    /// Starts a server of one's own, for tests that stop or kill it. It is gone when the value is dropped.
    ///
    /// # Panics
    ///
    /// When no server can be started; the message says why and what to do.
    pub fn start() -> Self {
        Self::try_start().unwrap_or_else(|error| panic!("{}", with_sources(&error)))
    }

    /// Starts a server of one's own.
    ///
    /// # Errors
    ///
    /// When no server is installed, or it does not start.
    pub fn try_start() -> Result<Self, HarnessError> {
        let installation = Installation::find()?;
        let folder = make_folder(&installation)?;
        initdb(&installation, folder.path())?;

        Self::run(installation, folder)
    }

    /// Starts a replica that follows this server, and begins as a copy of what is there now.
    ///
    /// # Panics
    ///
    /// When it cannot be made; the message says why. When another process owns the server.
    pub fn replica(&self) -> Self {
        self.try_replica().unwrap_or_else(|error| panic!("{}", with_sources(&error)))
    }

    fn try_replica(&self) -> Result<Self, HarnessError> {
        let own = self.own.as_ref().expect("only the process that started a server may copy it");
        let folder = make_folder(&own.installation)?;
        let program = own.installation.program("pg_basebackup");
        let output = own
            .installation
            .command(&program)
            .args(["--checkpoint=fast", "--write-recovery-conf", "--no-sync", "--username", USER, "--host"])
            .arg(&own.folder)
            .arg("--pgdata")
            .arg(folder.path().join("data"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .map_err(HarnessError::io("run", &program))?;
        succeeded(program, output)?;
        Self::run(own.installation.clone(), folder)
    }

    /// The URL under which this server has a database of another one's.
    pub fn url_of(&self, database: &str) -> String {
        let path = database.split_once('?').map_or(database, |(path, _)| path);
        with_database(&self.url, path.rsplit('/').next().unwrap_or_default())
    }

    /// Runs a server on the files in a folder, which it owns from here on.
    fn run(installation: Installation, folder: TempDir) -> Result<Self, HarnessError> {
        let mut server = Command::new(installation.program("postgres"));
        server.arg("-D").arg(folder.path().join("data")).arg("-k").arg(folder.path());
        for setting in SETTINGS {
            server.args(["-c", setting]);
        }
        let supervisor = Supervisor::spawn(&installation, folder.path(), &server)?;
        // From here on the supervisor removes the folder.
        let folder = folder.keep();

        let url = format!("postgres://{USER}@localhost/postgres?host={}", folder.display());
        let mut own = Own { supervisor, installation, folder };
        own.start()?;
        Ok(Self { url, own: Some(own) })
    }

    /// The URL of the server's own database `postgres`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates an empty database, which is dropped with the value that is returned.
    ///
    /// # Panics
    ///
    /// When the server does not answer.
    pub async fn database(&self) -> TestDatabase<sqlx::Postgres> {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(&self.url).await.expect("the test server answers");
        // A name of hexadecimal digits needs no quotes.
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name} template template0")))
            .execute(&mut connection)
            .await
            .expect("the test server creates a database");
        connection.close().await.expect("the connection to the test server closes");

        let url = with_database(&self.url, &name);
        let pool = PgPoolOptions::new().connect_lazy(&url).expect("a URL that was just made parses");
        TestDatabase::new(url, pool, Home::Postgres { server: self.url.clone(), name })
    }

    /// Kills all processes of the server, as a power cut would. What was acknowledged is on disk.
    ///
    /// # Panics
    ///
    /// When another process owns the server.
    pub fn kill(&mut self) {
        self.own().supervisor.order(Order::Kill);
    }

    /// Stops the server at once; it recovers when it is started again.
    ///
    /// # Panics
    ///
    /// When another process owns the server.
    pub fn stop_immediately(&mut self) {
        self.own().supervisor.order(Order::StopImmediate);
    }

    /// Ends all connections and stops the server in order.
    ///
    /// # Panics
    ///
    /// When another process owns the server.
    pub fn stop(&mut self) {
        self.own().supervisor.order(Order::StopFast);
    }

    /// Starts the server again, after stopping it where it runs, and returns when it accepts connections. Its
    /// URLs stay what they were.
    ///
    /// # Panics
    ///
    /// When another process owns the server, or when it does not start.
    pub fn restart(&mut self) {
        let own = self.own();
        own.supervisor.order(Order::StopFast);
        own.start().unwrap_or_else(|error| panic!("{}", with_sources(&error)));
    }

    fn own(&mut self) -> &mut Own {
        self.own.as_mut().expect("only the process that started a server may stop it")
    }
}

impl Own {
    fn start(&mut self) -> Result<(), HarnessError> {
        self.supervisor.order(Order::Start);
        let program = self.installation.program("pg_isready");
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            let ready = Command::new(&program)
                .args(["--quiet", "--host"])
                .arg(&self.folder)
                .stdin(Stdio::null())
                .status()
                .map_err(HarnessError::io("run", &program))?;
            if ready.success() {
                return Ok(());
            }
            thread::sleep(READY_POLL);
        }
        Err(HarnessError::NotReady {
            folder: self.folder.clone(),
            seconds: READY_WITHIN.as_secs(),
            log: last_lines(&fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()),
        })
    }
}

/// Drops a database, whoever is connected to it. A server that is gone has no database to drop.
pub(crate) async fn drop_database(server: &str, name: &str) {
    if let Ok(mut connection) = PgConnection::connect(server).await {
        let statement = format!("drop database if exists {name} with (force)");
        let _ = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await;
        let _ = connection.close().await;
    }
}

/// Makes the folder for a server's files and its socket, owned by the server's user.
fn make_folder(installation: &Installation) -> Result<TempDir, HarnessError> {
    let temporary = env::temp_dir();
    let parent =
        if temporary.as_os_str().len() > SOCKET_FOLDER_LENGTH_MAX - "/crossfade-postgres-123456".len() {
            Path::new("/tmp")
        } else {
            &temporary
        };
    let folder = tempfile::Builder::new()
        .prefix("crossfade-postgres-")
        .tempdir_in(parent)
        .map_err(HarnessError::io("make a folder in", parent))?;
    if let Some(user) = installation.user() {
        chown(folder.path(), Some(user.uid), Some(user.gid))
            .map_err(HarnessError::io("give the server's user", folder.path()))?;
    }
    Ok(folder)
}

/// Creates the server's files.
///
/// The default collation is a linguistic one on purpose, as on most servers in production: code that means
/// bytewise order and does not say so fails its tests here.
fn initdb(installation: &Installation, folder: &Path) -> Result<(), HarnessError> {
    let program = installation.program("initdb");
    let output = installation
        .command(&program)
        .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
        .args(["--locale-provider=icu", "--icu-locale=en-US"])
        .args(["--username", USER, "--pgdata"])
        .arg(folder.join("data"))
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(HarnessError::io("run", &program))?;
    succeeded(program, output)
}

fn succeeded(program: PathBuf, output: Output) -> Result<(), HarnessError> {
    let Output { status, stdout, stderr } = output;
    if status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    Err(HarnessError::Initdb { program, status, output })
}

/// The same server's URL for another database.
fn with_database(url: &str, name: &str) -> String {
    let host = url.find("://").map_or(0, |scheme| scheme + "://".len());
    let query = url[host..].find('?').map_or(url.len(), |at| host + at);
    let path = url[host..query].find('/').map_or(query, |at| host + at);
    format!("{}/{name}{}", &url[..path], &url[query..])
}

/// As many lines of a log as explain a failed start.
fn last_lines(log: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_everything_but_its_database() {
        assert_eq!(
            with_database("postgres://me@localhost/postgres?host=/tmp/x", "a"),
            "postgres://me@localhost/a?host=/tmp/x"
        );
        assert_eq!(with_database("postgres://me@localhost:5432", "a"), "postgres://me@localhost:5432/a");
        assert_eq!(
            with_database("postgres://localhost?host=/tmp/x", "a"),
            "postgres://localhost/a?host=/tmp/x"
        );
    }

    #[test]
    fn the_last_lines_of_a_long_log_are_kept() {
        let log: String = (0..100).map(|line| format!("{line}\n")).collect();
        assert!(last_lines(&log).starts_with("80\n"));
        assert!(last_lines(&log).ends_with("99"));
        assert_eq!(last_lines("one"), "one");
    }
}
