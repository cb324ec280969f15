//! Against folders, and against a small server that speaks enough of S3 and misbehaves when told to.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path as ObjectPath;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Remote;
use crate::Error;
use crate::cancel::Cancel;
use crate::snapshot::{Layout, MANIFEST_FILE, Side, SnapshotPair};
use crate::testing::{Key, Values, write_side};

/// What the server does with a request for a file's content instead of answering it.
#[derive(Debug, Clone, Copy)]
enum Mischief {
    /// Answers 500.
    Fail,
    /// Sends half of the body, and closes the connection.
    Half,
    /// Sends half of the body, and then nothing for ever.
    Stall,
    /// Sends as many other bytes.
    Garble,
}

#[derive(Default)]
struct Shelf {
    objects: BTreeMap<String, Vec<u8>>,
    /// For each next request for a Parquet file.
    mischief: VecDeque<Mischief>,
    /// For all of them, from then on.
    for_ever: Option<Mischief>,
}

struct Server {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
}

impl Server {
    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shelf = Arc::<Mutex<Shelf>>::default();
        let served = shelf.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, served.clone()));
            }
        });
        Server { address, shelf }
    }

    fn remote(&self) -> Remote {
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(1),
                max_backoff: Duration::from_millis(2),
                base: 2.0,
            },
            max_retries: 1,
            retry_timeout: Duration::from_secs(20),
        };
        let store = AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", self.address))
            .with_bucket_name("bucket")
            .with_region("nowhere")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_retry(retry)
            .build()
            .unwrap();
        let prefix = ObjectPath::from("snapshots/monday");
        Remote::new(Arc::new(store), prefix, "s3://bucket/snapshots/monday", Duration::from_millis(500))
    }

    fn misbehave(&self, mischief: impl IntoIterator<Item = Mischief>, for_ever: Option<Mischief>) {
        let mut shelf = self.shelf.lock().unwrap();
        shelf.mischief = mischief.into_iter().collect();
        shelf.for_ever = for_ever;
    }
}

async fn serve(mut stream: TcpStream, shelf: Arc<Mutex<Shelf>>) {
    let mut received = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            match stream.read_buf(&mut received).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())
            .unwrap_or(0);
        while received.len() < end + 4 + length {
            if !matches!(stream.read_buf(&mut received).await, Ok(1..)) {
                return;
            }
        }
        let body = received[end + 4..end + 4 + length].to_vec();
        received.drain(..end + 4 + length);
        let mut words = head.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        let create_only = head.contains("if-none-match: *");
        if !answer(&mut stream, &shelf, method, path, body, create_only).await {
            return;
        }
    }
}

/// Whether the connection goes on.
async fn answer(
    stream: &mut TcpStream,
    shelf: &Mutex<Shelf>,
    method: &str,
    path: String,
    body: Vec<u8>,
    create_only: bool,
) -> bool {
    let head = |status: &str, length: usize| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\netag: \"1\"\r\n\
             last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n"
        )
        .into_bytes()
    };
    let (reply, goes_on, stalls) = {
        let mut shelf = shelf.lock().unwrap();
        let found = shelf.objects.get(&path).cloned();
        let mischief = (method == "get" && path.ends_with(".parquet"))
            .then(|| shelf.mischief.pop_front().or(shelf.for_ever))
            .flatten();
        match (method, found, mischief) {
            ("put", Some(_), _) if create_only => (head("412 Precondition Failed", 0), true, false),
            ("put", ..) => {
                shelf.objects.insert(path, body);
                (head("200 OK", 0), true, false)
            }
            (_, None, _) => (head("404 Not Found", 0), true, false),
            ("head", Some(content), _) => (head("200 OK", content.len()), true, false),
            (_, Some(_), Some(Mischief::Fail)) => (head("500 Internal Server Error", 0), true, false),
            (_, Some(content), Some(mischief @ (Mischief::Half | Mischief::Stall))) => {
                let half = &content[..content.len() / 2];
                let stalls = matches!(mischief, Mischief::Stall);
                ([head("200 OK", content.len()), half.to_vec()].concat(), stalls, stalls)
            }
            (_, Some(content), Some(Mischief::Garble)) => {
                let other = content.iter().map(|byte| !byte).collect();
                ([head("200 OK", content.len()), other].concat(), true, false)
            }
            (_, Some(content), None) => ([head("200 OK", content.len()), content].concat(), true, false),
        }
    };
    if stream.write_all(&reply).await.is_err() {
        return false;
    }
    if stalls {
        // Until the other end has had enough.
        let _ = stream.read_u8().await;
        return false;
    }
    goes_on
}

