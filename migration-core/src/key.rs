//! The key of an old row: the unit of consistency.

use std::fmt;

use uuid::Uuid;

/// One column's value of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    /// Any integer column.
    Int(i64),
    /// A text column, or any other type in the database's text form.
    Text(String),
    /// A uuid column.
    Uuid(Uuid),
    /// A binary column.
    Bytes(Vec<u8>),
}

/// A whole key: one value per key column, in the manifest's order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<KeyValue>);

impl Key {
    /// A key of these values.
    pub fn new(values: impl IntoIterator<Item = KeyValue>) -> Key {
        Key(values.into_iter().collect())
    }

    /// The values, in the order of the key's columns.
    pub fn values(&self) -> &[KeyValue] {
        &self.0
    }

    /// The same bytes for the same key on every machine and for ever: what ramps and samples hash.
    ///
    /// Each value is a tag byte, its length as eight little-endian bytes, and its content, so that
    /// no two different keys share an encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 17);
        for value in &self.0 {
            let mut push = |tag: u8, content: &[u8]| {
                bytes.push(tag);
                bytes.extend_from_slice(&(content.len() as u64).to_le_bytes());
                bytes.extend_from_slice(content);
            };
            match value {
                KeyValue::Int(number) => push(1, &number.to_le_bytes()),
                KeyValue::Text(text) => push(2, text.as_bytes()),
                KeyValue::Uuid(uuid) => push(3, uuid.as_bytes()),
                KeyValue::Bytes(content) => push(4, content),
            }
        }
        bytes
    }

    /// The key that [`Key::to_bytes`] gave these bytes, for people. Bytes that no key gives are spelt in
    /// hexadecimal.
    pub fn spell(bytes: &[u8]) -> String {
        Self::from_bytes(bytes).unwrap_or_else(|| KeyValue::Bytes(bytes.to_vec()).into()).to_string()
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<Key> {
        let mut values = Vec::new();
        while let Some((tag, rest)) = bytes.split_first() {
            let (length, rest) = rest.split_first_chunk::<8>()?;
            let (content, rest) =
                rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            values.push(match tag {
                1 => KeyValue::Int(i64::from_le_bytes(content.try_into().ok()?)),
                2 => KeyValue::Text(String::from_utf8(content.to_vec()).ok()?),
                3 => KeyValue::Uuid(Uuid::from_slice(content).ok()?),
                4 => KeyValue::Bytes(content.to_vec()),
                _ => return None,
            });
            bytes = rest;
        }
        Some(Key(values))
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyValue::Int(number) => number.fmt(f),
            KeyValue::Text(text) => text.fmt(f),
            KeyValue::Uuid(uuid) => uuid.fmt(f),
            KeyValue::Bytes(bytes) => {
                f.write_str("\\x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [value] = self.0.as_slice() else {
            f.write_str("(")?;
            for (index, value) in self.0.iter().enumerate() {
                write!(f, "{}{value}", if index == 0 { "" } else { ", " })?;
            }
            return f.write_str(")");
        };
        value.fmt(f)
    }
}

macro_rules! from_integer {
    ($($integer:ty),*) => {$(
        impl From<$integer> for KeyValue {
            fn from(number: $integer) -> Self {
                KeyValue::Int(i64::from(number))
            }
        }
    )*};
}

from_integer!(i16, i32, i64, u8, u16, u32);

impl From<&str> for KeyValue {
    fn from(text: &str) -> Self {
        KeyValue::Text(text.to_owned())
    }
}

impl From<String> for KeyValue {
    fn from(text: String) -> Self {
        KeyValue::Text(text)
    }
}

impl From<Uuid> for KeyValue {
    fn from(uuid: Uuid) -> Self {
        KeyValue::Uuid(uuid)
    }
}

impl<V: Into<KeyValue>> From<V> for Key {
    fn from(value: V) -> Self {
        Key(vec![value.into()])
    }
}

impl From<&Key> for Key {
    fn from(key: &Key) -> Self {
        key.clone()
    }
}

impl<A: Into<KeyValue>, B: Into<KeyValue>> From<(A, B)> for Key {
    fn from((a, b): (A, B)) -> Self {
        Key(vec![a.into(), b.into()])
    }
}

impl<A: Into<KeyValue>, B: Into<KeyValue>, C: Into<KeyValue>> From<(A, B, C)> for Key {
    fn from((a, b, c): (A, B, C)) -> Self {
        Key(vec![a.into(), b.into(), c.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_keys_have_different_bytes() {
        let keys: Vec<Key> = vec![
            1.into(),
            "1".into(),
            ("a", "bc").into(),
            ("ab", "c").into(),
            (1, 2).into(),
            Key::new([KeyValue::Bytes(vec![1])]),
            Uuid::nil().into(),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().map(Key::to_bytes).collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn the_encoding_never_changes() {
        // Ramps hash these bytes: another encoding would move keys in and out of a live ramp.
        assert_eq!(
            Key::from((7, "ab")).to_bytes(),
            [1, 8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']
        );
    }

    #[test]
    fn keys_read_well() {
        assert_eq!(Key::from(42).to_string(), "42");
        assert_eq!(Key::from(("acme", 7)).to_string(), "(acme, 7)");
        assert_eq!(Key::spell(&Key::from(("acme", 7)).to_bytes()), "(acme, 7)");
        assert_eq!(Key::spell(&[9, 9]), "\\x0909");
    }
}
