//! Projections in Postgres' SQL, read by a parser. The database remains the judge of what a projection gives: what is
//! found here only spares it work, or is asked of it again.

use sqlparser::ast::{
    BinaryOperator, Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SetExpr, Statement, TableAlias,
    TableFactor, TableWithJoins, Value,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use crate::manifest::TableName;
use crate::plan::Plan;
use crate::quote::postgres::quote;

/// For each `:keys` of the projection the key that stands before it, where that surely is the old table's own: then each
/// key is in the list of all keys, and `c.id in (c.id)` says the same as `c.id in (select id from customers)` without a
/// second look at the table.
pub(crate) fn own_keys(plan: &Plan) -> Option<Vec<String>> {
    let template = plan.projection();
    let text = template.render_each(placeholder);
    // Each stands there once, or it was there before.
    if (0..template.occurrences()).any(|number| text.matches(&placeholder(number)).count() != 1) {
        return None;
    }
    let query = parse(&text)?;
    let mut search = Search { plan, found: vec![None; template.occurrences()] };
    search.query(&query)?;
    search.found.into_iter().collect()
}

/// What stands for the `:keys` of this number while the text is parsed. All are of one length, so that none is the beginning of
/// another, and no statement has so many parameters.
pub(super) fn placeholder(number: usize) -> String {
    format!("${:06}", 900_000 + number)
}

pub(super) fn parse(sql: &str) -> Option<Query> {
    match Parser::parse_sql(&PostgreSqlDialect {}, sql).ok()?.pop()? {
        Statement::Query(query) => Some(*query),
        _ => None,
    }
}

struct Search<'p> {
    plan: &'p Plan,
    found: Vec<Option<String>>,
}

impl Search<'_> {
    /// Looks through a query; gives nothing where names may mean something else than they seem to.
    fn query(&mut self, query: &Query) -> Option<()> {
        // The name of a common table hides a table's.
        if query.with.is_some() {
            return None;
        }
        self.body(&query.body)
    }

    fn body(&mut self, body: &SetExpr) -> Option<()> {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left)?;
                self.body(right)
            }
            _ => Some(()),
        }
    }

    fn select(&mut self, select: &Select) -> Option<()> {
        let factors: Vec<&TableFactor> = factors(&select.from).collect();
        for factor in &factors {
            if let TableFactor::Derived { subquery, .. } = factor {
                self.query(subquery)?;
            }
        }
        select.selection.as_ref().map_or(Some(()), |condition| self.condition(condition, &factors))
    }

    fn condition(&mut self, condition: &Expr, factors: &[&TableFactor]) -> Option<()> {
        match condition {
            Expr::Nested(inner) => self.condition(inner, factors),
            Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
                self.condition(left, factors)?;
                self.condition(right, factors)
            }
            Expr::InList { expr, list, negated: false } => {
                if let [Expr::Value(value)] = list.as_slice()
                    && let Value::Placeholder(name) = &value.value
                    && let Some(number) = (0..self.found.len()).find(|number| placeholder(*number) == *name)
                {
                    let key = own_key(self.plan, expr, factors)?;
                    if self.found[number].replace(key).is_some() {
                        return None;
                    }
                }
                Some(())
            }
            _ => Some(()),
        }
    }
}

/// All that stands in a `from`. What is within brackets stays one, unknown thing.
pub(super) fn factors(from: &[TableWithJoins]) -> impl Iterator<Item = &TableFactor> {
    from.iter().flat_map(|table| {
        std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation))
    })
}

/// The old table's key as it stands here, in quotes, where that is what it is.
pub(super) fn own_key(plan: &Plan, expr: &Expr, factors: &[&TableFactor]) -> Option<String> {
    let parts = match expr {
        Expr::Nested(inner) => return own_key(plan, inner, factors),
        Expr::Tuple(parts) => parts.as_slice(),
        single => std::slice::from_ref(single),
    };
    if parts.len() != plan.key().len() {
        return None;
    }
    let mut spelt = Vec::with_capacity(parts.len());
    for (part, column) in parts.iter().zip(plan.key()) {
        let (alias, name) = old_column(plan, part, factors)?;
        if name != column.name {
            return None;
        }
        spelt.push(format!("{}.{}", quote(&alias), quote(&name)));
    }
    match spelt.as_slice() {
        [only] => Some(only.clone()),
        several => Some(format!("({})", several.join(", "))),
    }
}

/// The name under which the old table stands here and the column of it that this is a reference to.
pub(super) fn old_column(plan: &Plan, expr: &Expr, factors: &[&TableFactor]) -> Option<(String, String)> {
    match expr {
        Expr::Nested(inner) => old_column(plan, inner, factors),
        Expr::CompoundIdentifier(parts) => {
            let [qualifier, column] = parts.as_slice() else { return None };
            let qualifier = folded(qualifier);
            let mut named = factors.iter().filter_map(|factor| old_alias(plan.old(), factor));
            // A name stands for one thing in a `from`, or the database refuses it.
            named.find(|alias| *alias == qualifier).map(|alias| (alias, folded(column)))
        }
        Expr::Identifier(column) => {
            // Another table might have a column of this name.
            let [only] = factors else { return None };
            old_alias(plan.old(), only).map(|alias| (alias, folded(column)))
        }
        _ => None,
    }
}

/// The name under which the old table, as it is, stands here.
pub(super) fn old_alias(old: &TableName, factor: &TableFactor) -> Option<String> {
    let TableFactor::Table {
        name,
        alias,
        args: None,
        version: None,
        with_ordinality: false,
        json_path: None,
        sample: None,
        ..
    } = factor
    else {
        return None;
    };
    if !is_named(name, old) {
        return None;
    }
    match alias {
        None => Some(old.table.clone()),
        Some(TableAlias { name, columns, .. }) if columns.is_empty() => Some(folded(name)),
        // Its columns have been given other names.
        Some(_) => None,
    }
}

