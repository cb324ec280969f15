//! `crossfade new`: a manifest to begin with, derived from the two live tables.
//!
//! What the tables do not tell is marked `TODO` where it stands. The manifest parses as it is, and
//! `crossfade check` names what is left to do.

mod guess;
mod names;
mod page;
mod postgres;
mod spelling;
mod sqlite;

use humantime_serde::re::humantime::format_duration;

use crate::catalog::TableSchema;
use crate::gate::{Thresholds, grouped};
use crate::url::EngineKind;
use guess::{Guess, Shape};
use page::{Page, statement, value, values};

/// What a manifest is derived from.
#[derive(Debug, Clone, Copy)]
pub struct Scaffold<'a> {
    /// The migration's name.
    pub name: &'a str,
    /// The engine of both tables.
    pub engine: EngineKind,
    /// The table that the data comes from.
    pub old: &'a TableSchema,
    /// The table that the data goes to.
    pub new: &'a TableSchema,
    /// The old table's database as the manifest is to name it: best `env:NAME`, and never with a password.
    pub old_url: &'a str,
    /// The new table's database, likewise.
    pub new_url: &'a str,
}

/// The statements of a mapping, as far as they could be derived.
#[derive(Debug, Clone)]
struct Statements {
    projection: String,
    /// Brings old rows up to date with new ones; nothing where it would take knowledge of the data.
    reverse: Option<String>,
    /// Deletes the old rows whose new ones are gone.
    removal: Option<String>,
    /// Takes the moved data out of the old table.
    retire: String,
}

/// A complete, commented manifest.
///
/// Where the old table has a JSON column that is named like the new table, and the new table holds several rows for
/// one old key, the elements of that column's arrays become the new rows. Otherwise one row becomes one row, column
/// by column of the same name.
pub fn scaffold(request: &Scaffold<'_>) -> String {
    let guess = Guess::of(request);
    let statements = match request.engine {
        EngineKind::Postgres => postgres::statements(&guess),
        EngineKind::Sqlite => sqlite::statements(&guess),
    };
    let mut body = Page::default();
    old_table(&mut body, request, &guess);
    new_table(&mut body, request, &guess);
    mapping(&mut body, &guess, &statements);
    gates(&mut body);
    let body = body.into_text();
    let mut page = Page::default();
    head(&mut page, request, &guess, body.contains("TODO: "));
    page.into_text() + &body
}

fn head(page: &mut Page, request: &Scaffold<'_>, guess: &Guess<'_>, is_open: bool) {
    let (old, new) = (&guess.old.name, &guess.new.name);
    page.comment(&match guess.shape {
        Shape::Row => format!("Moves the rows of {old} to {new}: one row becomes one row."),
        Shape::Array(column) => {
            format!("Moves the elements of the array {old}.{} to rows of {new}.", column.name)
        }
    });
    page.comment("");
    let settle = if is_open { ", settle what is marked TODO" } else { "" };
    page.comment(&format!(
        "Derived from the two tables as they are. Read it{settle}, then let `crossfade check` prove it on sample rows: \
         that changes nothing.",
    ));
    page.space();
    page.line(&format!("name = {}", value(request.name)));
    page.comment("Where crossfade keeps its own tables. Left out: in the new table's database.");
    page.proposal(&format!("control = {}", value(request.new_url)));
    page.space();
}

fn old_table(page: &mut Page, request: &Scaffold<'_>, guess: &Guess<'_>) {
    page.comment("Where the data comes from.");
    page.line("[old]");
    page.line(&format!("url = {}", value(request.old_url)));
    page.line(&format!("table = {}", value(&guess.old.name.to_string())));
    page.comment("The key: what is locked, written, moved and compared as one.");
    if !guess.old.is_key(&guess.key) {
        page.comment(&format!(
            "TODO: table {} has neither a primary key nor a unique index without NULLs. Give it one and name its \
             columns here.",
            guess.old.name
        ));
    }
    page.line(&format!("key = {}", values(&guess.key)));
    page.space();
}

fn new_table(page: &mut Page, request: &Scaffold<'_>, guess: &Guess<'_>) {
    let new = guess.new;
    page.comment("Where the data goes.");
    page.line("[new]");
    page.line(&format!("url = {}", value(request.new_url)));
    page.line(&format!("table = {}", value(&new.name.to_string())));
    page.comment(
        "The columns that hold the old key, in its order. Rows with the same values belong to one old row.",
    );
    for (key, column) in guess.key.iter().zip(&guess.scope) {
        let key = (key, guess.old.column(key));
        match (key, new.column(column)) {
            ((key, _), None) => page.comment(&format!(
                "TODO: no column of {} is named as if it held {}.{key}. Name the one that does in place of {column}, \
                 here and in the mapping.",
                new.name, guess.old.name
            )),
            ((key, Some(old)), Some(column)) if old.kind != column.kind => page.comment(&format!(
                "TODO: {} is {} and {}.{key} {}. Give it the old key's type, or name another column.",
                column.name, column.sql_type, guess.old.name, old.sql_type
            )),
            _ => {}
        }
    }
    page.line(&format!("scope = {}", values(&guess.scope)));
    page.comment("A primary key, or a unique index without NULLs.");
    if !new.is_key(&guess.row_key) {
        page.comment(&format!(
            "TODO: table {} has neither. Give it one and name its columns here.",
            new.name
        ));
    }
    page.line(&format!("key = {}", values(&guess.row_key)));
    page.space();
}

