//! Against folders, and against an S3-compatible server that misbehaves when told to.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossfade_test_harness::{Mischief, S3};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as ObjectPath;
use object_store::{BackoffConfig, RetryConfig};

use super::{PATIENCE, Remote, Staging, without_secrets};
use crate::Error;
use crate::cancel::Cancel;
use crate::progress::Silent;
use crate::snapshot::{Layout, MANIFEST_FILE, Side, SnapshotPair};
use crate::testing::{Key, Values, write_side};

const BUCKET: &str = "bucket";
const PREFIX: &str = "snapshots/monday";
const EVERY_MISCHIEF: [Mischief; 4] = [Mischief::Fail, Mischief::Half, Mischief::Stall, Mischief::Garble];

fn server() -> S3 {
    S3::start().bucket(BUCKET)
}

/// A place on the server, through the store's real client.
fn remote(server: &S3, bucket: &str, prefix: &str) -> Remote {
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(2),
            base: 2.0,
        },
        max_retries: 1,
        retry_timeout: Duration::from_secs(20),
    };
    let settings = server.environment();
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(retry);
    for (name, value) in settings {
        builder = builder.with_config(name.to_ascii_lowercase().parse().unwrap(), value);
    }
    let url = format!("s3://{bucket}/{prefix}");
    let store = Arc::new(builder.build().unwrap());
    Remote::new(store, ObjectPath::from(prefix), &url, Duration::from_millis(500))
}

fn write_pair(folder: &Path) -> SnapshotPair {
    write_pair_with(folder, "basic")
}

fn write_pair_with(folder: &Path, plan: &str) -> SnapshotPair {
    let rows = |count| {
        let values = Values { plan: Some(plan.into()), quantity: 1, amount: None };
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

async fn publish(remote: &Remote, folder: &Path) -> Result<(), Error> {
    remote.publish(folder, &Silent, &Cancel::new()).await
}

async fn fetch(remote: &Remote, folder: &Path) -> Result<SnapshotPair, Error> {
    remote.fetch(folder, &Silent, &Cancel::new()).await
}

#[tokio::test]
async fn a_pair_goes_into_a_store_of_files_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_pair(&folder.path().join("here"));
    let url = url::Url::from_directory_path(folder.path().join("there")).unwrap();
    let remote = Remote::parse(url.as_str(), PATIENCE).unwrap();
    let absent = fetch(&remote, &folder.path().join("none")).await.unwrap_err();
    assert!(matches!(absent, Error::SnapshotAbsent { .. }), "{absent:?}");
    publish(&remote, original.folder()).await.unwrap();
    let fetched = fetch(&remote, &folder.path().join("back")).await.unwrap();
    assert_same(&fetched, &original);

    // What is there already is there; what is another's is in the way.
    publish(&remote, original.folder()).await.unwrap();
    assert_same(&fetch(&remote, fetched.folder()).await.unwrap(), &original);
    let other = write_pair_with(&folder.path().join("other"), "pro");
    let present = publish(&remote, other.folder()).await.unwrap_err();
    assert!(matches!(present, Error::SnapshotPresent { .. }), "{present:?}");
    let present = fetch(&remote, other.folder()).await.unwrap_err();
    assert!(matches!(present, Error::SnapshotPresent { .. }), "{present:?}");
}

/// Files of several parts and pieces.
#[tokio::test]
async fn a_large_pair_goes_to_an_s3_server_in_parts_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    // Hardly to be compressed: 36 MiB in one file.
    let noise = |number: u64| -> String {
        let mut random = fastrand::Rng::with_seed(number);
        (0..1 << 20).map(|_| random.alphanumeric()).collect()
    };
    let rows: Vec<_> = (0..48u16)
        .map(|number| {
            let values = Values { plan: Some(noise(number.into())), quantity: 1, amount: None };
            (Key::new(0, number), values)
        })
        .collect();
    let here = folder.path().join("here");
    write_side(&here, Side::Old, &rows, Layout::default());
    write_side(&here, Side::New, &rows[..1], Layout::default());
    let original = SnapshotPair::open(&here).unwrap();
    assert!(original.old().manifest().files[0].bytes > 32 << 20);

    let server = server();
    let remote = remote(&server, BUCKET, PREFIX);
    publish(&remote, &here).await.unwrap();
    let requests = server.requests();
    let parts = requests
        .iter()
        .filter(|request| request.starts_with("PUT ") && request.ends_with("old/part-00000.parquet"));
    assert!(parts.count() >= 3, "{requests:?}");
    server.misbehave([Mischief::Half, Mischief::Garble], None);
    let fetched = fetch(&remote, &folder.path().join("back")).await.unwrap();
    assert_same(&fetched, &original);
    let requests = server.requests();
    assert!(requests.iter().filter(|request| request.starts_with("GET ")).count() >= 7, "{requests:?}");
}

