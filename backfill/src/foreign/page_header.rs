//! Page headers: Thrift's compact encoding, as far as Parquet uses it there.
//!
//! Headers stand between pages in files that anyone may have written. Every length is checked before it is believed.

/// What a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageKind {
    /// Distinct values, which later pages point into.
    Dictionary { values: usize },
    /// Levels and values, compressed together.
    Data { values: usize, encoding: i32 },
    /// Levels as they are, then values.
    DataV2 { values: usize, encoding: i32, level_bytes: usize, is_compressed: bool },
    /// Something to be passed over.
    Other,
}

/// A page's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) kind: PageKind,
    pub(super) uncompressed_bytes: usize,
    pub(super) compressed_bytes: usize,
    /// How long the header itself is.
    pub(super) header_bytes: usize,
}

/// Structures in structures that are followed: a header has three, and its statistics one more.
const DEPTH_MAX: u32 = 8;

impl PageHeader {
    /// The header that `bytes` begin with, or nothing if they do not begin with one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let (mut page_type, mut uncompressed, mut compressed) = (None, None, None);
        let (mut data, mut dictionary, mut data_v2) =
            (Numbers::default(), Numbers::default(), Numbers::default());
        reader.fields(|reader, field, kind| {
            match (field, kind) {
                (1, INT) => page_type = Some(reader.signed()?),
                (2, INT) => uncompressed = Some(reader.signed()?),
                (3, INT) => compressed = Some(reader.signed()?),
                (5, STRUCT) => data = reader.numbers()?,
                (7, STRUCT) => dictionary = reader.numbers()?,
                (8, STRUCT) => data_v2 = reader.numbers()?,
                _ => reader.skip(kind, 0)?,
            }
            Some(())
        })?;
        let kind = match page_type? {
            0 => PageKind::Data { values: data.length(1)?, encoding: data.number(2)? },
            2 => PageKind::Dictionary { values: dictionary.length(1)? },
            3 => PageKind::DataV2 {
                values: data_v2.length(1)?,
                encoding: data_v2.number(4)?,
                level_bytes: data_v2.length(5)?.checked_add(data_v2.length(6)?)?,
                // Absent means yes.
                is_compressed: data_v2.flags[7] != Some(false),
            },
            _ => PageKind::Other,
        };
        Some(Self {
            kind,
            uncompressed_bytes: usize::try_from(uncompressed?).ok()?,
            compressed_bytes: usize::try_from(compressed?).ok()?,
            header_bytes: reader.at,
        })
    }

    /// Whether rows are in the page.
    pub(super) fn is_data(&self) -> bool {
        matches!(self.kind, PageKind::Data { .. } | PageKind::DataV2 { .. })
    }
}

/// The numbers and flags of a structure, by field.
#[derive(Default)]
struct Numbers {
    numbers: [Option<i64>; FIELDS],
    flags: [Option<bool>; FIELDS],
}

/// One more than the highest field that is looked at.
const FIELDS: usize = 9;

impl Numbers {
    fn number(&self, field: usize) -> Option<i32> {
        i32::try_from(self.numbers[field]?).ok()
    }

    fn length(&self, field: usize) -> Option<usize> {
        usize::try_from(self.numbers[field]?).ok()
    }
}

// Thrift's compact types.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const SHORT: u8 = 4;
const INT: u8 = 5;
const LONG: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// Goes through the fields of a structure, to its end.
    fn fields(&mut self, mut field: impl FnMut(&mut Self, i64, u8) -> Option<()>) -> Option<()> {
        let mut number = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            let delta = i64::from(head >> 4);
            number = if delta == 0 { self.signed()? } else { number.checked_add(delta)? };
            field(self, number, head & 0x0f)?;
        }
    }

    fn numbers(&mut self) -> Option<Numbers> {
        let mut found = Numbers::default();
        self.fields(|reader, field, kind| {
            let place = usize::try_from(field).ok().filter(|place| *place < FIELDS);
            match (place, kind) {
                (Some(place), INT) => found.numbers[place] = Some(reader.signed()?),
                (Some(place), TRUE | FALSE) => found.flags[place] = Some(kind == TRUE),
                _ => reader.skip(kind, 1)?,
            }
            Some(())
        })?;
        Some(found)
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match kind {
            TRUE | FALSE => {}
            BYTE => self.advance(1)?,
            SHORT | INT | LONG => {
                self.unsigned()?;
            }
            DOUBLE => self.advance(8)?,
            BINARY => {
                let length = usize::try_from(self.unsigned()?).ok()?;
                self.advance(length)?;
            }
            LIST | SET => {
                let head = self.byte()?;
                let length = if head >> 4 == 15 { self.unsigned()? } else { u64::from(head >> 4) };
                for _ in 0..length {
                    self.skip_element(head & 0x0f, depth + 1)?;
                }
            }
            MAP => {
                let length = self.unsigned()?;
                if length > 0 {
                    let kinds = self.byte()?;
                    for _ in 0..length {
                        self.skip_element(kinds >> 4, depth + 1)?;
                        self.skip_element(kinds & 0x0f, depth + 1)?;
                    }
                }
            }
            STRUCT => self.fields(|reader, _, kind| reader.skip(kind, depth + 1))?,
            _ => return None,
        }
        Some(())
    }

    /// Inside collections a boolean takes a byte.
    fn skip_element(&mut self, kind: u8, depth: u32) -> Option<()> {
        if matches!(kind, TRUE | FALSE) { self.advance(1) } else { self.skip(kind, depth) }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn advance(&mut self, length: usize) -> Option<()> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        self.at = end;
        Some(())
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_page_header_with_statistics_is_read_to_its_end() {
        // Field 1 type 0, field 2 = 100, field 3 = 50, field 5 {1: 7, 2: 0, 3: 3, 4: 3, 5: {1: "ab"}}.
        let bytes = [
            0x15, 0, 0x15, 200, 1, 0x15, 100, 0x2c, 0x15, 14, 0x15, 0, 0x15, 6, 0x15, 6, 0x1c, 0x18, 2, b'a',
            b'b', 0, 0, 0, 99,
        ];
        let header = PageHeader::parse(&bytes).unwrap();
        assert_eq!(header.kind, PageKind::Data { values: 7, encoding: 0 });
        assert_eq!((header.uncompressed_bytes, header.compressed_bytes), (100, 50));
        assert_eq!(header.header_bytes, bytes.len() - 1);
    }

    #[test]
    fn no_bytes_make_it_panic_or_go_on_for_ever() {
        assert!(PageHeader::parse(&[]).is_none());
        assert!(PageHeader::parse(&[0]).is_none());
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
            let _ = PageHeader::parse(&bytes);
        }
    }
}
