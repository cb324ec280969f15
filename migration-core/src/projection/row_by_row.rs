//! Whether a projection makes its rows of one old row each, by what never changes: then old rows that are the same give the same
//! rows, at any moment and in any session.
//!
//! The forms that are understood are few, and what is not among them is no such projection: one `select`, or several under
//! `union all`, each of the old table alone or with functions over its columns beside it.

use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    GroupByExpr, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SetExpr, SetOperator, SetQuantifier, TableFactor, TimezoneInfo, UnaryOperator, Value,
};

use super::postgres::{factors, folded, old_alias, old_column, parse, placeholder};
use crate::catalog::{ColumnKind, ColumnSchema};
use crate::plan::Plan;
use crate::quote::postgres::quote;

/// The column that says which transaction wrote the old row that a row was made of.
pub(crate) const WRITER_COLUMN: &str = "crossfade_xmin";

/// Functions of the database's own that give the same for the same texts, numbers and documents, in every session and at every
/// moment. The caller sees to it that these names mean nothing else.
pub(crate) const FUNCTIONS: &[&str] = &[
    "abs",
    "btrim",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "floor",
    "initcap",
    "json_array_elements",
    "json_array_elements_text",
    "json_array_length",
    "json_each",
    "json_each_text",
    "json_extract_path",
    "json_extract_path_text",
    "json_object_keys",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_array_length",
    "jsonb_each",
    "jsonb_each_text",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_object_keys",
    "jsonb_strip_nulls",
    "jsonb_typeof",
    "left",
    "length",
    "lower",
    "lpad",
    "ltrim",
    "md5",
    "mod",
    "replace",
    "reverse",
    "right",
    "round",
    "rpad",
    "rtrim",
    "sign",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "translate",
    "trunc",
    "upper",
];

/// What looks like a function and is syntax, whose arguments must be of one kind, which is its own.
const CHOICES: &[&str] = &["coalesce", "greatest", "least", "nullif"];

/// What may be said of values without knowing their types.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// Truth values, integers, exact numbers, texts, uuids and documents: each is turned into another by a cast that depends on
    /// nothing else.
    Plain,
    /// A date or a time: as text it depends on the session, and made of a text on the moment.
    Moment(ColumnKind),
    /// What only stays what it is: by the type that its column has.
    Fixed(String),
}

/// The projection of all keys, with [`WRITER_COLUMN`] before its columns, if it is one that makes its rows row by row; else what
/// stands in the way. `old` are the old table's columns, all of them in their order; `unsure` the names of those whose
/// values may change while their rows do not.
pub(crate) fn with_writer(
    plan: &Plan,
    own_keys: &[String],
    old: &[ColumnSchema],
    unsure: &[String],
) -> Result<String, String> {
    let text = plan.projection().render_each(placeholder);
    let query = parse(&text).ok_or("it is not understood")?;
    let reading = Reading { plan, old, unsure };
    let mut marks = Vec::new();
    reading.query(&query, &mut marks)?;
    // From the end, so that the places before stay where they are.
    marks.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
    let mut marked = text.clone();
    for (place, alias) in marks {
        let place = offset(&text, place).ok_or("it is not understood")?;
        let is_select = text[..place].to_ascii_lowercase().ends_with("select");
        if !is_select || text[place..].trim_start().to_ascii_lowercase().starts_with("all") {
            return Err("it is not understood".to_owned());
        }
        marked.insert_str(place, &format!(" {}.xmin as {WRITER_COLUMN},", quote(&alias)));
    }
    for (number, key) in own_keys.iter().enumerate() {
        marked = marked.replace(&placeholder(number), key);
    }
    Ok(marked)
}

/// A line and a column of the text, both from 1.
type Place = (u64, u64);

/// Where a place is in the text, in bytes.
fn offset(text: &str, (line, column): Place) -> Option<usize> {
    let line = usize::try_from(line.checked_sub(1)?).ok()?;
    let begin = match line {
        0 => 0,
        line => text.match_indices('\n').nth(line - 1)?.0 + 1,
    };
    let column = usize::try_from(column.checked_sub(1)?).ok()?;
    text[begin..].char_indices().nth(column).map(|(at, _)| begin + at)
}

struct Reading<'a> {
    plan: &'a Plan,
    old: &'a [ColumnSchema],
    unsure: &'a [String],
}

/// What stands in a `from`.
struct Scope<'a> {
    factors: Vec<&'a TableFactor>,
    /// The names of functions' results.
    results: Vec<String>,
}

type Outcome<T> = Result<T, String>;

