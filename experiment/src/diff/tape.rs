//! A serialised value as one flat list: what a tree of `serde_json::Value` says, without the tree.
//!
//! A tree allocates for each name, each text and each container; a tape appends to a few lists. It says exactly what
//! `serde_json::to_value` would, or refuses: see [`Tape::of`].

use std::{fmt, ops::Range};

use serde::{
    Serialize,
    ser::{self, Serializer},
};
use serde_json::{Number, Value};

/// One serialised value. Texts and the names of fields stand in one string, one after the other.
#[derive(Debug, Default)]
pub(super) struct Tape {
    nodes: Vec<Node>,
    text: String,
    /// The fields of all maps that are closed; each map's stand together, in the order of their names.
    fields: Vec<Field>,
    /// The fields of maps that are still open, the innermost map's last.
    open: Vec<Field>,
    /// How many optional values were met: a name must not be one.
    options: usize,
}

#[derive(Debug, Clone)]
enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(Range<usize>),
    /// Its items follow; the next node that is none of them is at `after`.
    Items {
        len: usize,
        after: usize,
    },
    /// Where among the tape's fields those of this map stand.
    Map {
        fields: Range<usize>,
        after: usize,
    },
}

#[derive(Debug, Clone)]
struct Field {
    name: Range<usize>,
    at: usize,
}

/// What stands at a place on a tape.
pub(super) enum Seen<'a> {
    Items(Items<'a>),
    Map(Fields<'a>),
    Scalar,
}

/// A place on a tape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    tape: &'a Tape,
    at: usize,
}

/// The items of a sequence.
#[derive(Debug, Clone)]
pub(super) struct Items<'a> {
    next: Place<'a>,
    left: usize,
}

/// The fields of a map, in the order of their names.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    tape: &'a Tape,
    left: Range<usize>,
}

impl Tape {
    /// Records a value; `None` where it does not serialise, or in a way that only a tree can tell (`serde_json`'s
    /// own stand-ins for raw values and for numbers of any precision).
    pub(super) fn of<T: Serialize + ?Sized>(value: &T) -> Option<Self> {
        // Enough for a row of twenty fields: most values are recorded without growing anything twice.
        let mut tape = Self {
            nodes: Vec::with_capacity(32),
            text: String::with_capacity(512),
            fields: Vec::with_capacity(32),
            open: Vec::with_capacity(32),
            options: 0,
        };
        value.serialize(&mut tape).ok()?;
        Some(tape)
    }

    pub(super) fn root(&self) -> Place<'_> {
        Place { tape: self, at: 0 }
    }

    fn write(&mut self, text: &str) -> Range<usize> {
        let from = self.text.len();
        self.text.push_str(text);
        from..self.text.len()
    }

    fn push(&mut self, node: Node) -> Result<(), Refused> {
        self.nodes.push(node);
        Ok(())
    }

    /// Begins a container; what it holds is known when it is closed.
    fn begin(&mut self) -> Container<'_> {
        let (at, opened) = (self.nodes.len(), self.open.len());
        self.nodes.push(Node::Null);
        Container { tape: self, at, opened, len: 0, variant: None }
    }

    /// Begins the content of a variant: a map of one field, named like the variant.
    fn begin_variant(&mut self, variant: &'static str) -> Container<'_> {
        let name = self.write(variant);
        let outer = self.nodes.len();
        self.nodes.push(Node::Null);
        let mut inner = self.begin();
        inner.variant = Some(Field { name, at: outer });
        inner
    }

    fn close_variant(&mut self, Field { name, at: outer }: Field) {
        self.fields.push(Field { name, at: outer + 1 });
        let fields = self.fields.len() - 1..self.fields.len();
        self.nodes[outer] = Node::Map { fields, after: self.nodes.len() };
    }

    /// A name that is no plain text: numbers, characters, whatever else serialises as one.
    fn name_of<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<Range<usize>, Refused> {
        let (nodes, options) = (self.nodes.len(), self.options);
        if key.serialize(&mut *self).is_ok()
            && self.options == options
            && self.nodes.len() == nodes + 1
            && let Some(Node::Text(name)) = self.nodes.pop()
        {
            return Ok(name);
        }
        self.nodes.truncate(nodes);
        match serde_json::to_value(Keyed(key)) {
            Ok(Value::Object(map)) => map.keys().next().map(|name| self.write(name)).ok_or(Refused),
            _ => Err(Refused),
        }
    }
}

