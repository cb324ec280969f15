//! Finds the server's programs, and the user that may run them.

use std::{
    env, fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use crate::HarnessError;

/// Where Debian and its relatives keep one folder for each major version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// The user that the server's package creates.
const SERVER_USER: &str = "postgres";

/// The programs of one version of the server, and the user to run them as.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    binaries: PathBuf,
    user: Option<User>,
}

/// A user and its group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Installation {
    /// Finds the newest version that is installed.
    pub(crate) fn find() -> Result<Self, HarnessError> {
        let binaries = debian_folders()
            .into_iter()
            .chain(env::var_os("PATH").iter().flat_map(env::split_paths))
            .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
            .ok_or(HarnessError::NotInstalled)?;
        let user = if runs_as_root() { Some(server_user()?) } else { None };
        Ok(Self { binaries, user })
    }

    /// The path of one of the server's programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// The user that owns the server's files, where it is not the user of the tests.
    pub(crate) fn user(&self) -> Option<User> {
        self.user
    }

    /// A command that runs as the server's user.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// The folders under [`DEBIAN_ROOT`], newest version first.
fn debian_folders() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(DEBIAN_ROOT) else { return Vec::new() };
    let mut versions: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.iter().map(|version| Path::new(DEBIAN_ROOT).join(version.to_string()).join("bin")).collect()
}

fn runs_as_root() -> bool {
    // The kernel gives a process's own folder to its effective user.
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn server_user() -> Result<User, HarnessError> {
    let users = fs::read_to_string("/etc/passwd").map_err(HarnessError::io("read", "/etc/passwd"))?;
    find_user(&users, SERVER_USER).ok_or(HarnessError::NoUser)
}

/// Finds a user in the text of `/etc/passwd`: `name:password:uid:gid:…`.
fn find_user(users: &str, name: &str) -> Option<User> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        found.then_some(User { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbroken\npostgres2:x:7:8::/:\npostgres:x:101:102::/:\n";
        assert_eq!(find_user(users, "postgres"), Some(User { uid: 101, gid: 102 }));
        assert_eq!(find_user(users, "post"), None);
    }
}
