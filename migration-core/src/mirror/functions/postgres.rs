//! The functions that a migration has in a Postgres database.

use std::fmt::Write as _;

use super::super::postgres::{insert_statement, is_in_arrays, lock_rows, quoted, resolution, scope_filter};
use crate::control::MigrationId;
use crate::control::postgres::FENCE_CLASS;
use crate::plan::Plan;
use crate::quote::postgres::{quote, table};

/// A function of a migration's, in schema `crossfade`.
pub(crate) struct Function {
    pub(crate) name: String,
    /// As the catalogue spells its parameters.
    pub(crate) parameters: String,
    /// As the catalogue spells what it returns.
    pub(crate) result: &'static str,
    /// Creates it, or replaces one with the same parameters and result.
    pub(crate) statement: String,
}

/// What a migration needs in the database: its lock, mirror and reverse functions.
pub(crate) fn functions(id: MigrationId, plan: &Plan) -> Vec<Function> {
    let mut functions = vec![lock_function(id, plan)];
    for shape in [Shape::One, Shape::Many] {
        functions.extend([mirror_function(id, plan, shape), reverse_function(id, plan, shape)]);
    }
    functions
}

/// How a function takes its keys. A list of keys is planned for an unknown number of them; for one
/// key, which is what a write mostly has, the same statements with plain parameters cost a quarter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mirror) enum Shape {
    One,
    Many,
}

impl Shape {
    /// What stands between a function's verb and the underscore before the migration's name: no name can be taken
    /// for it.
    pub(in crate::mirror) fn suffix(self) -> &'static str {
        match self {
            Shape::One => "1",
            Shape::Many => "",
        }
    }

    fn parameters(self, plan: &Plan) -> String {
        let of = match self {
            Shape::One => "text",
            Shape::Many => "text[]",
        };
        let list: Vec<_> = (1..=plan.key().len()).map(|number| format!("crossfade_k{number} {of}")).collect();
        list.join(", ")
    }

    fn declarations(self, plan: &Plan) -> String {
        let list = plan.key().iter().enumerate().map(|(index, column)| {
            let of = match self {
                Shape::One => column.sql_type.clone(),
                Shape::Many => format!("{}[]", column.sql_type),
            };
            format!("crossfade_c{0} {of} := crossfade_k{0}::{of};", index + 1)
        });
        let mut declarations: Vec<_> = list.collect();
        if self == Shape::One {
            declarations.push("crossfade_made xid;".to_owned());
        }
        declarations.join("\n    ")
    }

    /// What stands in place of `:keys` inside a function.
    fn keys(self, plan: &Plan) -> String {
        let list: Vec<_> = (1..=plan.key().len()).map(|number| format!("crossfade_c{number}")).collect();
        match (self, list.as_slice()) {
            (Shape::One, [only]) => only.clone(),
            (Shape::One, several) => format!("row({})", several.join(", ")),
            (Shape::Many, [only]) => format!("select unnest({only})"),
            (Shape::Many, several) => format!("select * from unnest({})", several.join(", ")),
        }
    }

    /// Statements that lock the old rows of the keys, in key order.
    ///
    /// A key without an old row cannot be locked by row, so that two writers who create it at once
    /// would each mirror only what they see themselves, and a job would not wait for either. It is locked by
    /// name instead, and the rows are locked again: by then the one who came first has committed, and its
    /// row is there. Who has just created the row sees it and nobody else does, so the name is locked
    /// in that case as well: wherever the row is not surely older than every transaction under way.
    fn lock(self, id: MigrationId, plan: &Plan) -> String {
        let id = id.0;
        match self {
            Shape::One => {
                let same: Vec<_> = plan
                    .key()
                    .iter()
                    .enumerate()
                    .map(|(index, column)| format!("o.{} = crossfade_c{}", quote(&column.name), index + 1))
                    .collect();
                let same = same.join(" and ");
                let texts: Vec<_> =
                    (1..=plan.key().len()).map(|number| format!("crossfade_c{number}::text")).collect();
                // A row version that this transaction has written is locked by that already (mostly it is
                // the application's own update), and locking it again would be logged again. One
                // that a savepoint of it has written looks like another's, and is merely young.
                format!(
                    "select o.xmin into crossfade_made from {old} as o where {same};
    if crossfade_made = pg_current_xact_id()::xid then
        {name};
    else
        select o.xmin into crossfade_made {lock};
        if not found or not {is_settled} then
            {name};
            perform 1 {lock};
        end if;
    end if;",
                    old = table(plan.old()),
                    lock = lock_rows(plan, &same, "no key update"),
                    is_settled = is_settled("crossfade_made"),
                    name = format_args!(
                        "crossfade_done := pg_advisory_xact_lock(hashtextextended(array[{}]::text, {id})) is null",
                        texts.join(", ")
                    ),
                )
            }
            Shape::Many => {
                let arguments: Vec<_> =
                    (1..=plan.key().len()).map(|number| format!("crossfade_k{number}")).collect();
                format!("perform crossfade.lock_{}({});", plan.name(), arguments.join(", "))
            }
        }
    }

    /// Whether a function's plans depend on its arguments: those of a list are never worth the time to
    /// make, and the database would make them anew for each call.
    fn settings(self) -> &'static str {
        match self {
            Shape::One => "",
            Shape::Many => "set plan_cache_mode = force_generic_plan ",
        }
    }
}