fn mapping(page: &mut Page, guess: &Guess<'_>, statements: &Statements) {
    page.line("[mapping]");
    projection(page, guess, statements);
    page.space();
    match guess.shape {
        Shape::Row => row_back(page, guess, statements),
        Shape::Array(_) => {
            page.comment(
                "Keeps the archive fresh once the new table is primary, so that a step back loses nothing: gives the \
                 array back, in the order of the new key. Keep it the inverse of the projection.",
            );
            page.line(&format!("reverse = {}", statement(statements.reverse.as_deref().unwrap_or_default())));
            page.space();
            page.comment("Takes the moved data out of the old table at the end: afterwards the projection gives no rows.");
            page.line(&format!("retire = {}", statement(&statements.retire)));
        }
    }
    page.space();
}

fn projection(page: &mut Page, guess: &Guess<'_>, statements: &Statements) {
    page.comment(
        "The rows that the new table should hold for a set of keys, as a query of the old store. `:keys` stands for \
         the keys.",
    );
    let named = |columns: &[&crate::catalog::ColumnSchema]| {
        columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    match guess.shape {
        Shape::Array(_) => page.comment(
            "The fields are taken to be named like the columns: compare with an array of your own. A field that is \
             not there gives NULL; one that nobody names here is lost when the array is retired.",
        ),
        Shape::Row => {
            let beyond = guess.beyond_scope();
            if !beyond.is_empty() {
                let beyond: Vec<_> = beyond.into_iter().map(String::as_str).collect();
                page.comment(&format!(
                    "TODO: the new key has {} beside the old key, so that one old row may become several. No array \
                     of {} that they could come from was found.",
                    beyond.join(", "),
                    guess.old.name
                ));
            }
            if !guess.left_behind.is_empty() {
                page.comment(&format!(
                    "Columns of {} that go nowhere: {}.",
                    guess.old.name,
                    named(&guess.left_behind)
                ));
            }
        }
    }
    if !guess.left_out.is_empty() {
        page.comment(&format!(
            "Columns of {} that are left NULL or to their defaults: {}.",
            guess.new.name,
            named(&guess.left_out)
        ));
    }
    page.line(&format!("projection = {}", statement(&statements.projection)));
}

/// The way back of rows that became rows, as far as it can be known.
fn row_back(page: &mut Page, guess: &Guess<'_>, statements: &Statements) {
    page.comment("Keeps the archive fresh once the new table is primary, so that a step back loses nothing.");
    let removal = statements.removal.as_deref();
    match (statements.reverse.as_deref(), removal) {
        (Some(reverse), Some(removal)) => {
            if guess.way_back() == guess::WayBack::Update {
                page.comment(
                    "TODO: rows that are created in the new table do not come back: it does not know all that an old \
                     row needs.",
                );
            }
            page.comment(
                "TODO: rows that are deleted in the new table stay in the old one. Where they are to go, take in the \
                 second statement.",
            );
            page.line(&format!("reverse = [{},", statement(reverse)));
            page.proposal(&format!("{},", statement(removal)));
            page.line("]");
        }
        _ => {
            page.comment(
                "TODO: write the statements that bring the old rows of `:keys` up to date. Left out: the migration \
                 cannot be undone from `new_primary` on.",
            );
            page.proposal("reverse = \"…\"");
        }
    }
    page.space();
    page.comment(
        "TODO: takes the moved data out of the old table at the end: afterwards the projection gives no rows. \
         Whether whole rows may be deleted is for you to say. Left out: `cleanup` does nothing.",
    );
    page.proposal(&format!("retire = {}", statement(&statements.retire)));
}

/// Every threshold with its default, behind a comment sign.
fn gates(page: &mut Page) {
    // Named one by one, so that a new threshold cannot be forgotten here.
    let Thresholds {
        comparisons_min,
        mismatch_rate_max,
        confidence,
        latency_ratio_max,
        evidence_age_max,
        soak_min,
        old_path_quiet_min,
        sample_keys,
    } = Thresholds::default();
    let duration = |duration| value(&format_duration(duration).to_string());
    page.comment(
        "What must be seen before a phase may be entered. These are the defaults, meant for production.",
    );
    page.line("[gates]");
    for (meaning, key, default) in [
        (
            "Shadow reads that were compared at the present epoch before reads move.",
            "comparisons_min",
            grouped(comparisons_min).replace(',', "_"),
        ),
        (
            "The share of them that may differ, and that may have been dropped: the upper confidence bound must be below.",
            "mismatch_rate_max",
            format!("{mismatch_rate_max:?}"),
        ),
        ("How sure that bound is.", "confidence", format!("{confidence:?}")),
        (
            "How many times slower than the old path's p99 the new path's may be.",
            "latency_ratio_max",
            format!("{latency_ratio_max:?}"),
        ),
        ("How old a verification may be.", "evidence_age_max", duration(evidence_age_max)),
        ("How long a phase must have stood before the next one is entered.", "soak_min", duration(soak_min)),
        (
            "How long the old path must have been unused before it is closed.",
            "old_path_quiet_min",
            duration(old_path_quiet_min),
        ),
        ("How many keys `crossfade check` samples.", "sample_keys", sample_keys.to_string()),
    ] {
        page.comment(meaning);
        page.proposal(&format!("{key} = {default}"));
    }
}

#[cfg(test)]
mod tests;