#[tokio::test]
async fn a_store_that_misbehaves_for_a_moment_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_pair(&folder.path().join("here"));
    let server = server();
    let remote = remote(&server, BUCKET, PREFIX);
    publish(&remote, original.folder()).await.unwrap();
    for (number, mischief) in EVERY_MISCHIEF.into_iter().enumerate() {
        server.misbehave([mischief], None);
        let back = folder.path().join(format!("back-{number}"));
        assert_same(&fetch(&remote, &back).await.unwrap(), &original);
    }
}

#[tokio::test]
async fn a_store_that_keeps_misbehaving_is_an_error_and_leaves_no_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_pair(&folder.path().join("here"));
    let server = server();
    let remote = remote(&server, BUCKET, PREFIX);
    publish(&remote, original.folder()).await.unwrap();
    for (number, mischief) in EVERY_MISCHIEF.into_iter().enumerate() {
        server.misbehave([], Some(mischief));
        let back = folder.path().join(format!("back-{number}"));
        let error = fetch(&remote, &back).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("s3://bucket/snapshots/monday/old/part-00000.parquet"), "{mischief:?}: {text}");
        assert!(error.hint().is_some(), "{mischief:?}: {text}");
        for side in [Side::Old, Side::New] {
            assert!(!side.folder(&back).join(MANIFEST_FILE).exists());
        }
        // The next one is not in its way.
        server.misbehave([], None);
        assert_same(&fetch(&remote, &back).await.unwrap(), &original);
    }
}

#[tokio::test]
async fn a_half_published_pair_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_pair(&folder.path().join("here"));
    let server = server();
    let remote = remote(&server, BUCKET, PREFIX);
    publish(&remote, original.folder()).await.unwrap();
    fs::remove_file(server.path(BUCKET, &format!("{PREFIX}/new/{MANIFEST_FILE}"))).unwrap();
    let error = fetch(&remote, &folder.path().join("back")).await.unwrap_err();
    assert!(matches!(error, Error::SnapshotAbsent { .. }), "{error:?}");
    // Whoever was stopped between the two manifests goes on.
    publish(&remote, original.folder()).await.unwrap();
    assert_same(&fetch(&remote, &folder.path().join("back")).await.unwrap(), &original);
}

/// How often each object was read or written.
fn count(requests: &[String], method: &str, end: &str) -> usize {
    requests.iter().filter(|asked| asked.starts_with(method) && asked.ends_with(end)).count()
}

/// Drops what is under way as soon as the server has such a request, which it does not answer.
async fn drop_at<T>(
    server: Arc<S3>,
    method: &'static str,
    end: &'static str,
    running: impl Future<Output = T>,
) {
    server.hold(Some((method, end)));
    let held = server.clone();
    let arrived = tokio::task::spawn_blocking(move || held.wait_for(method, end));
    tokio::select! {
        _ = running => panic!("nobody was to answer it"),
        arrived = arrived => arrived.unwrap(),
    }
    server.hold(None);
}

