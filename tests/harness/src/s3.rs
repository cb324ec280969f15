//! An S3-compatible server on a loopback port, which misbehaves when it is told to.
//!
//! The server is s3s over a folder: it checks signatures, knows buckets, ranges, conditions and uploads in parts. What a
//! well-behaved server never does is put between it and its clients: see [`Mischief`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::dto::StreamingBlob;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The only key that the server knows.
const ACCESS_KEY: &str = "crossfade-test";
const SECRET_KEY: &str = "s3cr3t-0f-the-5t0re";

/// What is done with a request for an object instead of answering it as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mischief {
    /// Answers 500.
    Fail,
    /// Sends half of the body, and closes the connection.
    Half,
    /// Sends half of the body, and then nothing for ever.
    Stall,
    /// Sends as many other bytes.
    Garble,
}

/// A server with a folder of its own. It ends, and its objects with it, when the value is dropped.
#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    folder: TempDir,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<Infallible>,
}

#[derive(Debug, Default)]
struct Plan {
    /// For each next request that reads a Parquet file.
    next: VecDeque<Mischief>,
    /// For all of them after those.
    for_ever: Option<Mischief>,
    /// What requests are not answered at all: their method, and what their path ends in.
    held: Option<(String, String)>,
    /// Methods and paths of the requests so far.
    requests: Vec<String>,
}

/// A plan, and a bell that rings at each request.
#[derive(Debug, Default)]
struct Shared {
    plan: Mutex<Plan>,
    asked: Condvar,
}

impl S3 {
    /// Starts a server, in a thread of its own: tests block theirs while a program runs.
    ///
    /// # Panics
    ///
    /// When there is no port, thread or temporary folder to be had.
    pub fn start() -> S3 {
        let folder = tempfile::Builder::new().prefix("crossfade-s3-").tempdir().expect("a temporary folder");
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder.path()).expect("the folder is there"));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port that was just bound");
        listener.set_nonblocking(true).expect("a socket that need not block");
        let shared = Arc::<Shared>::default();
        let serving = shared.clone();
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let accepting = async {
                let listener = TcpListener::from_std(listener).expect("the socket does not block");
                while let Ok((stream, _)) = listener.accept().await {
                    let (service, shared) = (service.clone(), serving.clone());
                    let answering =
                        service_fn(move |request| answer(service.clone(), shared.clone(), request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    tokio::spawn(connection.serve_connection(TokioIo::new(stream), answering));
                }
            };
            runtime.expect("a runtime").block_on(async {
                tokio::select! {
                    () = accepting => {}
                    _ = stopped => {}
                }
            });
        });
        S3 { address, folder, shared, _stop: stop }
    }

    /// Makes a bucket, where there is none.
    ///
    /// # Panics
    ///
    /// When the folder cannot be written.
    pub fn bucket(self, name: &str) -> S3 {
        fs::create_dir_all(self.folder.path().join(name)).expect("the folder is writable");
        self
    }

    /// Where an object lies.
    pub fn path(&self, bucket: &str, object: &str) -> PathBuf {
        self.folder.path().join(bucket).join(object)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The secret that must never be printed.
    pub fn secret(&self) -> &'static str {
        SECRET_KEY
    }

    /// What a program finds it by, and is let in by.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// Says what to do with the next requests that read Parquet files, one after the other, and with all that follow.
    pub fn misbehave(&self, next: impl IntoIterator<Item = Mischief>, for_ever: Option<Mischief>) {
        let mut plan = self.shared.plan();
        plan.next = next.into_iter().collect();
        plan.for_ever = for_ever;
    }

    /// Leaves requests with this method, whose paths end like this, without an answer; or answers all again.
    pub fn hold(&self, requests: Option<(&str, &str)>) {
        self.shared.plan().held = requests.map(|(method, end)| (method.to_owned(), end.to_owned()));
    }

    /// Waits until a request with this method has come whose path ends like this.
    ///
    /// # Panics
    ///
    /// When none comes within two minutes.
    pub fn wait_for(&self, method: &str, end: &str) {
        let is_awaited = |plan: &mut Plan| !plan.requests.iter().any(|asked| is_like(asked, method, end));
        let waited = self.shared.asked.wait_timeout_while(self.shared.plan(), WITHIN, is_awaited);
        let (plan, timed_out) = waited.expect("no thread panicked with it");
        assert!(!timed_out.timed_out(), "there was no {method} …{end}, but {:?}", plan.requests);
    }

    /// Methods and paths of the requests since this was asked last.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.plan().requests)
    }
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().expect("no thread panicked with it")
    }
}

/// How long a request may be waited for: a test that waits this long is stuck.
const WITHIN: Duration = Duration::from_secs(120);

fn is_like(request: &str, method: &str, end: &str) -> bool {
    request.split_once(' ').is_some_and(|(found, path)| found == method && path.ends_with(end))
}

async fn answer(
    service: S3Service,
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, HttpError> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (is_held, mischief) = {
        let mut plan = shared.plan();
        let asked = format!("{method} {path}");
        let is_held = plan.held.as_ref().is_some_and(|(method, end)| is_like(&asked, method, end));
        plan.requests.push(asked);
        let is_read = method == "GET" && path.ends_with(".parquet");
        (is_held, is_read.then(|| plan.next.pop_front().or(plan.for_ever)).flatten())
    };
    shared.asked.notify_all();
    if is_held {
        return std::future::pending().await;
    }
    let Some(mischief) = mischief else { return service.call(request.map(Body::from)).await };
    if mischief == Mischief::Fail {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return Ok(answer);
    }
    let (head, body) = service.call(request.map(Body::from)).await?.into_parts();
    let whole = BodyExt::collect(body).await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    // The length that the head promises stays.
    let half = stream::iter([Ok::<_, std::io::Error>(whole.slice(..whole.len() / 2))]);
    let body = match mischief {
        Mischief::Garble => Body::from(Bytes::from_iter(whole.iter().map(|byte| !byte))),
        Mischief::Stall => StreamingBlob::wrap(half.chain(stream::pending())).into(),
        Mischief::Half | Mischief::Fail => {
            let broken = stream::iter([Err(std::io::Error::other("broken off, as it was told to"))]);
            StreamingBlob::wrap(half.chain(broken)).into()
        }
    };
    Ok(Response::from_parts(head, body))
}