/// Whether a name is spelt as the manifest spells the table: then the search path finds the same for both.
fn is_named(name: &ObjectName, table: &TableName) -> bool {
    let parts: Option<Vec<String>> = name
        .0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(identifier) => Some(folded(identifier)),
            ObjectNamePart::Function(_) => None,
        })
        .collect();
    let expected: Vec<&String> = table.schema.iter().chain([&table.table]).collect();
    parts.is_some_and(|parts| parts.iter().collect::<Vec<_>>() == expected)
}

/// An identifier as the database understands it.
pub(super) fn folded(identifier: &Ident) -> String {
    match identifier.quote_style {
        None => identifier.value.to_ascii_lowercase(),
        Some(_) => identifier.value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{ColumnKind, ColumnSchema, TableSchema};
    use crate::manifest::Manifest;

    /// A plan over `shop.customers (tenant, id, v)`, keyed by `key`.
    fn plan(key: &[&str], projection: &str) -> Plan {
        let names = ["tenant", "id", "v"];
        let listed = key.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "name = \"m\"\n[old]\nurl = \"env:A\"\ntable = \"shop.customers\"\nkey = [{listed}]\n[new]\nurl = \"env:A\"\n\
             table = \"items\"\nscope = [{listed}]\nkey = [{listed}]\n[mapping]\nprojection = '''{projection}'''\n"
        );
        let manifest = Manifest::parse(&text, "test").unwrap();
        let column = |name: &&str| ColumnSchema {
            name: (*name).to_owned(),
            sql_type: "bigint".to_owned(),
            kind: ColumnKind::Int,
            nullable: false,
            has_default: false,
            generated: false,
        };
        let table = |name: &TableName| TableSchema {
            name: name.clone(),
            columns: names.iter().map(column).collect(),
            primary_key: key.iter().map(|name| (*name).to_owned()).collect(),
            unique_keys: Vec::new(),
            rows_estimate: 0,
        };
        let (old, new) = (table(&manifest.old().table), table(&manifest.new_table().table));
        Plan::new(&manifest, &old, &new, &names.map(str::to_owned)).unwrap()
    }

    fn keys(key: &[&str], from: &str) -> Option<Vec<String>> {
        own_keys(&plan(key, &format!("select tenant, id, v from {from}")))
    }

    #[test]
    fn the_old_tables_own_key_is_recognised_under_its_names() {
        let own = |name: &str| Some(vec![name.to_owned()]);
        assert_eq!(keys(&["id"], "shop.customers where id in (:keys)"), own(r#""customers"."id""#));
        assert_eq!(keys(&["id"], "Shop.Customers as C where v = 1 and c.ID in (:keys)"), own(r#""c"."id""#));
        assert_eq!(keys(&["id"], r#"t, "shop"."customers" "C" where "C".id in (:keys)"#), own(r#""C"."id""#));
        let composite = own(r#"("c"."tenant", "c"."id")"#);
        assert_eq!(keys(&["tenant", "id"], "shop.customers c where (c.tenant, c.id) in (:keys)"), composite);
        let twice = "shop.customers where id in (:keys) union all select 1, c.id, 2 from shop.customers c where c.id in (:keys)";
        assert_eq!(keys(&["id"], twice).unwrap(), [r#""customers"."id""#, r#""c"."id""#]);
    }

    #[test]
    fn whatever_might_be_something_else_is_not() {
        for from in [
            "customers where id in (:keys)",
            "other.customers where id in (:keys)",
            "shop.customers, t where id in (:keys)",
            "shop.customers c join t on true where t.id in (:keys)",
            "shop.customers c where v in (:keys)",
            "shop.customers c where c.id + 0 in (:keys)",
            "shop.customers c where c.id not in (:keys)",
            "shop.customers c (id, tenant, v) where c.id in (:keys)",
            r#"shop.customers c where "C".id in (:keys)"#,
            "(shop.customers c join t on true) where c.id in (:keys)",
            "shop.customers c where c.id in (:keys) and c.v in (select id from t where t.id in (:keys))",
            "shop.customers c where exists (select 1 from t where c.id in (:keys))",
            "shop.customers c where c.id in (:keys) and v = $900000",
            "shop.customers tablesample system (5) where id in (:keys)",
            "json_to_recordset(:keys) as t (id int)",
        ] {
            assert_eq!(keys(&["id"], from), None, "{from}");
        }
        assert_eq!(keys(&["tenant", "id"], "shop.customers c where (c.id, c.tenant) in (:keys)"), None);
    }

    #[test]
    fn the_writer_stands_before_the_columns_of_each_query() {
        let old: Vec<ColumnSchema> =
            plan(&["id"], "select id, tenant, v from shop.customers where id in (:keys)").columns().to_vec();
        let projection = "-- ü\n select tenant, id, v from shop.customers where id in (:keys)\n union all SELECT 1,\n c.id, 2 from shop.customers c where c.id in (:keys)";
        let plan = plan(&["id"], projection);
        let written =
            super::super::row_by_row::with_writer(&plan, &own_keys(&plan).unwrap(), &old, &[]).unwrap();
        let expected = "-- ü\n select \"customers\".xmin as crossfade_xmin, tenant, id, v from shop.customers where id in (\"customers\".\"id\")\n \
                        union all SELECT \"c\".xmin as crossfade_xmin, 1,\n c.id, 2 from shop.customers c where c.id in (\"c\".\"id\")";
        assert_eq!(written.trim_end(), expected);
    }
}
