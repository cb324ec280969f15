//! What a projection's values depend on in SQLite: the functions that its program calls.

use std::collections::{BTreeSet, HashMap};

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::called;
use crate::check::CheckFault;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::mirror::sqlite::{bound, projection};
use crate::plan::Plan;

/// The bit of a function's flags that says it gives the same for the same arguments.
const DETERMINISTIC: i64 = 0x800;

/// Functions that are deterministic but for some of their arguments.
const CLOCKS: &[&str] = &["date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff"];

/// These arguments: the moment, and the zone of whoever asks.
const MOMENTARY: &[(&str, &str)] = &[
    ("now", "the moment"),
    ("localtime", "the time zone of the process"),
    ("utc", "the time zone of the process"),
];

/// Warns of what the projection depends on besides the old rows.
pub(in crate::check) async fn dependence(
    connection: &mut SqliteConnection,
    plan: &Plan,
    key: &Key,
) -> Result<Vec<CheckFault>> {
    let failed = || Error::database("looking up the functions of the projection");
    let keys = std::slice::from_ref(key);
    let query = format!("explain select * from {}", projection(plan, keys));
    let program = bound(query, plan, keys)?.fetch_all(&mut *connection).await.map_err(failed())?;
    let (mut functions, mut arguments) = (BTreeSet::new(), BTreeSet::new());
    for step in &program {
        let read = || Ok((step.try_get("opcode")?, step.try_get("p4")?));
        let (opcode, operand): (String, Option<String>) = read().map_err(failed())?;
        let Some(operand) = operand else { continue };
        match opcode.as_str() {
            // Spelled `name(arguments)`.
            "Function" | "PureFunc" => {
                functions.insert(operand.split('(').next().unwrap_or_default().to_ascii_lowercase());
            }
            "String8" => {
                arguments.insert(operand.to_ascii_lowercase());
            }
            _ => {}
        }
    }
    let flags: Vec<(String, i64)> =
        sqlx::query_as("select name, max(flags & ?1) from pragma_function_list group by name")
            .bind(DETERMINISTIC)
            .fetch_all(connection)
            .await
            .map_err(failed())?;
    let flags: HashMap<_, _> = flags.into_iter().collect();
    let volatile = functions.iter().filter(|name| flags.get(*name) == Some(&0));
    let mut warnings: Vec<_> =
        volatile.map(|name| called(&format!("{name}()"), "more than its arguments")).collect();
    for clock in functions.iter().filter(|name| CLOCKS.contains(&name.as_str())) {
        for (argument, on) in MOMENTARY.iter().filter(|(argument, _)| arguments.contains(*argument)) {
            warnings.push(called(&format!("{clock}(…, '{argument}')"), on));
        }
    }
    Ok(warnings)
}
