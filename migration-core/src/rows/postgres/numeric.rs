//! Exact numbers in Postgres' binary format, as the text in which they travel: without trailing zeros.
//!
//! Four numbers of two bytes (how many groups of digits, the place of the first group, the sign, the scale shown), then
//! the groups of four decimal digits each. Turning them into text here rather than there takes the dearest of all
//! conversions off the server.

const HEADER_BYTES: usize = 8;
const NEGATIVE: u16 = 0x4000;
const NOT_A_NUMBER: u16 = 0xc000;
const INFINITE: u16 = 0xd000;
const NEGATIVE_INFINITE: u16 = 0xf000;

/// Decimal digits in a group.
const GROUP_DIGITS: usize = 4;

/// The largest value of a group.
const GROUP_MAX: u16 = 9_999;

/// Adds the text of a number; gives nothing if it is malformed.
pub(super) fn spell(bytes: &[u8], text: &mut Vec<u8>) -> Option<()> {
    let (header, groups) = bytes.split_at_checked(HEADER_BYTES)?;
    let field = |index: usize| u16::from_be_bytes([header[2 * index], header[2 * index + 1]]);
    let (groups, rest) = groups.as_chunks::<2>();
    if !rest.is_empty() || groups.len() != usize::from(field(0)) {
        return None;
    }
    match field(2) {
        0 => {}
        NEGATIVE => text.push(b'-'),
        NOT_A_NUMBER => return say(text, b"NaN"),
        INFINITE => return say(text, b"Infinity"),
        NEGATIVE_INFINITE => return say(text, b"-Infinity"),
        _ => return None,
    }
    if groups.iter().any(|group| u16::from_be_bytes(*group) > GROUP_MAX) {
        return None;
    }
    let weight = i32::from(field(1).cast_signed());
    // The groups between the first and the point; where they end before it, the others are zeros.
    let before_point = usize::try_from(weight + 1).unwrap_or(0);
    let (whole, fraction) = groups.split_at(before_point.min(groups.len()));
    spell_whole(whole, before_point, text);
    if !fraction.is_empty() {
        spell_fraction(fraction, usize::try_from(-1 - weight).unwrap_or(0), text);
    }
    Some(())
}

fn say(text: &mut Vec<u8>, word: &[u8]) -> Option<()> {
    text.extend_from_slice(word);
    Some(())
}

/// What stands before the point, without zeros in front: these groups, and zeros up to so many.
fn spell_whole(groups: &[[u8; 2]], count: usize, text: &mut Vec<u8>) {
    let zeros = groups.iter().take_while(|group| **group == [0; 2]).count();
    let Some((first, others)) = groups[zeros..].split_first() else {
        text.push(b'0');
        return;
    };
    let first = u16::from_be_bytes(*first);
    let [a, b, c, d] = four(first);
    match first {
        0..10 => text.push(d),
        10..100 => text.extend_from_slice(&[c, d]),
        100..1_000 => text.extend_from_slice(&[b, c, d]),
        _ => text.extend_from_slice(&[a, b, c, d]),
    }
    for group in others {
        text.extend_from_slice(&four(u16::from_be_bytes(*group)));
    }
    text.resize(text.len() + GROUP_DIGITS * (count - groups.len()), b'0');
}

/// The point and what stands after it, without zeros at the end: so many groups of zeros, and these.
fn spell_fraction(groups: &[[u8; 2]], zeros: usize, text: &mut Vec<u8>) {
    let point = text.len();
    text.push(b'.');
    text.resize(text.len() + GROUP_DIGITS * zeros, b'0');
    for group in groups {
        text.extend_from_slice(&four(u16::from_be_bytes(*group)));
    }
    let digits = text[point + 1..].iter().rposition(|digit| *digit != b'0');
    text.truncate(digits.map_or(point, |last| point + 1 + last + 1));
}

#[inline(always)]
fn four(group: u16) -> [u8; 4] {
    let digit = |value: u16| b'0' + (value % 10) as u8;
    [digit(group / 1_000), digit(group / 100), digit(group / 10), digit(group)]
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
        let mut text = Vec::new();
        spell(&bytes, &mut text)?;
        String::from_utf8(text).ok()
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
            (-1, 0, &[], "0"),
            (-5, 0, &[], "0"),
            (0, 0, &[12, 0], "12"),
            (0, 0, &[100], "100"),
            (0, 0, &[999, 10], "999.001"),
            (1, 0, &[0, 1], "1"),
            (1, 0, &[0, 0, 5], "0.0005"),
            (3, 0, &[1200], "1200000000000000"),
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
        assert!(spell(&[0; 7], &mut Vec::new()).is_none());
        assert!(spell(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 1], &mut Vec::new()).is_none());
    }
}
