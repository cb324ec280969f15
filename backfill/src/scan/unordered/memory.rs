//! Large memory that threads share.

use std::sync::atomic::AtomicU64;

use memmap2::MmapMut;
use zerocopy::{FromBytes, IntoBytes};

/// Zeroed numbers for threads to share. The system gives large memory out zeroed, and what nobody writes to costs none; atomic
/// numbers that are made one by one are all written.
pub(super) struct Memory {
    bytes: Bytes,
    numbers: usize,
}

enum Bytes {
    Mapped(MmapMut),
    Heap(Vec<u64>),
}

/// From here on memory is looked at in so many places that finding these takes as long as reading them, unless pages are large.
const MAPPED_NUMBERS_MIN: usize = 256 * 1024;

impl Memory {
    /// So many numbers.
    pub(super) fn new(numbers: u64) -> Self {
        let numbers = numbers as usize;
        let bytes = mapped(numbers).map_or_else(|| Bytes::Heap(vec![0; numbers]), Bytes::Mapped);
        Self { bytes, numbers }
    }

    /// The same in pages of ordinary size, which the system has at hand: large ones it may have to gather and to clear anew.
    pub(super) fn ordinary(numbers: u64) -> Self {
        Self { bytes: Bytes::Heap(vec![0; numbers as usize]), numbers: numbers as usize }
    }

    pub(super) fn numbers(&mut self) -> &[AtomicU64] {
        let bytes = match &mut self.bytes {
            Bytes::Mapped(bytes) => &mut bytes[..self.numbers * size_of::<u64>()],
            Bytes::Heap(numbers) => numbers.as_mut_bytes(),
        };
        <[AtomicU64]>::mut_from_bytes(bytes).expect("numbers are as wide, and so is where pages begin")
    }

    pub(super) fn pairs(&mut self) -> &[[AtomicU64; 2]] {
        self.numbers().as_chunks().0
    }
}

/// Memory in large pages, if there is any and it is worth it.
fn mapped(numbers: usize) -> Option<MmapMut> {
    if numbers < MAPPED_NUMBERS_MIN {
        return None;
    }
    let mapped = MmapMut::map_anon(numbers.checked_mul(size_of::<u64>())?).ok()?;
    // A system without large pages gives small ones.
    #[cfg(target_os = "linux")]
    let _ = mapped.advise(memmap2::Advice::HugePage);
    Some(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn it_is_zeroed_and_as_long_as_was_asked_for() {
        let mut memory = Memory::new(5001);
        assert_eq!((memory.numbers().len(), memory.pairs().len()), (5001, 2500));
        assert!(memory.numbers().iter().all(|number| number.load(Ordering::Relaxed) == 0));
        memory.pairs()[2499][1].store(7, Ordering::Relaxed);
        assert_eq!(memory.numbers()[4999].load(Ordering::Relaxed), 7);
        assert_eq!(Memory::new(0).numbers().len(), 0);
        let mut large = Memory::new(MAPPED_NUMBERS_MIN as u64 + 3);
        assert_eq!(large.numbers().len(), MAPPED_NUMBERS_MIN + 3);
        assert!(large.numbers().iter().all(|number| number.load(Ordering::Relaxed) == 0));
    }
}
