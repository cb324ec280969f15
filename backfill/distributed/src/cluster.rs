//! Where a cluster is, and whether anyone answers there.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Result};

/// What an address begins with.
const SCHEME: &str = "df://";

/// A scheduler that has not taken a connection for this long is not there: on a network that works it takes
/// milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster by the address of its scheduler: `df://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    host: String,
    port: u16,
}

impl Cluster {
    /// The scheduler's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address as Ballista's client and its services take it.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// Sees whether a scheduler takes connections: its client would go on trying for minutes, and say little.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`].
    pub async fn reach(&self) -> Result<()> {
        // An IPv6 address stands in brackets in a URL, and without them here.
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, self.port))).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected.map(drop).map_err(|source| Error::Unreachable { cluster: self.clone(), source })
    }
}

impl FromStr for Cluster {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (host, port) = text.strip_prefix(SCHEME)?.trim_end_matches('/').rsplit_once(':')?;
            let is_host = !host.is_empty()
                && (host.starts_with('[') == host.ends_with(']'))
                && (host.starts_with('[') || !host.contains(':'))
                && !host.contains(|c: char| c.is_whitespace() || "/@?#".contains(c));
            let port = port.parse().ok().filter(|port| *port != 0)?;
            is_host.then(|| Self { host: host.to_owned(), port })
        };
        parse().ok_or_else(|| Error::Address { given: text.to_owned() })
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["df://scheduler:50050", "df://127.0.0.1:1", "df://[::1]:50050"] {
            assert_eq!(text.parse::<Cluster>().unwrap().to_string(), text);
        }
        assert_eq!("df://a:1/".parse::<Cluster>().unwrap().endpoint(), "http://a:1");
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_hint() {
        for text in [
            "",
            "local",
            "df://",
            "df://host",
            "df://:1",
            "df://h:0",
            "df://h:x",
            "http://h:1",
            "df://a b:1",
            "df://::1:2",
        ] {
            let error = text.parse::<Cluster>().unwrap_err();
            assert!(matches!(&error, Error::Address { given } if given == text), "{text}: {error:?}");
            assert!(error.hint().unwrap().contains("df://HOST:PORT"));
        }
    }

    #[tokio::test]
    async fn a_port_without_a_scheduler_is_said_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let cluster: Cluster = format!("df://127.0.0.1:{port}").parse().unwrap();
        let error = cluster.reach().await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("ballista-scheduler"));
    }
}
