//! Manifests that do not hold: each is refused before anything exists.

use std::fs;

use crate::world::{Manifest, NAME, PROJECTION, World, assert_one_error, on_both_engines};

on_both_engines!(
    what_the_text_shows_is_told_with_its_line,
    what_the_tables_show_is_told_before_anything_exists,
    what_sample_rows_show_is_told_before_anything_exists,
    a_mapping_is_changed_in_old_only_alone,
    a_file_that_cannot_be_read_is_named,
);

/// Neither `check` nor `init` takes this manifest, and neither leaves anything behind.
async fn assert_refused(world: &World, text: &str, message: &str, hint: &str) {
    fs::write(world.manifest_path(), text).unwrap();
    let before = world.database.tables().await;
    let checked = world.run(["check", "contacts.toml"], 1);
    let told = checked.to_string();
    assert!(told.contains(message) && told.contains(hint), "no {message:?} or {hint:?}:\n{checked}");
    let refused = world.run(["init", "contacts.toml"], 1);
    assert_one_error(&refused, message, hint);
    assert_eq!(world.database.tables().await, before);
}

async fn what_the_text_shows_is_told_with_its_line(world: World) {
    let text = Manifest::default().text();
    let line = |text: &str, part: &str| text[..text.find(part).unwrap()].lines().count() + 1;

    let unknown = text.replace("scope = [", "scopes = [");
    let place = format!("contacts.toml:{}:1: unknown field `scopes`", line(&unknown, "scopes"));
    assert_refused(&world, &unknown, &place, "README").await;
    let gate = text.replace("soak_min", "soak");
    let place = format!("contacts.toml:{}:1: unknown field `soak`", line(&gate, "soak ="));
    assert_refused(&world, &gate, &place, "README").await;

    let unclosed = text.replace("table = \"customers\"", "table = \"customers");
    assert_refused(&world, &unclosed, &format!("contacts.toml:{}:", line(&unclosed, "table =")), "README")
        .await;
    let missing = text.replace("scope = [\"customer_id\"]\n", "");
    assert_refused(&world, &missing, "missing field `scope`", "README").await;
    let name = text.replace("name = \"contacts\"", "name = \"Contacts!\"");
    assert_refused(&world, &name, "contacts.toml:1:8: \"Contacts!\" is no name", "lower-case").await;
    let whole = Manifest { projection: PROJECTION.replace("id in (:keys)", "true"), ..Manifest::default() };
    assert_refused(&world, &whole.text(), "no `:keys`", "filter by the old key").await;
    let share = Manifest { gates: "mismatch_rate_max = 7.0", ..Manifest::default() };
    assert_refused(&world, &share.text(), "a share from 0 to 1", "README").await;
}

async fn what_the_tables_show_is_told_before_anything_exists(world: World) {
    world.fill(5).await;
    world
        .database
        .execute("create table keyless (id bigint, email text, phone text); create view seen as select * from customers")
        .await;
    let table = |old| Manifest { old, ..Manifest::default() }.text();
    assert_refused(&world, &table("clients"), "there is no table clients", "mend its name").await;
    assert_refused(&world, &table("keyless"), "neither a primary key nor a unique index", "give it one")
        .await;
    assert_refused(&world, &table("seen"), "is a view, not a table", "name the table behind it").await;
    let new = Manifest { new: "addresses", ..Manifest::default() };
    assert_refused(&world, &new.text(), "there is no table addresses", "mend its name").await;
    let key = Manifest::default().text().replace("key = [\"id\"]", "key = [\"number\"]");
    assert_refused(&world, &key, "has no column number", "its columns are id, email, phone").await;
    let part = Manifest::default().text().replace("key = [\"customer_id\", \"kind\"]", "key = [\"kind\"]");
    assert_refused(&world, &part, "new.key (kind) is not a key", "(customer_id, kind)").await;

    let projection = |from: &str, to: &str| {
        Manifest { projection: PROJECTION.replace(from, to), ..Manifest::default() }.text()
    };
    let dropped = projection("id as customer_id, ", "").replace("select id, 'phone'", "select 'phone'");
    assert_refused(&world, &dropped, "the projection drops customer_id", "give every column of new.scope")
        .await;
    let other = projection("as value", "as text_value");
    assert_refused(&world, &other, "gives column text_value", "its columns are").await;
    assert_refused(&world, &projection("phone is not null", "fax is not null"), "fax", "shell").await;
    assert_refused(
        &world,
        &projection("from customers where email", "form customers where email"),
        "does not accept",
        "shell",
    )
    .await;
}

async fn what_sample_rows_show_is_told_before_anything_exists(world: World) {
    world.fill(20).await;
    let projection = |from: &str, to: &str| {
        Manifest { projection: PROJECTION.replace(from, to), ..Manifest::default() }.text()
    };
    let nulls = projection(" where email is not null and", " where");
    assert_refused(&world, &nulls, "gives NULL in column value", "coalesce").await;
    let twice = projection("select id, 'phone'", "select id, 'email'");
    assert_refused(&world, &twice, "gives two rows with (customer_id, kind)", "what tells them apart").await;
    let foreign = projection("select id as customer_id", "select id + 1 as customer_id");
    assert_refused(&world, &foreign, "gives a row of key", "the old row's own key").await;
}

async fn a_mapping_is_changed_in_old_only_alone(world: World) {
    world.fill(5).await;
    world.init();
    let fewer = Manifest {
        projection: PROJECTION.split_once("union all").unwrap().0.to_owned(),
        is_reversible: false,
        ..Manifest::default()
    };
    fs::write(world.manifest_path(), fewer.text()).unwrap();
    assert_eq!(world.json(["init", "contacts.toml"])["registration"], "updated");
    world.succeed(["advance", NAME]);
    let before = world.standing();
    fs::write(world.manifest_path(), Manifest::default().text()).unwrap();
    world.fail(
        ["init", "contacts.toml"],
        1,
        "its mapping differs from the registered one",
        "roll back to old_only",
    );
    assert_eq!(world.standing(), before);

    // Thresholds may change at any time, and the history says so.
    let lower = Manifest { gates: "comparisons_min = 5", ..fewer };
    fs::write(world.manifest_path(), lower.text()).unwrap();
    assert_eq!(world.json(["init", "contacts.toml"])["registration"], "updated");
    let history = world.json(["history", NAME]);
    let last = history.as_array().unwrap().last().unwrap();
    assert_eq!(last["evidence"]["thresholds"]["comparisons_min"], 5, "{last}");
}

async fn a_file_that_cannot_be_read_is_named(world: World) {
    world.fail(["check", "absent.toml"], 1, "absent.toml", "is the path right?");
    world.fail(["init", "."], 1, "reading the manifest", "a file, not a folder");
    fs::write(world.path("bytes.toml"), [0xff, 0xfe, 0x00]).unwrap();
    world.fail(["check", "bytes.toml"], 1, "bytes.toml", "UTF-8");
    let places = ["--old", "env:DATABASE_URL#customers", "--new", "env:DATABASE_URL#contacts"];
    let nowhere = ["new", "contacts", "-o", "no/such/folder.toml"].into_iter().chain(places);
    world.fail(nowhere, 1, "no/such/folder.toml", "is the path right?");
    let absent =
        ["new", "contacts", "--old", "env:DATABASE_URL#clients", "--new", "env:DATABASE_URL#contacts"];
    world.fail(absent, 1, "there is no table clients", "create clients");
}
