//! Large memory that threads share.

use std::sync::atomic::AtomicU64;

use memmap2::MmapMut;
use zerocopy::FromBytes;

/// Zeroed numbers for threads to share. What nobody writes to costs no memory.
pub(super) struct Memory {
    map: MmapMut,
    numbers: usize,
}

impl Memory {
    /// So many numbers; nothing where the system has not as much.
    pub(super) fn new(numbers: u64) -> Option<Self> {
        // Nothing cannot be mapped.
        let numbers = usize::try_from(numbers).ok()?.max(1);
        let map = MmapMut::map_anon(numbers.checked_mul(8)?).ok()?;
        // It is read here and there: in large pages the processor finds it sooner. Where there are none, it is slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Some(Self { map, numbers })
    }

    pub(super) fn numbers(&mut self) -> &[AtomicU64] {
        // A map begins where a page does, and is as long as was asked for: what would not fit is not there.
        <[AtomicU64]>::mut_from_prefix_with_elems(&mut self.map, self.numbers)
            .map_or(&[], |(numbers, _)| &*numbers)
    }

    pub(super) fn pairs(&mut self) -> &[[AtomicU64; 2]] {
        self.numbers().as_chunks().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn it_is_zeroed_and_as_long_as_was_asked_for() {
        let mut memory = Memory::new(5001).unwrap();
        assert_eq!((memory.numbers().len(), memory.pairs().len()), (5001, 2500));
        assert!(memory.numbers().iter().all(|number| number.load(Ordering::Relaxed) == 0));
        memory.pairs()[2499][1].store(7, Ordering::Relaxed);
        assert_eq!(memory.numbers()[4999].load(Ordering::Relaxed), 7);
        assert!(Memory::new(u64::MAX).is_none());
        assert_eq!(Memory::new(0).unwrap().numbers().len(), 1);
    }
}