#[tokio::test]
async fn what_has_arrived_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_pair(&folder.path().join("here"));
    let server = Arc::new(server());
    let remote = remote(&server, BUCKET, PREFIX);
    let patient = Remote { patience: PATIENCE, ..remote.clone() };
    drop_at(server.clone(), "PUT", "old/part-00002.parquet", publish(&patient, original.folder())).await;
    let absent = fetch(&remote, &folder.path().join("none")).await.unwrap_err();
    assert!(matches!(absent, Error::SnapshotAbsent { .. }), "{absent:?}");
    // Somebody has put something else there meanwhile.
    fs::write(server.path(BUCKET, &format!("{PREFIX}/old/part-00001.parquet")), "no Parquet").unwrap();
    server.requests();
    publish(&remote, original.folder()).await.unwrap();
    let requests = server.requests();
    let sent: Vec<_> =
        (0..4).map(|n| count(&requests, "PUT", &format!("old/part-0000{n}.parquet"))).collect();
    assert_eq!(sent, [0, 1, 1, 1], "{requests:?}");
    assert!(!original.folder().join("published.json").exists());
    assert_same(&fetch(&remote, &folder.path().join("back")).await.unwrap(), &original);
}

#[tokio::test]
async fn what_was_fetched_is_not_fetched_again_unless_it_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_pair(&folder.path().join("here"));
    let server = Arc::new(server());
    let remote = remote(&server, BUCKET, PREFIX);
    publish(&remote, original.folder()).await.unwrap();
    let back = folder.path().join("back");
    let patient = Remote { patience: PATIENCE, ..remote.clone() };
    drop_at(server.clone(), "GET", "old/part-00003.parquet", fetch(&patient, &back)).await;
    assert!(SnapshotPair::open(&back).is_err());
    // A file that was damaged; and half of one, which a kill has left.
    let part = |number| back.join(format!("old/part-0000{number}.parquet"));
    fs::write(part(1), vec![7; fs::metadata(part(1)).unwrap().len() as usize]).unwrap();
    let whole = fs::read(part(2)).unwrap();
    fs::remove_file(part(2)).unwrap();
    fs::write(back.join("old/part-00002.parquet.tmp"), &whole[..whole.len() / 2]).unwrap();
    server.requests();
    assert_same(&fetch(&remote, &back).await.unwrap(), &original);
    let requests = server.requests();
    let fetched: Vec<_> =
        (0..4).map(|n| count(&requests, "GET", &format!("old/part-0000{n}.parquet"))).collect();
    assert_eq!(fetched, [0, 1, 1, 1], "{requests:?}");

    // Half of a file that is none of its: the checksum tells, and it is fetched again from the beginning.
    fs::remove_dir_all(&back).unwrap();
    drop_at(server.clone(), "GET", "old/part-00003.parquet", fetch(&patient, &back)).await;
    fs::write(back.join("old/part-00003.parquet.tmp"), "nonsense").unwrap();
    assert_same(&fetch(&remote, &back).await.unwrap(), &original);
}