/// Whether a row version of this transaction ID is surely older than every transaction under way. An ID that is
/// too old to be told from a young one counts as young.
fn is_settled(made: &str) -> String {
    format!("age({made}) > age(pg_snapshot_xmin(pg_current_snapshot())::xid)")
}

/// Locks a list of keys: see [`Shape::lock`]. A row counts as found only if it was *locked*: one may be
/// created and committed between the lock and a later look for it, and be gone again before the next lock.
fn lock_function(id: MigrationId, plan: &Plan) -> Function {
    let shape = Shape::Many;
    let numbers = 1..=plan.key().len();
    let texts: Vec<_> = numbers.clone().map(|number| format!("crossfade_k.c{number}::text")).collect();
    let names: Vec<_> = numbers.clone().map(|number| format!("c{number}")).collect();
    let variables: Vec<_> = numbers.map(|number| format!("crossfade_c{number}")).collect();
    let own: Vec<_> = plan.key().iter().map(|column| format!("o.{}::text", quote(&column.name))).collect();
    let body = format!(
        "declare
    {declarations}
    crossfade_key text;
    crossfade_settled text[];
begin
    select array_agg(l.name) filter (where {is_settled}) into crossfade_settled
    from (select array[{own}]::text as name, o.xmin as made {lock}) as l;
    for crossfade_key in
        select array[{texts}]::text from unnest({variables}) as crossfade_k({names})
        except select unnest(crossfade_settled)
        order by 1
    loop
        perform pg_advisory_xact_lock(hashtextextended(crossfade_key, {id}));
    end loop;
    if found then
        perform count(*) from (select 1 {lock}) as locked;
    end if;
end",
        declarations = shape.declarations(plan),
        is_settled = is_settled("l.made"),
        lock = lock_rows(plan, &is_in_arrays(plan, &variables), "no key update"),
        texts = texts.join(", "),
        variables = variables.join(", "),
        names = names.join(", "),
        own = own.join(", "),
        id = id.0,
    );
    function(format!("lock_{}", plan.name()), shape.parameters(plan), "void", shape, &body)
}