impl Reading<'_> {
    fn query(&self, query: &Query, marks: &mut Vec<(Place, String)>) -> Outcome<()> {
        let Query { with: None, body, order_by: None, limit_clause: None, fetch: None, locks, .. } = query
        else {
            return Err("it has a with, an order or a limit".to_owned());
        };
        if !locks.is_empty() {
            return Err("it takes locks".to_owned());
        }
        self.body(body, marks)
    }

    fn body(&self, body: &SetExpr, marks: &mut Vec<(Place, String)>) -> Outcome<()> {
        match body {
            SetExpr::Select(select) => self.select(select, marks),
            SetExpr::SetOperation {
                left,
                op: SetOperator::Union,
                set_quantifier: SetQuantifier::All,
                right,
            } => {
                self.body(left, marks)?;
                self.body(right, marks)
            }
            SetExpr::Query(query) => self.query(query, marks),
            _ => Err("it combines queries by more than union all".to_owned()),
        }
    }

    fn select(&self, select: &Select, marks: &mut Vec<(Place, String)>) -> Outcome<()> {
        let is_plain = matches!(&select.group_by, GroupByExpr::Expressions(by, more) if by.is_empty() && more.is_empty())
            && select.distinct.is_none()
            && select.into.is_none()
            && select.having.is_none()
            && select.named_window.is_empty()
            && select.lateral_views.is_empty()
            && select.qualify.is_none();
        if !is_plain {
            return Err("it groups or drops rows".to_owned());
        }
        let (alias, scope) = self.scope(select)?;
        if let Some(condition) = &select.selection {
            self.shape(condition, &scope)?;
        }
        let mut shapes = Vec::new();
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    shapes.push(self.shape(expr, &scope)?);
                }
                SelectItem::Wildcard(_) if scope.factors.len() == 1 => {
                    for column in self.old {
                        shapes.push(self.column(&column.name)?);
                    }
                }
                _ => return Err("it selects columns by an asterisk".to_owned()),
            }
        }
        if shapes.len() != self.plan.columns().len() {
            return Err("it is not understood".to_owned());
        }
        for (shape, column) in shapes.iter().zip(self.plan.columns()) {
            if !fits(shape, column) {
                return Err(format!(
                    "column {} is made by a cast that may depend on the session or the moment",
                    column.name
                ));
            }
        }
        let end = select.select_token.0.span.end;
        marks.push(((end.line, end.column), alias));
        Ok(())
    }

    /// The old table's name in a `from`, and what may be referred to.
    fn scope<'a>(&self, select: &'a Select) -> Outcome<(String, Scope<'a>)> {
        let foreign = || "it reads more than the old table".to_owned();
        let mut scope = Scope { factors: factors(&select.from).collect(), results: Vec::new() };
        let (first, others) = scope.factors.split_first().ok_or_else(foreign)?;
        let alias = old_alias(self.plan.old(), first).ok_or_else(foreign)?;
        for join in select.from.iter().flat_map(|table| &table.joins) {
            let is_plain = match &join.join_operator {
                JoinOperator::CrossJoin(JoinConstraint::None) => true,
                JoinOperator::Join(JoinConstraint::On(on))
                | JoinOperator::Inner(JoinConstraint::On(on))
                | JoinOperator::Left(JoinConstraint::On(on))
                | JoinOperator::LeftOuter(JoinConstraint::On(on)) => {
                    matches!(on, Expr::Value(value) if value.value == Value::Boolean(true))
                }
                _ => false,
            };
            if !is_plain {
                return Err("it joins under conditions".to_owned());
            }
        }
        let mut results = Vec::new();
        for factor in others {
            let (name, args, named) = match factor {
                TableFactor::Function { name, args, alias, .. } => (name, args, alias),
                TableFactor::Table { name, args: Some(args), alias, sample: None, .. } => {
                    (name, &args.args, alias)
                }
                _ => return Err(foreign()),
            };
            // A function sees what stands before it.
            let before = Scope { factors: scope.factors.clone(), results: results.clone() };
            self.arguments(&called(name)?, args, &before)?;
            let named = named.as_ref().map_or_else(|| called(name), |alias| Ok(folded(&alias.name)))?;
            results.push(named);
        }
        scope.results = results;
        Ok((alias, scope))
    }

    fn shape(&self, expr: &Expr, scope: &Scope<'_>) -> Outcome<Shape> {
        let plain = |parts: &[&Expr]| -> Outcome<Shape> {
            for part in parts {
                self.plain(part, scope)?;
            }
            Ok(Shape::Plain)
        };
        match expr {
            Expr::Nested(inner) => self.shape(inner, scope),
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.reference(expr, scope),
            Expr::Value(value) => match &value.value {
                Value::Number(..)
                | Value::SingleQuotedString(_)
                | Value::EscapedStringLiteral(_)
                | Value::DollarQuotedString(_)
                | Value::Boolean(_)
                | Value::Null => Ok(Shape::Plain),
                _ => Err("it has a literal that is not understood".to_owned()),
            },
            // The key filter itself: what it says is known.
            Expr::InList { expr, list, negated: false } if matches!(list.as_slice(), [Expr::Value(value)] if matches!(value.value, Value::Placeholder(_))) => {
                super::postgres::own_key(self.plan, expr, &scope.factors)
                    .map(|_| Shape::Plain)
                    .ok_or_else(|| "it asks for keys in a way that is not understood".to_owned())
            }
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => self.shape(inner, scope).map(|_| Shape::Plain),
            Expr::IsTrue(inner) | Expr::IsNotTrue(inner) | Expr::IsFalse(inner) | Expr::IsNotFalse(inner) => {
                plain(&[inner])
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.alike(left, right, scope)
            }
            Expr::UnaryOp { op: UnaryOperator::Not | UnaryOperator::Minus | UnaryOperator::Plus, expr } => {
                plain(&[expr])
            }
            Expr::Between { expr, low, high, .. } => {
                self.alike(expr, low, scope)?;
                self.alike(expr, high, scope)
            }
            Expr::InList { expr, list, .. } => {
                list.iter().try_for_each(|item| self.alike(expr, item, scope).map(|_| ()))?;
                Ok(Shape::Plain)
            }
            Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => plain(&[expr, pattern]),
            Expr::BinaryOp { left, op, right } => match op {
                BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq => self.alike(left, right, scope),
                BinaryOperator::And
                | BinaryOperator::Or
                | BinaryOperator::Plus
                | BinaryOperator::Minus
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Modulo
                | BinaryOperator::StringConcat
                | BinaryOperator::Arrow
                | BinaryOperator::LongArrow
                | BinaryOperator::HashArrow
                | BinaryOperator::HashLongArrow
                | BinaryOperator::AtArrow
                | BinaryOperator::ArrowAt
                | BinaryOperator::Question => plain(&[left, right]),
                op => Err(format!("it uses the operator {op}, which is not looked into")),
            },
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                array: false,
                format: None,
            } => cast(self.shape(expr, scope)?, data_type),
            Expr::AtTimeZone { timestamp, time_zone } => {
                if !matches!(&**time_zone, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
                {
                    return Err("it takes a time zone from elsewhere".to_owned());
                }
                match self.shape(timestamp, scope)? {
                    Shape::Moment(ColumnKind::TimestampTz) => Ok(Shape::Moment(ColumnKind::Timestamp)),
                    Shape::Moment(ColumnKind::Timestamp) => Ok(Shape::Moment(ColumnKind::TimestampTz)),
                    _ => Err("it takes a time of something else".to_owned()),
                }
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let mut result = else_result.as_ref().map(|expr| self.shape(expr, scope)).transpose()?;
                for when in conditions {
                    match operand {
                        Some(operand) => self.alike(operand, &when.condition, scope)?,
                        None => self.plain(&when.condition, scope).map(|()| Shape::Plain)?,
                    };
                    let shape = self.shape(&when.result, scope)?;
                    if result.get_or_insert_with(|| shape.clone()) != &shape {
                        return Err(mixed());
                    }
                }
                result.ok_or_else(mixed)
            }
            Expr::Function(function) => self.function(function, scope),
            other => Err(format!("{other} is not looked into")),
        }
    }

    fn plain(&self, expr: &Expr, scope: &Scope<'_>) -> Outcome<()> {
        match self.shape(expr, scope)? {
            Shape::Plain => Ok(()),
            _ => Err(format!("what it makes of {expr} may depend on the session")),
        }
    }

    /// Two values that are compared, which must be of one kind: else one would be turned into the other.
    fn alike(&self, left: &Expr, right: &Expr, scope: &Scope<'_>) -> Outcome<Shape> {
        if self.shape(left, scope)? == self.shape(right, scope)? { Ok(Shape::Plain) } else { Err(mixed()) }
    }

    fn reference(&self, expr: &Expr, scope: &Scope<'_>) -> Outcome<Shape> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [qualifier, _] = parts.as_slice()
            && scope.results.contains(&folded(qualifier))
        {
            return Ok(Shape::Plain);
        }
        match old_column(self.plan, expr, &scope.factors) {
            Some((_, column)) => self.column(&column),
            None => Err(format!("it is not known where {expr} comes from")),
        }
    }

    fn column(&self, name: &str) -> Outcome<Shape> {
        let column = self.old.iter().find(|column| column.name == name);
        let column = column.ok_or_else(|| format!("it is not known where {name} comes from"))?;
        if self.unsure.contains(&column.name) {
            return Err(format!("column {name} of type {} may change without its row", column.sql_type));
        }
        Ok(match column.kind {
            ColumnKind::Bool
            | ColumnKind::Int
            | ColumnKind::Text
            | ColumnKind::Uuid
            | ColumnKind::Json
            | ColumnKind::Numeric => Shape::Plain,
            kind @ (ColumnKind::Date | ColumnKind::Timestamp | ColumnKind::TimestampTz) => {
                Shape::Moment(kind)
            }
            ColumnKind::Float | ColumnKind::Bytes | ColumnKind::Other => {
                Shape::Fixed(column.sql_type.clone())
            }
        })
    }

    fn function(&self, function: &Function, scope: &Scope<'_>) -> Outcome<Shape> {
        let name = called(&function.name)?;
        let unknown = || format!("it calls {name}, which is not looked into");
        let FunctionArguments::List(list) = &function.args else { return Err(unknown()) };
        let is_plain = function.filter.is_none()
            && function.over.is_none()
            && function.null_treatment.is_none()
            && function.within_group.is_empty()
            && matches!(function.parameters, FunctionArguments::None)
            && list.duplicate_treatment.is_none()
            && list.clauses.is_empty();
        if !is_plain {
            return Err(unknown());
        }
        if CHOICES.contains(&name.as_str()) {
            let mut shapes = Vec::new();
            for argument in &list.args {
                shapes.push(self.shape(expression(argument).ok_or_else(unknown)?, scope)?);
            }
            shapes.dedup();
            return match shapes.as_slice() {
                [shape] => Ok(shape.clone()),
                _ => Err(mixed()),
            };
        }
        self.arguments(&name, &list.args, scope)?;
        Ok(Shape::Plain)
    }

    fn arguments(&self, name: &str, args: &[FunctionArg], scope: &Scope<'_>) -> Outcome<()> {
        let unknown = || format!("it calls {name}, which is not looked into");
        if !FUNCTIONS.contains(&name) {
            return Err(unknown());
        }
        args.iter().try_for_each(|argument| self.plain(expression(argument).ok_or_else(unknown)?, scope))
    }
}