#[tokio::test]
async fn a_dump_is_fetched_once_and_again_where_it_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let server = server();
    let put = |name: &str, content: &str| {
        let path = server.path(BUCKET, &format!("export/{name}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    for (name, content) in
        [("a.parquet", "first"), ("b.parquet", "second"), ("_SUCCESS", ""), ("deep/c.parquet", "deep")]
    {
        put(name, content);
    }
    let dump = remote(&server, BUCKET, "export");
    let staging = folder.path().join("staging");
    let get = async || dump.fetch_dump(&staging, &Silent, &Cancel::new()).await;
    let files = get().await.unwrap();
    let listed = || {
        let names =
            fs::read_dir(&files).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    assert_eq!(listed(), ["a.parquet", "b.parquet"]);
    server.requests();
    get().await.unwrap();
    assert_eq!(count(&server.requests(), "GET", ".parquet"), 0);

    // As long as before, and another; and one that is gone.
    put("a.parquet", "FIRST");
    fs::remove_file(server.path(BUCKET, "export/b.parquet")).unwrap();
    get().await.unwrap();
    assert_eq!(listed(), ["a.parquet"]);
    assert_eq!(fs::read_to_string(files.join("a.parquet")).unwrap(), "FIRST");

    // One file by its own name.
    let one = remote(&server, BUCKET, "export/deep/c.parquet");
    let files = one.fetch_dump(&folder.path().join("one"), &Silent, &Cancel::new()).await.unwrap();
    assert_eq!(fs::read_to_string(files.join("c.parquet")).unwrap(), "deep");

    for mischief in [Mischief::Fail, Mischief::Half, Mischief::Stall] {
        put("a.parquet", &format!("{mischief:?}, in the end"));
        server.misbehave([], Some(mischief));
        let error = get().await.unwrap_err();
        assert!(error.to_string().contains("s3://bucket/export/a.parquet"), "{error}");
        server.misbehave([mischief], None);
        let files = get().await.unwrap();
        assert_eq!(fs::read_to_string(files.join("a.parquet")).unwrap(), format!("{mischief:?}, in the end"));
    }
    let nothing = remote(&server, BUCKET, "nothing");
    let error = nothing.fetch_dump(&folder.path().join("none"), &Silent, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, Error::DumpAbsent { .. }), "{error:?}");
}

#[tokio::test]
async fn a_bucket_that_is_not_there_and_a_key_that_is_wrong_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_pair(&folder.path().join("here"));
    let server = server();
    let elsewhere = remote(&server, "elsewhere", PREFIX);
    for error in [
        publish(&elsewhere, original.folder()).await.unwrap_err(),
        fetch(&elsewhere, &folder.path().join("back")).await.unwrap_err(),
        elsewhere.fetch_dump(&folder.path().join("dump"), &Silent, &Cancel::new()).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::BucketAbsent { .. }), "{error:?}");
        assert!(error.hint().is_some());
    }
    let stranger = AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_bucket_name(BUCKET)
        .with_access_key_id("stranger")
        .with_secret_access_key("never-to-be-seen")
        .build()
        .unwrap();
    let stranger = Remote { store: Arc::new(stranger), ..remote(&server, BUCKET, PREFIX) };
    let error = publish(&stranger, original.folder()).await.unwrap_err();
    assert!(error.hint().unwrap().contains("AWS_SECRET_ACCESS_KEY"), "{error}");
    assert!(!format!("{error} {error:?}").contains("never-to-be-seen"));
    assert!(!error.to_string().contains('<'), "{error}");
}

#[test]
fn a_url_that_is_no_store_is_refused_with_what_to_write() {
    for url in ["nonsense", "ftp://host/folder", "carrier-pigeon://loft", "https://example.org/dump"] {
        let error = Remote::parse(url, PATIENCE).unwrap_err();
        assert!(matches!(error, Error::ObjectStoreUrl { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("s3://"));
    }
    #[cfg(not(feature = "gcs"))]
    {
        let error = Remote::parse("gs://bucket/folder", PATIENCE).unwrap_err();
        assert!(error.hint().unwrap().contains("--features gcs"), "{error:?}");
    }
}

#[test]
fn what_is_secret_in_a_url_is_not_shown() {
    for (url, shown) in [
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3://key:secret@bucket/prefix", "s3://***@bucket/prefix"),
        (
            "abfss://container@account.dfs.core.windows.net/x",
            "abfss://container@account.dfs.core.windows.net/x",
        ),
        (
            "https://account.blob.core.windows.net/c/x?sv=1&sig=secret",
            "https://account.blob.core.windows.net/c/x",
        ),
    ] {
        assert_eq!(without_secrets(url), shown);
    }
    let error = Remote::parse("ftp://user:secret@host/x?sig=secret", PATIENCE).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[test]
fn each_place_has_a_folder_of_its_own_and_one_process_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let place = |url: &str| {
        Remote::new(Arc::new(object_store::memory::InMemory::new()), ObjectPath::default(), url, PATIENCE)
    };
    let first = Staging::open(root.path(), &place("s3://one/monday")).unwrap();
    let second = Staging::open(root.path(), &place("s3://two/monday/")).unwrap();
    assert_ne!(first.fetched(), second.fetched());
    assert!(first.dump().to_string_lossy().contains("/remote-monday-"));
    let again = Staging::open(root.path(), &place("s3://one/monday"));
    assert!(matches!(again, Err(Error::FolderInUse { .. })), "{again:?}");
    first.remove().unwrap();
    assert!(Staging::open(root.path(), &place("s3://one/monday")).is_ok());
}
