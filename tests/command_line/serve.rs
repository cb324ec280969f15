//! What is shown to those who watch from outside, and what is relayed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crossfade_test_harness::Signal;

use crate::world::{NAME, World, on_both_engines};

on_both_engines!(
    where_a_migration_stands_is_served_until_a_signal,
    what_cannot_be_served_is_said,
    nothing_is_ever_left_to_be_relayed_within_one_database,
);

/// The status and the body of the answer to a request.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(address).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn where_a_migration_stands_is_served_until_a_signal(world: World) {
    world.fill(5).await;
    world.init();
    let server = world.crossfade(["serve", "--listen", "127.0.0.1:0"]).spawn();
    let line = server.stdout_line("listening on http://");
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();

    assert_eq!(get(&address, "/health"), (200, "ok\n".to_owned()));
    assert_eq!(get(&address, "/elsewhere").0, 404);
    let (status, before) = get(&address, "/metrics");
    assert_eq!(status, 200);
    let sample = |name: &str, labels: &str| format!("{name}{{migration=\"{NAME}\",{labels}}}");
    assert!(before.contains(&format!("{} 1\n", sample("crossfade_phase", "phase=\"old_only\""))), "{before}");
    assert!(before.contains("# TYPE crossfade_gate_open gauge\n"), "{before}");

    world.advance_to("dual_write");
    let (_, after) = get(&address, "/metrics");
    assert!(after.contains(&format!("{} 0\n", sample("crossfade_phase", "phase=\"old_only\""))), "{after}");
    assert!(after.contains(&format!("{} 1\n", sample("crossfade_phase", "phase=\"dual_write\""))), "{after}");
    let (_, document) = get(&address, "/status");
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document[0]["migration"], NAME);
    assert_eq!(document[0]["phase"], "dual_write");

    server.signal(Signal::Terminate);
    let finished = server.wait();
    assert_eq!(finished.code(), Some(0), "{finished}");
}

async fn what_cannot_be_served_is_said(world: World) {
    world.fill(5).await;
    world.init();
    world.fail(["serve", "orders"], 1, "there is no migration \"orders\"", "crossfade init");
    world.run(["serve", "--listen", "nowhere"], 2);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    world.fail(["serve", "--listen", &address], 1, "cannot listen on 127.0.0.1:", "--listen");
}

async fn nothing_is_ever_left_to_be_relayed_within_one_database(world: World) {
    world.fill(5).await;
    world.init();
    let document = world.json(["relay", NAME]);
    assert_eq!(document["pending"], 0);
    assert_eq!(document["migration"], NAME);
    world.fail(["relay", "orders"], 1, "there is no migration \"orders\"", "crossfade init");
}
