//! Parquet's mix of repeated and bit-packed numbers, in which levels and dictionary codes are stored.

/// Decodes `count` numbers of `width` bits and appends them. Nothing if the bytes end too early, or `width` is none.
pub(super) fn decode(bytes: &[u8], width: u32, count: usize, into: &mut Vec<u32>) -> Option<()> {
    if width > 32 {
        return None;
    }
    let end = into.len() + count;
    let value_bytes = width.div_ceil(8) as usize;
    let mut rest = bytes;
    while into.len() < end {
        let missing = end - into.len();
        let head = unsigned(&mut rest)?;
        let run = usize::try_from(head >> 1).ok()?;
        if head & 1 == 0 {
            let stored = rest.split_off(..value_bytes)?;
            let mut value = [0; 4];
            value[..value_bytes].copy_from_slice(stored);
            // A run of nothing would be read for ever.
            let length = Some(run.min(missing)).filter(|length| *length > 0)?;
            into.resize(into.len() + length, u32::from_le_bytes(value));
        } else {
            let values = Some(run.checked_mul(8)?.min(missing)).filter(|values| *values > 0)?;
            let packed_bytes = run.checked_mul(width as usize)?;
            // A writer may cut the padding of the last run.
            let needed = (values * width as usize).div_ceil(8);
            let packed = &rest[..packed_bytes.min(rest.len())];
            if packed.len() < needed {
                return None;
            }
            unpack(packed, width, values, into);
            rest = &rest[packed.len()..];
        }
    }
    Some(())
}

/// Whether these are `count` times the level 1, in one run: the usual case, a column without NULL.
pub(super) fn is_all_ones(bytes: &[u8], count: usize) -> bool {
    let mut rest = bytes;
    match unsigned(&mut rest) {
        Some(head) => head & 1 == 0 && head >> 1 >= count as u64 && rest.first() == Some(&1),
        None => count == 0,
    }
}

fn unpack(packed: &[u8], width: u32, values: usize, into: &mut Vec<u32>) {
    if width == 0 {
        into.resize(into.len() + values, 0);
        return;
    }
    let mask = if width == 32 { u32::MAX } else { (1 << width) - 1 };
    let width = width as usize;
    let first = into.len();
    into.resize(first + values, 0);
    let into = &mut into[first..];
    // Eight numbers begin where a byte does, and lie in their bytes as any other eight do.
    let (eights, _) = into.as_chunks_mut::<8>();
    let whole = match width {
        ..=8 => narrow_eights(packed, width, eights),
        9 => eights_of::<9>(packed, eights),
        10 => eights_of::<10>(packed, eights),
        11 => eights_of::<11>(packed, eights),
        12 => eights_of::<12>(packed, eights),
        13 => eights_of::<13>(packed, eights),
        14 => eights_of::<14>(packed, eights),
        15 => eights_of::<15>(packed, eights),
        16 => eights_of::<16>(packed, eights),
        17 => eights_of::<17>(packed, eights),
        18 => eights_of::<18>(packed, eights),
        19 => eights_of::<19>(packed, eights),
        20 => eights_of::<20>(packed, eights),
        // Dictionaries with more than a million values.
        _ => 0,
    };
    for (index, number) in into.iter_mut().enumerate().skip(whole) {
        let bit = index * width;
        let rest = &packed[bit / 8..];
        let window = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut window = [0; 8];
            window[..rest.len()].copy_from_slice(rest);
            window
        });
        *number = (u64::from_le_bytes(window) >> (bit % 8)) as u32 & mask;
    }
}

/// Unpacks as many times eight numbers as there are eight bytes for, and says how many numbers that were. Narrow ones are in eight
/// bytes all together.
fn narrow_eights(packed: &[u8], width: usize, eights: &mut [[u32; 8]]) -> usize {
    let mask = (1 << width) - 1;
    let windows = packed.windows(8).step_by(width);
    let count = windows.len().min(eights.len());
    for (numbers, window) in eights.iter_mut().zip(windows) {
        let window = u64::from_le_bytes(window.try_into().unwrap_or_default());
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = (window >> (index * width)) as u32 & mask;
        }
    }
    count * 8
}

/// The same for wider ones, with all places known beforehand: each number is in eight bytes, which may be those of the next eight too.
fn eights_of<const WIDTH: usize>(packed: &[u8], eights: &mut [[u32; 8]]) -> usize {
    let windows = packed.windows(WIDTH + 8).step_by(WIDTH);
    let count = windows.len().min(eights.len());
    for (numbers, window) in eights.iter_mut().zip(windows) {
        for (index, number) in numbers.iter_mut().enumerate() {
            let (byte, bit) = (index * WIDTH / 8, index * WIDTH % 8);
            let word = window[byte..].first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word));
            *number = (word >> bit) as u32 & ((1 << WIDTH) - 1);
        }
    }
    count * 8
}

fn unsigned(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_packed_numbers_of_all_widths() {
        for width in 1..=32_u32 {
            let mask = if width == 32 { u32::MAX } else { (1 << width) - 1 };
            let values: Vec<u32> = (0..24_u32).map(|n| n.wrapping_mul(0x9e37_79b9) & mask).collect();
            let mut bits = vec![0_u8; (24 * width as usize).div_ceil(8)];
            for (index, value) in values.iter().enumerate() {
                for bit in 0..width as usize {
                    let at = index * width as usize + bit;
                    bits[at / 8] |= ((value >> bit & 1) as u8) << (at % 8);
                }
            }
            // Five times 1, then three groups of eight.
            let mut bytes = vec![5 << 1];
            bytes.extend(&1_u32.to_le_bytes()[..width.div_ceil(8) as usize]);
            bytes.push(3 << 1 | 1);
            bytes.extend(bits);
            let mut found = Vec::new();
            decode(&bytes, width, 27, &mut found).unwrap();
            assert_eq!(found[..5], [1; 5]);
            assert_eq!(found[5..], values[..22], "width {width}");
            assert!(decode(&bytes, width, 30, &mut Vec::new()).is_none(), "more than there are");
        }
    }

    #[test]
    fn levels_of_a_column_without_null_are_seen_at_once() {
        assert!(is_all_ones(&[60 << 1, 1], 50) && !is_all_ones(&[60 << 1, 0], 50));
        assert!(!is_all_ones(&[10 << 1, 1], 11) && !is_all_ones(&[3, 0xff], 8));
    }

    #[test]
    fn no_bytes_make_it_panic_or_go_on_for_ever() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
            let _ = decode(&bytes, random.u32(0..40), random.usize(0..500), &mut Vec::new());
        }
    }
}