/// A map of one key: it lets `serde_json` say how that key is spelt.
struct Keyed<'a, K: ?Sized>(&'a K);

impl<K: Serialize + ?Sized> Serialize for Keyed<'_, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.0, ())])
    }
}

impl<'a> Place<'a> {
    pub(super) fn seen(self) -> Seen<'a> {
        match &self.tape.nodes[self.at] {
            &Node::Items { len, .. } => {
                Seen::Items(Items { next: Self { at: self.at + 1, ..self }, left: len })
            }
            Node::Map { fields, .. } => Seen::Map(Fields { tape: self.tape, left: fields.clone() }),
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => Seen::Scalar,
        }
    }

    /// Whether two scalars are the same; containers are not.
    pub(super) fn is_same_scalar(self, other: Place<'_>) -> bool {
        match (&self.tape.nodes[self.at], &other.tape.nodes[other.at]) {
            (Node::Null, Node::Null) => true,
            (Node::Bool(old), Node::Bool(new)) => old == new,
            (Node::Number(old), Node::Number(new)) => old == new,
            (Node::Text(old), Node::Text(new)) => self.tape.text[old.clone()] == other.tape.text[new.clone()],
            _ => false,
        }
    }

    pub(super) fn is_same_type(self, other: Place<'_>) -> bool {
        std::mem::discriminant(&self.tape.nodes[self.at])
            == std::mem::discriminant(&other.tape.nodes[other.at])
    }

    pub(super) fn to_value(self) -> Value {
        match &self.tape.nodes[self.at] {
            Node::Null => Value::Null,
            Node::Bool(value) => Value::Bool(*value),
            Node::Number(value) => Value::Number(value.clone()),
            Node::Text(text) => Value::String(self.tape.text[text.clone()].to_owned()),
            &Node::Items { len, .. } => {
                let items = Items { next: Self { at: self.at + 1, ..self }, left: len };
                Value::Array(items.map(Self::to_value).collect())
            }
            Node::Map { fields, .. } => {
                let fields = Fields { tape: self.tape, left: fields.clone() };
                Value::Object(fields.map(|(name, place)| (name.to_owned(), place.to_value())).collect())
            }
        }
    }

    fn after(self) -> usize {
        match self.tape.nodes[self.at] {
            Node::Items { after, .. } | Node::Map { after, .. } => after,
            _ => self.at + 1,
        }
    }
}

impl Items<'_> {
    pub(super) fn len(&self) -> usize {
        self.left
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Place<'a>;

    fn next(&mut self) -> Option<Place<'a>> {
        self.left = self.left.checked_sub(1)?;
        let item = self.next;
        self.next.at = item.after();
        Some(item)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, Place<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let Field { name, at } = &self.tape.fields[self.left.next()?];
        Some((&self.tape.text[name.clone()], Place { tape: self.tape, at: *at }))
    }
}

/// The value is not one for a tape.
#[derive(Debug)]
pub(super) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot be recorded")
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// A container that is being written, and the variant around it.
pub(super) struct Container<'a> {
    tape: &'a mut Tape,
    at: usize,
    opened: usize,
    len: usize,
    variant: Option<Field>,
}

impl Container<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.len += 1;
        value.serialize(&mut *self.tape)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Refused> {
        let name = self.tape.write(name);
        self.name(name);
        value.serialize(&mut *self.tape)
    }

    /// Names the value that comes next.
    fn name(&mut self, name: Range<usize>) {
        let at = self.tape.nodes.len();
        self.tape.open.push(Field { name, at });
    }

    fn close_items(self) -> Result<(), Refused> {
        let after = self.tape.nodes.len();
        self.tape.nodes[self.at] = Node::Items { len: self.len, after };
        if let Some(variant) = self.variant {
            self.tape.close_variant(variant);
        }
        Ok(())
    }

    /// Sorts the map's fields; where a name came twice the last one stays, as in a map.
    fn close_map(self) -> Result<(), Refused> {
        let Tape { nodes, text, fields, open, .. } = &mut *self.tape;
        let mine = &mut open[self.opened..];
        mine.sort_by(|a, b| text[a.name.clone()].cmp(&text[b.name.clone()]));
        let from = fields.len();
        for (index, field) in mine.iter().enumerate() {
            let name = |field: &Field| &text[field.name.clone()];
            if mine.get(index + 1).is_none_or(|next| name(next) != name(field)) {
                fields.push(field.clone());
            }
        }
        open.truncate(self.opened);
        nodes[self.at] = Node::Map { fields: from..fields.len(), after: nodes.len() };
        if let Some(variant) = self.variant {
            self.tape.close_variant(variant);
        }
        Ok(())
    }
}

