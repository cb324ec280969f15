//! Who holds a lease, and whether that process is still there.

use std::fmt;
use std::fs;
use std::sync::LazyLock;

use uuid::Uuid;

/// A worker: `host:pid:nonce`.
///
/// The host is its name with what tells two machines or two containers of that name apart: the boot and the namespace
/// of process numbers. The nonce begins with when the process started, so that a number that is used again is not
/// taken for the same process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(String);

impl Owner {
    /// A new worker of this process.
    pub fn new() -> Owner {
        let pid = std::process::id();
        let started = started(pid).unwrap_or(0);
        Owner(format!("{}:{pid}:{started}-{}", *HOST, Uuid::new_v4().simple()))
    }

    /// An owner as it was written down.
    pub(super) fn parse(text: String) -> Owner {
        Owner(text)
    }

    /// As it is written down.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this was a process of this host that is certainly gone. Of other hosts nothing is known.
    pub fn is_gone(&self) -> bool {
        let mut parts = self.0.rsplitn(3, ':');
        let (Some(nonce), Some(pid), Some(host)) = (parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        let (Ok(pid), Some(Ok(then))) = (pid.parse::<u32>(), nonce.split('-').next().map(str::parse::<u64>))
        else {
            return false;
        };
        host == *HOST && can_tell() && started(pid) != Some(then)
    }
}

impl Default for Owner {
    fn default() -> Self {
        Owner::new()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

static HOST: LazyLock<String> = LazyLock::new(|| {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let name = Some(read("/proc/sys/kernel/hostname")).filter(|name| !name.is_empty());
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "localhost".to_owned());
    let boot: String = read("/proc/sys/kernel/random/boot_id").chars().take(8).collect();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let namespace: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    format!("{name}/{boot}/{namespace}")
});

/// Whether this system says which processes there are. Elsewhere a lease simply runs out.
fn can_tell() -> bool {
    started(std::process::id()).is_some()
}

/// When a process started, in the kernel's ticks since boot; `None` when there is no such process.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command's name in parentheses, which may hold anything: fields are counted behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // A zombie has ended: it waits for its parent alone.
    let state = fields.next()?;
    // State is field 3, the start field 22.
    fields.nth(18)?.parse().ok().filter(|_| state != "Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there() {
        assert!(!Owner::new().is_gone());
        assert_ne!(Owner::new(), Owner::new());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_that_ended_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let owner = Owner(format!("{}:{}:{}-x", *HOST, child.id(), started(child.id()).unwrap_or(1)));
        child.wait().unwrap();
        assert!(owner.is_gone());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_number_used_again_is_another_process() {
        let pid = std::process::id();
        let earlier = started(pid).unwrap() - 1;
        assert!(Owner(format!("{}:{pid}:{earlier}-x", *HOST)).is_gone());
    }

    #[test]
    fn of_other_hosts_and_strange_owners_nothing_is_known() {
        for owner in ["elsewhere/1/2:1:5-x", "no owner", "", "a:b:c"] {
            assert!(!Owner(owner.to_owned()).is_gone(), "{owner}");
        }
    }
}