fn mirror_function(id: MigrationId, plan: &Plan, shape: Shape) -> Function {
    let keys = shape.keys(plan);
    let projection = plan.projection().render(&keys);
    let same: Vec<_> = plan
        .row_key()
        .iter()
        .filter_map(|name| plan.columns().iter().find(|column| column.name == *name))
        .map(|column| format!("p.{0}::{1} = t.{0}", quote(&column.name), column.sql_type))
        .collect();
    let new = table(plan.new_table());
    let scope = scope_filter(plan, "t", &keys);
    // Under a snapshot of the whole transaction the projection may be older than the wait for the lock. A
    // new row that another mirror has changed or removed since cannot be locked then: the call fails
    // with 40001, where it would else write back what it still sees.
    let recheck = format!("\n        perform 1 from {new} as t where {scope} for update;");
    let statements = format!(
        "delete from {new} as t
    where {scope} and not exists (select 1 from ({projection}) as p where {same});
    get diagnostics removed = row_count;
    {insert}
    on conflict ({conflict}) {resolution};
    get diagnostics written = row_count;",
        same = same.join(" and "),
        insert = insert_statement(plan, &keys),
        conflict = quoted(plan.row_key()),
        resolution = resolution(plan),
    );
    fenced_function("mirror", id, plan, shape, &recheck, &statements)
}

fn reverse_function(id: MigrationId, plan: &Plan, shape: Shape) -> Function {
    let mut statements = String::new();
    for statement in plan.reverse() {
        // Writing to a String cannot fail.
        let _ = write!(
            statements,
            "    {};\n    get diagnostics crossfade_rows = row_count;\n    written := written + crossfade_rows;\n",
            statement.render(&shape.keys(plan)).trim_end()
        );
    }
    fenced_function("reverse", id, plan, shape, "", &statements)
}

/// A function that fences, locks its keys, runs the statements, and returns how many rows they touched. Above read
/// committed it first runs `recheck`, which fails where the transaction's snapshot is too old.
///
/// Every write of the application calls one, so it does by itself what `crossfade.fence` would mostly do, and leaves
/// to that what is rare. An assignment costs a tenth of a query, and a list of counts less than a row of them.
fn fenced_function(
    what: &str,
    id: MigrationId,
    plan: &Plan,
    shape: Shape,
    recheck: &str,
    statements: &str,
) -> Function {
    let body = format!(
        "declare
    {declarations}
    crossfade_done boolean;
    crossfade_found bigint;
    crossfade_rows bigint;
    written bigint := 0;
    removed bigint := 0;
    crossfade_snapshot boolean :=
        current_setting('transaction_isolation') in ('repeatable read', 'serializable');
begin
    crossfade_done := pg_advisory_xact_lock_shared({FENCE_CLASS}, {id}) is null;
    select m.epoch into crossfade_found from crossfade.migration as m where m.id = {id};
    if crossfade_snapshot or crossfade_found is distinct from crossfade_epoch then
        perform crossfade.fence({id}, crossfade_epoch);
    end if;
    {lock}
    if crossfade_snapshot then
        perform crossfade.refuse_old_snapshot();{recheck}
    end if;
    {statements}
    return array[written, removed];
end",
        declarations = shape.declarations(plan),
        id = id.0,
        lock = shape.lock(id, plan),
    );
    function(
        format!("{what}{}_{}", shape.suffix(), plan.name()),
        format!("crossfade_epoch bigint, {}", shape.parameters(plan)),
        "bigint[]",
        shape,
        &body,
    )
}

fn function(name: String, parameters: String, result: &'static str, shape: Shape, body: &str) -> Function {
    // The manifest's statements may hold dollar quotes of their own; the tag must not be one of them.
    let tag = (0..).map(|number| format!("$crossfade{number}$")).find(|tag| !body.contains(tag.as_str()));
    let tag = tag.unwrap_or_default();
    let statement = format!(
        "create or replace function crossfade.{name}({parameters}) returns {result} {settings}
         language plpgsql volatile as {tag}\n#variable_conflict use_column\n{body}\n{tag}",
        settings = shape.settings(),
    );
    Function { name, parameters, result, statement }
}
