//! Exact numbers in Postgres' binary format, as the text in which they travel: without trailing zeros.
//!
//! Four numbers of two bytes (how many groups of digits, the place of the first group, the sign, the scale shown), then
//! the groups of four decimal digits each. Turning them into text here rather than there takes the dearest of all
//! conversions off the server.

/// A number as text.
#[derive(Debug)]
pub(super) enum Decimal {
    /// In place, where it fits.
    Short(Digits),
    /// On the heap.
    Long(String),
}

/// The text of a number in place.
#[derive(Debug)]
pub(super) struct Digits {
    bytes: [u8; SHORT_BYTES],
    length: usize,
}

/// Room for most numbers that people deal in; any longer one costs an allocation.
const SHORT_BYTES: usize = 40;

const HEADER_BYTES: usize = 8;
const NEGATIVE: u16 = 0x4000;
const NOT_A_NUMBER: u16 = 0xc000;
const INFINITE: u16 = 0xd000;
const NEGATIVE_INFINITE: u16 = 0xf000;

/// Decimal digits in a group.
const GROUP_DIGITS: i32 = 4;

/// The largest value of a group.
const GROUP_MAX: u16 = 9_999;

/// The text of a number, or nothing if it is malformed.
pub(super) fn decimal(bytes: &[u8]) -> Option<Decimal> {
    let (header, groups) = bytes.split_at_checked(HEADER_BYTES)?;
    let field = |index: usize| u16::from_be_bytes([header[2 * index], header[2 * index + 1]]);
    let (groups, rest) = groups.as_chunks::<2>();
    if !rest.is_empty() || groups.len() != usize::from(field(0)) {
        return None;
    }
    let is_negative = match field(2) {
        0 => false,
        NEGATIVE => true,
        NOT_A_NUMBER => return Some(Decimal::Long("NaN".to_owned())),
        INFINITE => return Some(Decimal::Long("Infinity".to_owned())),
        NEGATIVE_INFINITE => return Some(Decimal::Long("-Infinity".to_owned())),
        _ => return None,
    };
    let weight = i32::from(field(1).cast_signed());
    if groups.iter().any(|group| u16::from_be_bytes(*group) > GROUP_MAX) {
        return None;
    }
    // The sign, a zero before the point and the point itself, and all groups on both sides of the point.
    let length_max = 3 + GROUP_DIGITS * (weight.abs() + 1 + i32::try_from(groups.len()).ok()?);
    let length_max = usize::try_from(length_max).ok()?;
    if length_max <= SHORT_BYTES {
        let mut digits = Digits { bytes: [0; SHORT_BYTES], length: 0 };
        spell(groups, weight, is_negative, |digit| {
            digits.bytes[digits.length] = digit;
            digits.length += 1;
        });
        digits.length = trimmed(&digits.bytes[..digits.length]);
        return Some(Decimal::Short(digits));
    }
    let mut text = Vec::with_capacity(length_max);
    spell(groups, weight, is_negative, |digit| text.push(digit));
    text.truncate(trimmed(&text));
    String::from_utf8(text).ok().map(Decimal::Long)
}

impl Digits {
    pub(super) fn as_str(&self) -> &str {
        // Digits, a sign and a point.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

/// All digits, with as many zeros at the end as the groups have.
fn spell(groups: &[[u8; 2]], weight: i32, is_negative: bool, mut put: impl FnMut(u8)) {
    if is_negative {
        put(b'-');
    }
    let group = |place: i32| {
        let index = usize::try_from(weight - place).ok();
        index.and_then(|index| groups.get(index)).map_or(0, |group| u16::from_be_bytes(*group))
    };
    let mut is_begun = false;
    for place in (0..=weight).rev() {
        for digit in four(group(place)) {
            is_begun |= digit != b'0';
            if is_begun {
                put(digit);
            }
        }
    }
    if !is_begun {
        put(b'0');
    }
    let last = weight - i32::try_from(groups.len()).unwrap_or(i32::MAX) + 1;
    if last < 0 {
        put(b'.');
        for place in (last..0).rev() {
            four(group(place)).into_iter().for_each(&mut put);
        }
    }
}

fn four(group: u16) -> [u8; 4] {
    let digit = |value: u16| b'0' + (value % 10) as u8;
    [digit(group / 1_000), digit(group / 100), digit(group / 10), digit(group)]
}

/// The length without zeros at the end of a fraction.
fn trimmed(text: &[u8]) -> usize {
    if !text.contains(&b'.') {
        return text.len();
    }
    let zeros = text.iter().rev().take_while(|digit| **digit == b'0').count();
    let end = text.len() - zeros;
    if text[end - 1] == b'.' { end - 1 } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(weight: i16, sign: u16, groups: &[u16]) -> Option<String> {
        let mut bytes = Vec::new();
        for field in [groups.len() as u16, weight.cast_unsigned(), sign, 0] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
        decimal(&bytes).map(|decimal| match decimal {
            Decimal::Short(digits) => digits.as_str().to_owned(),
            Decimal::Long(text) => text,
        })
    }

    #[test]
    fn numbers_are_spelt_without_trailing_zeros() {
        for (weight, sign, groups, expected) in [
            (0, 0, &[][..], "0"),
            (0, 0, &[7], "7"),
            (0, 0, &[12, 5000], "12.5"),
            (1, 0, &[1], "10000"),
            (1, 0, &[1, 2, 300], "10002.03"),
            (-1, NEGATIVE, &[1], "-0.0001"),
            (-2, 0, &[1200], "0.000012"),
            (0, NEGATIVE, &[9999, 9999], "-9999.9999"),
            (0, NOT_A_NUMBER, &[], "NaN"),
            (0, INFINITE, &[], "Infinity"),
            (0, NEGATIVE_INFINITE, &[], "-Infinity"),
            (10, 0, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "10000000000000000000000000000000000000000.0001"),
        ] {
            assert_eq!(text(weight, sign, groups).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        assert_eq!(text(0, 1, &[1]), None);
        assert_eq!(text(0, 0, &[10_000]), None);
        assert!(decimal(&[0; 7]).is_none());
        assert!(decimal(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 1]).is_none());
    }
}