fn write_pair(folder: &Path) -> SnapshotPair {
    let rows = |count| {
        let values = Values { plan: Some("basic".into()), quantity: 1, amount: None };
        (0..count).map(|number| (Key::new(0, number), values.clone())).collect::<Vec<_>>()
    };
    let layout = Layout { row_group_rows_max: 8, file_rows_max: 16 };
    write_side(folder, Side::Old, &rows(60), layout);
    write_side(folder, Side::New, &rows(40), layout);
    SnapshotPair::open(folder).unwrap()
}

fn assert_same(fetched: &SnapshotPair, original: &SnapshotPair) {
    for side in [Side::Old, Side::New] {
        fetched.side(side).verify_checksums().unwrap();
        assert_eq!(fetched.side(side).manifest(), original.side(side).manifest());
    }
}

#[tokio::test]
async fn a_pair_goes_into_a_store_of_files_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_pair(&folder.path().join("here"));
    let url = url::Url::from_directory_path(folder.path().join("there")).unwrap();
    let remote = Remote::parse(url.as_str()).unwrap();
    let cancel = Cancel::new();
    let absent = remote.fetch(&folder.path().join("none"), &cancel).await.unwrap_err();
    assert!(matches!(absent, Error::SnapshotAbsent { .. }), "{absent:?}");
    remote.publish(original.folder(), &cancel).await.unwrap();
    let fetched = remote.fetch(&folder.path().join("back"), &cancel).await.unwrap();
    assert_same(&fetched, &original);
    let present = remote.publish(original.folder(), &cancel).await.unwrap_err();
    assert!(matches!(present, Error::SnapshotPresent { .. }), "{present:?}");
    let present = remote.fetch(&folder.path().join("back"), &cancel).await.unwrap_err();
    assert!(matches!(present, Error::SnapshotPresent { .. }), "{present:?}");
}

#[tokio::test]
async fn a_store_that_misbehaves_for_a_moment_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_pair(&folder.path().join("here"));
    let server = Server::start().await;
    let remote = server.remote();
    remote.publish(original.folder(), &Cancel::new()).await.unwrap();
    for (number, mischief) in
        [Mischief::Fail, Mischief::Half, Mischief::Stall, Mischief::Garble].into_iter().enumerate()
    {
        server.misbehave([mischief], None);
        let back = folder.path().join(format!("back-{number}"));
        let fetched = remote.fetch(&back, &Cancel::new()).await.unwrap();
        assert_same(&fetched, &original);
        assert!(server.shelf.lock().unwrap().mischief.is_empty());
    }
    let present = remote.publish(original.folder(), &Cancel::new()).await.unwrap_err();
    assert!(matches!(present, Error::SnapshotPresent { .. }), "{present:?}");
}

#[tokio::test]
async fn a_store_that_keeps_misbehaving_is_an_error_and_leaves_no_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_pair(&folder.path().join("here"));
    let server = Server::start().await;
    let remote = server.remote();
    remote.publish(original.folder(), &Cancel::new()).await.unwrap();
    for (number, mischief) in
        [Mischief::Fail, Mischief::Half, Mischief::Stall, Mischief::Garble].into_iter().enumerate()
    {
        server.misbehave([], Some(mischief));
        let back = folder.path().join(format!("back-{number}"));
        let error = remote.fetch(&back, &Cancel::new()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("s3://bucket/snapshots/monday/old/part-00000.parquet"), "{mischief:?}: {text}");
        assert!(error.hint().is_some(), "{mischief:?}: {text}");
        for side in [Side::Old, Side::New] {
            assert!(!side.folder(&back).join(MANIFEST_FILE).exists());
        }
        // The next one is not in its way.
        server.misbehave([], None);
        assert_same(&remote.fetch(&back, &Cancel::new()).await.unwrap(), &original);
    }
}

#[tokio::test]
async fn a_half_published_pair_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_pair(&folder.path().join("here"));
    let server = Server::start().await;
    let remote = server.remote();
    remote.publish(original.folder(), &Cancel::new()).await.unwrap();
    server.shelf.lock().unwrap().objects.retain(|path, _| !path.ends_with("new/snapshot.json"));
    let error = remote.fetch(&folder.path().join("back"), &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, Error::SnapshotAbsent { .. }), "{error:?}");
}

#[test]
fn a_url_that_is_no_store_is_refused_with_what_to_write() {
    for url in ["nonsense", "ftp://host/folder", "carrier-pigeon://loft"] {
        let error = Remote::parse(url).unwrap_err();
        assert!(matches!(error, Error::ObjectStoreUrl { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("s3://"));
    }
}