macro_rules! numbers {
    ($($method:ident $number:ty),*) => {$(
        fn $method(self, value: $number) -> Result<(), Refused> {
            self.push(Node::Number(value.into()))
        }
    )*};
}

/// Numbers that may have no place in JSON: as `serde_json` has it, what is not finite is null.
macro_rules! floats {
    ($($method:ident $number:ty),*) => {$(
        fn $method(self, value: $number) -> Result<(), Refused> {
            self.push(match Value::from(value) {
                Value::Number(number) => Node::Number(number),
                _ => Node::Null,
            })
        }
    )*};
}

macro_rules! long_numbers {
    ($($method:ident $number:ty),*) => {$(
        fn $method(self, value: $number) -> Result<(), Refused> {
            match (u64::try_from(value), i64::try_from(value)) {
                (Ok(value), _) => self.serialize_u64(value),
                (_, Ok(value)) => self.serialize_i64(value),
                _ => Err(Refused),
            }
        }
    )*};
}

impl<'a> Serializer for &'a mut Tape {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Container<'a>;
    type SerializeTuple = Container<'a>;
    type SerializeTupleStruct = Container<'a>;
    type SerializeTupleVariant = Container<'a>;
    type SerializeMap = Container<'a>;
    type SerializeStruct = Container<'a>;
    type SerializeStructVariant = Container<'a>;

    numbers!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64);
    numbers!(serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64);
    long_numbers!(serialize_i128 i128, serialize_u128 u128);
    floats!(serialize_f32 f32, serialize_f64 f64);

    fn serialize_bool(self, value: bool) -> Result<(), Refused> {
        self.push(Node::Bool(value))
    }

    fn serialize_char(self, value: char) -> Result<(), Refused> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Refused> {
        let text = self.write(value);
        self.push(Node::Text(text))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Refused> {
        let mut items = self.begin();
        value.iter().try_for_each(|byte| items.item(byte))?;
        items.close_items()
    }

    fn serialize_none(self) -> Result<(), Refused> {
        self.push(Node::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        self.options += 1;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        self.push(Node::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        self.push(Node::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Refused> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        let name = self.write(variant);
        let at = self.nodes.len();
        self.nodes.push(Node::Null);
        value.serialize(&mut *self)?;
        self.close_variant(Field { name, at });
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Container<'a>, Refused> {
        Ok(self.begin())
    }

    fn serialize_tuple(self, _: usize) -> Result<Container<'a>, Refused> {
        Ok(self.begin())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Container<'a>, Refused> {
        Ok(self.begin())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Container<'a>, Refused> {
        Ok(self.begin_variant(variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Container<'a>, Refused> {
        Ok(self.begin())
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Container<'a>, Refused> {
        // Raw values, and numbers where another crate asks for any precision, pass as structs of such names.
        if name.starts_with("$serde_json::private::") { Err(Refused) } else { Ok(self.begin()) }
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Container<'a>, Refused> {
        Ok(self.begin_variant(variant))
    }
}

macro_rules! item_containers {
    ($($name:ident $method:ident),*) => {$(
        impl ser::$name for Container<'_> {
            type Ok = ();
            type Error = Refused;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                self.item(value)
            }

            fn end(self) -> Result<(), Refused> {
                self.close_items()
            }
        }
    )*};
}

item_containers!(
    SerializeSeq serialize_element, SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field
);

macro_rules! struct_containers {
    ($($name:ident),*) => {$(
        impl ser::$name for Container<'_> {
            type Ok = ();
            type Error = Refused;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Refused> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Refused> {
                self.close_map()
            }
        }
    )*};
}

struct_containers!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Container<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        let name = self.tape.name_of(key)?;
        self.name(name);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(&mut *self.tape)
    }

    fn end(self) -> Result<(), Refused> {
        self.close_map()
    }
}