fn expression(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// The name of a function that is called without a schema.
fn called(name: &ObjectName) -> Outcome<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => Ok(folded(name)),
        _ => Err(format!("it calls {name}, which is not looked into")),
    }
}

fn mixed() -> String {
    "it brings values of several kinds together, which may depend on the session".to_owned()
}

fn cast(from: Shape, to: &DataType) -> Outcome<Shape> {
    let refused = || format!("a cast to {to} may depend on the session or the moment");
    let plain = matches!(
        to,
        DataType::Int2(_)
            | DataType::SmallInt(_)
            | DataType::Int(_)
            | DataType::Int4(_)
            | DataType::Integer(_)
            | DataType::Int8(_)
            | DataType::BigInt(_)
            | DataType::Numeric(_)
            | DataType::Decimal(_)
            | DataType::Text
            | DataType::Varchar(_)
            | DataType::CharacterVarying(_)
            | DataType::Uuid
            | DataType::Bool
            | DataType::Boolean
            | DataType::JSON
            | DataType::JSONB
    );
    let without_zone =
        |zone: &TimezoneInfo| matches!(zone, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone);
    match (from, to) {
        (Shape::Plain, _) if plain => Ok(Shape::Plain),
        (Shape::Moment(ColumnKind::Date | ColumnKind::Timestamp), DataType::Date) => {
            Ok(Shape::Moment(ColumnKind::Date))
        }
        (Shape::Moment(ColumnKind::Date | ColumnKind::Timestamp), DataType::Timestamp(_, zone))
            if without_zone(zone) =>
        {
            Ok(Shape::Moment(ColumnKind::Timestamp))
        }
        (Shape::Moment(ColumnKind::TimestampTz), DataType::Timestamp(_, zone)) if !without_zone(zone) => {
            Ok(Shape::Moment(ColumnKind::TimestampTz))
        }
        _ => Err(refused()),
    }
}

/// Whether a value of the shape becomes one of the new column's type by nothing but itself.
fn fits(shape: &Shape, column: &ColumnSchema) -> bool {
    match (shape, column.kind) {
        (
            Shape::Plain,
            ColumnKind::Bool
            | ColumnKind::Int
            | ColumnKind::Text
            | ColumnKind::Uuid
            | ColumnKind::Json
            | ColumnKind::Numeric,
        ) => true,
        (Shape::Moment(kind), other) => *kind == other,
        (Shape::Fixed(sql_type), _) => *sql_type == column.sql_type,
        _ => false,
    }
}
