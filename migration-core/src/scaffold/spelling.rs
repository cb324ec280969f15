//! How names are put together in any engine's statements.

use super::guess::Guess;
use crate::manifest::TableName;

/// An engine's way of writing names.
#[derive(Clone, Copy)]
pub(super) struct Spelling {
    /// A name as people write it.
    pub(super) plain: fn(&str) -> String,
    /// A table's name as people write it.
    pub(super) plain_table: fn(&TableName) -> String,
}

impl Spelling {
    /// The old table's name.
    pub(super) fn old_table(self, guess: &Guess<'_>) -> String {
        (self.plain_table)(&guess.old.name)
    }

    /// The new table's name.
    pub(super) fn new_table(self, guess: &Guess<'_>) -> String {
        (self.plain_table)(&guess.new.name)
    }

    /// That a new row `n` belongs to an old row `o`.
    pub(super) fn same_key(self, guess: &Guess<'_>) -> String {
        let pairs = guess.key.iter().zip(&guess.scope);
        pairs
            .map(|(key, scope)| format!("n.{} = o.{}", (self.plain)(scope), (self.plain)(key)))
            .collect::<Vec<_>>()
            .join(" and ")
    }

    /// That a row is one of the keys'.
    pub(super) fn in_keys(self, alias: &str, names: &[String]) -> String {
        format!("{} in (:keys)", self.tuple(alias, names))
    }

    /// One name alone, or several in brackets.
    pub(super) fn tuple(self, alias: &str, names: &[String]) -> String {
        let names: Vec<_> = names.iter().map(|name| format!("{alias}{}", (self.plain)(name))).collect();
        if let [name] = names.as_slice() { name.clone() } else { format!("({})", names.join(", ")) }
    }
}
